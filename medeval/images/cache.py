"""A cache of re-encoded images in the run folder, which exists while the run lasts.

It has one PNG for each source file and pixel budget, which all checkpoints, samples, protocols and
processes share. A missing or damaged PNG is made again.
"""

import io
import logging
import secrets
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Final

from medeval.images.decode import MAX_PIXELS, UNREADABLE, has_end_mark
from medeval.images.picture import Picture, prepare
from medeval.images.request_image import sha256_of
from medeval.images.resize import PixelBudget

logger = logging.getLogger(__name__)

FOLDER: Final = ".prepared"

# With less free disk space, no image is cached: the records need the space.
MIN_FREE_BYTES: Final = 2 << 30


class ImageCache:
    """The re-encoded images of a run, by the SHA-256 of the source file and the pixel budget.

    Safe to use from several threads and processes at once.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._is_writable = True
        self._locks = tuple(threading.Lock() for _ in range(64))

    @classmethod
    def of_run(cls, run: Path) -> "ImageCache | None":
        """The cache of a run folder; None if it has none or this machine cannot reach it."""
        folder = run / FOLDER
        return cls(folder) if folder.is_dir() else None

    def prepare(
        self,
        data: bytes,
        *,
        name: str,
        budget: PixelBudget | None = None,
        max_pixels: int = MAX_PIXELS,
    ) -> Picture:
        """The same as `picture.prepare`, but reads a cached PNG from the folder.

        If several threads need one image at once, the first makes it and the others wait.
        """
        re_encode = partial(self._re_encoded, data, budget)
        return prepare(data, name=name, budget=budget, max_pixels=max_pixels, re_encode=re_encode)

    def _re_encoded(
        self, data: bytes, budget: PixelBudget | None, make: Callable[[], bytes]
    ) -> bytes:
        path = self._folder / file_name(sha256_of(data), budget)
        with self._locks[hash(path) % len(self._locks)]:
            png = _whole_png(path)
            if png is None:
                png = make()
                self._keep(path, png)
        return png

    def _keep(self, path: Path, png: bytes) -> None:
        """Write a PNG; if that fails, delete the whole cache: the records may need the space."""
        draft = path.with_suffix(f".{secrets.token_hex(4)}.tmp")
        try:
            if self._is_writable and shutil.disk_usage(self._folder).free > MIN_FREE_BYTES:
                draft.write_bytes(png)
                draft.replace(path)
        except OSError as error:
            if self._is_writable and self._folder.is_dir():
                logger.warning(
                    "%s: %s: no images are cached", self._folder, error.strerror or error
                )
            self._is_writable = False
            shutil.rmtree(self._folder, ignore_errors=True)


@contextmanager
def open_cache(run: Path, *, is_resumable: Callable[[], bool]) -> Iterator[ImageCache | None]:
    """The cache of a run during the block; deleted afterwards, unless `is_resumable` returns true.

    None where its folder cannot be made.
    """
    folder = run / FOLDER
    with suppress(OSError):
        folder.mkdir(exist_ok=True)
    is_finished = True
    try:
        yield ImageCache.of_run(run)
        is_finished = not is_resumable()
    finally:
        if is_finished:
            shutil.rmtree(folder, ignore_errors=True)


def file_name(sha256: str, budget: PixelBudget | None) -> str:
    """The name of the PNG made from a source file with this SHA-256 within a pixel budget.

    >>> file_name("e3b0c442", PixelBudget(min_px=784, max_px=1003520, factor=28))
    'e3b0c442-784-1003520-28-smart-bicubic.png'
    """
    if budget is None:
        return f"{sha256}-unresized.png"
    bounds = f"{budget.min_px}-{budget.max_px}-{budget.factor}"
    return f"{sha256}-{bounds}-{budget.rule}-{budget.resample}.png"


def _whole_png(path: Path) -> bytes | None:
    """The bytes of a PNG file with valid checksums; None if it is missing or damaged."""
    from PIL.PngImagePlugin import PngImageFile

    try:
        png = path.read_bytes()
        with PngImageFile(io.BytesIO(png)) as image:
            is_whole = has_end_mark(image, png)
            image.verify()
    except UNREADABLE:
        return None
    return png if is_whole else None
