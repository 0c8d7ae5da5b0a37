"""The focus tools paint what the published ones paint, in each of their three versions."""

import json
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medeval.errors import DataError, ToolError
from medeval.images.resize import PixelBudget
from medeval.tools import remake
from medeval.tools.base import ToolContext, ToolResult
from medeval.tools.focus import (
    CHART_AXES,
    MODES,
    REFOCUS,
    TABLE_AXES,
    VTOOL_V1,
    VTOOL_V2,
    FocusAxis,
    FocusMode,
    FocusRules,
    focus_tool,
    focus_tools,
)
from medeval.tools.focus_regions import NamedRegion, boxes_of, regions_of
from medeval.types.geometry import IDENTITY, Affine
from medeval.types.sample import JsonValue
from tests.tools.numbered import plain, rows

# The published highlight of pure green is (50, 205, 0): 50/255 of red over the rest.
MARKS: dict[tuple[int, ...], str] = {
    (0, 255, 0): ".",
    (255, 255, 255): "o",
    (255, 0, 0): "#",
    (50, 205, 0): "+",
}
TABLE = plain(24, 18)
WIDE, HIGH = 24, 18

Regions = Sequence[tuple[str, str, tuple[float, float, float, float]]]

# Three columns of 8 pixels and three rows of 6: the header "Year" and two more.
COLUMNS_AND_ROWS: Regions = [
    *(("column", name, (at / 3, 0.0, (at + 1) / 3, 1.0)) for at, name in enumerate("ABC")),
    *(("row", name, (0.0, at / 3, 1.0, (at + 1) / 3)) for at, name in enumerate(("Y", "1", "2"))),
]
BARS_X: Regions = [("x", name, (at / 3, 0.0, (at + 1) / 3, 1.0)) for at, name in enumerate("ABC")]


def metadata(regions: Regions) -> dict[str, JsonValue]:
    return {
        "regions": [
            {"axis": axis, "name": name, "box": [float(side) for side in box]}
            for axis, name, box in regions
        ]
    }


def focus(
    axis: FocusAxis,
    mode: FocusMode,
    names: JsonValue,
    rules: FocusRules = REFOCUS,
    *,
    regions: Regions = COLUMNS_AND_ROWS,
    **more: JsonValue,
) -> ToolResult:
    where = ToolContext(pictures=[TABLE], frame="permille", metadata=metadata(regions))
    return focus_tool(axis, mode, rules).run({"names": names, **more}, where)


def shown(result: ToolResult) -> list[str]:
    return ["".join(MARKS[pixel] for pixel in row) for row in rows(result.picture)]


def test_masking_columns_paints_the_others_white_two_pixels_inside_their_boxes() -> None:
    # A is kept; B is 8..16 and C 16..24: white from 10 to 14 and from 18 to 22, both inclusive.
    row = "." * 10 + "ooooo" + "..." + "ooooo" + "."
    expected = ["." * WIDE] * 2 + [row] * 15 + ["." * WIDE]
    assert shown(focus("columns", "mask", ["A"])) == expected


def test_vtool_v2_paints_one_pixel_beyond_the_boxes_it_masks() -> None:
    assert shown(focus("columns", "mask", ["A"], VTOOL_V2)) == ["." * 7 + "o" * 17] * HIGH


def test_drawing_boxes_a_column_in_red_five_pixels_wide_inwards() -> None:
    # The rectangle from (2, 2) to (6, 16): a stroke of 5 pixels fills all of it.
    row = ".." + "#####" + "." * 17
    expected = ["." * WIDE] * 2 + [row] * 15 + ["." * WIDE]
    assert shown(focus("columns", "draw", ["A"])) == expected


def test_vtool_v2_draws_three_pixels_wide_from_two_pixels_outside() -> None:
    # B is 8..16, so the rectangle is 6..18; above and below it ends with the image, 0..18, so
    # that of the lower stroke two pixel rows are seen.
    side = "." * 6 + "###" + "." * 7 + "###" + "." * 5
    bar = "." * 6 + "#" * 13 + "." * 5
    assert shown(focus("columns", "draw", ["B"], VTOOL_V2)) == [bar] * 3 + [side] * 13 + [bar] * 2


def test_a_highlight_is_a_red_of_50_in_255_over_the_image() -> None:
    row = "." * 2 + "+" * 21 + "."
    expected = ["." * WIDE] * 8 + [row] * 3 + ["." * WIDE] * 7
    assert shown(focus("rows", "highlight", ["1"])) == expected


def test_vtool_v2_highlights_from_two_pixels_outside() -> None:
    # The row is 6..12: pixels 4 to 14, all of the width.
    expected = ["." * WIDE] * 4 + ["+" * WIDE] * 11 + ["." * WIDE] * 3
    assert shown(focus("rows", "highlight", ["1"], VTOOL_V2)) == expected


@pytest.mark.parametrize("rules", [REFOCUS, VTOOL_V1, VTOOL_V2])
def test_masking_rows_never_masks_the_first_which_is_the_header(rules: FocusRules) -> None:
    result = focus("rows", "mask", ["2"], rules)
    kept = shown(result)
    assert "o" not in kept[0] + kept[1] + kept[2]
    assert "o" in kept[8]
    assert result.arguments["names"] == ["2"]


@pytest.mark.parametrize("rules", [REFOCUS, VTOOL_V1, VTOOL_V2])
@pytest.mark.parametrize(
    ("axis", "names"), [("columns", ["Z"]), ("rows", ["Z"]), ("rows", ["Y"]), ("columns", [])]
)
def test_a_mask_that_would_hide_all_leaves_the_image_as_it_is(
    rules: FocusRules, axis: FocusAxis, names: JsonValue
) -> None:
    result = focus(axis, "mask", names, rules)
    assert shown(result) == ["." * WIDE] * HIGH
    assert result.arguments["painted_px"] == []


@pytest.mark.parametrize("rules", [REFOCUS, VTOOL_V1, VTOOL_V2])
def test_a_mask_passes_over_unknown_names_beside_known_ones(rules: FocusRules) -> None:
    assert shown(focus("columns", "mask", ["A", "Z", 7], rules)) == shown(
        focus("columns", "mask", ["A"], rules)
    )


@pytest.mark.parametrize("mode", ["draw", "highlight"])
@pytest.mark.parametrize("rules", [REFOCUS, VTOOL_V1])
def test_an_unknown_name_fails_in_the_first_two_versions(
    mode: FocusMode, rules: FocusRules
) -> None:
    with pytest.raises(ToolError, match='no box for "Z"; there are boxes for \\["A", "B", "C"\\]'):
        focus("columns", mode, ["A", "Z"], rules)
    with pytest.raises(ToolError, match="'names' is a list of strings"):
        focus("columns", mode, ["A", 2005], rules)


@pytest.mark.parametrize("mode", ["draw", "highlight"])
def test_vtool_v2_passes_over_unknown_names(mode: FocusMode) -> None:
    assert shown(focus("columns", mode, ["A", "Z", 7], VTOOL_V2)) == shown(
        focus("columns", mode, ["A"], VTOOL_V2)
    )
    assert shown(focus("columns", mode, ["Z"], VTOOL_V2)) == ["." * WIDE] * HIGH


@pytest.mark.parametrize(
    ("axis", "mode", "fails"),
    [
        ("x_values", "draw", True),
        ("x_values", "highlight", False),
        ("y_values", "draw", False),
        ("y_values", "highlight", True),
    ],
)
def test_two_chart_functions_have_a_try_around_their_loop(
    axis: FocusAxis, mode: FocusMode, fails: bool
) -> None:
    regions = [(axis[0], name, box) for _, name, box in BARS_X]
    if fails:
        with pytest.raises(ToolError, match="no box"):
            focus(axis, mode, ["Z"], regions=regions)
    else:
        assert shown(focus(axis, mode, ["Z"], regions=regions)) == ["." * WIDE] * HIGH


YEARS: Regions = [
    ("y", name, (0.0, at / 3, 1.0, (at + 1) / 3)) for at, name in enumerate(("2010", "10", "0"))
]


@pytest.mark.parametrize(
    ("rules", "name", "found"),
    [
        # As published each match is what the next is compared with: 2010, then 10, then 0.
        (REFOCUS, "2010", ["0"]),
        (VTOOL_V1, "the 2010s", ["0"]),
        # An exact name first, then the first that matches.
        (VTOOL_V2, "10", ["10"]),
        (VTOOL_V2, "the 2010s", ["2010"]),
        (REFOCUS, "none", []),
        (VTOOL_V2, "none", []),
    ],
)
def test_y_values_with_draw_takes_a_name_that_is_close(
    rules: FocusRules, name: str, found: list[str]
) -> None:
    assert focus("y_values", "draw", [name], rules, regions=YEARS).arguments["names"] == found


def test_a_name_twice_keeps_the_later_box_in_the_earlier_place() -> None:
    regions = [
        NamedRegion("column", "Score", (0.0, 0.0, 0.1, 1.0)),
        NamedRegion("column", "Team", (0.1, 0.0, 0.2, 1.0)),
        NamedRegion("column", "Score", (0.2, 0.0, 0.5, 1.0)),
    ]
    assert list(boxes_of("columns_bbox", regions).items()) == [
        ("Score", (0.2, 0.0, 0.5, 1.0)),
        ("Team", (0.1, 0.0, 0.2, 1.0)),
    ]


@pytest.mark.parametrize("variable", ["columns_bbox", "rows_bbox"])
@pytest.mark.parametrize("axis", ["x", "y"])
def test_of_a_chart_both_variables_hold_its_values(variable: str, axis: str) -> None:
    regions = [NamedRegion(axis, "A", (0.0, 0.0, 0.5, 1.0))]
    assert boxes_of(variable, regions) == {"A": (0.0, 0.0, 0.5, 1.0)}


def test_a_wrong_axis_call_on_a_chart_is_carried_out() -> None:
    result = focus("rows", "draw", ["B"], VTOOL_V1, regions=BARS_X)
    assert shown(result) == shown(focus("columns", "draw", ["B"], VTOOL_V1))
    assert result.arguments["axis"] == "rows"


@pytest.mark.parametrize(
    ("rules", "box"),
    [
        (REFOCUS, {"x1": 0.0, "y1": 0.0, "x2": 1 / 3, "y2": 1}),
        (VTOOL_V1, {"x1": 0, "y1": 0, "x2": 8, "y2": 18}),
    ],
)
def test_a_program_s_own_boxes_are_in_the_unit_of_the_version(
    rules: FocusRules, box: dict[str, JsonValue]
) -> None:
    own = focus("columns", "draw", ["mine"], rules, boxes={"mine": box})
    assert shown(own) == shown(focus("columns", "draw", ["A"], rules))


def test_no_boxes_leave_the_image_as_it_is() -> None:
    for mode in MODES:
        assert shown(focus("columns", mode, ["A"], regions=[])) == ["." * WIDE] * HIGH


@pytest.mark.parametrize(
    ("axis", "mode", "fails"),
    [("columns", "mask", True), ("columns", "draw", True), ("x_values", "highlight", False)],
)
def test_a_box_smaller_than_its_insets_fails_as_pillow_does(
    axis: FocusAxis, mode: FocusMode, fails: bool
) -> None:
    region = "column" if axis == "columns" else "x"
    regions: Regions = [(region, "A", (0.0, 0.0, 0.1, 1.0)), (region, "B", (0.1, 0.0, 0.2, 1.0))]
    if fails:
        with pytest.raises(ToolError, match="too small to be painted"):
            focus(axis, mode, ["A"], regions=regions)
    else:
        assert focus(axis, mode, ["A"], regions=regions).arguments["painted_px"] == []


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({}, "'names' is missing; it is a list of names"),
        ({"names": "A"}, "'names' is a list of names, not \"A\""),
        ({"names": ["A"], "boxes": "cells"}, "'boxes' is one of columns_bbox, rows_bbox"),
        ({"names": ["A"], "boxes": {"A": [1, 2, 3, 4]}}, "a box is {'x1': ..., 'y1': ..., 'x2'"),
        ({"names": ["A"], "boxes": {"A": {"x1": 1}}}, "a box is {'x1'"),
        ({"names": ["A"], "boxes": {"A": {"x1": 1, "y1": 1, "x2": 1e99, "y2": 5}}}, "a box is"),
        ({"names": ["A"], "image": "table"}, "'image' is an image, not \"table\""),
        ({"names": ["A"], "image": "result_1"}, "the call that was to make this image made none"),
        ({"names": ["A"], "image": "image_2"}, "there is no image_2; the last is image_1"),
        ({"names": ["A"], "image": 0.5}, "'image' is an integer"),
        ({"columns": ["A"]}, "no argument named 'columns'"),
    ],
)  # fmt: skip
def test_a_refusal_tells_the_model_what_to_mend(more: dict[str, JsonValue], said: str) -> None:
    where = ToolContext(pictures=[TABLE], frame="permille", metadata=metadata(COLUMNS_AND_ROWS))
    with pytest.raises(ToolError) as caught:
        focus_tool("columns", "draw", REFOCUS).run(more, where)
    assert said in caught.value.message


def test_an_image_may_be_named_as_a_program_names_it() -> None:
    where = ToolContext(
        pictures=[TABLE, plain(24, 18, (255, 255, 255))],
        frame="permille",
        metadata=metadata(COLUMNS_AND_ROWS),
        earlier=[None, 1],
    )
    tool = focus_tool("columns", "draw", REFOCUS)
    assert tool.run({"names": ["A"], "image": "image_1"}, where).parent == 0
    assert tool.run({"names": ["A"], "image": "result_2"}, where).parent == 1


def test_a_part_of_an_image_has_no_named_columns() -> None:
    where = ToolContext(
        pictures=[TABLE, TABLE],
        frame="permille",
        metadata=metadata(COLUMNS_AND_ROWS),
        raw_to_root=[IDENTITY, Affine(1.0, 0.0, 5.0, 0.0, 1.0, 5.0)],
    )
    tool = focus_tool("columns", "draw", REFOCUS)
    assert tool.run({"names": ["A"]}, where).parent == 0
    with pytest.raises(ToolError, match="the columns of image 1 are not known"):
        tool.run({"names": ["A"], "image": 1}, where)


names = st.lists(st.sampled_from(["A", "B", "C", "Y", "1", "2", "Z"]), max_size=4)


@settings(deadline=None, max_examples=80)
@given(
    st.sampled_from((*TABLE_AXES, *CHART_AXES)),
    st.sampled_from(MODES),
    names,
    st.sampled_from([REFOCUS, VTOOL_V1, VTOOL_V2]),
    st.sampled_from([None, PixelBudget(min_px=784, max_px=7840, factor=28)]),
)
def test_a_focused_image_is_remade_from_its_recipe_and_its_parent_is_as_it_was(
    axis: FocusAxis,
    mode: FocusMode,
    chosen: JsonValue,
    rules: FocusRules,
    budget: PixelBudget | None,
) -> None:
    before = TABLE.pixels().tobytes()
    where = ToolContext(
        pictures=[TABLE], frame="permille", metadata=metadata([*COLUMNS_AND_ROWS, *YEARS])
    )
    try:
        result = focus_tool(axis, mode, rules, budget=budget).run({"names": chosen}, where)
    except ToolError:
        return
    finally:
        assert TABLE.pixels().tobytes() == before
    recipe = json.loads(json.dumps(dict(result.arguments)))
    again = remake(result.operation, recipe, TABLE)
    assert again.sent_image.encoded() == result.picture.sent_image.encoded()
    assert again.pixels().tobytes() == result.picture.pixels().tobytes()
    assert (result.operation, result.raw_to_parent) == ("focus", IDENTITY)


@pytest.mark.parametrize(
    "change",
    [
        {"mode": "blur"},
        {"painted_px": [[1, 2, 3]]},
        {"painted_px": [[5, 5, 1, 1]]},
        {"stroke_px": -1},
        {"budget": 3},
        {"more": 1},
    ],
)
def test_a_recipe_that_no_focus_wrote_is_refused(change: dict[str, JsonValue]) -> None:
    recipe = dict(focus("columns", "draw", ["A"]).arguments)
    with pytest.raises(DataError):
        remake("focus", {**recipe, **change}, TABLE)


@pytest.mark.parametrize(
    "regions",
    [7, [7], [{"axis": "z", "name": "A", "box": [0, 0, 1, 1]}], [{"axis": "x", "name": "A"}],
     [{"axis": "x", "name": "A", "box": [0, 0, 1]}],
     [{"axis": "x", "name": "A", "box": [0, 0, 1, True]}]],
)  # fmt: skip
def test_regions_that_are_none_are_refused(regions: JsonValue) -> None:
    with pytest.raises(DataError, match="region"):
        regions_of({"regions": regions})


def test_the_six_of_a_table_and_the_six_of_a_chart() -> None:
    table = [tool.name for tool in focus_tools(VTOOL_V2)]
    chart = [tool.name for tool in focus_tools(REFOCUS, CHART_AXES)]
    assert table == [
        "focus_on_columns_with_mask", "focus_on_rows_with_mask",
        "focus_on_columns_with_draw", "focus_on_rows_with_draw",
        "focus_on_columns_with_highlight", "focus_on_rows_with_highlight",
    ]  # fmt: skip
    assert chart == [
        name.replace("columns", "x_values").replace("rows", "y_values") for name in table
    ]
