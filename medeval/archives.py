"""Files inside zip archives, found by the end of their path; nothing is ever unpacked.

Some data sets publish their images as archives, and name them by paths of the machine that made
the tables: `data/charts/7.png` is `charts/7.png` in the archive.
"""

import zipfile
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path, PurePosixPath

from medeval.errors import DataError

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
