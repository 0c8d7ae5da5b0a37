"""Crop and zoom: a region of an image, cut from its raw pixels and enlarged into a pixel budget."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

from medeval.boxes import Box, PixelBox, pixels
from medeval.errors import DefinitionError, ToolError
from medeval.images import Picture, PixelBudget, made_picture
from medeval.tools.arguments import check_names, read_index, read_number, seen
from medeval.tools.base import Tool, ToolContext, ToolResult
from medeval.tools.recipes import budget_recipe, no_recipe, read_budget
from medeval.types import Affine, JsonValue, Size

if TYPE_CHECKING:
    from PIL import Image

OPERATION: Final = "crop"

# 256 to 1024 visual tokens of 28 x 28 pixels.
DEFAULT_BUDGET: Final = PixelBudget(min_px=256 * 28 * 28, max_px=1024 * 28 * 28, factor=28)

PERMILLE_COORDINATES: Final = (
    "Coordinates are in thousandths of that image's width (x) and height (y), from 0 to 1000, "
    "measured from its top-left corner: [0, 0, 1000, 1000] is the whole image"
)


def crop_and_zoom(
    *,
    name: str = "crop_and_zoom",
    box_argument: str = "bbox_2d",
    image_argument: str = "image_index",
    minimum_side_px: int = 28,
    budget: PixelBudget | None = DEFAULT_BUDGET,
    coordinates: str = PERMILLE_COORDINATES,
) -> Tool:
    """The tool that cuts a box out of an image of the conversation and enlarges it.

    A box is read in the frame that the protocol declares; `coordinates` must tell the model the
    same: unit, range and origin. It is clamped to the image, rounded outwards to whole pixels and
    grown about its centre to `minimum_side_px` a side, as far as the image goes. The cut comes
    from the raw pixels and is resized into `budget` (None: not at all).
    """
    if minimum_side_px < 1:
        raise DefinitionError(
            f"tool {name!r}: minimum_side_px is {minimum_side_px!r}, not 1 or more"
        )
    settings = _Settings(
        box_argument=box_argument,
        image_argument=image_argument,
        minimum_side_px=minimum_side_px,
        budget=budget,
    )
    return Tool(
        name=name,
        description=(
            "Cut a rectangular region out of an image and look at it enlarged, in the detail of "
            "the original. Use it to read small text or to inspect small or distant objects. "
            "The region is shown to you as a new image."
        ),
        parameters=_parameters(settings, coordinates),
        run=partial(_run, settings),
        settings={
            "minimum_side_px": minimum_side_px,
            "budget": budget_recipe(budget),
        },
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Settings:
    box_argument: str
    image_argument: str
    minimum_side_px: int
    budget: PixelBudget | None


def _parameters(settings: _Settings, coordinates: str) -> dict[str, JsonValue]:
    return {
        "type": "object",
        "properties": {
            settings.box_argument: {
                "type": "array",
                "items": {"type": "number"},
                "minItems": 4,
                "maxItems": 4,
                "description": (
                    "The region as [x1, y1, x2, y2]: its top-left corner (x1, y1) and its "
                    f"bottom-right corner (x2, y2), with x1 < x2 and y1 < y2. {coordinates}."
                ),
            },
            settings.image_argument: {
                "type": "integer",
                "minimum": 0,
                "default": 0,
                "description": (
                    "Which image to cut from, counted from 0 in the order in which the images "
                    "appear in the conversation: 0 is the first image you were given, and images "
                    "made by tools are numbered after those you were given."
                ),
            },
        },
        "required": [settings.box_argument],
        "additionalProperties": False,
    }


def _run(
    settings: _Settings, arguments: Mapping[str, JsonValue], context: ToolContext
) -> ToolResult:
    known = (settings.box_argument, settings.image_argument)
    check_names(arguments, known)
    index = read_index(arguments.get(settings.image_argument, 0), settings.image_argument)
    parent = context.picture(index)
    if settings.box_argument not in arguments:
        raise ToolError(f"{settings.box_argument!r} is missing; it is a list [x1, y1, x2, y2]")
    corners = _corners(arguments[settings.box_argument], settings.box_argument)
    region = _region(corners, index, context, settings)
    return ToolResult(
        picture=_cropped(parent, region, settings.budget),
        parent=index,
        operation=OPERATION,
        arguments={
            "box_px": [region.left, region.top, region.right, region.bottom],
            "budget": budget_recipe(settings.budget),
        },
        raw_to_parent=Affine(1.0, 0.0, float(region.left), 0.0, 1.0, float(region.top)),
    )


def _corners(value: JsonValue, argument: str) -> tuple[float, float, float, float]:
    """The four numbers of a box, or ToolError."""
    if not isinstance(value, Sequence) or isinstance(value, str) or len(value) != 4:
        raise ToolError(f"{argument!r} is a list of four numbers, not {seen(value)}")
    x1, y1, x2, y2 = (read_number(item, argument) for item in value)
    if not x1 < x2:
        raise ToolError(f"{argument!r} needs x1 < x2, got x1 = {x1:g} and x2 = {x2:g}")
    if not y1 < y2:
        raise ToolError(f"{argument!r} needs y1 < y2, got y1 = {y1:g} and y2 = {y2:g}")
    return x1, y1, x2, y2


def _region(
    corners: tuple[float, float, float, float],
    index: int,
    context: ToolContext,
    settings: _Settings,
) -> PixelBox:
    """The whole raw pixels to cut out, inside the image and of the minimum size."""
    frame, raw = context.frame_of(index), context.picture(index).raw
    try:
        inside = Box(*corners, frame).to(pixels(raw.width_px, raw.height_px)).clamped()
    except ValueError as error:
        raise ToolError(f"{settings.box_argument!r} is no region of the image: {error}") from error
    if inside is None:
        raise ToolError(
            f"{settings.box_argument!r} lies entirely outside image {index}, "
            f"whose coordinates go from [0, 0] to [{frame.width:g}, {frame.height:g}]"
        )
    return _grown(inside.rounded_out(), settings.minimum_side_px, raw)


def _grown(box: PixelBox, minimum: int, limit: Size) -> PixelBox:
    left, right = _grown_side(box.left, box.right, minimum, limit.width_px)
    top, bottom = _grown_side(box.top, box.bottom, minimum, limit.height_px)
    return PixelBox(left, top, right, bottom)


def _grown_side(start: int, end: int, minimum: int, limit: int) -> tuple[int, int]:
    """Grow a stretch to the minimum about its centre, moved inwards where the image ends."""
    length = max(end - start, min(minimum, limit))
    start -= (length - (end - start)) // 2
    start = min(max(start, 0), limit - length)
    return start, start + length


def _cropped(parent: Picture, region: PixelBox, budget: PixelBudget | None) -> Picture:
    cut = partial(_cut, parent, region)
    return made_picture(cut(), budget=budget, again=cut)


def _cut(parent: Picture, region: PixelBox) -> "Image.Image":
    from PIL import Image

    whole = parent.pixels()
    # Not `crop`, which warns of sizes by a bound that is global to the process.
    cut = Image.new(whole.mode, (region.width, region.height))
    cut.paste(whole, (-region.left, -region.top))
    return cut


def remake_crop(arguments: Mapping[str, JsonValue], parent: Picture) -> Picture:
    """The crop that a recipe describes, byte for byte; raises DataError for any other recipe."""
    match arguments:
        case {"box_px": [int(left), int(top), int(right), int(bottom)], "budget": limits, **rest}:
            inside = 0 <= left < right <= parent.raw.width_px
            if inside and 0 <= top < bottom <= parent.raw.height_px and not rest:
                return _cropped(parent, PixelBox(left, top, right, bottom), read_budget(limits))
    raise no_recipe("a crop", arguments, parent)
