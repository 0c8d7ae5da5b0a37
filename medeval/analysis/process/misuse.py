"""Whether a tool that focuses on rows or columns fits the chart: IAPO's misuse.

A chart of vertical bars divides into columns, one of horizontal bars into rows. The authors counted
on 256 charts that they chose by hand. The labels here are those of ReFocus's own files (group
`bars`), so the totals are over other charts than theirs.
"""

import re
from collections.abc import Mapping
from typing import Final, Literal, TypeAlias

from medeval.types.trajectory import ToolCall

ChartAxis: TypeAlias = Literal["columns", "rows"]

# The axis along which a chart of these bars divides.
AXIS_OF_BARS: Final[Mapping[str, ChartAxis]] = {"vertical": "columns", "horizontal": "rows"}
FOCUS: Final = "focus_on_"
# A call of a focus tool in Python code.
WRITTEN: Final = re.compile(r"\b(focus_on_\w+)\s*\(")
# How the published tools name what they focus on, in tables and in charts.
AXIS_OF_NAME: Final[Mapping[str, ChartAxis]] = {
    "columns": "columns",
    "x_values": "columns",
    "rows": "rows",
    "y_values": "rows",
}

# How ReFocus's files name the axis of a region.
AXIS_OF_REGION: Final[Mapping[str, ChartAxis]] = {
    "x": "columns",
    "column": "columns",
    "y": "rows",
    "row": "rows",
}


def axis_of_chart(groups: Mapping[str, str]) -> ChartAxis | None:
    """The axis along which a chart divides, by its group `bars`; None without that group."""
    return AXIS_OF_BARS.get(groups.get("bars", ""))


def axis_of_tool(name: str | None) -> ChartAxis | None:
    """The axis along which a tool focuses, by its name; None for any other tool.

    >>> axis_of_tool("focus_on_x_values_with_mask"), axis_of_tool("crop_and_zoom")
    ('columns', None)
    """
    if name is None or not name.startswith(FOCUS):
        return None
    return AXIS_OF_NAME.get(name.removeprefix(FOCUS).partition("_with_")[0])


def attempted_tools(call: ToolCall) -> list[str]:
    """The tool that a call names, or the focus tools in a block of code that was not understood.

    IAPO counts the calls that a block contains, whether it runs or not.
    """
    return [call.name] if call.name is not None else WRITTEN.findall(call.raw_text)


def is_misuse(tool: str | None, groups: Mapping[str, str]) -> bool | None:
    """Whether a call focuses along the wrong axis; None where tool or chart has no axis."""
    used, right = axis_of_tool(tool), axis_of_chart(groups)
    return None if used is None or right is None else used != right
