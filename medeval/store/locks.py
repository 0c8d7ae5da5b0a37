"""Locks between processes that vanish with their holder, however it ends."""

import errno
import fcntl
import logging
import os
import socket
import time
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Self

from medeval.errors import RecordError
from medeval.store.files import explained

logger = logging.getLogger(__name__)

POLL_S = 0.05

# What a file system answers that offers no locks, such as Lustre mounted without `flock`.
NO_LOCKS = frozenset({errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK})

_held: set[int] = set()


@cache
def _close_in_forked_children() -> None:
    """Keep forked children, such as an engine's workers, from holding their parent's locks on."""
    os.register_at_fork(after_in_child=_close_held)


def _close_held() -> None:
    for descriptor in _held:
        os.close(descriptor)
    _held.clear()


class Lock:
    """An exclusive lock on `path`, which is created and stays; its text names the holder.

    `subject` tells people what is locked. Entering waits at most `wait_s` seconds and then
    raises RecordError with the holder's host and process id. A second lock in the same process
    is refused as well. Where the file system has no locks, a warning says so.
    """

    def __init__(self, path: Path, *, subject: str, wait_s: float = 0.0) -> None:
        self.path = path
        self.subject = subject
        self.wait_s = wait_s
        self._descriptor: int | None = None

    def __enter__(self) -> Self:
        with explained("lock", self.path):
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            with explained("lock", self.path):
                self._wait(descriptor)
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, _signature(), 0)
        except BaseException:
            os.close(descriptor)
            raise
        _close_in_forked_children()
        _held.add(descriptor)
        self._descriptor = descriptor
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        descriptor, self._descriptor = self._descriptor, None
        if descriptor not in _held:
            return  # a forked child: the lock is its parent's
        _held.discard(descriptor)
        os.ftruncate(descriptor, 0)
        os.close(descriptor)

    def _wait(self, descriptor: int) -> None:
        deadline = time.monotonic() + self.wait_s
        while not self._taken(descriptor):
            if time.monotonic() >= deadline:
                raise RecordError(
                    f"{self.subject} is in use by {_holder(descriptor)}",
                    hint="wait for that process to end, or stop it; its lock ends with it",
                )
            time.sleep(POLL_S)

    def _taken(self, descriptor: int) -> bool:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            logger.warning(
                "%s: this file system has no locks; see to it that nothing else writes here",
                self.path,
            )
        return True


def _signature() -> bytes:
    return f"host {socket.gethostname()} pid {os.getpid()}".encode()


def _holder(descriptor: int) -> str:
    """The holder's signature; it is empty for the moment between its locking and signing."""
    return os.pread(descriptor, 1000, 0).decode(errors="replace") or "another process"
