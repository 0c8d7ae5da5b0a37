"""The named regions of a sample's image: columns and rows of a table, or values of a chart."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from medeval.errors import DataError
from medeval.types.sample import JsonValue

# Sides of a box: left, top, right, bottom.
Sides = tuple[float, float, float, float]

AXES: Final = ("x", "y", "column", "row")

# Larger numbers are no side of a box: they cannot be drawn.
LARGEST_SIDE: Final = 1e9

# The variables of ReFocus' and VTool-R1's programs that hold boxes, and the axis of each.
BOX_VARIABLES: Final[Mapping[str, str]] = {
    "columns_bbox": "column",
    "rows_bbox": "row",
    "x_values_bbox": "x",
    "y_values_bbox": "y",
}

# The placeholders of a prompt that stand for the names of regions, and the axis of each.
NAME_PLACEHOLDERS: Final[Mapping[str, str]] = {
    "columns": "column",
    "rows": "row",
    "x_values": "x",
    "y_values": "y",
}


@dataclass(frozen=True, slots=True)
class NamedRegion:
    """A named part of a sample's first image; the sides of its box are shares, from 0 to 1."""

    axis: str
    name: str
    box: Sides


def regions_of(metadata: Mapping[str, JsonValue]) -> tuple[NamedRegion, ...]:
    """The regions under "regions" in a sample's metadata, in order; empty without any.

    Each is an object with an axis, a name and a box. Raises DataError for anything else.
    """
    listed = metadata.get("regions", [])
    if not isinstance(listed, list):
        raise DataError(f"a sample's regions are a list, not {listed!r}")
    return tuple(_region(entry) for entry in listed)


def _region(entry: JsonValue) -> NamedRegion:
    match entry:
        case {"axis": str(axis), "name": str(name), "box": list(box)} if axis in AXES:
            sides = sides_of(box)
            if sides is not None:
                return NamedRegion(axis, name, sides)
    raise DataError(
        f"a sample's region is {entry!r}, not an axis, a name and a box of four numbers",
        hint=f"axes are {', '.join(AXES)}; a box is left, top, right, bottom, 0 to 1 of the image",
    )


def region_names(metadata: Mapping[str, JsonValue]) -> dict[str, str]:
    """For each placeholder the names along its axis, written as a Python list with repetitions.

    >>> region_names({})["columns"]
    '[]'
    """
    regions = regions_of(metadata)
    return {
        placeholder: repr([region.name for region in regions if region.axis == axis])
        for placeholder, axis in NAME_PLACEHOLDERS.items()
    }


def sides_of(box: Sequence[JsonValue]) -> Sides | None:
    """The four finite numbers of a box; None for anything else."""
    numbers = [
        float(side)
        for side in box
        if isinstance(side, int | float) and not isinstance(side, bool) and abs(side) < LARGEST_SIDE
    ]
    if len(box) != 4 or len(numbers) != 4:
        return None
    x1, y1, x2, y2 = numbers
    return (x1, y1, x2, y2)


def boxes_of(variable: str, regions: Sequence[NamedRegion]) -> dict[str, Sides]:
    """The boxes in one of the BOX_VARIABLES by name, with sides from 0 to 1.

    A name that occurs twice has its later box in its earlier place, as in a Python dictionary. A
    chart has values along one axis, and neither columns nor rows: as in VTool-R1, "columns_bbox"
    and "rows_bbox" both hold these values, so that a call for the wrong axis is carried out.
    """
    axis = BOX_VARIABLES[variable]
    axes = {region.axis for region in regions}
    if axis in ("column", "row") and not axes & {"column", "row"}:
        axis = "x" if "x" in axes else "y"
    return {region.name: region.box for region in regions if region.axis == axis}


def in_pixels(box: Sides, width: float, height: float) -> Sides:
    """A box in pixels, from one whose sides are shares of the image's `width` and `height`."""
    x1, y1, x2, y2 = box
    return (x1 * width, y1 * height, x2 * width, y2 * height)
