"""Image files that are read more than once, in a run or in later ones: looked into once.

Between runs it is kept in the user's cache, in a file for each benchmark. The environment variable
MEDEVAL_CACHE_DIR names another folder; where it is empty, or a user has no home, nothing is kept.
"""

import hashlib
import os
import struct
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import Final, NamedTuple

from medeval.errors import RecordError
from medeval.images.decode import MEDIA_TYPES, code_digest
from medeval.store.files import write_whole
from medeval.store.keys import quoted
from medeval.store.packed import Table
from medeval.types.geometry import Size
from medeval.types.sample import MediaType

CACHE_VARIABLE: Final = "MEDEVAL_CACHE_DIR"

# Below this, looking into an image takes less than a tenth of a millisecond or two.
MIN_KEPT_BYTES: Final = 1 << 15

# Of a benchmark with more files than these, only the latest are kept between runs: 6 MB, which are
# read in less than a second.
MOST_KEPT: Final = 100_000

# What is kept of a file: its SHA-256, width, height, the place of its type in this list, `is_own`.
_FOUND: Final = struct.Struct("<32sIIB?")
_MEDIA_TYPES: Final = tuple(MEDIA_TYPES.values())
CHECKSUM_BYTES: Final = 16

# The code that decides what is found, as it was imported: files may change while a run goes on.
_RULES: Final = code_digest("picture.py", "resize.py", "decode.py", "known_files.py")


class SentAs(NamedTuple):
    """What an image is sent as where no resize is due; `is_own` where that is its own file."""

    size: Size
    media_type: MediaType
    is_own: bool


class Found(NamedTuple):
    """What a file was found to be: the SHA-256 of its bytes, and what it is sent as."""

    sha256: str
    sent: SentAs


class KnownFiles:
    """Image files that were looked into before, by what they hold, not by their names or dates.

    So a file that changes is another. Files are told apart by their length and XXH64, which takes
    a tenth of the SHA-256's time or less; that is no defence against somebody who makes two
    files that have the same. Some 90 bytes of memory a file; small files are not kept. Safe to use
    from threads.

    With a `path`, what an earlier run saved there is known as well, if the same code and the same
    Pillow found it.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._known = Table()
        self._found = bytearray()
        self._lock = Lock()
        if path is not None:
            self._load(path)
        self._n_saved = len(self._known)

    def find(self, data: bytes) -> Found | None:
        """What a file was found to be when it was looked into before; None where it was not."""
        is_kept = bool(self._known) and len(data) >= MIN_KEPT_BYTES
        return self._of(checksum(data)) if is_kept else None

    def note(self, data: bytes, found: Found) -> None:
        """Remember what a file was found to be."""
        if len(data) >= MIN_KEPT_BYTES:
            self._keep(checksum(data), found)

    def found(self, data: bytes, look: Callable[[], Found]) -> Found:
        """What a file is; `look` is asked where it is not known, and may raise."""
        if len(data) < MIN_KEPT_BYTES:
            return look()
        key = checksum(data)
        found = self._of(key)
        if found is None:
            found = look()
            self._keep(key, found)
        return found

    def _of(self, key: bytes) -> Found | None:
        with self._lock:
            place = self._known.place(key)
            if place is None:
                return None
            sha256, width, height, kind, is_own = _FOUND.unpack_from(
                self._found, _FOUND.size * place
            )
        return Found(sha256.hex(), SentAs(Size(width, height), _MEDIA_TYPES[kind], is_own))

    def _keep(self, key: bytes, found: Found) -> None:
        size, media_type, is_own = found.sent
        kind = _MEDIA_TYPES.index(media_type)
        digest = bytes.fromhex(found.sha256)
        packed = _FOUND.pack(digest, size.width_px, size.height_px, kind, is_own)
        with self._lock:
            place = _FOUND.size * self._known.add(key)
            self._found[place : place + _FOUND.size] = packed

    def save(self) -> None:
        """Keep for later runs what is known, where that is more than was saved before.

        Where it cannot be written, later runs look into the files themselves.
        """
        with self._lock:
            n = len(self._known)
            if self._path is None or n == self._n_saved:
                return
            body = b"".join(self._lines())
            self._n_saved = n
        with suppress(RecordError):
            write_whole(self._path, (_heading(), checksum(body), body))

    def _lines(self) -> Iterator[bytes]:
        n = len(self._known)
        for place in range(max(0, n - MOST_KEPT), n):
            start = _FOUND.size * place
            yield self._known[place] + self._found[start : start + _FOUND.size]

    def _load(self, path: Path) -> None:
        """Take what was saved; nothing where it is not whole, or other code found it."""
        heading = _heading()
        try:
            data = path.read_bytes()
        except OSError:
            return
        start = len(heading) + CHECKSUM_BYTES
        if not data.startswith(heading) or data[len(heading) : start] != checksum(data[start:]):
            return
        for at in range(start, len(data), CHECKSUM_BYTES + _FOUND.size):
            after = at + CHECKSUM_BYTES
            self._known.add(data[at:after])
            self._found += data[after : after + _FOUND.size]


def kept_at(name: str, origin: str) -> Path | None:
    """Where it is kept what the images of a benchmark's rows are; None for nowhere.

    `origin` tells the rows of one source from those of another.
    """
    folder = _cache_folder()
    if folder is None:
        return None
    return folder / "images" / f"{quoted(name)}-{hashlib.sha256(origin.encode()).hexdigest()[:16]}"


def _cache_folder() -> Path | None:
    named = os.environ.get(CACHE_VARIABLE)
    if named == "":
        return None
    import platformdirs

    # a user without a home, as in many a container, has no cache
    with suppress(RuntimeError):
        folder = Path(named) if named else platformdirs.user_cache_path("medeval")
        return folder.expanduser()
    return None


def _heading() -> bytes:
    """What the findings depend on: the code, Pillow's version, and whether it reads torn files."""
    import PIL
    from PIL import ImageFile

    pillow = f"Pillow {PIL.__version__}" + " lenient" * ImageFile.LOAD_TRUNCATED_IMAGES
    return f"medeval {_RULES} {pillow}\n".encode()


def checksum(*parts: bytes) -> bytes:
    """The XXH64 and the length, 16 bytes in all, of some bytes, one after the other.

    Not XXH3: that may use AVX-512, after which older processors are slower for a while, at 400 KB
    by three times what the checksum itself takes.
    """
    import xxhash

    whole = xxhash.xxh64()
    for part in parts:
        whole.update(part)
    return whole.digest() + sum(map(len, parts)).to_bytes(8)
