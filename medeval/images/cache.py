"""Images as they are sent, kept on disk while a run goes on: each is re-encoded once for all of it.

In the run folder, one file an image and pixel budget, for all checkpoints, samples, protocols and
processes that find it there. Where the folder is, it is written to; where it is not, or has no room
left, images are prepared anew. Nothing that goes wrong with it is a failure.
"""

import errno
import hashlib
import logging
import os
import platform
import secrets
import shutil
import struct
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cache, partial
from pathlib import Path
from typing import Final

from medeval.images.decode import MAX_PIXELS, code_digest, decode
from medeval.images.known_files import CHECKSUM_BYTES, KnownFiles, checksum
from medeval.images.memory import PixelRoom
from medeval.images.picture import Picture, known_picture, prepare
from medeval.images.resize import PixelBudget
from medeval.store.packed import Table
from medeval.store.records import SampleRecord
from medeval.types.geometry import Size
from medeval.types.sample import EncodedImage

logger = logging.getLogger(__name__)

FOLDER: Final = ".prepared"

# Below this, preparing an image takes some ten times what writing and reading it does at most.
LEAST_PX: Final = 128 * 128

# Keeping an image takes at most so much of what preparing it does.
LEAST_SHARE_TWICE: Final = 0.1

# However much is free: some ten benchmarks at a megapixel an image, thousands of images of 8K.
MOST_BYTES: Final = 32 << 30
SHARE_OF_FREE: Final = 0.25
# What a file takes beside its bytes.
BESIDE_BYTES: Final = 4096
# So many processes that fill the folder side by side find the bound before they are over it.
MOST_WRITERS: Final = 16

NO_SPACE: Final = frozenset({errno.ENOSPC, errno.EDQUOT})

# A file is a mark, a checksum of all that follows, what there is to say of the image, its bytes.
_MARK: Final = b"medeval\x01"
# SHA-256, raw and sent size, orientation or 0.
_SAID: Final = struct.Struct("<32sIIIIB")
_HEAD_BYTES: Final = len(_MARK) + CHECKSUM_BYTES + _SAID.size

# The code and the libraries that an image's bytes come from; the code as it was when imported.
_CODE: Final = code_digest("picture.py", "resize.py", "decode.py", "known_files.py", "cache.py")
_LIBRARIES: Final = ("pil", "jpg", "libjpeg_turbo", "zlib", "zlib_ng", "webp", "libtiff")


class PreparedImages:
    """The images of one run that were re-encoded, found by what their own files hold.

    Found by a checksum of the file, the pixel budget, and the code and libraries that re-encode.
    Safe to use from threads, and from several processes at once.
    """

    def __init__(self, folder: Path, *, most_bytes: int = MOST_BYTES) -> None:
        self._folder = folder
        self._most_bytes = most_bytes
        self._is_written = True
        self._lock = threading.Lock()
        self._left_bytes = 0
        self._allowed_bytes = 1
        self._turns = tuple(threading.Lock() for _ in range(64))

    @classmethod
    def of_run(cls, run: Path) -> "PreparedImages | None":
        """Those of a run folder; None where it keeps none, or is not to be reached from here."""
        folder = run / FOLDER
        return cls(folder) if folder.is_dir() else None

    def prepare(
        self,
        data: bytes,
        *,
        name: str,
        budget: PixelBudget | None = None,
        max_pixels: int = MAX_PIXELS,
        known: KnownFiles | None = None,
        room: PixelRoom | None = None,
    ) -> Picture:
        """The same as `images.prepare`, from the folder where it has the image re-encoded.

        Threads that need one image at once wait for the first of them to prepare it.
        """
        own = known_picture(data, name=name, budget=budget, max_pixels=max_pixels, known=known)
        if own is not None:
            return own
        key = checksum(data) + _settings(budget)
        find = partial(self._find, key.hex(), data, name, max_pixels)
        picture = find()
        if picture is not None:
            return picture
        with self._turns[key[0] % len(self._turns)]:
            picture = find()
            if picture is None:
                picture = prepare(
                    data, name=name, budget=budget, max_pixels=max_pixels, known=known, room=room
                )
                if picture.encoded.data is not data:
                    self._keep(key.hex(), picture)
        return picture

    def _find(self, key: str, data: bytes, name: str, max_pixels: int) -> Picture | None:
        """An image that was kept; None where it was not, or what is there is not whole."""
        try:
            with (self._folder / key).open("rb", buffering=0) as file:
                head = file.read(_HEAD_BYTES)
                encoded = file.read()
        except OSError:
            return None
        said = head[len(_MARK) + CHECKSUM_BYTES :]
        if head != _MARK + checksum(said, encoded) + said:
            return None
        sha256, raw_width, raw_height, width, height, orientation = _SAID.unpack(said)
        raw, sent = Size(raw_width, raw_height), Size(width, height)
        if raw.area_px > max_pixels:
            return None
        return Picture(
            encoded=EncodedImage(
                data=encoded,
                media_type="image/png",
                sha256=sha256.hex(),
                width_px=width,
                height_px=height,
            ),
            raw=raw,
            exif_orientation=orientation or None,
            read_pixels=partial(decode, encoded if sent == raw else data, name),
        )

    def _keep(self, key: str, picture: Picture) -> None:
        raw, sent, encoded = picture.raw, picture.sent, picture.encoded
        is_small = max(raw.area_px, sent.area_px) < LEAST_PX
        if is_small or not self._is_written or not self._has_room(len(encoded.data)):
            return
        said = _SAID.pack(
            *(bytes.fromhex(encoded.sha256), raw.width_px, raw.height_px),
            *(sent.width_px, sent.height_px, picture.exif_orientation or 0),
        )
        draft = self._folder / f"{key}.{secrets.token_hex(4)}.tmp"
        try:
            with draft.open("xb") as file:
                file.writelines((_MARK, checksum(said, encoded.data), said, encoded.data))
            draft.replace(self._folder / key)
        except OSError as error:
            self._stop(error)
            with suppress(OSError):
                draft.unlink()

    def _stop(self, error: OSError) -> None:
        """Write nothing more; where it is for want of space, what is kept makes room for records.

        Other processes then find no folder to write to, and stop as well.
        """
        with self._lock:
            was_written, self._is_written = self._is_written, False
        if error.errno in NO_SPACE:
            shutil.rmtree(self._folder, ignore_errors=True)
        if was_written and self._folder.is_dir():
            logger.warning(
                "%s: %s: images that are not there are prepared anew for each checkpoint",
                self._folder,
                error.strerror or error,
            )

    def _has_room(self, n_bytes: int) -> bool:
        """Whether so many bytes more may be kept; they are then counted.

        What all processes together keep is counted anew after each part of the room left.
        """
        with self._lock:
            if n_bytes > self._left_bytes and 2 * self._left_bytes < self._allowed_bytes:
                self._left_bytes = self._allowed_bytes = self._room_bytes() // MOST_WRITERS
            if n_bytes + BESIDE_BYTES > self._left_bytes:
                return False
            self._left_bytes -= n_bytes + BESIDE_BYTES
            return True

    def _room_bytes(self) -> int:
        """How much more the folder may hold."""
        try:
            with os.scandir(self._folder) as files:
                held = sum(map(_taken_bytes, files))
            disk = os.statvfs(self._folder)
        except OSError:
            return 0
        share = int(SHARE_OF_FREE * (disk.f_bavail * disk.f_frsize + held))
        return max(0, min(self._most_bytes, share) - held)


def _taken_bytes(file: "os.DirEntry[str]") -> int:
    """What a file takes; nothing where it was a draft that has its own name by now."""
    try:
        return file.stat().st_size + BESIDE_BYTES
    except FileNotFoundError:
        return 0


class ImageTally:
    """Whether a run's samples show images that other samples show as well; small ones aside."""

    def __init__(self) -> None:
        self._seen = Table()
        self._n_images = 0

    def counted(self, samples: Iterable[SampleRecord]) -> Iterator[SampleRecord]:
        """The same samples, counted as they pass."""
        for sample in samples:
            for image in sample.images:
                if image.sha256 and (image.width_px or 0) * (image.height_px or 0) >= LEAST_PX:
                    self._n_images += 1
                    self._seen.add(bytes.fromhex(image.sha256)[:8])
            yield sample

    @property
    def has_many_twice(self) -> bool:
        """Whether finding them again saves more than keeping all of them takes."""
        return self._n_images - len(self._seen) > LEAST_SHARE_TWICE * self._n_images


@contextmanager
def kept_in(
    run: Path, *, is_worth_it: bool, goes_on: Callable[[], bool]
) -> Iterator[PreparedImages | None]:
    """Keep a run's prepared images while the block runs; those of an earlier start are used.

    Where `is_worth_it` is false, none but those. They are deleted at the end unless the run
    `goes_on` later.
    """
    folder = run / FOLDER
    try:
        if is_worth_it:
            folder.mkdir(exist_ok=True)
        for draft in folder.glob("*.tmp"):
            draft.unlink()
    except OSError as error:
        logger.warning("%s: %s", folder, error.strerror or error)
    is_over = True
    try:
        yield PreparedImages.of_run(run)
        is_over = not goes_on()
    finally:
        if is_over:
            shutil.rmtree(folder, ignore_errors=True)


@cache
def _settings(budget: PixelBudget | None) -> bytes:
    """What else an image's bytes depend on, beside its own file."""
    from PIL import ImageFile, features

    versions = {name: features.version(name) for name in _LIBRARIES}
    lenient = ImageFile.LOAD_TRUNCATED_IMAGES
    settings = (budget, platform.machine(), versions, lenient, _CODE)
    return hashlib.sha256(repr(settings).encode()).digest()[:8]
