"""Files that rows name: read from the folder of their table, and from nowhere else."""

import errno
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from medeval.archives import read_member
from medeval.errors import DataError

# A pipe among the files is not waited for.
READING = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
ABSENT = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP, errno.ENXIO})
LATER_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Folder:
    """The folder that paths in rows are relative to; None for rows that have none.

    `root` is how far up a symbolic link may lead: the folder itself, unless named. A file that
    is not in the folder is looked for in the zip `archives`.
    """

    path: Path | None = None
    root: Path | None = None
    archives: tuple[Path, ...] = ()

    def check(self, name: str) -> str:
        """The place of a relative name; raises DataError where it leads outside the folder."""
        if self.path is None:
            raise DataError(f"these rows have no folder that could hold {shown(name)}")
        # text, not paths, as this is done for every image of every row, several times
        parts = [part for part in name.split("/") if part not in ("", ".")]
        if "\0" in name or name.startswith("/") or ".." in parts:
            raise DataError(f"expected a path inside the folder of the table, got {shown(name)}")
        place = str(self.path)
        for part in parts:
            place = f"{place}/{part}"
            if os.path.islink(place):  # noqa: PTH114
                return self._followed(name)
        return place

    def _followed(self, name: str) -> str:
        """Where a name leads by way of symbolic links."""
        assert self.path is not None
        try:
            place = (self.path / name).resolve()
            inside = place.is_relative_to((self.root or self.path).resolve())
        except (OSError, RuntimeError) as error:  # links in a loop
            raise DataError(f"{shown(name)} leads nowhere: {error}") from error
        if not inside:
            raise DataError(f"{shown(name)} leads outside the folder of the table")
        return str(place)

    def read(self, name: str) -> bytes | None:
        """The bytes of a file or of an archive's member, None without one; raises as `check`."""
        place = self.check(name)
        try:
            data = _whole_file(place)
        except OSError as error:
            raise DataError(f"cannot read {Path(place).name!r}: {error}") from error
        return read_member(self.archives, name) if data is None else data


def _whole_file(place: str) -> bytes | None:
    """The bytes of a file; None where there is none, or a folder, a pipe or a device instead.

    In as few calls as there can be: each lets other threads run, and one of them may keep going.
    """
    try:
        descriptor = os.open(place, READING)
    except OSError as error:
        if error.errno in ABSENT:
            return None
        raise
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            return None
        data = os.read(descriptor, found.st_size)
        while len(data) != found.st_size and (more := os.read(descriptor, LATER_BYTES)):
            data += more
        return data
    finally:
        os.close(descriptor)


def shown(value: object) -> str:
    """The repr of a value, shortened: a cell may be a whole image."""
    text = repr(value[:64]) if isinstance(value, str | bytes) else repr(value)
    longer = isinstance(value, str | bytes) and len(value) > 64
    return f"{text[:80]}..." if longer or len(text) > 80 else text
