"""Focus on named columns, rows or values of a chart: highlight them, box them, or mask the others.

These are the tools of ReFocus (zeyofu/ReFocus_Code at 8412b5f, src/tools.py), of VTool-R1
(VTool-R1/VTool-R1, "v1") and of its second training code (VTool-R1/training-v2 at 563ef92,
recipe/vtool/refocus_tools.py, "v2"), which IAPO uses too. The three differ in insets, strokes and
what happens to an unknown name: see FocusRules. The published tools mask and draw change their
input; here no image is changed, and the reader of Python calls keeps track of the variables.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from medeval.errors import ToolError
from medeval.images.picture import Picture, made_picture
from medeval.images.resize import PixelBudget
from medeval.tools.arguments import check_names, image_parameter, read_index, required, seen
from medeval.tools.base import Tool, ToolContext, ToolResult, budget_recipe, no_recipe, read_budget
from medeval.tools.focus_regions import (
    BOX_VARIABLES,
    Sides,
    boxes_of,
    in_pixels,
    regions_of,
    sides_of,
)
from medeval.types.geometry import IDENTITY
from medeval.types.sample import JsonValue

if TYPE_CHECKING:
    from PIL import Image

FOCUS: Final = "focus"

FocusMode: TypeAlias = Literal["mask", "draw", "highlight", "show"]
FocusAxis: TypeAlias = Literal["columns", "rows", "x_values", "y_values"]
PaintedRectangle: TypeAlias = tuple[int, int, int, int]

MODES: Final[tuple[FocusMode, ...]] = ("mask", "draw", "highlight")
TABLE_AXES: Final[tuple[FocusAxis, ...]] = ("columns", "rows")
CHART_AXES: Final[tuple[FocusAxis, ...]] = ("x_values", "y_values")

# The colour of the highlight, on a copy that is blended with the image.
HIGHLIGHT: Final = (255, 0, 0, 50)

# Pixels outside the image beyond which a corner's place no longer matters: no stroke is as wide.
FAR: Final = 100

# Names of images in programs: `image_1` is the sample's first, `result_1` the first call's.
IMAGE_NAME: Final = re.compile(r"(image|result)_([1-9][0-9]{0,5})")

# How a tool of each mode focuses, for its description; "show" paints nothing and is `display`'s.
SHOWN: Final[Mapping[FocusMode, str]] = {
    "mask": "painting all others white",
    "draw": "drawing a red box around each",
    "highlight": "laying a light transparent red over each",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class FocusRules:
    """What differs between the published versions of the tools.

    `unit` is the unit of boxes that a program writes out itself. `outset_px` is how far, in each
    mode, the painted rectangle reaches beyond the box; a negative one is an inset, after which the
    rectangle may leave the image. `stroke_px` is the width of a drawn box. `unknown` says what a
    name without a box does in the modes other than mask: it fails the call, or it is skipped.
    `first_match` takes the first of several boxes whose names are close to a name, else the last.
    """

    unit: Literal["relative", "pixels"]
    outset_px: Mapping[FocusMode, int]
    stroke_px: int
    unknown: Literal["refuse", "skip"]
    first_match: bool

    def rectangle(self, mode: FocusMode, box: Sides, width: int, height: int) -> PaintedRectangle:
        """The first and the last pixel, along both axes, of what is painted for a box."""
        reach = self.outset_px[mode]
        x1, y1 = int(box[0] - reach), int(box[1] - reach)
        x2, y2 = int(box[2] + reach), int(box[3] + reach)
        if reach > 0:
            return max(0, x1), max(0, y1), min(width, x2), min(height, y2)
        return (*_near(x1, y1, width, height), *_near(x2, y2, width, height))

    def skips(self, mode: FocusMode, axis: FocusAxis) -> bool:
        """Whether a name without a box, or with too small a box, is skipped."""
        # in the published code these two functions have a `try` around their loop
        lenient = (mode, axis) in (("draw", "y_values"), ("highlight", "x_values"))
        return self.unknown == "skip" or lenient


def _near(x: int, y: int, width: int, height: int) -> tuple[int, int]:
    """A corner; one far outside the image is moved nearer, where it paints the same pixels."""
    return min(max(x, -FAR), width + FAR), min(max(y, -FAR), height + FAR)


REFOCUS: Final = FocusRules(
    unit="relative",
    outset_px={"mask": -2, "draw": -2, "highlight": -2},
    stroke_px=5,
    unknown="refuse",
    first_match=False,
)
VTOOL_V1: Final = FocusRules(
    unit="pixels",
    outset_px={"mask": -2, "draw": -2, "highlight": -2},
    stroke_px=5,
    unknown="refuse",
    first_match=False,
)
VTOOL_V2: Final = FocusRules(
    unit="pixels",
    outset_px={"mask": 1, "draw": 2, "highlight": 2},
    stroke_px=3,
    unknown="skip",
    first_match=True,
)


def focus_tools(
    rules: FocusRules,
    axes: Sequence[FocusAxis] = TABLE_AXES,
    *,
    budget: PixelBudget | None = None,
) -> tuple[Tool, ...]:
    """The focus tools `focus_on_<axis>_with_<mode>`, for each of the axes and each mode."""
    return tuple(focus_tool(axis, mode, rules, budget=budget) for mode in MODES for axis in axes)


def focus_tool(
    axis: FocusAxis, mode: FocusMode, rules: FocusRules, *, budget: PixelBudget | None = None
) -> Tool:
    """One focus tool. A call's boxes are the sample's regions, or written out in the call."""
    what = axis.replace("_", " ")
    return Tool(
        name=f"focus_on_{axis}_with_{mode}",
        description=(
            f"Focus on some {what} of an image by {SHOWN[mode]}. The result is shown to you as a "
            "new image of the same size."
        ),
        parameters={
            "type": "object",
            "properties": {
                "names": {
                    "type": "array",
                    "items": {"type": "string"},
                    "description": f"The {what} to focus on, by the names you were given.",
                },
                "image": image_parameter("work on"),
            },
            "required": ["names"],
            "additionalProperties": False,
        },
        run=partial(_run, axis, mode, rules, budget),
        settings={"rules": _rules_recipe(rules), "budget": budget_recipe(budget)},
        by_size=True,
    )


def display(*, budget: PixelBudget | None = None) -> Tool:
    """The tool behind `display(image_1)` in a program: it shows an image once more, unchanged."""
    return Tool(
        name="display",
        description="Show an image once more, as it is.",
        parameters={
            "type": "object",
            "properties": {"image": image_parameter("show")},
            "required": [],
            "additionalProperties": False,
        },
        run=partial(_display, budget),
        settings={"budget": budget_recipe(budget)},
        by_size=True,
    )


def _display(
    budget: PixelBudget | None, arguments: Mapping[str, JsonValue], context: ToolContext
) -> ToolResult:
    check_names(arguments, ("image",))
    index = _named_image(arguments.get("image", 0), "image", context)
    return ToolResult(
        picture=_focused(context.picture(index), "show", [], 0, budget),
        parent=index,
        operation=FOCUS,
        arguments={
            "mode": "show",
            "painted_px": [],
            "stroke_px": 0,
            "budget": budget_recipe(budget),
            "axis": "",
            "names": [],
            "focused_px": [],
        },
        raw_to_parent=IDENTITY,
    )


def _named_image(value: JsonValue, argument: str, context: ToolContext) -> int:
    """The index of the image that a call means by an index or a name; ToolError without one."""
    if not isinstance(value, str):
        return read_index(value, argument)
    name = IMAGE_NAME.fullmatch(value)
    if name is None:
        raise ToolError(f"{argument!r} is an image, not {seen(value)}")
    place = int(name[2]) - 1
    if name[1] == "image":
        if place >= context.n_originals:
            raise ToolError(f"there is no {value}; the last is image_{context.n_originals}")
        return place
    made = context.earlier[place] if place < len(context.earlier) else None
    if made is None:
        raise ToolError("the call that was to make this image made none")
    return made


def _rules_recipe(rules: FocusRules) -> dict[str, JsonValue]:
    return {**asdict(rules), "outset_px": dict(rules.outset_px)}


def _run(
    axis: FocusAxis,
    mode: FocusMode,
    rules: FocusRules,
    budget: PixelBudget | None,
    arguments: Mapping[str, JsonValue],
    context: ToolContext,
) -> ToolResult:
    check_names(arguments, ("image", "names", "boxes"))
    index = _named_image(arguments.get("image", 0), "image", context)
    context.check_index(index)
    if context.raw_to_root and context.raw_to_root[index] != IDENTITY:
        raise ToolError(
            f"the {axis.replace('_', ' ')} of image {index} are not known: focus on an image that "
            "you were given, or on one that a focus tool made from it"
        )
    names = _names(required(arguments, "names", "a list of names"), mode, rules)
    sides, are_shares = _boxes(arguments.get("boxes", f"{axis}_bbox"), rules, context)
    focused, painted = _chosen(axis, mode, rules, names, sides)
    parent = context.picture(index)
    scale = (parent.raw.width_px, parent.raw.height_px) if are_shares else (1, 1)
    boxes = {name: in_pixels(box, *scale) for name, box in sides.items()}
    rectangles = _rectangles(axis, mode, rules, [boxes[name] for name in painted], parent)
    recipe: dict[str, JsonValue] = {
        "mode": mode,
        "painted_px": [list(rectangle) for rectangle in rectangles],
        "stroke_px": rules.stroke_px,
        "budget": budget_recipe(budget),
        "axis": axis,
        "names": list(focused),
        "focused_px": [list(boxes[name]) for name in focused],
    }
    return ToolResult(
        picture=_focused(parent, mode, rectangles, rules.stroke_px, budget),
        parent=index,
        operation=FOCUS,
        arguments=recipe,
        raw_to_parent=IDENTITY,
    )


def _names(value: JsonValue, mode: FocusMode, rules: FocusRules) -> list[str]:
    if not isinstance(value, list):
        raise ToolError(f"'names' is a list of names, not {seen(value)}")
    names = [name for name in value if isinstance(name, str)]
    # a name that is no string has no box, and counts as an unknown name
    if len(names) < len(value) and mode != "mask" and rules.unknown == "refuse":
        raise ToolError(f"'names' is a list of strings, not {seen(value)}")
    return names


def _boxes(
    value: JsonValue, rules: FocusRules, context: ToolContext
) -> tuple[dict[str, Sides], bool]:
    """The boxes of a call by name, and whether their sides are shares of the image, not pixels."""
    if isinstance(value, str) and value in BOX_VARIABLES:
        return boxes_of(value, regions_of(context.metadata)), True
    if not isinstance(value, dict):
        raise ToolError(f"'boxes' is one of {', '.join(BOX_VARIABLES)}, not {seen(value)}")
    return {name: _written(box) for name, box in value.items()}, rules.unit == "relative"


def _written(box: JsonValue) -> Sides:
    """The sides of a box that a program wrote out; ToolError for anything else."""
    corners = ("x1", "y1", "x2", "y2")
    given = [box.get(corner) for corner in corners] if isinstance(box, dict) else []
    sides = sides_of(given)
    if sides is None:
        raise ToolError(f"a box is {{'x1': ..., 'y1': ..., 'x2': ..., 'y2': ...}}, not {seen(box)}")
    return sides


def _chosen(
    axis: FocusAxis,
    mode: FocusMode,
    rules: FocusRules,
    names: Sequence[str],
    boxes: Mapping[str, Sides],
) -> tuple[list[str], list[str]]:
    """The names that the call focuses on, and the names whose boxes it paints for that."""
    if not names or not boxes:
        return [], []
    if mode == "mask":
        return _masked(axis, names, boxes)
    fuzzy = (mode, axis) == ("draw", "y_values")
    found: list[str] = []
    for name in names:
        match = _close_to(name, boxes, rules) if fuzzy else name
        if match in boxes:
            found.append(match)
        elif not rules.skips(mode, axis):
            raise ToolError(
                f"there is no box for {seen(name)}; there are boxes for {seen(list(boxes))}"
            )
    found = list(dict.fromkeys(found))
    return found, found


def _masked(
    axis: FocusAxis, names: Sequence[str], boxes: Mapping[str, Sides]
) -> tuple[list[str], list[str]]:
    """The names that stay visible, and all others, which are masked.

    The first row is the header and is not masked. Where no name has a box, nothing is masked.
    """
    maskable = list(boxes)[1:] if axis == "rows" else list(boxes)
    masked = [name for name in maskable if name not in names]
    focused = [name for name in boxes if name in names]
    return (focused, masked) if len(masked) < len(maskable) else ([], [])


def _close_to(name: str, boxes: Mapping[str, Sides], rules: FocusRules) -> str:
    """The name of a box that contains a name or is contained in it; else the name itself."""
    if rules.first_match:
        if name in boxes:
            return name
        return next((other for other in boxes if name in other or other in name), name)
    for other in boxes:
        # as published: later names are compared with the match, not with the name of the call
        if name in other or other in name:
            name = other
    return name


def _rectangles(
    axis: FocusAxis, mode: FocusMode, rules: FocusRules, boxes: Sequence[Sides], parent: Picture
) -> list[PaintedRectangle]:
    found: list[PaintedRectangle] = []
    for box in boxes:
        rectangle = rules.rectangle(mode, box, parent.raw.width_px, parent.raw.height_px)
        if rectangle[0] <= rectangle[2] and rectangle[1] <= rectangle[3]:
            found.append(rectangle)
        # the published tools fail here: Pillow draws no rectangle that ends before it starts
        elif not (rules.unknown == "refuse" and rules.skips(mode, axis)):
            raise ToolError("a box is too small to be painted")
    return found


def _focused(
    parent: Picture,
    mode: FocusMode,
    rectangles: Sequence[PaintedRectangle],
    stroke_px: int,
    budget: PixelBudget | None,
) -> Picture:
    again = partial(_pixels, parent, mode, rectangles, stroke_px)
    return made_picture(again(), budget=budget, again=again)


def _pixels(
    parent: Picture, mode: FocusMode, rectangles: Sequence[PaintedRectangle], stroke_px: int
) -> "Image.Image":
    from PIL import Image, ImageDraw

    image = parent.pixels()
    if not rectangles:
        return image
    if mode != "highlight":
        draw = ImageDraw.Draw(image)
        for rectangle in rectangles:
            if mode == "mask":
                draw.rectangle(rectangle, fill="white")
            else:
                draw.rectangle(rectangle, outline="red", width=stroke_px)
        return image
    below = image.convert("RGBA")
    above = below.copy()
    draw = ImageDraw.Draw(above)
    for rectangle in rectangles:
        draw.rectangle(rectangle, fill=HIGHLIGHT)
    return Image.alpha_composite(below, above).convert("RGB")


def remake_focus(arguments: Mapping[str, JsonValue], parent: Picture) -> Picture:
    """The focused image of a recipe, byte for byte; DataError for an invalid recipe."""
    match arguments:
        case {
            "mode": "mask" | "draw" | "highlight" | "show" as mode,
            "painted_px": list(painted),
            "stroke_px": int(stroke_px),
            "budget": limits,
            "axis": str(),
            "names": list(),
            "focused_px": list(),
            **rest,
        } if not rest and stroke_px >= 0:
            rectangles = [_painted(entry) for entry in painted]
            kept = [rectangle for rectangle in rectangles if rectangle is not None]
            if len(kept) == len(rectangles):
                return _focused(parent, mode, kept, stroke_px, read_budget(limits))
    raise no_recipe("a focused image", arguments, parent)


def _painted(entry: JsonValue) -> PaintedRectangle | None:
    match entry:
        case [int(x1), int(y1), int(x2), int(y2)] if x1 <= x2 and y1 <= y2:
            return x1, y1, x2, y2
    return None
