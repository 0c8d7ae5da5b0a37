"""The size at which an image is sent: pixel budgets and resize rules."""

import math
from dataclasses import dataclass
from typing import Literal, TypeAlias

from medeval.errors import DefinitionError
from medeval.types.geometry import Size

ResizeRule: TypeAlias = Literal["smart", "area"]
Resample: TypeAlias = Literal["nearest", "bilinear", "bicubic", "lanczos"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PixelBudget:
    """The size at which an image is sent: bounds on its area, and a factor of its sides.

    `rule` "smart" is `smart_resize`; "area" does not change an image within the bounds and
    scales any other to the nearer bound, cut to whole pixels, as verl's data sets do. `resample`
    is the filter of the resize.

    Raises DefinitionError unless factor >= 1, min_px <= max_px, and one tile of factor x factor
    fits into max_px.
    """

    min_px: int
    max_px: int
    factor: int
    rule: ResizeRule = "smart"
    resample: Resample = "bicubic"

    def size_of(self, raw: Size) -> Size:
        """The size at which an image of size `raw` is sent."""
        return self.size_of_sides(raw.width_px, raw.height_px)

    def size_of_sides(self, width: float, height: float) -> Size:
        """The same for sides that are not whole pixels, such as those of a box."""
        rule = _smart_resize if self.rule == "smart" else _area_resize
        return rule(width, height, self)

    def __post_init__(self) -> None:
        if not (self.factor >= 1 and 1 <= self.min_px <= self.max_px >= self.factor**2):
            raise DefinitionError(
                "a pixel budget needs factor >= 1 and 1 <= min_px <= max_px >= factor**2, "
                f"got {self!r}"
            )


def smart_resize(size: Size, budget: PixelBudget) -> Size:
    """The size to which an image is resized: sides are multiples of the factor, area is in budget.

    The aspect ratio is kept as far as the factor allows. If both bounds cannot be met (a very long
    image, a narrow budget), the area stays within the upper one; no side is below the factor.
    Source: the rule of the Qwen2-VL image processor, which refuses ratios above 200; this function
    squeezes such images into the budget.

    >>> smart_resize(Size(1000, 600), PixelBudget(min_px=256 * 784, max_px=512 * 784, factor=28))
    Size(width_px=812, height_px=476)
    """
    return _smart_resize(size.width_px, size.height_px, budget)


def _smart_resize(across: float, down: float, budget: PixelBudget) -> Size:
    factor = budget.factor
    width = max(factor, round(across / factor) * factor)
    height = max(factor, round(down / factor) * factor)
    if width * height > budget.max_px:
        shrink = math.sqrt(across * down / budget.max_px)
        width = max(factor, math.floor(across / shrink / factor) * factor)
        height = max(factor, math.floor(down / shrink / factor) * factor)
    elif width * height < budget.min_px:
        grow = math.sqrt(budget.min_px / (across * down))
        width = math.ceil(across * grow / factor) * factor
        height = math.ceil(down * grow / factor) * factor
    return _squeezed(width, height, budget, is_wide=across >= down)


def _area_resize(width: float, height: float, budget: PixelBudget) -> Size:
    """The size scaled to the nearer bound if its area is outside, cut to whole pixels."""
    area = width * height
    bound = min(max(area, budget.min_px), budget.max_px)
    scale = 1.0 if area == bound else math.sqrt(bound / area)
    return whole_size(width * scale, height * scale, least=budget.factor)


def whole_size(width: float, height: float, least: int = 1) -> Size:
    """Sides cut to whole pixels, none below the least."""
    return Size(max(least, int(width)), max(least, int(height)))


def _squeezed(width: int, height: int, budget: PixelBudget, *, is_wide: bool) -> Size:
    """The size with its longer side cut until the area fits; `is_wide` decides for a square."""
    if width * height <= budget.max_px:
        return Size(width, height)
    short = min(width, height)
    long = max(budget.factor, budget.max_px // short // budget.factor * budget.factor)
    if short * long > budget.max_px:
        short = budget.max_px // long // budget.factor * budget.factor
    short, long = sorted((short, long))
    return Size(long, short) if is_wide else Size(short, long)
