"""The named parts of an image that a sample brings: columns and rows, or the values of a chart."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from medeval.errors import DataError
from medeval.types.sample import JsonValue

# Sides of a box: left, top, right, bottom.
Sides = tuple[float, float, float, float]

AXES: Final = ("x", "y", "column", "row")

# No side of a box is as long; anything longer is no number that can be drawn.
LARGEST: Final = 1e9

# The variables that programs of ReFocus and VTool-R1 take boxes from, and the axis of each.
VARIABLES: Final[Mapping[str, str]] = {
    "columns_bbox": "column",
    "rows_bbox": "row",
    "x_values_bbox": "x",
    "y_values_bbox": "y",
}

# How a prompt calls the names along an axis.
REGION_NAMES: Final[Mapping[str, str]] = {
    "columns": "column",
    "rows": "row",
    "x_values": "x",
    "y_values": "y",
}


@dataclass(frozen=True, slots=True)
class Region:
    """A part of a sample's first image: its axis, its name, its box from 0 to 1 of the image."""

    axis: str
    name: str
    box: Sides


def regions_of(metadata: Mapping[str, JsonValue]) -> tuple[Region, ...]:
    """The regions that a sample's metadata hold under "regions", in order; none where it has none.

    Each is an object of axis, name and box. Raises DataError for anything else.
    """
    listed = metadata.get("regions", [])
    if not isinstance(listed, list):
        raise DataError(f"a sample's regions are a list, not {listed!r}")
    return tuple(_region(entry) for entry in listed)


def _region(entry: JsonValue) -> Region:
    match entry:
        case {"axis": str(axis), "name": str(name), "box": list(box)} if axis in AXES:
            sides = sides_of(box)
            if sides is not None:
                return Region(axis, name, sides)
    raise DataError(
        f"a sample's region is {entry!r}, not an axis, a name and a box of four numbers",
        hint=f"axes are {', '.join(AXES)}; a box is left, top, right, bottom, 0 to 1 of the image",
    )


def region_names(metadata: Mapping[str, JsonValue]) -> dict[str, str]:
    """The names along each axis as a prompt lists them: a Python list, names that recur included.

    >>> region_names({})["columns"]
    '[]'
    """
    regions = regions_of(metadata)
    return {
        called: repr([each.name for each in regions if each.axis == axis])
        for called, axis in REGION_NAMES.items()
    }


def sides_of(box: Sequence[JsonValue]) -> Sides | None:
    """The four finite numbers of a box, or None where it is none."""
    numbers = [
        float(side)
        for side in box
        if isinstance(side, int | float) and not isinstance(side, bool) and abs(side) < LARGEST
    ]
    if len(box) != 4 or len(numbers) != 4:
        return None
    x1, y1, x2, y2 = numbers
    return (x1, y1, x2, y2)


def boxes_of(variable: str, regions: Sequence[Region]) -> dict[str, Sides]:
    """The boxes behind one of the VARIABLES, by name, from 0 to 1 of the image.

    A name that occurs twice keeps the later box in the earlier place, as a Python dictionary
    made of the pairs does. Of a chart, which has values along one axis and neither columns nor
    rows, "columns_bbox" and "rows_bbox" both hold these values, as VTool-R1 binds them: a call
    for the wrong axis is carried out.
    """
    axis = VARIABLES[variable]
    if axis in ("column", "row") and not any(each.axis in ("column", "row") for each in regions):
        axis = "x" if any(each.axis == "x" for each in regions) else "y"
    return {each.name: each.box for each in regions if each.axis == axis}


def in_pixels(box: Sides, width: float, height: float) -> Sides:
    """A box whose sides are shares of an image, in the pixels of that image."""
    x1, y1, x2, y2 = box
    return (x1 * width, y1 * height, x2 * width, y2 * height)
