"""Image files that a run reads more than once, and what the first reading found."""

import struct
from threading import Lock
from typing import Final, NamedTuple

from medeval.image_files import MEDIA_TYPES
from medeval.packed import Table
from medeval.types import EncodedImage, MediaType, Size

# Below this, computing an image's hash anew takes less than a tenth of a millisecond or two.
MIN_KEPT_BYTES: Final = 1 << 15

# What is kept of a known file: its SHA-256, width, height, and the place of its type in this list.
_FOUND: Final = struct.Struct("<32sIIB")
_MEDIA_TYPES: Final = tuple(MEDIA_TYPES.values())


class SentAs(NamedTuple):
    """What an image is sent as where no resize is due; `is_own` where that is its own file."""

    size: Size
    media_type: MediaType
    is_own: bool


class KnownFiles:
    """Image files that are sent as they are and read more than once in a run: looked into once.

    Found again by what the file holds, not by its name, so that a file that changes is another: by
    a checksum of 128 bits, which takes a fraction of the SHA-256's time. Some 90 bytes of memory
    a file; small files are not kept. Safe to use from threads.
    """

    def __init__(self) -> None:
        self._known = Table()
        self._found = bytearray()
        self._lock = Lock()

    def note(self, data: bytes, sha256: str, sent: SentAs) -> None:
        """Remember what a file was found to be, if it is sent as it is."""
        if sent.is_own and len(data) >= MIN_KEPT_BYTES:
            size, kind = sent.size, _MEDIA_TYPES.index(sent.media_type)
            found = _FOUND.pack(bytes.fromhex(sha256), size.width_px, size.height_px, kind)
            checksum = _checksum(data)
            with self._lock:
                place = _FOUND.size * self._known.add(checksum)
                self._found[place : place + _FOUND.size] = found

    def find(self, data: bytes) -> EncodedImage | None:
        """What a file was found to be when it was read before; None where it was not."""
        is_kept = bool(self._known) and len(data) >= MIN_KEPT_BYTES
        place = self._place(_checksum(data)) if is_kept else None
        if place is None:
            return None
        sha256, width_px, height_px, kind = _FOUND.unpack_from(self._found, place)
        return EncodedImage(
            data=data,
            media_type=_MEDIA_TYPES[kind],
            sha256=sha256.hex(),
            width_px=width_px,
            height_px=height_px,
        )

    def _place(self, checksum: bytes) -> int | None:
        with self._lock:
            place = self._known.place(checksum)
            return None if place is None else _FOUND.size * place


def _checksum(data: bytes) -> bytes:
    import xxhash

    return xxhash.xxh3_128_digest(data)
