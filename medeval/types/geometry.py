"""Boxes, lines and points in declared frames; conversion is always explicit.

A frame is the extent of one image in some unit. The same box in two frames covers the same
share of the image, so conversion only scales, whatever the values are.
"""

import math
from dataclasses import dataclass
from typing import Literal, Self

from medeval.types.json import FINITE, STRICT


@dataclass(frozen=True, slots=True)
class Frame:
    """The extent of an image in the unit of its coordinates: x in 0..width, y in 0..height."""

    __pydantic_config__ = FINITE

    name: str
    width: float
    height: float

    def __post_init__(self) -> None:
        if not (self.width > 0 and self.height > 0):
            raise ValueError(f"a frame has a positive extent, got {self.width!r} x {self.height!r}")


# A conversion's floating-point error must not grow a box by a pixel.
ROUNDING_SLACK = 1e-6

RELATIVE = Frame("relative", 1.0, 1.0)
PERCENT = Frame("percent", 100.0, 100.0)
PERMILLE = Frame("permille", 1000.0, 1000.0)


def pixels(width_px: int, height_px: int, image: str = "image") -> Frame:
    """The pixel frame of the named image, whose size in pixels is given."""
    return Frame(f"pixels of {image}", float(width_px), float(height_px))


@dataclass(frozen=True, slots=True)
class PixelBox:
    """A box of whole pixels: left and top are inside, right and bottom are the first outside."""

    left: int
    top: int
    right: int
    bottom: int

    @property
    def width(self) -> int:
        """Width in pixels."""
        return self.right - self.left

    @property
    def height(self) -> int:
        """Height in pixels."""
        return self.bottom - self.top


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle in a declared frame, (left, top) to (right, bottom), in the frame's unit.

    Raises ValueError unless the four numbers are finite and left < right, top < bottom.
    """

    __pydantic_config__ = FINITE

    left: float
    top: float
    right: float
    bottom: float
    frame: Frame

    def __post_init__(self) -> None:
        corners = (self.left, self.top, self.right, self.bottom)
        if not all(math.isfinite(value) for value in corners):
            raise ValueError(f"a box has finite coordinates, got {list(corners)!r}")
        if not (self.left < self.right and self.top < self.bottom):
            raise ValueError(f"a box needs left < right and top < bottom, got {list(corners)!r}")

    @property
    def width(self) -> float:
        """Width in the frame's unit."""
        return self.right - self.left

    @property
    def height(self) -> float:
        """Height in the frame's unit."""
        return self.bottom - self.top

    def to(self, frame: Frame) -> Self:
        """The same box in another frame of the same image."""
        return type(self)(
            self.left * frame.width / self.frame.width,
            self.top * frame.height / self.frame.height,
            self.right * frame.width / self.frame.width,
            self.bottom * frame.height / self.frame.height,
            frame,
        )

    def clamped(self) -> "Box | None":
        """The part inside the image, or None if the box is outside."""
        left, right = max(0.0, self.left), min(self.frame.width, self.right)
        top, bottom = max(0.0, self.top), min(self.frame.height, self.bottom)
        if left >= right or top >= bottom:
            return None
        return Box(left, top, right, bottom, self.frame)

    def rounded_out(self) -> PixelBox:
        """The smallest whole-unit box around this one: floor left and top, ceil right and bottom.

        >>> Box(10.6, 10.4, 50.5, 60.6, pixels(100, 100)).rounded_out()
        PixelBox(left=10, top=10, right=51, bottom=61)
        """
        return PixelBox(
            math.floor(self.left + ROUNDING_SLACK),
            math.floor(self.top + ROUNDING_SLACK),
            math.ceil(self.right - ROUNDING_SLACK),
            math.ceil(self.bottom - ROUNDING_SLACK),
        )


@dataclass(frozen=True, slots=True)
class AxisLine:
    """A line across an image in a declared frame: x = value for axis "x", y = value for "y".

    Raises ValueError unless the axis is one of the two and the value is finite.
    """

    __pydantic_config__ = FINITE

    axis: Literal["x", "y"]
    value: float
    frame: Frame

    def __post_init__(self) -> None:
        if self.axis not in ("x", "y") or not math.isfinite(self.value):
            raise ValueError(f"a line has axis 'x' or 'y' and a finite value, got {self!r}")

    def to(self, frame: Frame) -> Self:
        """The same line in another frame of the same image."""
        across = frame.width / self.frame.width
        scale = across if self.axis == "x" else frame.height / self.frame.height
        return type(self)(self.axis, self.value * scale, frame)


@dataclass(frozen=True, slots=True)
class Point:
    """A point in a declared frame. Raises ValueError unless both numbers are finite."""

    __pydantic_config__ = FINITE

    x: float
    y: float
    frame: Frame

    def __post_init__(self) -> None:
        if not (math.isfinite(self.x) and math.isfinite(self.y)):
            raise ValueError(f"a point has finite coordinates, got {[self.x, self.y]!r}")

    def to(self, frame: Frame) -> Self:
        """The same point in another frame of the same image."""
        x = self.x * frame.width / self.frame.width
        return type(self)(x, self.y * frame.height / self.frame.height, frame)


@dataclass(frozen=True, slots=True)
class Affine:
    """The map (x, y) -> (a x + b y + c, d x + e y + f) between pixel coordinates of two images."""

    __pydantic_config__ = STRICT

    a: float
    b: float
    c: float
    d: float
    e: float
    f: float

    def apply(self, x: float, y: float) -> tuple[float, float]:
        """The image of a point.

        >>> Affine(0.5, 0, 10, 0, 0.5, 20).apply(4, 8)
        (12.0, 24.0)
        """
        return (self.a * x + self.b * y + self.c, self.d * x + self.e * y + self.f)

    def after(self, inner: "Affine") -> "Affine":
        """The map that applies `inner` first and then this one."""
        return Affine(
            self.a * inner.a + self.b * inner.d,
            self.a * inner.b + self.b * inner.e,
            self.a * inner.c + self.b * inner.f + self.c,
            self.d * inner.a + self.e * inner.d,
            self.d * inner.b + self.e * inner.e,
            self.d * inner.c + self.e * inner.f + self.f,
        )


IDENTITY = Affine(1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


@dataclass(frozen=True, slots=True)
class Size:
    """Width and height in pixels."""

    __pydantic_config__ = STRICT

    width_px: int
    height_px: int

    @property
    def area_px(self) -> int:
        """The number of pixels."""
        return self.width_px * self.height_px
