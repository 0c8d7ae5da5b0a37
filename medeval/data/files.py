"""Files that rows name: read from the folder of their table, and from nowhere else."""

import errno
import os
import stat
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath

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


# No picture of a data set is near it; a member that claims more is a trap.
MAX_MEMBER_BYTES = 512 * 1024 * 1024

Member = tuple[Path, str]


def read_member(archives: tuple[Path, ...], name: str) -> bytes | None:
    """The member whose path agrees with the most trailing parts of a name, None without one.

    The file's own name has to agree. Raises DataError where two members agree equally well, and
    where an archive cannot be read.
    """
    wanted = PurePosixPath(name).parts
    members = _by_file_name(archives).get(wanted[-1], ()) if wanted else ()
    agreeing = {member: _agreement(wanted, member[1]) for member in members}
    best = [member for member, parts in agreeing.items() if parts == max(agreeing.values())]
    if not best:
        return None
    if len(best) > 1:
        paths = ", ".join(repr(path) for _, path in best[:3])
        raise DataError(f"{name!r} may be any of {paths} in {best[0][0].name!r}")
    return _read(*best[0])


def _agreement(wanted: tuple[str, ...], path: str) -> int:
    """How many parts two paths share, counted from their ends."""
    parts = PurePosixPath(path).parts
    shared = 0
    for mine, other in zip(reversed(wanted), reversed(parts), strict=False):
        if mine != other:
            break
        shared += 1
    return shared


@lru_cache(maxsize=8)
def _by_file_name(archives: tuple[Path, ...]) -> Mapping[str, tuple[Member, ...]]:
    """The members of archives by their file names; folders and Mac metadata left out."""
    found: dict[str, tuple[Member, ...]] = {}
    for archive in archives:
        try:
            with zipfile.ZipFile(archive) as opened:
                names = opened.namelist()
        except (OSError, zipfile.BadZipFile) as error:
            raise DataError(f"cannot read the archive {archive.name!r}: {error}") from error
        for name in names:
            if not name.endswith("/") and not name.startswith("__MACOSX/"):
                key = PurePosixPath(name).name
                found[key] = (*found.get(key, ()), (archive, name))
    return found


def _read(archive: Path, name: str) -> bytes:
    try:
        with zipfile.ZipFile(archive) as opened:
            size = opened.getinfo(name).file_size
            if size > MAX_MEMBER_BYTES:
                raise DataError(f"{name!r} in {archive.name!r} claims {size} bytes")
            return opened.read(name)
    except (OSError, RuntimeError, NotImplementedError, zipfile.BadZipFile) as error:
        raise DataError(f"cannot read {name!r} in {archive.name!r}: {error}") from error
