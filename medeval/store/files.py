"""Writes files that survive kills, crashes and full disks: replaced whole or appended by line."""

import errno
import itertools
import json
import logging
import os
import secrets
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from medeval.errors import RecordError

logger = logging.getLogger(__name__)

BLOCK_BYTES = 1 << 16
SYNC_EVERY_S = 1.0

HINTS = {
    errno.ENOSPC: "free some space, then run the same command again: it resumes",
    errno.EDQUOT: "free some of your quota, then run the same command again: it resumes",
    errno.EFBIG: "raise the limit on file sizes, then run the same command again: it resumes",
    errno.EACCES: "check who may use the folder, or name another with --output-dir",
    errno.EPERM: "check who may use the folder, or name another with --output-dir",
    errno.EROFS: "name a folder that can be written with --output-dir",
}


@contextmanager
def explained(action: str, path: Path) -> Iterator[None]:
    """Turn any OSError into a RecordError that names the action and the path, with a hint."""
    try:
        yield
    except OSError as error:
        raise RecordError(
            f"cannot {action} {str(path)!r}: {error.strerror or error}",
            hint=HINTS.get(error.errno or 0),
        ) from error


def make_folder(path: Path) -> None:
    """Make a folder and its parents; no error if it exists."""
    with explained("make the folder", path):
        path.mkdir(parents=True, exist_ok=True)


def write_whole(path: Path, chunks: Iterable[bytes]) -> None:
    """Write a file so that readers see all of it or the earlier file, even after a crash.

    Raises RecordError, and leaves the earlier file unchanged, if it cannot be written.
    """
    make_folder(path.parent)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with explained("write", path):
            with draft.open("xb") as file:
                file.writelines(chunks)
                file.flush()
                os.fsync(file.fileno())
            draft.replace(path)
            sync_folder(path.parent)
    finally:
        # on a read-only folder, some systems raise other errors than FileNotFoundError
        with suppress(OSError):
            draft.unlink()


def sync_folder(path: Path) -> None:
    """Sync a folder, so that new names in it survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def is_torn(line: bytes) -> bool:
    """Whether a file's last line was cut off: it has no newline, or is not JSON."""
    if not line.endswith(b"\n"):
        return True
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return True
    return False


def read_lines(path: Path, *, whole: bool = False) -> Iterator[tuple[int, bytes]]:
    """Each line of a file with its number, counted from 1.

    A torn last line, which a killed writer leaves, is skipped with a warning; in a file that is
    written `whole`, it raises RecordError. A file that does not exist has no lines.
    """
    previous: bytes | None = None
    number = 0
    with explained("read", path):
        if not path.exists():
            return
        with path.open("rb") as file:
            for line in file:
                if previous is not None:
                    yield number, previous
                previous = line
                number += 1
    if previous is None:
        return
    if not is_torn(previous):
        yield number, previous
    elif whole:
        raise RecordError(
            f"{path}, line {number}: the file ends in the middle of a line",
            hint="restore the file from a copy",
        )
    else:
        logger.warning("%s: skipped a torn last line of %d bytes", path, len(previous))


def set_aside_torn_line(path: Path) -> Path | None:
    """Move a torn last line to `<file>.torn-<n>` with a warning; the file then ends in a newline.

    Returns the new file, or None if no line was torn. No other process may append to the file.
    """
    with explained("read", path):
        if not path.exists():
            return None
        start, line = _last_line(path)
    if not line or not is_torn(line):
        return None
    aside = next(
        candidate
        for n in itertools.count(1)
        if not (candidate := path.with_name(f"{path.name}.torn-{n}")).exists()
    )
    write_whole(aside, [line])
    with explained("truncate", path):
        os.truncate(path, start)
    logger.warning("%s: %d bytes of a torn last line moved to %s", path, len(line), aside.name)
    return aside


def _last_line(path: Path) -> tuple[int, bytes]:
    """The offset of the last line in bytes, and the line with its newline if it has one."""
    with path.open("rb") as file:
        position = file.seek(0, os.SEEK_END)
        tail = b""
        while position > 0:
            step = min(BLOCK_BYTES, position)
            position = file.seek(position - step)
            tail = file.read(step) + tail
            newline = tail.rfind(b"\n", 0, len(tail) - 1)
            if newline >= 0:
                return position + newline + 1, tail[newline + 1 :]
    return 0, tail


class Appender:
    """A file to which whole lines are appended; a written line survives the end of the process.

    Opening moves a torn last line to another file. The disk is synced about once a second while
    lines are written, and on close. Only one appender may open a file. Safe to use from threads.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        make_folder(path.parent)
        set_aside_torn_line(path)
        with explained("open", path):
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
            self._descriptor = os.open(path, flags, 0o666)
            self._end = os.fstat(self._descriptor).st_size
        self._synced_at = time.monotonic()
        self._unsynced = self._end == 0

    def append(self, line: bytes) -> None:
        """Append a line, newline included.

        Raises RecordError if it cannot be written (a full disk); the file is then unchanged, and
        a later call may succeed.
        """
        with self._lock, explained("append to", self.path):
            try:
                self._write(line)
            except BaseException:
                os.ftruncate(self._descriptor, self._end)
                raise
            self._end += len(line)
            self._unsynced = True
            if time.monotonic() - self._synced_at >= SYNC_EVERY_S:
                self._sync()

    def _write(self, line: bytes) -> None:
        written = os.write(self._descriptor, line)
        while written < len(line):
            written += os.write(self._descriptor, line[written:])

    def _sync(self) -> None:
        os.fsync(self._descriptor)
        self._synced_at = time.monotonic()
        self._unsynced = False

    def close(self) -> None:
        """Sync and close; without this call, only a power cut loses lines."""
        with self._lock, explained("sync", self.path):
            try:
                if self._unsynced:
                    self._sync()
                    sync_folder(self.path.parent)
            finally:
                os.close(self._descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
