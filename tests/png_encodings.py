"""Counts the PNGs that Pillow writes."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from PIL import Image


@contextmanager
def counted_encodings() -> Iterator[list[tuple[int, int]]]:
    """The sizes of the PNGs written while the block runs, in pixels."""
    Image.init()
    written: list[tuple[int, int]] = []
    write = Image.SAVE["PNG"]

    def counted(image: Image.Image, *arguments: Any) -> None:
        written.append(image.size)
        write(image, *arguments)

    Image.SAVE["PNG"] = counted
    try:
        yield written
    finally:
        Image.SAVE["PNG"] = write
