"""Locks between processes. The system frees a lock when its process ends, however it ends."""

import errno
import logging
import os
import socket
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from filelock import FileLock, Timeout

from medeval.errors import RecordError
from medeval.store.files import explained

logger = logging.getLogger(__name__)

# The errors of a file system that offers no locks, such as Lustre mounted without `flock`.
NO_LOCKS: Final = frozenset({errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK})


class Lock:
    """An exclusive lock on the file `path`, as a context manager.

    The file is created and stays; its text is the host and process id of the last holder.
    `subject` is the name of what is locked, for error messages. Entering waits at most
    `wait_s` seconds and then raises RecordError with the holder's name. A second lock on the same
    file in the same process is refused as well. On a file system without locks, entering logs a
    warning and goes on.
    """

    def __init__(self, path: Path, *, subject: str, wait_s: float = 0.0) -> None:
        self.path = path
        self.subject = subject
        self._lock = FileLock(
            path,
            timeout=wait_s,
            thread_local=False,
            # filelock's soft locks leave files behind when a process is killed
            fallback_to_soft=False,
            on_acquired=_sign,
        )

    def __enter__(self) -> Self:
        with explained("lock", self.path):
            try:
                self._lock.acquire()
            except Timeout:
                raise self._in_use() from None
            except OSError as error:
                if error.errno not in NO_LOCKS:
                    raise
                logger.warning(
                    "%s: this file system has no locks; make sure that no other process writes "
                    "to this folder",
                    self.path,
                )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._lock.release()

    def _in_use(self) -> RecordError:
        # the file is empty for a moment between locking and signing
        holder = self.path.read_text(errors="replace")
        hint = (
            "wait for that process to end, or stop it; its lock ends with it"
            if holder.startswith(_this_host()) or not holder
            else "wait for that process to end, or stop it on its host; if that host is down, the "
            "file server keeps the lock until it notices"
        )
        return RecordError(f"{self.subject} is in use by {holder or 'another process'}", hint=hint)


def _this_host() -> str:
    return f"host {socket.gethostname()} "


def _sign(descriptor: int) -> None:
    """Replace the text of a locked file with the name of this process."""
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{_this_host()}pid {os.getpid()}".encode(), 0)
