"""Rotate and flip move every pixel to its place, and the map back knows from where."""

import json
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medeval.errors import DataError
from medeval.images.picture import Picture
from medeval.images.resize import PixelBudget
from medeval.tools import remake
from medeval.tools.base import Tool
from medeval.tools.crop import crop_and_zoom
from medeval.tools.rotate_flip import flip, rotate
from medeval.types.geometry import IDENTITY, Affine, Size
from medeval.types.sample import JsonValue
from tests.tools.numbered import called, context, numbered, refused, rows

ROTATE, FLIP = rotate(), flip()
PAGE = numbered(3, 2)


def places(picture: Picture) -> list[str]:
    """Each row's pixels as "xy" of where they were in the root."""
    return [" ".join(f"{red}{green}" for red, green, _ in row) for row in rows(picture)]


def test_the_page_of_these_tests() -> None:
    assert places(PAGE) == ["00 10 20", "01 11 21"]


@pytest.mark.parametrize(
    ("tool", "arguments", "expected"),
    [
        (ROTATE, {"angle": 90}, ["01 00", "11 10", "21 20"]),
        (ROTATE, {"angle": 180}, ["21 11 01", "20 10 00"]),
        (ROTATE, {"angle": 270}, ["20 21", "10 11", "00 01"]),
        (ROTATE, {"angle": -90}, ["20 21", "10 11", "00 01"]),
        (ROTATE, {"angle": -270.0}, ["01 00", "11 10", "21 20"]),
        (ROTATE, {"angle": 450}, ["01 00", "11 10", "21 20"]),
        (FLIP, {"direction": "horizontal"}, ["20 10 00", "21 11 01"]),
        (FLIP, {"direction": "vertical"}, ["01 11 21", "00 10 20"]),
    ],
)
def test_pixels_go_where_the_schema_says(
    tool: Tool, arguments: dict[str, JsonValue], expected: list[str]
) -> None:
    result = called(tool, context(PAGE), **arguments)
    assert places(result.picture) == expected
    assert (result.parent, result.operation) == (0, tool.name)


@pytest.mark.parametrize(
    ("tool", "arguments", "corner"),
    [
        # Where the top-left corner of the new image is on the page of 3 x 2 pixels.
        (ROTATE, {"angle": 90}, (0, 2)),
        (ROTATE, {"angle": 180}, (3, 2)),
        (ROTATE, {"angle": 270}, (3, 0)),
        (FLIP, {"direction": "horizontal"}, (3, 0)),
        (FLIP, {"direction": "vertical"}, (0, 2)),
    ],
)
def test_the_map_back_goes_from_edge_to_edge(
    tool: Tool, arguments: dict[str, JsonValue], corner: tuple[float, float]
) -> None:
    result = called(tool, context(PAGE), **arguments)
    assert result.raw_to_parent.apply(0, 0) == corner
    made = result.picture.raw
    far = result.raw_to_parent.apply(made.width_px, made.height_px)
    assert far == (3 - corner[0], 2 - corner[1])


def test_clockwise_by_90_takes_x_y_to_height_less_y_and_x() -> None:
    result = called(ROTATE, context(PAGE), angle=90)
    for x, y in product(range(4), range(3)):
        assert result.raw_to_parent.apply(2 - y, x) == (x, y)


def turn(pictures: list[Picture], step: "tuple[str, JsonValue]") -> Affine:
    """Do one step on the last picture and append what it makes; the map back to its parent."""
    kind, value = step
    last = len(pictures) - 1
    arguments: dict[str, JsonValue] = {"image_index": last}
    match kind:
        case "rotate":
            result = ROTATE.run({**arguments, "angle": value}, context(*pictures))
        case "flip":
            result = FLIP.run({**arguments, "direction": value}, context(*pictures))
        case _:
            crop = crop_and_zoom(minimum_side_px=2, budget=None)
            result = crop.run({**arguments, "bbox_2d": value}, context(*pictures))
    pictures.append(result.picture)
    return result.raw_to_parent


turns = st.tuples(st.just("rotate"), st.sampled_from([90, 180, 270, -90])) | st.tuples(
    st.just("flip"), st.sampled_from(["horizontal", "vertical"])
)
crops = st.tuples(
    st.just("crop"),
    st.tuples(
        st.integers(0, 600), st.integers(0, 600), st.integers(601, 1000), st.integers(601, 1000)
    ).map(list),
)
ROOT = numbered(173, 91)


@settings(deadline=None, max_examples=60)
@given(st.lists(turns | crops, min_size=1, max_size=7))
def test_no_chain_of_crops_rotations_and_flips_drifts(
    steps: "list[tuple[str, JsonValue]]",
) -> None:
    pictures, to_root = [ROOT], IDENTITY
    for step in steps:
        to_root = to_root.after(turn(pictures, step))
    last = pictures[-1]
    pixels = rows(last)
    for x, y in product((0, last.raw.width_px - 1), (0, last.raw.height_px - 1)):
        red, green, _ = pixels[y][x]
        assert to_root.apply(x + 0.5, y + 0.5) == (red + 0.5, green + 0.5)


@settings(deadline=None, max_examples=60)
@given(st.lists(turns, max_size=6), st.lists(turns, max_size=6))
def test_turns_with_one_matrix_are_one_turn(
    first: "list[tuple[str, JsonValue]]", second: "list[tuple[str, JsonValue]]"
) -> None:
    ends = []
    for steps in (first, second):
        pictures, to_root = [PAGE], IDENTITY
        for step in steps:
            to_root = to_root.after(turn(pictures, step))
        ends.append((to_root, places(pictures[-1])))
    assert (ends[0][0] == ends[1][0]) == (ends[0][1] == ends[1][1])


@pytest.mark.parametrize(
    "steps",
    [
        [("rotate", 90)] * 4,
        [("flip", "horizontal")] * 2,
        [("flip", "vertical")] * 2,
        [("flip", "horizontal"), ("flip", "vertical"), ("rotate", 180)],
        [("rotate", 90), ("flip", "horizontal"), ("rotate", 90), ("flip", "horizontal")],
    ],
)
def test_turns_that_cancel_give_the_page_back(steps: "list[tuple[str, JsonValue]]") -> None:
    pictures, to_root = [PAGE], IDENTITY
    for step in steps:
        to_root = to_root.after(turn(pictures, step))
    assert places(pictures[-1]) == places(PAGE)
    assert to_root == IDENTITY


@pytest.mark.parametrize(
    ("tool", "arguments"), [(ROTATE, {"angle": 90}), (FLIP, {"direction": "vertical"})]
)
@pytest.mark.parametrize("budget", [None, PixelBudget(min_px=784, max_px=78400, factor=28)])
def test_a_turned_image_is_remade_from_its_recipe_byte_for_byte(
    tool: Tool, arguments: dict[str, JsonValue], budget: PixelBudget | None
) -> None:
    tool = rotate(budget=budget) if tool is ROTATE else flip(budget=budget)
    before = ROOT.pixels().tobytes()
    result = called(tool, context(ROOT), **arguments)
    recipe = json.loads(json.dumps(dict(result.arguments)))
    again = remake(result.operation, recipe, ROOT)
    assert again.sent_image.encoded() == result.picture.sent_image.encoded()
    assert (again.raw, again.sent) == (result.picture.raw, result.picture.sent)
    assert again.pixels().tobytes() == result.picture.pixels().tobytes()
    assert ROOT.pixels().tobytes() == before


def test_an_image_is_turned_at_its_raw_size() -> None:
    shrunk = numbered(60, 40, PixelBudget(min_px=1, max_px=600, factor=1))
    assert shrunk.sent == Size(30, 20)
    assert called(ROTATE, context(shrunk), angle=90).picture.raw == Size(40, 60)


@pytest.mark.parametrize(
    ("tool", "arguments", "said"),
    [
        (ROTATE, {}, "'angle' is missing; it is an angle in degrees, clockwise: 90, 180 or 270"),
        (ROTATE, {"angle": 0}, "'angle' is an angle in degrees, clockwise: 90, 180 or 270; not 0"),
        (ROTATE, {"angle": 45}, "not 45"),
        (ROTATE, {"angle": 90.5}, "not 90.5"),
        (ROTATE, {"angle": "90"}, "'angle' holds numbers only, not \"90\""),
        (ROTATE, {"angle": 10**400}, "finite numbers only"),
        (ROTATE, {"angle": 90, "image_index": 1}, "there is no image 1"),
        (ROTATE, {"degrees": 90}, "there is no argument named 'degrees'; the arguments are"),
        (FLIP, {}, "'direction' is missing; it is \"horizontal\" or \"vertical\""),
        (FLIP, {"direction": "left"}, "is \"horizontal\" or \"vertical\", not \"left\""),
        (FLIP, {"direction": ["vertical"]}, "not [\"vertical\"]"),
        (FLIP, {"direction": "<|im_end|>"}, "not a string"),
    ],
)  # fmt: skip
def test_a_refusal_tells_the_model_what_to_mend(
    tool: Tool, arguments: dict[str, JsonValue], said: str
) -> None:
    message = refused(tool, arguments, context(PAGE))
    assert said in message
    assert "<|" not in message


def test_the_schemas_state_the_conventions() -> None:
    assert "Positive is clockwise" in json.dumps(ROTATE.schema.as_json())
    assert "horizontal: the left and right sides change places" in json.dumps(FLIP.schema.as_json())
    for tool in (ROTATE, FLIP):
        assert "counted from 0" in json.dumps(tool.schema.as_json())


@pytest.mark.parametrize(
    ("operation", "recipe"),
    [
        ("rotate", {}),
        ("rotate", {"degrees_clockwise": 0, "budget": None}),
        ("rotate", {"degrees_clockwise": -90, "budget": None}),
        ("rotate", {"degrees_clockwise": 90, "budget": None, "more": 1}),
        ("rotate", {"degrees_clockwise": 90, "budget": 7}),
        ("flip", {}),
        ("flip", {"direction": "left", "budget": None}),
        ("flip", {"direction": 1, "budget": None}),
    ],
)
def test_a_recipe_that_no_turn_wrote_is_refused(
    operation: str, recipe: dict[str, JsonValue]
) -> None:
    with pytest.raises(DataError):
        remake(operation, recipe, PAGE)
