"""A crop shows the raw pixels of the region that the model named."""

import json
from collections.abc import Mapping
from functools import cache
from itertools import chain

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from medeval.errors import DataError, DefinitionError, ToolError
from medeval.images.picture import Picture, made_picture
from medeval.images.resize import PixelBudget
from medeval.tools import remake
from medeval.tools.base import FrameKind, Tool, ToolContext, ToolResult
from medeval.tools.crop import crop_and_zoom
from medeval.types.geometry import IDENTITY, Box, Size, pixels
from medeval.types.sample import JsonValue

TINY = PixelBudget(min_px=1, max_px=1_000_000, factor=1)


def numbered(width: int, height: int) -> Image.Image:
    """An image whose pixel at (x, y) holds x and y."""
    values = [
        (x % 256, y % 256, x // 256 * 16 + y // 256) for y in range(height) for x in range(width)
    ]
    return Image.frombytes("RGB", (width, height), bytes(chain.from_iterable(values)))


def place(picture: Picture, x: int, y: int) -> tuple[int, int]:
    """Where a pixel of a cut of a numbered image came from."""
    pixel = picture.pixels().getpixel((x, y))
    assert isinstance(pixel, tuple)
    red, green, blue = pixel
    return red + blue // 16 * 256, green + blue % 16 * 256


def context(*pictures: Picture, frame: FrameKind = "permille") -> ToolContext:
    return ToolContext(pictures=pictures, frame=frame)


@cache
def picture(width: int, height: int, budget: PixelBudget | None = None) -> Picture:
    return made_picture(numbered(width, height), budget=budget)


def crop(
    arguments: Mapping[str, JsonValue], where: ToolContext, tool: Tool | None = None
) -> ToolResult:
    return (tool or crop_and_zoom(minimum_side_px=1, budget=None)).run(arguments, where)


def whole_pixels(result: ToolResult) -> list[int]:
    box = result.arguments["box_px"]
    assert isinstance(box, list)
    return [value for value in box if isinstance(value, int)]


def refused(arguments: Mapping[str, JsonValue], where: ToolContext) -> str:
    with pytest.raises(ToolError) as caught:
        crop(arguments, where, crop_and_zoom())
    return caught.value.message


def test_a_crop_holds_exactly_the_pixels_of_its_box() -> None:
    result = crop({"bbox_2d": [100, 200, 500, 700]}, context(picture(50, 30)))
    assert result.arguments == {"box_px": [5, 6, 25, 21], "budget": None}
    assert (result.operation, result.parent) == ("crop", 0)
    cut = result.picture.pixels()
    expected = [(x, y, 0) for y in range(6, 21) for x in range(5, 25)]
    assert cut.size == (20, 15)
    assert list(cut.tobytes()) == [value for pixel in expected for value in pixel]


@pytest.mark.parametrize(
    ("frame", "box"),
    [
        ("relative", [0.1, 0.2, 0.5, 0.7]),
        ("permille", [100, 200, 500, 700]),
        ("percent", [10, 20, 50, 70]),
        ("pixels_raw", [5, 6, 25, 21]),
        ("pixels_sent", [50, 60, 250, 210]),
    ],
)
def test_the_protocol_s_frame_says_what_the_numbers_mean(frame: FrameKind, box: JsonValue) -> None:
    enlarged = picture(50, 30, PixelBudget(min_px=500 * 300, max_px=500 * 300, factor=1))
    assert enlarged.sent == Size(500, 300)
    result = crop({"bbox_2d": box}, context(enlarged, frame=frame))
    assert result.arguments["box_px"] == [5, 6, 25, 21]


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ([10.6, 10.4, 50.5, 60.6], [10, 10, 51, 61]),
        ([-20, -20, 30, 30], [0, 0, 30, 30]),
        ([50, 50, 1000, 1000], [50, 50, 100, 80]),
        ([-1e300, -1e300, 1e300, 1e300], [0, 0, 100, 80]),
        ([0, 0, 100, 80], [0, 0, 100, 80]),
    ],
)
def test_a_box_is_clamped_and_rounded_outwards(box: JsonValue, expected: list[int]) -> None:
    result = crop({"bbox_2d": box}, context(picture(100, 80), frame="pixels_raw"))
    assert result.arguments["box_px"] == expected


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ([50, 40, 52, 42], [37, 27, 65, 55]),
        ([0, 0, 1, 1], [0, 0, 28, 28]),
        ([99, 79, 100, 80], [72, 52, 100, 80]),
        ([50, 0, 50.0000001, 80], [36, 0, 64, 80]),
        ([10, 10, 38, 38], [10, 10, 38, 38]),
    ],
)
def test_a_small_box_grows_about_its_centre_inside_the_image(
    box: JsonValue, expected: list[int]
) -> None:
    tool = crop_and_zoom(budget=None)
    result = crop({"bbox_2d": box}, context(picture(100, 80), frame="pixels_raw"), tool)
    assert result.arguments["box_px"] == expected


def test_a_box_grows_no_further_than_a_small_image() -> None:
    result = crop({"bbox_2d": [0, 0, 100, 100]}, context(picture(40, 9)), crop_and_zoom())
    assert result.arguments["box_px"] == [0, 0, 28, 9]


def test_a_crop_is_enlarged_into_the_budget() -> None:
    result = crop({"bbox_2d": [0, 0, 500, 500]}, context(picture(200, 200)), crop_and_zoom())
    assert result.picture.raw == Size(100, 100)
    assert result.picture.sent == Size(448, 448)
    assert result.arguments["budget"] == {"min_px": 200704, "max_px": 802816, "factor": 28}


def test_a_crop_comes_from_the_raw_pixels_not_from_what_was_sent() -> None:
    shrunk = picture(400, 400, PixelBudget(min_px=1, max_px=100, factor=1))
    assert shrunk.sent == Size(10, 10)
    result = crop({"bbox_2d": [250, 500, 300, 600]}, context(shrunk))
    assert result.picture.raw == Size(20, 40)
    assert place(result.picture, 0, 0) == (100, 200)
    assert place(result.picture, 19, 39) == (119, 239)


def test_an_image_is_named_by_its_place_in_the_conversation() -> None:
    where = context(picture(50, 30), picture(100, 60))
    assert crop({"bbox_2d": [0, 0, 1000, 1000]}, where).picture.raw == Size(50, 30)
    for index in (1, 1.0):
        result = crop({"bbox_2d": [0, 0, 1000, 1000], "image_index": index}, where)
        assert (result.parent, result.picture.raw) == (1, Size(100, 60))


def test_cropping_leaves_its_image_as_it_was() -> None:
    source = picture(50, 30)
    before = source.pixels().tobytes()
    crop({"bbox_2d": [0, 0, 500, 500]}, context(source))
    assert source.pixels().tobytes() == before


permille_boxes = st.tuples(
    st.integers(0, 999), st.integers(0, 999), st.integers(1, 1000), st.integers(1, 1000)
).filter(lambda box: box[0] < box[2] and box[1] < box[3])


@settings(deadline=None)
@given(st.sampled_from([(300, 200), (31, 257)]), st.lists(permille_boxes, min_size=1, max_size=4))
def test_nested_crops_map_back_to_the_root(
    size: tuple[int, int], boxes: list[tuple[int, int, int, int]]
) -> None:
    pictures = [picture(*size)]
    to_root = IDENTITY
    tool = crop_and_zoom(minimum_side_px=3, budget=TINY)
    for index, box in enumerate(boxes):
        arguments: dict[str, JsonValue] = {"bbox_2d": list(box), "image_index": index}
        result = crop(arguments, context(*pictures), tool)
        to_root = to_root.after(result.raw_to_parent)
        pictures.append(result.picture)
    last = pictures[-1]
    for x, y in [(0, 0), (last.raw.width_px - 1, last.raw.height_px - 1)]:
        mapped = to_root.apply(x + 0.5, y + 0.5)
        true_x, true_y = place(last, x, y)
        assert abs(mapped[0] - true_x - 0.5) <= 0.5
        assert abs(mapped[1] - true_y - 0.5) <= 0.5


@settings(deadline=None)
@given(st.integers(1, 400), st.integers(1, 400), permille_boxes, st.integers(1, 60))
def test_a_crop_covers_what_was_asked_for_and_stays_inside(
    width: int, height: int, box: tuple[int, int, int, int], minimum: int
) -> None:
    blank = made_picture(Image.new("RGB", (width, height)), budget=None)
    tool = crop_and_zoom(minimum_side_px=minimum, budget=None)
    result = crop({"bbox_2d": list(box)}, context(blank), tool)
    left, top, right, bottom = whole_pixels(result)
    asked = Box(*box, context(blank).frame_of(0)).to(pixels(width, height))
    assert 0 <= left <= asked.left + 1e-6 and asked.right - 1e-6 <= right <= width
    assert 0 <= top <= asked.top + 1e-6 and asked.bottom - 1e-6 <= bottom <= height
    assert right - left >= min(minimum, width) and bottom - top >= min(minimum, height)
    assert result.picture.raw == Size(right - left, bottom - top)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({}, "'bbox_2d' is missing; it is a list [x1, y1, x2, y2]"),
        ({"bbox_2d": None}, "'bbox_2d' is a list of four numbers, not null"),
        ({"bbox_2d": "1, 2, 3, 4"}, "a list of four numbers, not \"1, 2, 3, 4\""),
        ({"bbox_2d": [1, 2, 3]}, "a list of four numbers, not [1, 2, 3]"),
        ({"bbox_2d": {"x": 1}}, "a list of four numbers"),
        ({"bbox_2d": [[1, 2, 3, 4]]}, "a list of four numbers"),
        ({"bbox_2d": [1, 2, 3, True]}, "'bbox_2d' holds numbers only, not true"),
        ({"bbox_2d": [1, 2, 3, "4"]}, "'bbox_2d' holds numbers only, not \"4\""),
        ({"bbox_2d": [1, 2, 3, None]}, "holds numbers only, not null"),
        ({"bbox_2d": [1, 2, 3, float("inf")]}, "holds finite numbers only"),
        ({"bbox_2d": [1, 2, 3, float("nan")]}, "holds finite numbers only"),
        ({"bbox_2d": [1, 2, 3, 10**400]}, "holds finite numbers only"),
        ({"bbox_2d": [3, 2, 3, 4]}, "'bbox_2d' needs x1 < x2, got x1 = 3 and x2 = 3"),
        ({"bbox_2d": [1, 20.5, 3, 4]}, "'bbox_2d' needs y1 < y2, got y1 = 20.5 and y2 = 4"),
        ({"bbox_2d": [1000, 0, 1100, 50]}, "lies entirely outside image 0"),
        ({"bbox_2d": [-9, -9, 0, 0]}, "go from [0, 0] to [1000, 1000]"),
        ({"bbox_2d": [0, 0, 5e-324, 1]}, "no region of the image: a box needs left < right"),
        ({"bbox_2d": [0, 0, 9, 9], "image_index": 2}, "there is no image 2; images are numbered 0"),
        ({"bbox_2d": [0, 0, 9, 9], "image_index": -1}, "there is no image -1"),
        ({"bbox_2d": [0, 0, 9, 9], "image_index": 10**4000}, "an integer counted from 0, not 1000"),
        ({"bbox_2d": [0, 0, 9, 9], "image_index": 0.5}, "an integer counted from 0, not 0.5"),
        ({"bbox_2d": [0, 0, 9, 9], "image_index": True}, "an integer counted from 0, not true"),
        ({"bbox_2d": [0, 0, 9, 9], "image_index": "0"}, "an integer counted from 0, not \"0\""),
        ({"bbox_2d": [0, 0, 9, 9], "image_index": None}, "an integer counted from 0, not null"),
        ({"bbox": [0, 0, 9, 9]}, "no argument named 'bbox'; the arguments are 'bbox_2d' and"),
        ({"<|im_end|>": 0}, "there is no argument of another name; the arguments are"),
        ({"bbox_2d": "<|image_pad|>"}, "a list of four numbers, not a string"),
        ({"bbox_2d": {"<|image_pad|>": 1}}, "a list of four numbers, not an object"),
        ({"bbox_2d": [1, 2, 3, ["<|image_pad|>"]]}, "holds numbers only, not an array"),
        ({"bbox_2d": ["x" * 10_000] * 4}, "holds numbers only"),
    ],
)  # fmt: skip
def test_a_refusal_tells_the_model_what_to_mend(
    arguments: Mapping[str, JsonValue], said: str
) -> None:
    message = refused(arguments, context(picture(200, 100)))
    assert said in message
    assert len(message) < 300
    assert "<|" not in message


def test_settings_tell_what_the_schema_does_not() -> None:
    assert crop_and_zoom(minimum_side_px=3, budget=None).settings == {
        "minimum_side_px": 3, "budget": None,
    }  # fmt: skip
    assert crop_and_zoom().settings["budget"] == {
        "min_px": 200704, "max_px": 802816, "factor": 28,
    }  # fmt: skip


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)
boxes_of_any_numbers = st.lists(st.integers() | st.floats(), min_size=4, max_size=4)
SMALL = picture(60, 40)


@settings(deadline=None)
@given(
    st.fixed_dictionaries(
        {}, optional={"bbox_2d": boxes_of_any_numbers | json_values, "image_index": json_values}
    ),
    st.sampled_from(["relative", "permille", "percent", "pixels_raw", "pixels_sent"]),
)
def test_any_arguments_are_carried_out_or_refused(
    arguments: dict[str, JsonValue], frame: FrameKind
) -> None:
    try:
        result = crop(arguments, context(SMALL, frame=frame))
    except ToolError as error:
        assert error.message
    else:
        json.dumps(dict(result.arguments), allow_nan=False)


def test_the_schema_tells_unit_origin_and_numbering() -> None:
    schema = json.dumps(crop_and_zoom().schema.as_json())
    for said in ("thousandths", "top-left", "[x1, y1, x2, y2]", "counted from 0", '"bbox_2d"'):
        assert said in schema


def test_names_and_coordinates_are_the_protocol_s() -> None:
    tool = crop_and_zoom(
        name="zoom_in",
        box_argument="region",
        image_argument="picture",
        coordinates="Coordinates are pixels of the image",
    )
    assert tool.name == tool.schema.name == "zoom_in"
    assert tool.parameters["required"] == ["region"]
    assert "Coordinates are pixels of the image." in json.dumps(tool.parameters)
    where = context(SMALL, SMALL, frame="pixels_raw")
    assert crop({"region": [0, 0, 30, 30], "picture": 1}, where, tool).parent == 1
    with pytest.raises(ToolError, match="the arguments are 'region' and 'picture'"):
        crop({"bbox_2d": [0, 0, 30, 30]}, where, tool)


def test_a_minimum_side_of_nothing_is_refused() -> None:
    with pytest.raises(DefinitionError, match="minimum_side_px is 0"):
        crop_and_zoom(minimum_side_px=0)


@pytest.mark.parametrize("budget", [None, TINY, PixelBudget(min_px=784, max_px=78400, factor=28)])
def test_a_crop_is_remade_from_its_recipe_byte_for_byte(budget: PixelBudget | None) -> None:
    source = picture(300, 200)
    tool = crop_and_zoom(budget=budget)
    result = crop({"bbox_2d": [103, 207, 611, 703]}, context(source), tool)
    recipe = json.loads(json.dumps(dict(result.arguments)))
    again = remake(result.operation, recipe, source)
    assert again.sent_image.sha256 == result.picture.sent_image.sha256
    assert again.sent_image.encoded() == result.picture.sent_image.encoded()
    assert (again.raw, again.sent) == (result.picture.raw, result.picture.sent)


def test_a_chain_of_crops_is_remade_from_its_recipes() -> None:
    root = picture(300, 200)
    first = crop({"bbox_2d": [100, 100, 900, 900]}, context(root), crop_and_zoom())
    where = context(root, first.picture)
    second = crop({"bbox_2d": [0, 0, 500, 500], "image_index": 1}, where, crop_and_zoom())
    made = remake("crop", second.arguments, remake("crop", first.arguments, root))
    assert made.sent_image.sha256 == second.picture.sent_image.sha256


def test_an_unknown_operation_is_refused() -> None:
    with pytest.raises(DataError, match="by the operation 'blur'; known: crop, rotate, flip"):
        remake("blur", {}, SMALL)


@pytest.mark.parametrize(
    "recipe",
    [
        {},
        {"box_px": [0, 0, 10, 10]},
        {"box_px": [0, 0, 10], "budget": None},
        {"box_px": [0, 0, 10, 10.5], "budget": None},
        {"box_px": [0, 0, 61, 10], "budget": None},
        {"box_px": [0, 0, 10, 41], "budget": None},
        {"box_px": [-1, 0, 10, 10], "budget": None},
        {"box_px": [10, 0, 10, 10], "budget": None},
        {"box_px": [0, 0, 10, 10], "budget": None, "angle": 90},
        {"box_px": [0, 0, 10, 10], "budget": 7},
        {"box_px": [0, 0, 10, 10], "budget": {"min_px": 1}},
        {"box_px": [0, 0, 10, 10], "budget": {"min_px": 5, "max_px": 1, "factor": 1}},
    ],
)
def test_a_recipe_that_no_crop_wrote_is_refused(recipe: dict[str, JsonValue]) -> None:
    with pytest.raises(DataError):
        remake("crop", recipe, SMALL)
