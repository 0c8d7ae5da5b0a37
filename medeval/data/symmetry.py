"""The symmetries of a square, as ways to turn and mirror an image.

Together with leaving it as it is there are eight. Turning is clockwise; a flip is named by the
direction in which pixels move. `transpose` mirrors at the diagonal from the top left corner,
`transverse` at the other one. Pixels are moved, never resampled.
"""

import hashlib
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Final, Literal

from medeval.images.memory import decoding_budget
from medeval.images.picture import png_of, prepare
from medeval.types.sample import ImageSource, Sample

if TYPE_CHECKING:
    from PIL import Image

Turn = Literal[
    "upright",
    "rotate_90",
    "rotate_180",
    "rotate_270",
    "flip_horizontal",
    "flip_vertical",
    "transpose",
    "transverse",
]
TURNS: Final[tuple[Turn, ...]] = (
    "rotate_90",
    "rotate_180",
    "rotate_270",
    "flip_horizontal",
    "flip_vertical",
    "transpose",
    "transverse",
)


def drawn_turn(seed: str, name: str) -> Turn:
    """One of the seven that move something, each as likely, from sha256 of `seed|name`.

    >>> drawn_turn("a seed", "49153") == drawn_turn("a seed", "49153")
    True
    """
    digest = hashlib.sha256(f"{seed}|{name}".encode()).digest()
    # 64 bits over seven: no turn is likelier than another by more than 4e-19.
    return TURNS[int.from_bytes(digest[:8]) % len(TURNS)]


def turned(sample: Sample, turn: Turn) -> Sample:
    """The sample with its images turned, and the turn recorded as transform and group.

    An upright one is decoded and encoded in the same way, so that nothing but the orientation
    differs. Its target boxes, lines and points would no longer fit and are left out.
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


def turned_image(image: ImageSource, turn: Turn) -> ImageSource:
    """The image turned, as a PNG that is made each time it is read."""
    read: Callable[[], bytes] = partial(_turned_png, image, turn)
    return ImageSource(name=f"{image.name} ({turn})", read=read)


def _turned_png(image: ImageSource, turn: Turn) -> bytes:
    picture = prepare(image.read(), name=image.name)
    with decoding_budget().taken(picture.raw.area_px):
        return png_of(_turned_pixels(picture.pixels(), turn))


def _turned_pixels(pixels: "Image.Image", turn: Turn) -> "Image.Image":
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
