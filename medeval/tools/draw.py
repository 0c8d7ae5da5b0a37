"""Draw line and draw point: the tools that draw a red mark on a copy of an image."""

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Final

from medeval.errors import ToolError
from medeval.images.picture import Picture, made_picture
from medeval.images.resize import PixelBudget
from medeval.tools.arguments import (
    check_names,
    image_parameter,
    read_choice,
    read_image,
    read_number,
    required,
)
from medeval.tools.base import Tool, ToolContext, ToolResult, budget_recipe, no_recipe, read_budget
from medeval.types.geometry import IDENTITY, Size
from medeval.types.sample import JsonValue

if TYPE_CHECKING:
    from PIL import Image

DRAW_LINE: Final = "draw_line"
DRAW_POINT: Final = "draw_point"

AXES: Final = ("x", "y")
AXIS: Final = '"x" or "y"'
RED: Final = (255, 0, 0)
WHITE: Final = (255, 255, 255)

# The size of a mark, as a share of the image's shorter side, and the minimum in pixels.
LINE_SHARE: Final = 1 / 200
MINIMUM_LINE_PX: Final = 2
RADIUS_SHARE: Final = 1 / 100
MINIMUM_RADIUS_PX: Final = 3

PERMILLE_UNIT: Final = "in thousandths of that image's width (x) or height (y), from 0 to 1000"


def draw_line(
    *,
    name: str = "draw_line",
    axis_argument: str = "axis",
    value_argument: str = "value",
    image_argument: str = "image_index",
    unit: str = PERMILLE_UNIT,
    budget: PixelBudget | None = None,
) -> Tool:
    """The tool that draws a red line across an image, at one value of one axis.

    The value is read in the frame that the protocol declares; `unit` must state the same in the
    schema. The line is 1/200 of the shorter side wide, at least 2 pixels.
    """
    return Tool(
        name=name,
        description=(
            "Draw a straight red line across an image, from edge to edge, for instance to compare "
            "heights of bars or to read a value off an axis. The result is shown to you as a new "
            "image of the same size."
        ),
        parameters={
            "type": "object",
            "properties": {
                axis_argument: {
                    "type": "string",
                    "enum": list(AXES),
                    "description": (
                        "x: a vertical line, all of it at one x. "
                        "y: a horizontal line, all of it at one y."
                    ),
                },
                value_argument: {
                    "type": "number",
                    "description": (
                        f"Where on that axis the line is, {unit}, measured from the top-left "
                        "corner of the image: x to the right, y downwards."
                    ),
                },
                image_argument: image_parameter("draw on"),
            },
            "required": [axis_argument, value_argument],
            "additionalProperties": False,
        },
        run=partial(_draw_line, (axis_argument, value_argument, image_argument), budget),
        settings={"budget": budget_recipe(budget)},
        by_size=True,
    )


def draw_point(
    *,
    name: str = "draw_point",
    x_argument: str = "x",
    y_argument: str = "y",
    image_argument: str = "image_index",
    unit: str = PERMILLE_UNIT,
    budget: PixelBudget | None = None,
) -> Tool:
    """The tool that draws a red point with a white edge on an image.

    Coordinates are read in the frame that the protocol declares; `unit` must state the same in the
    schema. The radius is 1/100 of the shorter side, at least 3 pixels.
    """
    place = f"{unit}, measured from the top-left corner of the image"
    return Tool(
        name=name,
        description=(
            "Draw a red point on an image, for instance to mark an object that you counted. The "
            "result is shown to you as a new image of the same size; draw on that one to add "
            "another point."
        ),
        parameters={
            "type": "object",
            "properties": {
                x_argument: {"type": "number", "description": f"How far to the right, {place}."},
                y_argument: {"type": "number", "description": f"How far down, {place}."},
                image_argument: image_parameter("draw on"),
            },
            "required": [x_argument, y_argument],
            "additionalProperties": False,
        },
        run=partial(_draw_point, (x_argument, y_argument, image_argument), budget),
        settings={"budget": budget_recipe(budget)},
        by_size=True,
    )


def _draw_line(
    names: tuple[str, str, str],
    budget: PixelBudget | None,
    arguments: Mapping[str, JsonValue],
    context: ToolContext,
) -> ToolResult:
    axis_argument, value_argument, image_argument = names
    check_names(arguments, names)
    index = read_image(arguments, image_argument)
    context.check_index(index)
    axis = read_choice(required(arguments, axis_argument, AXIS), axis_argument, AXES)
    coordinate = _coordinate(arguments, value_argument, axis, index, context)
    parent = context.picture(index)
    value = _in_pixels(coordinate, parent.raw.width_px if axis == "x" else parent.raw.height_px)
    width = max(MINIMUM_LINE_PX, round(_shorter_side(parent.raw) * LINE_SHARE))
    return ToolResult(
        picture=_with_line(parent, axis, value, width, budget),
        parent=index,
        operation=DRAW_LINE,
        arguments={
            "axis": axis,
            "value_px": value,
            "width_px": width,
            "budget": budget_recipe(budget),
        },
        raw_to_parent=IDENTITY,
    )


def _draw_point(
    names: tuple[str, str, str],
    budget: PixelBudget | None,
    arguments: Mapping[str, JsonValue],
    context: ToolContext,
) -> ToolResult:
    x_argument, y_argument, image_argument = names
    check_names(arguments, names)
    index = read_image(arguments, image_argument)
    context.check_index(index)
    across = _coordinate(arguments, x_argument, "x", index, context)
    down = _coordinate(arguments, y_argument, "y", index, context)
    parent = context.picture(index)
    x = _in_pixels(across, parent.raw.width_px)
    y = _in_pixels(down, parent.raw.height_px)
    radius = max(MINIMUM_RADIUS_PX, round(_shorter_side(parent.raw) * RADIUS_SHARE))
    return ToolResult(
        picture=_with_point(parent, x, y, radius, budget),
        parent=index,
        operation=DRAW_POINT,
        arguments={"x_px": x, "y_px": y, "radius_px": radius, "budget": budget_recipe(budget)},
        raw_to_parent=IDENTITY,
    )


def _shorter_side(size: Size) -> int:
    return min(size.width_px, size.height_px)


def _coordinate(
    arguments: Mapping[str, JsonValue],
    argument: str,
    axis: str,
    index: int,
    context: ToolContext,
) -> tuple[float, float]:
    """A coordinate and the end of its axis, in the protocol's frame; ToolError for one outside."""
    frame = context.frame_of(index)
    end = frame.width if axis == "x" else frame.height
    number = read_number(required(arguments, argument, f"a number from 0 to {end:g}"), argument)
    if not 0 <= number <= end:
        raise ToolError(
            f"{argument!r} lies outside image {index}, whose {axis} goes from 0 to {end:g}, "
            f"got {number:g}"
        )
    return number, end


def _in_pixels(coordinate: tuple[float, float], side_px: int) -> float:
    number, end = coordinate
    return number * side_px / end


def _with_line(
    parent: Picture, axis: str, value: float, width: int, budget: PixelBudget | None
) -> Picture:
    again = partial(_line_pixels, parent, axis, value, width)
    return made_picture(again(), budget=budget, again=again)


def _line_pixels(parent: Picture, axis: str, value: float, width: int) -> "Image.Image":
    image = parent.pixels()
    side = image.width if axis == "x" else image.height
    start = min(max(round(value - width / 2), 0), max(side - width, 0))
    end = min(start + width, side)
    if axis == "x":
        image.paste(RED, (start, 0, end, image.height))
    else:
        image.paste(RED, (0, start, image.width, end))
    return image


def _with_point(
    parent: Picture, x: float, y: float, radius: int, budget: PixelBudget | None
) -> Picture:
    again = partial(_point_pixels, parent, x, y, radius)
    return made_picture(again(), budget=budget, again=again)


def _point_pixels(parent: Picture, x: float, y: float, radius: int) -> "Image.Image":
    from PIL import ImageDraw

    image = parent.pixels()
    draw = ImageDraw.Draw(image)
    # the pixel in which the point lies; the far edges of the image belong to its last pixels
    across, down = min(int(x), image.width - 1), min(int(y), image.height - 1)
    for reach, colour in ((radius + max(1, radius // 3), WHITE), (radius, RED)):
        draw.ellipse((across - reach, down - reach, across + reach, down + reach), fill=colour)
    return image


def remake_line(arguments: Mapping[str, JsonValue], parent: Picture) -> Picture:
    """The image with the line of a recipe, byte for byte; DataError for an invalid recipe."""
    match arguments:
        case {
            "axis": "x" | "y" as axis,
            "value_px": int() | float() as value,
            "width_px": int(width),
            "budget": limits,
            **rest,
        } if not rest:
            side = parent.raw.width_px if axis == "x" else parent.raw.height_px
            if 0 <= value <= side and width >= MINIMUM_LINE_PX:
                return _with_line(parent, str(axis), value, width, read_budget(limits))
    raise no_recipe("a line", arguments, parent)


def remake_point(arguments: Mapping[str, JsonValue], parent: Picture) -> Picture:
    """The image with the point of a recipe, byte for byte; DataError for an invalid recipe."""
    match arguments:
        case {
            "x_px": int() | float() as x,
            "y_px": int() | float() as y,
            "radius_px": int(radius),
            "budget": limits,
            **rest,
        } if not rest:
            inside = 0 <= x <= parent.raw.width_px and 0 <= y <= parent.raw.height_px
            if inside and radius >= MINIMUM_RADIUS_PX:
                return _with_point(parent, x, y, radius, read_budget(limits))
    raise no_recipe("a point", arguments, parent)
