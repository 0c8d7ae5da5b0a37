"""Misuse of focus tools, counted on a set made by hand."""

from dataclasses import replace

import pytest

from medeval.analysis.process.measures import measured
from medeval.analysis.process.misuse import axis_of_chart, axis_of_tool, is_misuse
from medeval.types.sample import Sample
from medeval.types.trajectory import CallStatus, ToolCall
from tests.analysis.process.conversations import SAMPLE, played

COLUMNS = "focus_on_columns_with_mask"
ROWS = "focus_on_rows_with_draw"
X, Y = "focus_on_x_values_with_highlight", "focus_on_y_values_with_draw"

# bars, then each call with its status: executed, rejected or over_limit
SET: list[tuple[str, list[tuple[str, CallStatus]]]] = [
    ("vertical", [(COLUMNS, "executed")]),
    ("vertical", [(ROWS, "executed")]),
    ("vertical", [(ROWS, "rejected")]),
    ("vertical", [(COLUMNS, "executed"), (Y, "executed"), (ROWS, "over_limit")]),
    ("horizontal", [(ROWS, "executed"), (Y, "rejected")]),
    ("horizontal", [(X, "executed")]),
    ("horizontal", []),
    ("horizontal", [("crop_and_zoom", "executed")]),
]


KINDS = ("focus", "misused", "wrong")


def counts(bars: str, calls: list[tuple[str, CallStatus]]) -> dict[str, float]:
    sample = replace(SAMPLE, groups={"bars": bars})
    made = tuple(
        ToolCall(turn=at, name=name, raw_text="", arguments={}, status=status)
        for at, (name, status) in enumerate(calls)
    )
    found = measured(replace(played(sample=sample), calls=made), sample).values
    return {name: value for name, value in found.items() if name.split("_")[0] in KINDS}


def test_the_set_by_hand() -> None:
    found = [counts(bars, calls) for bars, calls in SET]
    names = [name for name in found[0] if name != "wrong_axis"]
    totals = {name: sum(each[name] for each in found) for name in names}
    assert totals == {
        "focus_attempted": 9,
        "misused_attempted": 5,
        "focus_executed": 6,
        "misused_executed": 3,
        "misused": 4,
    }
    assert sum("wrong_axis" in each for each in found) == 6


def test_calls_in_a_block_that_could_not_be_followed_are_attempted() -> None:
    code = (
        "```python\nimport os\na = focus_on_rows_with_mask(image_1, ['x'], rows_bbox)\n"
        "b = focus_on_columns_with_draw (a, [], columns_bbox)\n```"
    )
    sample = replace(SAMPLE, groups={"bars": "vertical"})
    block = ToolCall(turn=0, name=None, raw_text=code, arguments=None, status="malformed")
    found = measured(replace(played(sample=sample), calls=(block,)), sample).values
    assert (found["focus_attempted"], found["misused_attempted"]) == (2, 1)
    assert (found["focus_executed"], found["wrong_axis"]) == (0, 1.0)


@pytest.mark.parametrize(
    ("tool", "axis"),
    [
        (COLUMNS, "columns"),
        (X, "columns"),
        (ROWS, "rows"),
        (Y, "rows"),
        ("focus_on_cells_with_mask", None),
        ("rows", None),
        ("crop_and_zoom", None),
        (None, None),
    ],
)
def test_a_tools_name_tells_its_axis(tool: str | None, axis: str | None) -> None:
    assert axis_of_tool(tool) == axis


@pytest.mark.parametrize("groups", [{}, {"bars": "stacked"}, {"kind": "vertical"}])
def test_without_bars_of_a_direction_nothing_is_misuse(groups: dict[str, str]) -> None:
    assert axis_of_chart(groups) is None
    assert is_misuse(ROWS, groups) is None
    sample: Sample = replace(SAMPLE, groups=groups)
    assert "misused" not in measured(played(sample=sample), sample).values


@pytest.mark.parametrize("tool", [COLUMNS, ROWS, X, Y])
def test_what_is_wrong_for_one_direction_is_right_for_the_other(tool: str) -> None:
    assert is_misuse(tool, {"bars": "vertical"}) != is_misuse(tool, {"bars": "horizontal"})
