"""The rules that published environments cut by, each against numbers worked out by hand."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from medeval.errors import DataError, DefinitionError, ToolError
from medeval.images.picture import Picture, made_picture, prepare
from medeval.images.resize import PixelBudget
from medeval.tools import remake
from medeval.tools.base import ToolContext, budget_recipe, read_budget
from medeval.tools.crop import crop_and_zoom
from medeval.tools.crop_rules import (
    CropImage,
    CropRules,
    Target,
    cut_region,
    grown_in_proportion,
    whole_number,
)
from medeval.tools.guessed_frames import Guess, guessed_frame
from medeval.types.geometry import PERMILLE, RELATIVE, Frame, PixelBox, Size, pixels
from medeval.types.sample import JsonValue
from tests.definitions.golden_transcripts import DATA

SIZE = Size(100, 80)
IMAGE = CropImage(frame=pixels(100, 80), size=SIZE, index=0, argument="bbox_2d")


def whole(box: tuple[float, float, float, float], **rules: Any) -> PixelBox:
    return cut_region(box, IMAGE, CropRules(minimum_side_px=4, **rules)).box


@pytest.mark.parametrize(
    ("box", "rules", "expected"),
    [
        ((10, 10, 50, 50), {}, (10, 10, 50, 50)),
        ((10.6, 10.4, 50.5, 60.6), {"rounding": "nearest"}, (11, 10, 50, 61)),
        ((10.6, 10.4, 50.5, 60.6), {"rounding": "cut"}, (10, 10, 50, 60)),
        ((10, 10, 50, 50), {"pad": 0.1}, (0, 2, 60, 58)),
        ((10, 10, 50, 50), {"enlarge": 1.5}, (0, 0, 60, 60)),
        ((-10, -10, 150, 90), {"clamp": "none", "small": "keep"}, (-10, -10, 150, 90)),
        ((50, 40, 100, 80), {"clamp": "last_pixel"}, (50, 40, 99, 79)),
        ((50, 50, 10, 10), {"swap_corners": True}, (10, 10, 50, 50)),
        ((120, 90, 130, 95), {"swap_corners": True}, (48, 38, 52, 42)),
        ((10, 10, 11, 50), {}, (9, 10, 13, 50)),
        ((10, 10, 11, 50), {"small": "keep"}, (10, 10, 11, 50)),
        # grown to exactly the minimum, which is not longer than it: upstream keeps the small box
        ((50, 40, 52, 44), {"small": "grow_in_proportion"}, (50, 40, 52, 44)),
        ((50.2, 40.2, 52.2, 44.2), {"small": "grow_in_proportion"}, (49, 38, 54, 47)),
    ],
)  # fmt: skip
def test_a_rule_turns_a_box_into_these_pixels(
    box: tuple[float, float, float, float], rules: dict[str, Any], expected: tuple[int, ...]
) -> None:
    assert whole(box, **rules) == PixelBox(*expected)


@pytest.mark.parametrize(
    ("box", "rules", "said"),
    [
        ((50, 10, 10, 50), {}, "needs x1 < x2, got x1 = 50 and x2 = 10"),
        ((0, 0, 101, 50), {"must_be_inside": True}, "leaves image 0"),
        ((0, 0, 3, 50), {"small": "refuse"}, "too small: 3 x 50 pixels; each side has at least 4"),
        ((0, 0, 3.9, 50), {"small": "refuse", "limits_before_rounding": True},
         "too small: 3.9 x 50 pixels; each side has at least 4"),
        ((0, 0, 5.4, 50), {"maximum_ratio": 9.0, "limits_before_rounding": True},
         "too long for its width: 5.4 x 50"),
        ((0, 0, 3, 50), {"small": "refuse", "box_refusal": "NO"}, "NO"),
        ((50, 10, 10, 50), {"box_refusal": "NO"}, "NO"),
        ((0, 0, 4, 50), {"small": "refuse", "minimum_excluded": True}, "more than 4"),
        ((0, 0, 3, 50), {"small": "refuse", "small_refusal": "${width}x$height"}, "^3x50$"),
        ((0, 0, 5, 50), {"maximum_ratio": 9.0}, "too long for its width: 5 x 50"),
        ((0.1, 0.1, 0.4, 0.4), {"small": "keep", "rounding": "nearest"}, "no whole pixel: it is 0"),
        ((0, 0, 90_000, 90_000), {"clamp": "none", "small": "keep"}, "larger than any image"),
        ((200, 200, 300, 300), {}, "lies entirely outside image 0"),
    ],
)  # fmt: skip
def test_a_rule_refuses_a_box_and_says_why(
    box: tuple[float, float, float, float], rules: dict[str, Any], said: str
) -> None:
    with pytest.raises(ToolError, match=said):
        whole(box, **rules)


@pytest.mark.parametrize(
    "rules", [{"pad": -0.1}, {"enlarge": 0.5}, {"upscale": 0.0}, {"minimum_side_px": 0},
              {"refusal": "$what"}, {"small_refusal": "$"}],
)  # fmt: skip
def test_rules_that_cannot_be_meant_are_refused(rules: dict[str, Any]) -> None:
    with pytest.raises(DefinitionError):
        CropRules(**rules)


finite = st.floats(-2000, 2000)


@given(
    st.tuples(finite, finite, finite, finite),
    st.sampled_from(["image", "last_pixel"]),
    st.sampled_from(["out", "nearest", "cut"]),
    st.sampled_from(["grow", "grow_in_proportion", "keep", "refuse"]),
    st.booleans(),
    st.floats(0, 0.5),
)
def test_a_clamped_box_lies_inside_or_is_refused(
    box: tuple[float, float, float, float], clamp: str, rounding: str, small: str, swap: bool,
    pad: float,
) -> None:  # fmt: skip
    try:
        made = whole(box, clamp=clamp, rounding=rounding, small=small, swap_corners=swap, pad=pad)
    except ToolError:
        return
    assert 0 <= made.left < made.right <= 100
    assert 0 <= made.top < made.bottom <= 80


def test_a_box_too_thin_to_scale_stays() -> None:
    assert grown_in_proportion((0, 0, 5e-324, 50), 28, SIZE) == (0, 0, 5e-324, 50)


@pytest.mark.parametrize(
    ("guess", "values", "frame"),
    [
        ("guess_pixel_reasoner", (0.1, 0.2, 0.9, 0.999), RELATIVE),
        ("guess_pixel_reasoner", (0.1, 0.2, 0.9, 1.0), pixels(2000, 1500)),
        ("guess_med", (0.1, 0.2, 0.9, 1.0), PERMILLE),
        ("guess_med", (0, 0, 1000, 1000), PERMILLE),
        ("guess_med", (0, 0, 1001, 1000), pixels(2000, 1500)),
        ("guess_med", (0, 0, 1001, 1600), Frame("share of the largest value", 1600, 1600)),
        ("guess_med_older", (0.0, 0.0, 1.0, 1.0), RELATIVE),
        ("guess_med_older", (0, 0, 2, 2), PERMILLE),
        ("guess_med_older", (0, 0, 1001, 1600), pixels(2000, 1500)),
    ],
)
def test_a_published_guess_takes_these_values_so(
    guess: Guess, values: tuple[float, ...], frame: Frame
) -> None:
    assert guessed_frame(guess, values, Size(2000, 1500)) == frame


def context(n_images: int = 3, n_originals: int = 2) -> ToolContext:
    blank = made_picture(Image.new("RGB", (40, 40)), budget=None)
    return ToolContext(pictures=[blank] * n_images, frame="permille", n_originals=n_originals)


@pytest.mark.parametrize(
    ("target", "arguments", "index"),
    [
        (Target(), {}, 0),
        (Target(base=1), {"image_index": 3}, 2),
        (Target(lenient=True), {"image_index": " 1 "}, 1),
        (Target(lenient=True), {"image_index": 1.9}, 1),
        (Target(rule="first"), {"image_index": 9}, 0),
        (Target(rule="latest"), {}, 2),
        (Target(rule="source", argument="source"), {"source": "original_image"}, 0),
        (Target(rule="source", argument="source"), {"source": "observation_1"}, 2),
    ],
)
def test_a_target_names_an_image(
    target: Target, arguments: dict[str, JsonValue], index: int
) -> None:
    assert target.index(arguments, context()) == index


@pytest.mark.parametrize(
    ("target", "arguments", "said"),
    [
        (Target(default=None), {}, "'image_index' is missing"),
        (Target(over="originals"), {"image_index": 2}, "no image 2; images are numbered 0 to 1"),
        (Target(base=1), {"image_index": 0}, "numbered 1 to 3"),
        (Target(), {"image_index": "1"}, "an integer counted from 0"),
        (Target(refusal="0 to $last, not $seen"), {"image_index": "x"}, '0 to 2, not "x"'),
        (Target(rule="source", argument="s"), {}, "'s' is missing"),
        (Target(rule="source", argument="s"), {"s": 3}, "or 'observation_i', not 3"),
        (Target(rule="source", argument="s"), {"s": "observation_0"}, "there are 1 so far"),
    ],
)  # fmt: skip
def test_a_target_that_is_not_there_is_refused(
    target: Target, arguments: dict[str, JsonValue], said: str
) -> None:
    with pytest.raises(ToolError, match=said):
        target.index(arguments, context())


@pytest.mark.parametrize("value", [True, None, "x", 0.5, float("inf"), [1]])
def test_what_is_no_whole_number_is_none(value: JsonValue) -> None:
    assert whole_number(value) is None


AREA = PixelBudget(min_px=40_000, max_px=2_000_000, factor=1, rule="area", resample="nearest")


@pytest.mark.parametrize(
    ("size", "sent"),
    [((300, 200), (300, 200)), ((100, 100), (200, 200)), ((4000, 2000), (2000, 1000)),
     ((1, 90_000), (1, 90_000)), ((3, 3), (200, 200))],
)  # fmt: skip
def test_the_area_rule_scales_to_the_nearer_bound(
    size: tuple[int, int], sent: tuple[int, int]
) -> None:
    assert AREA.size_of(Size(*size)) == Size(*sent)


@pytest.mark.parametrize("budget", [None, AREA, PixelBudget(min_px=1, max_px=9, factor=1)])
def test_a_budget_is_read_back_from_its_recipe(budget: PixelBudget | None) -> None:
    assert read_budget(budget_recipe(budget)) == budget


@pytest.mark.parametrize("wrong", [{"rule": "other"}, {"resample": "box"}, {"more": 1}])
def test_an_unknown_budget_is_refused(wrong: dict[str, JsonValue]) -> None:
    with pytest.raises(DataError, match="no pixel budget"):
        read_budget({"min_px": 1, "max_px": 9, "factor": 1, **wrong})


RULES = {
    "sent": CropRules(source="sent", upscale=2.0, resample="lanczos"),
    "jpeg": CropRules(jpeg_quality=75, measure="box"),
    "outside": CropRules(clamp="none", small="keep", rounding="nearest"),
}


@pytest.mark.parametrize("budget", [None, PixelBudget(min_px=784, max_px=78_400, factor=28)])
@pytest.mark.parametrize("rules", RULES.values(), ids=RULES)
def test_an_unusual_crop_is_remade_from_its_recipe(
    rules: CropRules, budget: PixelBudget | None
) -> None:
    parent: Picture = prepare(DATA, name="drawn", budget=AREA)
    where = ToolContext(pictures=[parent], frame="pixels_raw")
    tool = crop_and_zoom(rules=rules, budget=budget)
    made = tool.run({"bbox_2d": [1100, 700, 1180.4, 790]}, where)
    again = remake(made.operation, dict(made.arguments), parent)
    assert again.sent_image.sha256 == made.picture.sent_image.sha256
    assert (again.raw, again.sent) == (made.picture.raw, made.picture.sent)


@pytest.mark.parametrize(
    "unusual",
    [{"source": "other"}, {"resample": "box"}, {"jpeg_quality": "high"}, {"sent_px": [0, 9]},
     {"sent_px": "x"}, {"outside": "white"}, {"outside": "black"}, {"angle": 1}],
)  # fmt: skip
def test_an_unusual_recipe_that_no_crop_wrote_is_refused(unusual: dict[str, JsonValue]) -> None:
    parent = made_picture(Image.new("RGB", (60, 40)), budget=None)
    with pytest.raises(DataError, match="no recipe of a crop"):
        remake("crop", {"box_px": [0, 0, 9, 9], "budget": None, **unusual}, parent)


def test_a_crop_tells_its_unusual_rules_in_its_settings() -> None:
    tool = crop_and_zoom(
        rules=CropRules(pad=0.1), target=Target(base=1), other_arguments="ignore", budget=None
    )
    assert tool.settings == {
        "minimum_side_px": 28, "budget": None, "pad": 0.1, "base": 1,
        "other_arguments": "ignore",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"bbox_2d": [1, 2, 3]}, "four numbers"),
        ({"bbox_2d": [3, 2, 1, 4]}, "x1 < x2"),
        ({"bbox_2d": [1, 2, 3, 4], "angle": 9}, "no argument named 'angle'"),
    ],
)
def test_arguments_are_checked_without_an_image(arguments: dict[str, JsonValue], said: str) -> None:
    with pytest.raises(ToolError, match=said):
        crop_and_zoom().check(arguments)
    crop_and_zoom(rules=CropRules(invalid="whole_image"), other_arguments="ignore").check(arguments)
