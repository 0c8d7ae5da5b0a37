"""Files that rows name, read only from the folder of their table."""

import errno
import os
import stat
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath

from medeval.errors import DataError

# O_NONBLOCK: opening a pipe must not wait for a writer.
OPEN_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
ABSENT_ERRORS = frozenset(
    {errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP, errno.ENXIO}
)
READ_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Folder:
    """The folder that paths in rows are relative to; `path` is None for rows without one.

    Symbolic links must stay inside `root`, by default the folder itself. A file that is not in the
    folder is looked for in the zip `archives`.
    """

    path: Path | None = None
    root: Path | None = None
    archives: tuple[Path, ...] = ()

    def check(self, name: str) -> str:
        """The full path of a relative name; raises DataError where it is outside the folder."""
        if self.path is None:
            raise DataError(f"these rows have no folder that could hold {shown(name)}")
        # strings are faster than Path, and this runs several times for every image
        parts = [part for part in name.split("/") if part not in ("", ".")]
        if "\0" in name or name.startswith("/") or ".." in parts:
            raise DataError(f"expected a path inside the folder of the table, got {shown(name)}")
        path = str(self.path)
        for part in parts:
            path = f"{path}/{part}"
            if os.path.islink(path):  # noqa: PTH114
                return self._resolved(name)
        return path

    def _resolved(self, name: str) -> str:
        """The path of a name with its symbolic links resolved."""
        assert self.path is not None
        try:
            path = (self.path / name).resolve()
            inside = path.is_relative_to((self.root or self.path).resolve())
        except (OSError, RuntimeError) as error:  # links in a loop
            raise DataError(f"{shown(name)} leads nowhere: {error}") from error
        if not inside:
            raise DataError(f"{shown(name)} leads outside the folder of the table")
        return str(path)

    def read(self, name: str) -> bytes | None:
        """The bytes of a file or of an archive's member, or None where there is neither.

        Raises DataError where the name is outside the folder, or where the file is unreadable.
        """
        path = self.check(name)
        try:
            data = _file_bytes(path)
        except OSError as error:
            raise DataError(f"cannot read {Path(path).name!r}: {error}") from error
        return read_member(self.archives, name) if data is None else data


def _file_bytes(path: str) -> bytes | None:
    """The bytes of a file; None where it is missing, or is a folder, a pipe or a device.

    Makes as few system calls as possible: each releases the GIL, and another thread may hold it.
    """
    try:
        descriptor = os.open(path, OPEN_FLAGS)
    except OSError as error:
        if error.errno in ABSENT_ERRORS:
            return None
        raise
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            return None
        data = os.read(descriptor, status.st_size)
        while len(data) != status.st_size and (more := os.read(descriptor, READ_BYTES)):
            data += more
        return data
    finally:
        os.close(descriptor)


def shown(value: object) -> str:
    """The repr of a value, shortened, as a cell may hold a whole image."""
    text = repr(value[:64]) if isinstance(value, str | bytes) else repr(value)
    is_cut = isinstance(value, str | bytes) and len(value) > 64
    return f"{text[:80]}..." if is_cut or len(text) > 80 else text


# Far above any real image: a larger archive member is refused as a zip bomb.
MAX_MEMBER_BYTES = 512 * 1024 * 1024

Member = tuple[Path, str]


def read_member(archives: tuple[Path, ...], name: str) -> bytes | None:
    """The bytes of the archive member whose path shares the most trailing parts with `name`.

    None where no member has the same file name. Raises DataError where two members match equally
    well, or where an archive cannot be read.
    """
    wanted = PurePosixPath(name).parts
    members = _by_file_name(archives).get(wanted[-1], ()) if wanted else ()
    shared = {member: _n_shared_parts(wanted, member[1]) for member in members}
    best = [member for member, n_shared in shared.items() if n_shared == max(shared.values())]
    if not best:
        return None
    if len(best) > 1:
        paths = ", ".join(repr(path) for _, path in best[:3])
        raise DataError(f"{name!r} may be any of {paths} in {best[0][0].name!r}")
    return _read(*best[0])


def _n_shared_parts(wanted: tuple[str, ...], path: str) -> int:
    """The number of trailing parts that two paths share."""
    parts = PurePosixPath(path).parts
    shared = 0
    for one, other in zip(reversed(wanted), reversed(parts), strict=False):
        if one != other:
            break
        shared += 1
    return shared


@lru_cache(maxsize=8)
def _by_file_name(archives: tuple[Path, ...]) -> Mapping[str, tuple[Member, ...]]:
    """The members of archives by file name, without folders and macOS metadata."""
    members: dict[str, tuple[Member, ...]] = {}
    for archive in archives:
        try:
            with zipfile.ZipFile(archive) as opened:
                names = opened.namelist()
        except (OSError, zipfile.BadZipFile) as error:
            raise DataError(f"cannot read the archive {archive.name!r}: {error}") from error
        for name in names:
            if not name.endswith("/") and not name.startswith("__MACOSX/"):
                key = PurePosixPath(name).name
                members[key] = (*members.get(key, ()), (archive, name))
    return members


def _read(archive: Path, name: str) -> bytes:
    try:
        with zipfile.ZipFile(archive) as opened:
            size = opened.getinfo(name).file_size
            if size > MAX_MEMBER_BYTES:
                raise DataError(
                    f"{name!r} in {archive.name!r} has {size} bytes, more than {MAX_MEMBER_BYTES}"
                )
            return opened.read(name)
    except (OSError, RuntimeError, NotImplementedError, zipfile.BadZipFile) as error:
        raise DataError(f"cannot read {name!r} in {archive.name!r}: {error}") from error
