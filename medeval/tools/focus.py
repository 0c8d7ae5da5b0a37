"""Focus on named columns, rows or values of a chart: highlight them, mask the others, or box them.

The tools of ReFocus (zeyofu/ReFocus_Code at 8412b5f, src/tools.py), of VTool-R1 (VTool-R1/VTool-R1,
"v1") and of its second training code (VTool-R1/training-v2 at 563ef92, recipe/vtool/
refocus_tools.py, "v2"), which IAPO uses too. The three agree in what a tool shows and differ in
insets, strokes and in what an unknown name does: see FocusRules. Upstream, mask and draw change
their input; here an image is never changed, and the reader of Python calls follows the names.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from medeval.errors import ToolError
from medeval.images.picture import Picture, made_picture
from medeval.images.resize import PixelBudget
from medeval.tools.arguments import check_names, image_parameter, required, seen
from medeval.tools.base import Tool, ToolContext, ToolResult
from medeval.tools.focus_images import named_image
from medeval.tools.focus_regions import VARIABLES, Sides, boxes_of, in_pixels, regions_of, sides_of
from medeval.tools.recipes import budget_recipe, no_recipe, read_budget
from medeval.types.geometry import IDENTITY
from medeval.types.sample import JsonValue

if TYPE_CHECKING:
    from PIL import Image

FOCUS: Final = "focus"

Mode: TypeAlias = Literal["mask", "draw", "highlight", "show"]
Axis: TypeAlias = Literal["columns", "rows", "x_values", "y_values"]
Rectangle: TypeAlias = tuple[int, int, int, int]

MODES: Final[tuple[Mode, ...]] = ("mask", "draw", "highlight")
TABLE_AXES: Final[tuple[Axis, ...]] = ("columns", "rows")
CHART_AXES: Final[tuple[Axis, ...]] = ("x_values", "y_values")

# The highlight replaces pixels by this red on a copy that is then laid over the image.
HIGHLIGHT: Final = (255, 0, 0, 50)

# Further outside than any stroke is wide, in pixels.
FAR: Final = 100

# What a tool of each mode does; the mode "show", which paints nothing, is `display` alone.
SHOWN: Final[Mapping[Mode, str]] = {
    "mask": "painting all others white",
    "draw": "drawing a red box around each",
    "highlight": "laying a light transparent red over each",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class FocusRules:
    """What differs between the published versions of the tools.

    `unit` is that of boxes a program writes out itself. `outset_px` is how far the painted
    rectangle reaches beyond a box, in each mode; negative is an inset, applied before sides are
    cut to whole pixels, and then nothing keeps the rectangle inside the image. `unknown` is what
    becomes of a name that has no box, where the mode is not mask: the call fails, or the name is
    passed over. `first_match` says which of several boxes a name is close to counts.
    """

    unit: Literal["relative", "pixels"]
    outset_px: Mapping[Mode, int]
    stroke_px: int
    unknown: Literal["refuse", "skip"]
    first_match: bool

    def rectangle(self, mode: Mode, box: Sides, width: int, height: int) -> Rectangle:
        """The first and the last pixel, along both axes, of what is painted for a box."""
        reach = self.outset_px[mode]
        x1, y1 = int(box[0] - reach), int(box[1] - reach)
        x2, y2 = int(box[2] + reach), int(box[3] + reach)
        if reach > 0:
            return max(0, x1), max(0, y1), min(width, x2), min(height, y2)
        return (*_near(x1, y1, width, height), *_near(x2, y2, width, height))

    def skips(self, mode: Mode, axis: Axis) -> bool:
        """Whether a name without a box, or with one too small, is passed over."""
        # The two functions with a `try` around their loop.
        lenient = (mode, axis) in (("draw", "y_values"), ("highlight", "x_values"))
        return self.unknown == "skip" or lenient


def _near(x: int, y: int, width: int, height: int) -> tuple[int, int]:
    """A corner, moved to where it paints the same pixels if it is far outside the image."""
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
    axes: Sequence[Axis] = TABLE_AXES,
    *,
    budget: PixelBudget | None = None,
) -> tuple[Tool, ...]:
    """The focus tools along some axes: `focus_on_<axis>_with_<mode>`, for each axis and mode."""
    return tuple(focus_tool(axis, mode, rules, budget=budget) for mode in MODES for axis in axes)


def focus_tool(
    axis: Axis, mode: Mode, rules: FocusRules, *, budget: PixelBudget | None = None
) -> Tool:
    """One focus tool, whose boxes are the sample's (`medeval.tools.focus_regions`) or its own."""
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
    """The tool behind `display(image_1)` in a program: the image once more, as it is."""
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
    index = named_image(arguments.get("image", 0), "image", context)
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


def _rules_recipe(rules: FocusRules) -> dict[str, JsonValue]:
    return {**asdict(rules), "outset_px": dict(rules.outset_px)}


def _run(
    axis: Axis,
    mode: Mode,
    rules: FocusRules,
    budget: PixelBudget | None,
    arguments: Mapping[str, JsonValue],
    context: ToolContext,
) -> ToolResult:
    check_names(arguments, ("image", "names", "boxes"))
    index = named_image(arguments.get("image", 0), "image", context)
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


def _names(value: JsonValue, mode: Mode, rules: FocusRules) -> list[str]:
    if not isinstance(value, list):
        raise ToolError(f"'names' is a list of names, not {seen(value)}")
    names = [name for name in value if isinstance(name, str)]
    # What is no string is the name of no box, and treated as such.
    if len(names) < len(value) and mode != "mask" and rules.unknown == "refuse":
        raise ToolError(f"'names' is a list of strings, not {seen(value)}")
    return names


def _boxes(
    value: JsonValue, rules: FocusRules, context: ToolContext
) -> tuple[dict[str, Sides], bool]:
    """The boxes that a call works with, and whether they are shares of its image or pixels."""
    if isinstance(value, str) and value in VARIABLES:
        return boxes_of(value, regions_of(context.metadata)), True
    if not isinstance(value, dict):
        raise ToolError(f"'boxes' is one of {', '.join(VARIABLES)}, not {seen(value)}")
    return {name: _written(box) for name, box in value.items()}, rules.unit == "relative"


def _written(box: JsonValue) -> Sides:
    """A box as a program writes it out."""
    corners = ("x1", "y1", "x2", "y2")
    given = [box.get(corner) for corner in corners] if isinstance(box, dict) else []
    sides = sides_of(given)
    if sides is None:
        raise ToolError(f"a box is {{'x1': ..., 'y1': ..., 'x2': ..., 'y2': ...}}, not {seen(box)}")
    return sides


def _chosen(
    axis: Axis,
    mode: Mode,
    rules: FocusRules,
    names: Sequence[str],
    boxes: Mapping[str, Sides],
) -> tuple[list[str], list[str]]:
    """The names that are focused on, and those whose boxes are painted for it."""
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
    axis: Axis, names: Sequence[str], boxes: Mapping[str, Sides]
) -> tuple[list[str], list[str]]:
    """All but the named boxes, and but the first row, which is the header; none where all are."""
    open_to_mask = list(boxes)[1:] if axis == "rows" else list(boxes)
    hidden = [name for name in open_to_mask if name not in names]
    focused = [name for name in boxes if name in names]
    return (focused, hidden) if len(hidden) < len(open_to_mask) else ([], [])


def _close_to(name: str, boxes: Mapping[str, Sides], rules: FocusRules) -> str:
    """The name of a box that holds a name or is part of it; the name itself where none is."""
    if rules.first_match:
        if name in boxes:
            return name
        return next((other for other in boxes if name in other or other in name), name)
    for other in boxes:
        # As published: each match is what the next is compared with.
        if name in other or other in name:
            name = other
    return name


def _rectangles(
    axis: Axis, mode: Mode, rules: FocusRules, boxes: Sequence[Sides], parent: Picture
) -> list[Rectangle]:
    found: list[Rectangle] = []
    for box in boxes:
        rectangle = rules.rectangle(mode, box, parent.raw.width_px, parent.raw.height_px)
        if rectangle[0] <= rectangle[2] and rectangle[1] <= rectangle[3]:
            found.append(rectangle)
        # Pillow refuses to draw a rectangle that ends before it starts.
        elif not (rules.unknown == "refuse" and rules.skips(mode, axis)):
            raise ToolError("a box is too small to be painted")
    return found


def _focused(
    parent: Picture,
    mode: Mode,
    rectangles: Sequence[Rectangle],
    stroke_px: int,
    budget: PixelBudget | None,
) -> Picture:
    again = partial(_pixels, parent, mode, rectangles, stroke_px)
    return made_picture(again(), budget=budget, again=again)


def _pixels(
    parent: Picture, mode: Mode, rectangles: Sequence[Rectangle], stroke_px: int
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
    """The focused image that a recipe describes, byte for byte; DataError for any other recipe."""
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


def _painted(entry: JsonValue) -> Rectangle | None:
    match entry:
        case [int(x1), int(y1), int(x2), int(y2)] if x1 <= x2 and y1 <= y2:
            return x1, y1, x2, y2
    return None
