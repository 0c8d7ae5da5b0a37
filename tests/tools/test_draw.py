"""Lines and points: the pixels they colour, and nothing else."""

import json
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medeval.errors import DataError
from medeval.images.resize import PixelBudget
from medeval.tools import remake
from medeval.tools.base import Tool
from medeval.tools.draw import draw_line, draw_point
from medeval.types.geometry import IDENTITY
from medeval.types.sample import JsonValue
from tests.tools.numbered import called, context, plain, refused, rows

LINE, POINT = draw_line(), draw_point()
FIELD = plain(10, 8)
MARKS: dict[tuple[int, ...], str] = {(0, 255, 0): ".", (255, 0, 0): "#", (255, 255, 255): "o"}

# A disc of radius 3 about the pixel (4, 4) and a white one of radius 4 under it; the image ends.
POINT_AT_4_4 = [
    "...ooo....",
    ".oo###oo..",
    ".o#####o..",
    "o#######o.",
    "o#######o.",
    "o#######o.",
    ".o#####o..",
    ".oo###oo..",
]


def drawn(tool: Tool, **arguments: JsonValue) -> list[str]:
    where = context(FIELD, frame="pixels_raw")
    picture = called(tool, where, **arguments).picture
    return ["".join(MARKS[pixel] for pixel in row) for row in rows(picture)]


def test_a_line_at_x_is_vertical_and_two_pixels_wide() -> None:
    assert drawn(LINE, axis="x", value=5) == ["....##...."] * 8


@pytest.mark.parametrize(
    ("value", "expected"), [(0, "##......"), (8, "......##"), (4, "...##..."), (1.4, "##......")]
)
def test_a_line_at_y_is_horizontal_and_stays_inside(value: float, expected: str) -> None:
    assert drawn(LINE, axis="y", value=value) == [mark * 10 for mark in expected]


def test_a_line_across_an_image_one_pixel_high_is_that_pixel() -> None:
    result = called(LINE, context(plain(4, 1)), axis="y", value=500)
    assert rows(result.picture) == [[(255, 0, 0)] * 4]


def test_a_point_is_red_with_a_white_edge() -> None:
    assert drawn(POINT, x=4.5, y=4) == POINT_AT_4_4


def test_a_point_s_centre_is_the_pixel_it_lies_in() -> None:
    shown = drawn(POINT, x=9.99, y=0)
    assert shown[0][-1] == "#" and shown[7] == "." * 10


@pytest.mark.parametrize("tool", [LINE, POINT], ids=lambda tool: tool.name)
@pytest.mark.parametrize("size", [(100, 400), (1000, 1000), (3000, 1200)])
def test_marks_grow_with_the_image(tool: Tool, size: tuple[int, int]) -> None:
    arguments: dict[str, JsonValue] = (
        {"axis": "x", "value": 500} if tool is LINE else {"x": 500, "y": 500}
    )
    recipe = called(tool, context(plain(*size)), **arguments).arguments
    expected = {100: (2, 3), 1000: (5, 10), 1200: (6, 12)}[min(size)]
    assert recipe.get("width_px", recipe.get("radius_px")) == expected[tool is POINT]


def test_the_recipe_holds_raw_pixels_whatever_the_frame() -> None:
    line = called(LINE, context(plain(200, 100)), axis="y", value=250)
    point = called(POINT, context(plain(200, 100)), x=250, y=1000)
    assert (line.arguments["axis"], line.arguments["value_px"]) == ("y", 25.0)
    assert (point.arguments["x_px"], point.arguments["y_px"]) == (50.0, 100.0)
    assert line.raw_to_parent == point.raw_to_parent == IDENTITY
    assert (line.operation, point.operation) == ("draw_line", "draw_point")


@settings(deadline=None, max_examples=40)
@given(st.floats(0, 1000), st.floats(0, 1000), st.integers(3, 60), st.integers(3, 60))
def test_a_mark_is_where_it_was_asked_for_and_the_image_stays_as_it_was(
    x: float, y: float, width: int, height: int
) -> None:
    field = plain(width, height)
    before = field.pixels().tobytes()
    made = called(POINT, context(field), x=x, y=y).picture
    line = called(LINE, context(field), axis="y", value=y).picture
    assert field.pixels().tobytes() == before
    across = min(int(x * width / 1000), width - 1)
    down = min(int(y * height / 1000), height - 1)
    assert rows(made)[down][across] == (255, 0, 0)
    coloured = [row for row in range(height) if rows(line)[row][0] == (255, 0, 0)]
    assert min(abs(row + 0.5 - y * height / 1000) for row in coloured) <= 1.5


@pytest.mark.parametrize("budget", [None, PixelBudget(min_px=784, max_px=7840, factor=28)])
def test_a_mark_is_remade_from_its_recipe_byte_for_byte(budget: PixelBudget | None) -> None:
    field = plain(210, 130)
    results = [
        called(draw_line(budget=budget), context(field), axis="x", value=333.3),
        called(draw_point(budget=budget), context(field), x=12, y=998.7),
    ]
    for result in results:
        recipe = json.loads(json.dumps(dict(result.arguments)))
        again = remake(result.operation, recipe, field)
        assert again.sent_image.encoded() == result.picture.sent_image.encoded()
        assert again.pixels().tobytes() == result.picture.pixels().tobytes()


@pytest.mark.parametrize(
    ("tool", "arguments", "said"),
    [
        (LINE, {}, "'axis' is missing; it is \"x\" or \"y\""),
        (LINE, {"axis": "z", "value": 1}, "'axis' is \"x\" or \"y\", not \"z\""),
        (LINE, {"axis": "x"}, "'value' is missing; it is a number from 0 to 1000"),
        (LINE, {"axis": "x", "value": 1001}, "'value' lies outside image 0, whose x goes from 0"),
        (LINE, {"axis": "y", "value": -1}, "whose y goes from 0 to 1000, got -1"),
        (LINE, {"axis": "y", "value": True}, "'value' holds numbers only, not true"),
        (LINE, {"axis": "y", "value": 1, "image_index": 3}, "there is no image 3"),
        (LINE, {"axis": "y", "value": 1, "colour": 3}, "there is no argument named 'colour'"),
        (POINT, {"x": 1}, "'y' is missing; it is a number from 0 to 1000"),
        (POINT, {"x": float("nan"), "y": 1}, "'x' holds finite numbers only"),
        (POINT, {"x": [1], "y": 1}, "'x' holds numbers only, not [1]"),
    ],
)  # fmt: skip
def test_a_refusal_tells_the_model_what_to_mend(
    tool: Tool, arguments: dict[str, JsonValue], said: str
) -> None:
    assert said in refused(tool, arguments, context(FIELD))


def test_the_schemas_state_unit_and_origin() -> None:
    for tool in (LINE, POINT):
        schema = json.dumps(tool.schema.as_json())
        for said in ("thousandths", "top-left corner", "counted from 0"):
            assert said in schema
    pixels = draw_point(unit="in pixels of that image")
    assert "in pixels of that image, measured" in json.dumps(pixels.schema.as_json())


@pytest.mark.parametrize(
    ("operation", "recipe"),
    [
        *product(("draw_line", "draw_point"), ({}, {"axis": "x"})),
        ("draw_line", {"axis": "x", "value_px": 11.0, "width_px": 2, "budget": None}),
        ("draw_line", {"axis": "x", "value_px": 1.0, "width_px": 0, "budget": None}),
        ("draw_line", {"axis": "x", "value_px": 1.0, "width_px": 2, "budget": None, "more": 0}),
        ("draw_point", {"x_px": 1.0, "y_px": 9.0, "radius_px": 3, "budget": None}),
        ("draw_point", {"x_px": 1.0, "y_px": 1.0, "radius_px": 1, "budget": None}),
    ],
)
def test_a_recipe_that_no_mark_wrote_is_refused(
    operation: str, recipe: dict[str, JsonValue]
) -> None:
    with pytest.raises(DataError):
        remake(operation, recipe, FIELD)
