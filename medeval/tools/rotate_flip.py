"""Rotate and flip: the tools that turn an image by right angles, or mirror it."""

from collections.abc import Callable, Mapping
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
    seen,
)
from medeval.tools.base import Tool, ToolContext, ToolResult, budget_recipe, no_recipe, read_budget
from medeval.types.geometry import Affine, Size
from medeval.types.sample import JsonValue

if TYPE_CHECKING:
    from PIL import Image

ROTATE: Final = "rotate"
FLIP: Final = "flip"

ANGLES: Final = (90, 180, 270)
DIRECTIONS: Final = ("horizontal", "vertical")
ANGLE: Final = "an angle in degrees, clockwise: 90, 180 or 270"
DIRECTION: Final = '"horizontal" or "vertical"'


def rotate(
    *,
    name: str = "rotate",
    angle_argument: str = "angle",
    image_argument: str = "image_index",
    budget: PixelBudget | None = None,
) -> Tool:
    """The tool that turns an image by 90, 180 or 270 degrees; a positive angle is clockwise.

    An angle is taken modulo 360, so that -90 is 270; 0 and any other angle are refused. The image
    is turned at its raw size, and sent within `budget` (None: not resized).
    """
    return Tool(
        name=name,
        description=(
            "Turn an image by a right angle, for instance to set a page upright. The result is "
            "shown to you as a new image; at 90 and 270 degrees its width and height change places."
        ),
        parameters={
            "type": "object",
            "properties": {
                angle_argument: {
                    "type": "integer",
                    "enum": [90, 180, 270, -90, -180, -270],
                    "description": (
                        "By how many degrees to turn. Positive is clockwise: 90 brings the left "
                        "edge to the top. Negative is counter-clockwise."
                    ),
                },
                image_argument: image_parameter("turn"),
            },
            "required": [angle_argument],
            "additionalProperties": False,
        },
        run=partial(_rotate, angle_argument, image_argument, budget),
        settings={"budget": budget_recipe(budget)},
        by_size=True,
    )


def flip(
    *,
    name: str = "flip",
    direction_argument: str = "direction",
    image_argument: str = "image_index",
    budget: PixelBudget | None = None,
) -> Tool:
    """The tool that mirrors an image: left to right ("horizontal") or top to bottom ("vertical").

    The image is mirrored at its raw size, and sent within `budget` (None: not resized).
    """
    return Tool(
        name=name,
        description=(
            "Mirror an image, for instance to read mirrored text. The result is shown to you as a "
            "new image of the same size."
        ),
        parameters={
            "type": "object",
            "properties": {
                direction_argument: {
                    "type": "string",
                    "enum": list(DIRECTIONS),
                    "description": (
                        "horizontal: the left and right sides change places. "
                        "vertical: the top and the bottom change places."
                    ),
                },
                image_argument: image_parameter("mirror"),
            },
            "required": [direction_argument],
            "additionalProperties": False,
        },
        run=partial(_flip, direction_argument, image_argument, budget),
        settings={"budget": budget_recipe(budget)},
        by_size=True,
    )


def _rotate(
    angle_argument: str,
    image_argument: str,
    budget: PixelBudget | None,
    arguments: Mapping[str, JsonValue],
    context: ToolContext,
) -> ToolResult:
    check_names(arguments, (angle_argument, image_argument))
    index = read_image(arguments, image_argument)
    context.check_index(index)
    angle = _right_angle(required(arguments, angle_argument, ANGLE), angle_argument)
    parent = context.picture(index)
    return ToolResult(
        picture=_turned(parent, angle, budget),
        parent=index,
        operation=ROTATE,
        arguments={"degrees_clockwise": angle, "budget": budget_recipe(budget)},
        raw_to_parent=rotated_to_upright(angle, parent.raw),
    )


def _right_angle(value: JsonValue, argument: str) -> int:
    number = read_number(value, argument)
    angle = number % 360
    if angle not in ANGLES:
        raise ToolError(f"{argument!r} is {ANGLE}; not {seen(value)}")
    return int(angle)


def _flip(
    direction_argument: str,
    image_argument: str,
    budget: PixelBudget | None,
    arguments: Mapping[str, JsonValue],
    context: ToolContext,
) -> ToolResult:
    check_names(arguments, (direction_argument, image_argument))
    index = read_image(arguments, image_argument)
    context.check_index(index)
    direction = read_choice(
        required(arguments, direction_argument, DIRECTION), direction_argument, DIRECTIONS
    )
    parent = context.picture(index)
    return ToolResult(
        picture=_mirrored(parent, direction, budget),
        parent=index,
        operation=FLIP,
        arguments={"direction": direction, "budget": budget_recipe(budget)},
        raw_to_parent=flipped_to_upright(direction, parent.raw),
    )


def rotated_to_upright(degrees_clockwise: int, upright: Size) -> Affine:
    """The map from pixels of a turned image to those of the original, of the size `upright`.

    >>> rotated_to_upright(90, Size(30, 10)).apply(10, 0)
    (0.0, 0.0)
    """
    width, height = float(upright.width_px), float(upright.height_px)
    match degrees_clockwise:
        case 90:
            return Affine(0.0, 1.0, 0.0, -1.0, 0.0, height)
        case 180:
            return Affine(-1.0, 0.0, width, 0.0, -1.0, height)
        case _:
            return Affine(0.0, -1.0, width, 1.0, 0.0, 0.0)


def flipped_to_upright(direction: str, upright: Size) -> Affine:
    """The map from pixels of a mirrored image to those of the original, of the size `upright`.

    >>> flipped_to_upright("horizontal", Size(30, 10)).apply(30, 4)
    (0.0, 4.0)
    """
    if direction == "horizontal":
        return Affine(-1.0, 0.0, float(upright.width_px), 0.0, 1.0, 0.0)
    return Affine(1.0, 0.0, 0.0, 0.0, -1.0, float(upright.height_px))


def _turned(parent: Picture, angle: int, budget: PixelBudget | None) -> Picture:
    from PIL.Image import Transpose

    # Pillow names a rotation by its angle counter-clockwise.
    turns = {90: Transpose.ROTATE_270, 180: Transpose.ROTATE_180, 270: Transpose.ROTATE_90}
    return _transposed(parent, turns[angle], budget)


def _mirrored(parent: Picture, direction: str, budget: PixelBudget | None) -> Picture:
    from PIL.Image import Transpose

    mirrors = {
        "horizontal": Transpose.FLIP_LEFT_RIGHT,
        "vertical": Transpose.FLIP_TOP_BOTTOM,
    }
    return _transposed(parent, mirrors[direction], budget)


def _transposed(
    parent: Picture, transposition: "Image.Transpose", budget: PixelBudget | None
) -> Picture:
    again: Callable[[], Image.Image] = partial(_pixels, parent, transposition)
    return made_picture(again(), budget=budget, again=again)


def _pixels(parent: Picture, transposition: "Image.Transpose") -> "Image.Image":
    return parent.pixels().transpose(transposition)


def remake_rotate(arguments: Mapping[str, JsonValue], parent: Picture) -> Picture:
    """The turned image that a recipe describes, byte for byte; DataError for an invalid recipe."""
    match arguments:
        case {"degrees_clockwise": int(angle), "budget": limits, **rest} if not rest:
            if angle in ANGLES:
                return _turned(parent, angle, read_budget(limits))
    raise no_recipe("a rotation", arguments, parent)


def remake_flip(arguments: Mapping[str, JsonValue], parent: Picture) -> Picture:
    """The mirrored image of a recipe, byte for byte; DataError for an invalid recipe."""
    match arguments:
        case {"direction": str(direction), "budget": limits, **rest} if not rest:
            if direction in DIRECTIONS:
                return _mirrored(parent, direction, read_budget(limits))
    raise no_recipe("a flip", arguments, parent)
