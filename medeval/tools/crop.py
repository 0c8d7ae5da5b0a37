"""Crop and zoom: a region of an image, cut out and enlarged into a pixel budget."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from string import Template
from typing import Final, Literal

from medeval.errors import DefinitionError, ToolError
from medeval.images.picture import Picture
from medeval.images.resize import PixelBudget, whole_size
from medeval.tools.arguments import check_names, read_number, seen
from medeval.tools.base import SIZELESS, Tool, ToolContext, ToolResult
from medeval.tools.crop_recipe import Cut, CutFrom
from medeval.tools.crop_rules import (
    DEFAULT_RULES,
    Corners,
    CropRules,
    Place,
    Region,
    check_extent,
    check_place,
    region,
)
from medeval.tools.crop_target import Target
from medeval.tools.recipes import budget_recipe
from medeval.types.geometry import Affine, PixelBox, Size
from medeval.types.sample import JsonValue

OPERATION: Final = "crop"

# 256 to 1024 visual tokens of 28 x 28 pixels.
DEFAULT_BUDGET: Final = PixelBudget(min_px=256 * 28 * 28, max_px=1024 * 28 * 28, factor=28)

PERMILLE_COORDINATES: Final = (
    "Coordinates are in thousandths of that image's width (x) and height (y), from 0 to 1000, "
    "measured from its top-left corner: [0, 0, 1000, 1000] is the whole image"
)

DESCRIPTION: Final = (
    "Cut a rectangular region out of an image and look at it enlarged, in the detail of "
    "the original. Use it to read small text or to inspect small or distant objects. "
    "The region is shown to you as a new image."
)


def crop_and_zoom(
    *,
    name: str = "crop_and_zoom",
    box_argument: str = "bbox_2d",
    image_argument: str = "image_index",
    minimum_side_px: int = 28,
    budget: PixelBudget | None = DEFAULT_BUDGET,
    coordinates: str = PERMILLE_COORDINATES,
    target: Target | None = None,
    rules: CropRules | None = None,
    other_arguments: Literal["refuse", "ignore"] = "refuse",
    description: str = DESCRIPTION,
    parameters: Mapping[str, JsonValue] | None = None,
) -> Tool:
    """The tool that cuts a box out of an image of the conversation and enlarges it.

    A box is read in the frame that the protocol declares; `coordinates` must tell the model the
    same: unit, range and origin. Unless `rules` say otherwise, it is clamped to the image, rounded
    outwards to whole pixels and grown about its centre to `minimum_side_px` a side, as far as the
    image goes. The cut comes from the raw pixels and is resized into `budget` (None: not at all).

    `target` says which image is cut, in place of an index in `image_argument`. A published schema
    is given as `description` and `parameters`, word for word.
    """
    if minimum_side_px < 1:
        raise DefinitionError(
            f"tool {name!r}: minimum_side_px is {minimum_side_px!r}, not 1 or more"
        )
    settings = _Settings(
        box_argument=box_argument,
        target=target or Target(argument=image_argument),
        rules=rules or CropRules(minimum_side_px=minimum_side_px),
        budget=budget,
        other_arguments=other_arguments,
    )
    return Tool(
        name=name,
        description=description,
        parameters=_parameters(settings, coordinates) if parameters is None else parameters,
        run=partial(_run, settings),
        settings=_described(settings),
        check=partial(_check, settings),
        by_size=True,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Settings:
    box_argument: str
    target: Target
    rules: CropRules
    budget: PixelBudget | None
    other_arguments: Literal["refuse", "ignore"]


def _described(settings: _Settings) -> dict[str, JsonValue]:
    """What decides a crop beside the schema: the usual settings, and any unusual rule."""
    described: dict[str, JsonValue] = {
        "minimum_side_px": settings.rules.minimum_side_px,
        "budget": budget_recipe(settings.budget),
    }
    usual: tuple[tuple[object, object], ...] = (
        (settings.rules, DEFAULT_RULES),
        (settings.target, Target()),
    )
    for chosen, default in usual:
        for item in fields(chosen):  # type: ignore[arg-type]
            value = getattr(chosen, item.name)
            if item.name != "minimum_side_px" and value != getattr(default, item.name):
                described[item.name] = value
    if settings.other_arguments != "refuse":
        described["other_arguments"] = settings.other_arguments
    return described


def _parameters(settings: _Settings, coordinates: str) -> dict[str, JsonValue]:
    properties: dict[str, JsonValue] = {
        settings.box_argument: {
            "type": "array",
            "items": {"type": "number"},
            "minItems": 4,
            "maxItems": 4,
            "description": (
                "The region as [x1, y1, x2, y2]: its top-left corner (x1, y1) and its "
                f"bottom-right corner (x2, y2), with x1 < x2 and y1 < y2. {coordinates}."
            ),
        }
    }
    if settings.target.rule == "index":
        properties[settings.target.argument] = {
            "type": "integer",
            "minimum": 0,
            "default": 0,
            "description": (
                "Which image to cut from, counted from 0 in the order in which the images "
                "appear in the conversation: 0 is the first image you were given, and images "
                "made by tools are numbered after those you were given."
            ),
        }
    return {
        "type": "object",
        "properties": properties,
        "required": [settings.box_argument],
        "additionalProperties": False,
    }


def _run(
    settings: _Settings, arguments: Mapping[str, JsonValue], context: ToolContext
) -> ToolResult:
    rules = settings.rules
    if settings.other_arguments == "refuse":
        check_names(arguments, (settings.box_argument, *settings.target.arguments))
    index = settings.target.index(arguments, context)
    frame = SIZELESS.get(context.frame)
    if frame is not None and rules.invalid == "refuse":
        # What no size of the image would make right is refused before the image is looked at.
        check_place(_corners(settings, arguments), frame, settings.box_argument, index, rules)
    source = _source(rules, context, index)
    size = context.picture(index).sent if source == "sent" else context.picture(index).raw
    try:
        corners = _corners(settings, arguments)
        place = Place(
            frame=context.frame_of(index, corners, size),
            size=size,
            argument=settings.box_argument,
            image=index,
        )
        cut = _planned(region(corners, place, rules), settings, source)
    except ToolError:
        if rules.invalid == "refuse":
            raise
        cut = _whole(size, settings, source, arguments)
    return _result(cut, index, context.picture(index))


def _check(settings: _Settings, arguments: Mapping[str, JsonValue]) -> None:
    """Refuse what no image would make right; where invalid boxes have a meaning, nothing."""
    rules = settings.rules
    if settings.other_arguments == "refuse":
        check_names(arguments, (settings.box_argument, *settings.target.arguments))
    if rules.invalid == "refuse":
        corners = _corners(settings, arguments)
        if not rules.swap_corners and rules.pad == 0:
            check_extent(corners, corners, settings.box_argument)


def _whole(
    size: Size, settings: _Settings, source: CutFrom, arguments: Mapping[str, JsonValue]
) -> Cut:
    """The whole image in place of a box that is none.

    It is enlarged like any crop where the call could not be read or has four values; otherwise,
    as in Chain-of-Focus, an exception upstream leaves it as it is.
    """
    box = arguments.get(settings.box_argument)
    whole = PixelBox(0, 0, size.width_px, size.height_px)
    if not arguments or (isinstance(box, list) and len(box) == 4):
        found = Region(box=whole, width=size.width_px, height=size.height_px)
        return _planned(found, settings, source)
    return Cut(box=whole, budget=None, source=source)


def _source(rules: CropRules, context: ToolContext, index: int) -> CutFrom:
    if rules.source == "raw_of_originals":
        return "raw" if index < context.n_originals else "sent"
    return rules.source


def _corners(settings: _Settings, arguments: Mapping[str, JsonValue]) -> Corners:
    """The four numbers of a box, or ToolError."""
    argument = settings.box_argument
    if argument not in arguments:
        raise ToolError(f"{argument!r} is missing; it is a list [x1, y1, x2, y2]")
    value = arguments[argument]
    if not isinstance(value, Sequence) or isinstance(value, str) or len(value) != 4:
        told = f"{argument!r} is a list of four numbers, not {seen(value)}"
        own = Template(settings.rules.refusal).substitute(seen=seen(value))
        raise ToolError(own or told)
    x1, y1, x2, y2 = (read_number(item, argument) for item in value)
    return x1, y1, x2, y2


def _planned(found: Region, settings: _Settings, source: CutFrom) -> Cut:
    rules, budget = settings.rules, settings.budget
    cut = Cut(box=found.box, budget=budget, source=source, jpeg_quality=rules.jpeg_quality)
    width, height = float(found.box.width), float(found.box.height)
    if rules.measure == "box" and budget is not None:
        width, height = found.width, found.height
    elif rules.upscale == 1.0:
        return cut
    sides = (width * rules.upscale, height * rules.upscale)
    return replace(
        cut,
        sent=whole_size(*sides) if budget is None else budget.size_of_sides(*sides),
        resample=rules.resample if budget is None else budget.resample,
    )


def _result(cut: Cut, index: int, parent: Picture) -> ToolResult:
    across, down = 1.0, 1.0
    if cut.source == "sent":
        across = parent.raw.width_px / parent.sent.width_px
        down = parent.raw.height_px / parent.sent.height_px
    left, top = float(cut.box.left), float(cut.box.top)
    return ToolResult(
        picture=cut.picture(parent),
        parent=index,
        operation=OPERATION,
        arguments=cut.recipe(parent),
        raw_to_parent=Affine(across, 0.0, left * across, 0.0, down, top * down),
    )
