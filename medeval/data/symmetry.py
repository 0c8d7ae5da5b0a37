"""Rotates and mirrors images by the eight symmetries of a square, `upright` among them.

Rotations are clockwise; a flip is named by the direction in which pixels move. `transpose` mirrors
at the diagonal from the top left corner, `transverse` at the other one. Pixels are moved, never
resampled.
"""

import hashlib
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Final, Literal

from medeval.images.memory import decoding_budget
from medeval.images.picture import prepare
from medeval.images.request_image import png_of
from medeval.types.sample import ImageSource, Sample

if TYPE_CHECKING:
    from PIL import Image

Symmetry = Literal[
    "upright",
    "rotate_90",
    "rotate_180",
    "rotate_270",
    "flip_horizontal",
    "flip_vertical",
    "transpose",
    "transverse",
]
TURNS: Final[tuple[Symmetry, ...]] = (
    "rotate_90",
    "rotate_180",
    "rotate_270",
    "flip_horizontal",
    "flip_vertical",
    "transpose",
    "transverse",
)


def drawn_turn(seed: str, name: str) -> Symmetry:
    """One of the seven turns other than `upright`, equally likely, by the sha256 of `seed|name`.

    >>> drawn_turn("a seed", "49153") == drawn_turn("a seed", "49153")
    True
    """
    digest = hashlib.sha256(f"{seed}|{name}".encode()).digest()
    # 64 bits modulo seven: probabilities differ by less than 4e-19
    return TURNS[int.from_bytes(digest[:8]) % len(TURNS)]


def turned(sample: Sample, turn: Symmetry) -> Sample:
    """The sample with its images turned; the turn becomes its transform and its group.

    An `upright` image is decoded and encoded like the others, so that only the orientation
    differs. Target boxes, lines and points would no longer fit and are left out.
    """
    return replace(
        sample,
        images=tuple(turned_image(image, turn) for image in sample.images),
        groups={**sample.groups, "orientation": turn},
        target_boxes=(),
        target_lines=(),
        target_points=(),
        transform=turn,
    )


def turned_image(image: ImageSource, turn: Symmetry) -> ImageSource:
    """The turned image, a PNG that is encoded each time it is read."""
    read: Callable[[], bytes] = partial(_turned_png, image, turn)
    return ImageSource(name=f"{image.name} ({turn})", read=read)


def _turned_png(image: ImageSource, turn: Symmetry) -> bytes:
    picture = prepare(image.read(), name=image.name)
    with decoding_budget().taken(picture.raw.area_px):
        return png_of(_turned_pixels(picture.pixels(), turn))


def _turned_pixels(pixels: "Image.Image", turn: Symmetry) -> "Image.Image":
    from PIL import Image

    # PIL names a rotation by its angle counter-clockwise.
    transpositions = {
        "rotate_90": Image.Transpose.ROTATE_270,
        "rotate_180": Image.Transpose.ROTATE_180,
        "rotate_270": Image.Transpose.ROTATE_90,
        "flip_horizontal": Image.Transpose.FLIP_LEFT_RIGHT,
        "flip_vertical": Image.Transpose.FLIP_TOP_BOTTOM,
        "transpose": Image.Transpose.TRANSPOSE,
        "transverse": Image.Transpose.TRANSVERSE,
    }
    return pixels if turn == "upright" else pixels.transpose(transpositions[turn])
