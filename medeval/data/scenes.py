"""Scenes that medeval draws itself for the demo and tests: one marker on a soft background.

A marker is a magenta frame around a patch of one colour. A small marker becomes unreadable when
the image is shrunk to the size that a tiny model sees; a big one stays readable.
"""

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from medeval.images.request_image import png_of
from medeval.types.geometry import Box, pixels

if TYPE_CHECKING:
    import numpy as np

    # shape (EDGE_PX, EDGE_PX, 3), 0 to 255
    Canvas = np.ndarray[tuple[int, ...], np.dtype[np.uint8]]

Colour = Literal["red", "green", "blue", "yellow"]

EDGE_PX = 224
COLOURS: dict[Colour, tuple[int, int, int]] = {
    "red": (220, 40, 40),
    "green": (40, 180, 60),
    "blue": (50, 80, 220),
    "yellow": (230, 210, 50),
}
FRAME = (235, 60, 235)
FRAME_JITTER, PATCH_JITTER, NOISE = 60, 20, 8
BACKGROUND_MEAN, BACKGROUND_SPREAD, BACKGROUND_CELLS = 110, 12, 5


@dataclass(frozen=True, slots=True, kw_only=True)
class MarkerSize:
    """Edge of the marker and of the patch inside it, in pixels."""

    marker_px: int
    patch_px: int


SMALL = MarkerSize(marker_px=14, patch_px=5)
BIG = MarkerSize(marker_px=40, patch_px=20)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """A drawn image and its contents; `png` is the bytes of the file, `box` the marker's."""

    png: bytes
    colour: Colour
    size: MarkerSize
    box: Box


def draw_scene(seed: str, size: MarkerSize) -> Scene:
    """The scene of a seed; equal seeds give equal pixels, and all colours are equally likely."""
    from PIL import Image

    canvas, colour, box = paint_scene(seed, size)
    return Scene(png=png_of(Image.fromarray(canvas)), colour=colour, size=size, box=box)


def paint_scene(seed: str, size: MarkerSize) -> "tuple[Canvas, Colour, Box]":
    """The pixels, colour and marker box of the scene that `draw_scene` makes from a seed."""
    import numpy as np

    digest = hashlib.sha256(seed.encode()).digest()
    generator = np.random.default_rng(int.from_bytes(digest[:8]))
    colour = list(COLOURS)[int(generator.integers(len(COLOURS)))]
    left, top = (int(edge) for edge in generator.integers(0, EDGE_PX - size.marker_px + 1, size=2))
    canvas = _background(generator)
    _fill(canvas, left, top, size.marker_px, _jittered(generator, FRAME, FRAME_JITTER))
    inset = (size.marker_px - size.patch_px) // 2
    patch = _jittered(generator, COLOURS[colour], PATCH_JITTER)
    _fill(canvas, left + inset, top + inset, size.patch_px, patch)
    frame = pixels(EDGE_PX, EDGE_PX, "image 0")
    return canvas, colour, Box(left, top, left + size.marker_px, top + size.marker_px, frame)


def _background(generator: "np.random.Generator") -> "Canvas":
    """A smooth colour field with pixel noise, shape (EDGE_PX, EDGE_PX, 3), 0 to 255."""
    import numpy as np
    from PIL import Image

    cells = (BACKGROUND_CELLS, BACKGROUND_CELLS, 3)
    coarse = generator.normal(BACKGROUND_MEAN, BACKGROUND_SPREAD, size=cells)
    small = Image.fromarray(coarse.clip(0, 255).astype(np.uint8))
    smooth = np.asarray(small.resize((EDGE_PX, EDGE_PX), Image.Resampling.BICUBIC), dtype=np.int16)
    noise = generator.integers(-NOISE, NOISE + 1, size=smooth.shape)
    return (smooth + noise).clip(0, 255).astype(np.uint8)


def _jittered(
    generator: "np.random.Generator", colour: tuple[int, int, int], jitter: int
) -> tuple[int, ...]:
    offsets = generator.integers(-jitter, jitter + 1, size=3)
    return tuple(
        max(0, min(255, part + int(offset))) for part, offset in zip(colour, offsets, strict=True)
    )


def _fill(
    canvas: "Canvas",
    left: int,
    top: int,
    edge: int,
    colour: tuple[int, ...],
) -> None:
    canvas[top : top + edge, left : left + edge] = colour
