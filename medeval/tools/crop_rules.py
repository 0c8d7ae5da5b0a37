"""Which image and which pixels a crop means: rules of published environments, as settings."""

import math
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from string import Template
from typing import Final, Literal, TypeAlias

from medeval.errors import DefinitionError, ToolError
from medeval.images.decode import MAX_PIXELS
from medeval.images.resize import Resample
from medeval.tools.arguments import MANY_IMAGES, seen
from medeval.tools.base import ToolContext, check_template
from medeval.types.geometry import ROUNDING_SLACK, Frame, PixelBox, Size
from medeval.types.sample import JsonValue

Corners = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class CropRules:
    """How a box becomes whole pixels, and what happens to a box that is not valid.

    **From box to pixels**, in this order. `swap_corners` puts inverted corners right. With
    `must_be_inside` a box that leaves the image is refused. `pad` grows the box by a share of the
    image on every side, `enlarge` by a factor about its centre; a box without extent is then
    refused. `clamp` cuts the box to the "image", or to its "last_pixel", which loses a row and a
    column; "none" keeps what is outside, as black pixels. `rounding` takes corners "out" to whole
    pixels, to the "nearest" (half to even, as PIL's crop does), or "cut" to integers.

    **Limits.** `small` says what happens to a side under `minimum_side_px`: it grows about its
    centre ("grow"), the whole box grows in proportion until its shorter side has the minimum
    ("grow_in_proportion"), it stays ("keep"), or the call is refused ("refuse"). With "refuse" and
    `minimum_excluded`, a side of exactly the minimum is refused too. `maximum_ratio` refuses a box
    whose longer side is more than so many times the shorter. With `limits_before_rounding` the
    limits look at the clamped box, otherwise at its whole pixels.

    **The cut.** `source` is what is cut: "raw" pixels, the image as it was "sent", or
    "raw_of_originals": raw pixels of the sample's own images and the sent form of any other.
    `jpeg_quality` passes it through a JPEG first. The cut is enlarged `upscale` times before the
    pixel budget applies; `measure` says whether the budget measures its whole "pixels" or the "box"
    before rounding. `resample` is the filter where there is no budget.

    **Refusals.** With `invalid` "whole_image", a box that would be refused gives the whole source.
    `refusal` replaces the error for a value that is no list of four numbers (`$seen`),
    `small_refusal` that for a small box (`$width`, `$height`), `box_refusal` that for any box.
    """

    pad: float = 0.0
    enlarge: float = 1.0
    clamp: Literal["image", "last_pixel", "none"] = "image"
    swap_corners: bool = False
    must_be_inside: bool = False
    rounding: Literal["out", "nearest", "cut"] = "out"
    minimum_side_px: int = 28
    small: Literal["grow", "grow_in_proportion", "keep", "refuse"] = "grow"
    minimum_excluded: bool = False
    maximum_ratio: float | None = None
    limits_before_rounding: bool = False
    invalid: Literal["refuse", "whole_image"] = "refuse"
    source: Literal["raw", "sent", "raw_of_originals"] = "raw"
    jpeg_quality: int | None = None
    upscale: float = 1.0
    measure: Literal["pixels", "box"] = "pixels"
    resample: Resample = "bicubic"
    refusal: str = ""
    small_refusal: str = ""
    box_refusal: str = ""

    def __post_init__(self) -> None:
        if self.minimum_side_px < 1:
            raise DefinitionError(f"minimum_side_px is {self.minimum_side_px!r}, not 1 or more")
        if self.pad < 0 or self.enlarge < 1 or self.upscale < 1:
            raise DefinitionError(
                "a crop needs pad >= 0, enlarge >= 1 and upscale >= 1, "
                f"got {self.pad!r}, {self.enlarge!r} and {self.upscale!r}"
            )
        check_template("a crop", "refusal", self.refusal, {"seen"})
        check_template("a crop", "small_refusal", self.small_refusal, {"width", "height"})


@dataclass(frozen=True, slots=True, kw_only=True)
class CutRegion:
    """What is cut out: the box in whole pixels, and its width and height before rounding."""

    box: PixelBox
    width: float
    height: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CropImage:
    """The image that a box is cut from.

    `frame` is what the coordinates mean and `size` the size in pixels. Errors name the image by its
    `index` and the box by its `argument`.
    """

    frame: Frame
    size: Size
    index: int
    argument: str

    @property
    def extent(self) -> str:
        """The range of coordinates, in words for an error."""
        return f"coordinates go from [0, 0] to [{self.frame.width:g}, {self.frame.height:g}]"


def cut_region(corners: Corners, image: CropImage, rules: CropRules) -> CutRegion:
    """The whole pixels that a box means; ToolError where the rules refuse it."""
    with _one_refusal(rules):
        box = _box_on_image(corners, image, rules)
        if rules.small == "grow_in_proportion":
            box = grown_in_proportion(box, rules.minimum_side_px, image.size)
        if rules.limits_before_rounding:
            _check_minimum(box[2] - box[0], box[3] - box[1], image.argument, rules)
            _check_ratio(box[2] - box[0], box[3] - box[1], image.argument, rules)
        whole = _sized(_rounded(box, rules), image, rules)
    return CutRegion(box=whole, width=box[2] - box[0], height=box[3] - box[1])


@contextmanager
def _one_refusal(rules: CropRules) -> Iterator[None]:
    """Give every ToolError raised inside the message `box_refusal`, where the rules have one."""
    try:
        yield
    except ToolError as error:
        if rules.box_refusal:
            raise ToolError(rules.box_refusal) from error
        raise


def check_box_in_frame(
    corners: Corners, frame: Frame, argument: str, index: int, rules: CropRules
) -> None:
    """Raise ToolError for a box that is refused whatever the size of its image.

    `frame` is one that images of every size share, such as per-mille.
    """
    whole = Size(round(frame.width), round(frame.height))
    # "last_pixel" is not checked: how much of the frame a pixel takes depends on the image's size
    lenient = replace(rules, clamp="image" if rules.clamp == "last_pixel" else rules.clamp)
    with _one_refusal(rules):
        image = CropImage(frame=frame, size=whole, index=index, argument=argument)
        _box_on_image(corners, image, lenient)


def _box_on_image(corners: Corners, image: CropImage, rules: CropRules) -> Corners:
    """The box in pixels of the image, before rounding; ToolError where the rules refuse it."""
    across = image.size.width_px / image.frame.width
    down = image.size.height_px / image.frame.height
    x1, y1, x2, y2 = corners
    box = (x1 * across, y1 * down, x2 * across, y2 * down)
    if rules.swap_corners:
        box = (min(box[0], box[2]), min(box[1], box[3]), max(box[0], box[2]), max(box[1], box[3]))
    if rules.must_be_inside and not _is_inside(box, image.size):
        raise ToolError(f"{image.argument!r} leaves image {image.index}, whose {image.extent}")
    box = _padded(box, image.size, rules)
    if not rules.swap_corners:
        check_extent(box, corners, image.argument)
    return _clamped(box, image, rules)


def _is_inside(box: Corners, size: Size) -> bool:
    x1, y1, x2, y2 = box
    return x1 >= 0 and y1 >= 0 and x2 <= size.width_px and y2 <= size.height_px


def _padded(box: Corners, size: Size, rules: CropRules) -> Corners:
    x1, y1, x2, y2 = box
    across = rules.pad * size.width_px + (rules.enlarge - 1) * (x2 - x1) / 2
    down = rules.pad * size.height_px + (rules.enlarge - 1) * (y2 - y1) / 2
    return x1 - across, y1 - down, x2 + across, y2 + down


def check_extent(box: Corners, written: Corners, argument: str) -> None:
    """Raise ToolError for a box without extent; the message quotes the `written` numbers."""
    if box[0] < box[2] and box[1] < box[3]:
        return
    for name, (start, end) in (("x", written[::2]), ("y", written[1::2])):
        if not start < end:
            raise ToolError(
                f"{argument!r} needs {name}1 < {name}2, "
                f"got {name}1 = {start:g} and {name}2 = {end:g}"
            )
    raise ToolError(
        f"{argument!r} is no region of the image: a box needs left < right and "
        f"top < bottom, got {list(box)!r}"
    )


def _clamped(box: Corners, image: CropImage, rules: CropRules) -> Corners:
    if rules.clamp == "none":
        return box
    edge = 1 if rules.clamp == "last_pixel" else 0
    width, height = image.size.width_px - edge, image.size.height_px - edge
    left, right = max(0.0, box[0]), min(float(width), box[2])
    top, bottom = max(0.0, box[1]), min(float(height), box[3])
    if rules.swap_corners:
        # a side that lies outside becomes a stretch of the minimum length, as in GAIR-NLP/Med
        left, right = _with_extent(left, right, rules.minimum_side_px, width)
        top, bottom = _with_extent(top, bottom, rules.minimum_side_px, height)
    if left >= right or top >= bottom:
        raise ToolError(
            f"{image.argument!r} lies entirely outside image {image.index}, whose {image.extent}"
        )
    return left, top, right, bottom


def _with_extent(start: float, end: float, minimum: int, limit: int) -> tuple[float, float]:
    if start < end:
        return start, end
    centre = start if start < limit else limit / 2
    return max(0.0, centre - minimum / 2), min(float(limit), centre + minimum / 2)


def grown_in_proportion(box: Corners, minimum: int, size: Size) -> Corners:
    """The box scaled about its centre until its shorter side has the minimum length, in pixels.

    A box that the image's edge would keep from this stays as it is.
    Source: `_ensure_valid_bbox` of GAIR-NLP/Med and `maybe_resize_bbox` of Qwen-Agent.
    """
    left, top, right, bottom = box
    width, height = right - left, bottom - top
    if min(width, height) >= minimum:
        return box
    scale = minimum / min(width, height)
    if not math.isfinite(scale * max(width, height)):
        return box
    down, across = math.ceil(height * scale * 0.5), math.ceil(width * scale * 0.5)
    x, y = (left + right) / 2.0, (top + bottom) / 2.0
    scaled = (
        max(0, math.floor(x - across)),
        max(0, math.floor(y - down)),
        min(size.width_px, math.ceil(x + across)),
        min(size.height_px, math.ceil(y + down)),
    )
    fits = scaled[2] - scaled[0] > minimum and scaled[3] - scaled[1] > minimum
    return scaled if fits else box


def _rounded(box: Corners, rules: CropRules) -> PixelBox:
    x1, y1, x2, y2 = (min(max(side, -1e9), 1e9) for side in box)
    if rules.rounding == "nearest":
        return PixelBox(round(x1), round(y1), round(x2), round(y2))
    if rules.rounding == "cut":
        return PixelBox(int(x1), int(y1), int(x2), int(y2))
    return PixelBox(
        math.floor(x1 + ROUNDING_SLACK),
        math.floor(y1 + ROUNDING_SLACK),
        math.ceil(x2 - ROUNDING_SLACK),
        math.ceil(y2 - ROUNDING_SLACK),
    )


def _sized(box: PixelBox, image: CropImage, rules: CropRules) -> PixelBox:
    if rules.small == "grow":
        box = grown(box, rules.minimum_side_px, image.size)
    elif not rules.limits_before_rounding:
        _check_minimum(box.width, box.height, image.argument, rules)
    if box.width < 1 or box.height < 1:
        raise ToolError(
            f"{image.argument!r} holds no whole pixel: it is {box.width} x {box.height}"
        )
    if box.width * box.height > MAX_PIXELS:
        raise ToolError(f"{image.argument!r} is larger than any image")
    if not rules.limits_before_rounding:
        _check_ratio(box.width, box.height, image.argument, rules)
    return box


def _check_minimum(width: float, height: float, argument: str, rules: CropRules) -> None:
    least, shorter = rules.minimum_side_px, min(width, height)
    enough = shorter > least if rules.minimum_excluded else shorter >= least
    if enough or rules.small != "refuse":
        return
    bound = "more than" if rules.minimum_excluded else "at least"
    message = f"{argument!r} is too small: $width x $height pixels; each side has {bound} {least}"
    sides = {"width": f"{width:g}", "height": f"{height:g}"}
    raise ToolError(Template(rules.small_refusal or message).substitute(sides))


def _check_ratio(width: float, height: float, argument: str, rules: CropRules) -> None:
    ratio = rules.maximum_ratio
    if ratio is not None and max(width, height) > ratio * min(width, height):
        raise ToolError(f"{argument!r} is too long for its width: {width:g} x {height:g} pixels")


def grown(box: PixelBox, minimum: int, limit: Size) -> PixelBox:
    """The box with each side grown to the minimum length, as far as the image reaches."""
    left, right = _grown_side(box.left, box.right, minimum, limit.width_px)
    top, bottom = _grown_side(box.top, box.bottom, minimum, limit.height_px)
    return PixelBox(left, top, right, bottom)


def _grown_side(start: int, end: int, minimum: int, limit: int) -> tuple[int, int]:
    """Grow one side to the minimum about its centre, and move it inwards where the image ends."""
    length = max(end - start, min(minimum, limit))
    start -= (length - (end - start)) // 2
    start = min(max(start, 0), limit - length)
    return start, start + length


DEFAULT_RULES: Final = CropRules()

TargetRule: TypeAlias = Literal["index", "first", "source", "latest"]

INTEGER_TEXT: Final = re.compile(r"[+-]?[0-9]{1,9}")
SOURCE: Final = re.compile(r"original_image|observation_([0-9]{1,6})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """How a call says which image it works on.

    `rule` "index": `argument` holds an integer, counted from `base` over all images or over the
    sample's "originals" (`over`). A call without it means `default`, and is refused where that is
    None. `lenient` also accepts an integer written as text, and drops fractions. "source":
    `argument` holds `original_image`, or `observation_i` for the i-th image that a call made.
    "first" is the sample's first image and "latest" the newest of the conversation, without an
    argument. `refusal` replaces the error for an image that is not there: `$seen` is the value,
    `$last` the highest index.
    """

    rule: TargetRule = "index"
    argument: str = "image_index"
    base: int = 0
    over: Literal["all", "originals"] = "all"
    default: int | None = 0
    lenient: bool = False
    refusal: str = ""

    def __post_init__(self) -> None:
        check_template("a target", "refusal", self.refusal, {"seen", "last"})

    @property
    def arguments(self) -> tuple[str, ...]:
        """The names of the arguments that the rule reads."""
        return (self.argument,) if self.rule in ("index", "source") else ()

    def index(self, arguments: Mapping[str, JsonValue], context: ToolContext) -> int:
        """The index of the image that a call means; ToolError where there is none."""
        match self.rule:
            case "first":
                return 0
            case "latest":
                return len(context.pictures) - 1
            case "source":
                return self._source(arguments, context)
            case "index":
                return self._index(arguments, context)

    def _index(self, arguments: Mapping[str, JsonValue], context: ToolContext) -> int:
        value = arguments.get(self.argument, self.default)
        if self.argument not in arguments and self.default is None:
            raise ToolError(f"{self.argument!r} is missing; it is an integer")
        number = whole_number(value, lenient=self.lenient)
        if number is None or abs(number) >= MANY_IMAGES:
            self._refuse(value, context)
            raise ToolError(
                f"{self.argument!r} is an integer counted from {self.base}, not {seen(value)}"
            )
        last = self._count(context) - 1 + self.base
        if not self.base <= number <= last:
            self._refuse(number, context)
            raise ToolError(
                f"there is no image {number}; images are numbered {self.base} to {last}"
            )
        return number - self.base

    def _count(self, context: ToolContext) -> int:
        return context.n_originals if self.over == "originals" else len(context.pictures)

    def _refuse(self, value: JsonValue, context: ToolContext) -> None:
        if self.refusal:
            last = self._count(context) - 1 + self.base
            raise ToolError(Template(self.refusal).substitute(seen=seen(value), last=last))

    def _source(self, arguments: Mapping[str, JsonValue], context: ToolContext) -> int:
        if self.argument not in arguments:
            raise ToolError(f"{self.argument!r} is missing; it is 'original_image' or such")
        value = arguments[self.argument]
        named = SOURCE.fullmatch(value) if isinstance(value, str) else None
        if named is None:
            raise ToolError(
                f"{self.argument!r} is 'original_image' or 'observation_i', not {seen(value)}"
            )
        made = len(context.pictures) - context.n_originals
        number = int(named[1] or 0)
        if named[1] is None:
            return 0
        if not 1 <= number <= made:
            raise ToolError(f"there is no observation {number}; there are {made} so far")
        return context.n_originals - 1 + number


def whole_number(value: JsonValue, *, lenient: bool = False) -> int | None:
    """A JSON number without a fraction as an integer; None for anything else.

    With `lenient` also a text of digits, and a number without its fraction.

    >>> whole_number(1.0), whole_number("1"), whole_number("1", lenient=True)
    (1, None, 1)
    """
    if isinstance(value, bool):
        return None
    if lenient and isinstance(value, str) and INTEGER_TEXT.fullmatch(value.strip()):
        return int(value)
    if isinstance(value, float) and (value.is_integer() or (lenient and math.isfinite(value))):
        return int(value)
    return value if isinstance(value, int) else None
