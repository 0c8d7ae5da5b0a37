"""Trajectories of the real tools, measured: each number against one computed by hand."""

import math
from dataclasses import replace

import pytest

from medeval.analysis.process.measures import measured
from medeval.data.symmetry import turned
from medeval.types.geometry import RELATIVE, AxisLine, Box, Point, pixels
from medeval.types.sample import JsonValue, Sample
from medeval.types.trajectory import Answer, Trajectory
from tests.analysis.process.conversations import (
    HEIGHT,
    SAMPLE,
    WIDTH,
    box_of,
    call,
    crop,
    played,
    two_images,
)

FRAME = pixels(WIDTH, HEIGHT)
ONE = replace(SAMPLE, target_boxes=(Box(100, 50, 200, 100, FRAME),))
TWO = replace(ONE, target_boxes=(*ONE.target_boxes, Box(0.75, 0.5, 0.8, 0.6, RELATIVE)))


def values(trajectory: Trajectory, sample: Sample) -> dict[str, float]:
    return dict(measured(trajectory, sample).values)


def test_a_perfect_crop_is_1_in_every_way() -> None:
    found = values(played(crop(100, 50, 200, 100), sample=ONE), ONE)
    ones = ("cropped", "modf1_best", "modf1_final", "hit_iou_50", "target_inside")
    assert all(found[name] == 1.0 for name in (*ones, "all_targets_inside", "all_targets_in_one"))
    assert found["target_iou"] == found["all_targets_iou"] == 1.0
    assert found["log_crop_over_target"] == found["log_crop_over_all_targets"] == 0.0


def test_a_crop_by_hand() -> None:
    # 200 x 100 around a target of 100 x 50: 5,000 px shared, 15,000 too many
    found = values(played(crop(50, 25, 250, 125), sample=ONE), ONE)
    assert found["modf1_best"] == pytest.approx(10_000 / (10_000 + 1_500))
    assert found["target_iou"] == pytest.approx(0.25)
    assert (found["hit_iou_50"], found["target_inside"]) == (0.0, 1.0)
    assert math.exp(found["log_crop_over_target"]) == pytest.approx(4.0)


def test_a_crop_of_a_crop_is_measured_on_the_first_image() -> None:
    # the second box is in pixels of the first crop, which starts at (80, 40)
    conversation = played(crop(80, 40, 280, 140), crop(20, 10, 120, 60, image=1), sample=ONE)
    found = measured(conversation, ONE)
    assert found.values["modf1_best"] == found.values["modf1_final"] == 1.0
    assert [round(one.values["modf1"], 4) for one in found.calls] == [0.8696, 1.0]


@pytest.mark.parametrize(
    "turns",
    [
        [call("rotate", angle=90)],
        [call("flip", direction="vertical")],
        [call("rotate", angle=270), call("flip", direction="horizontal", image_index=1)],
    ],
)
def test_a_crop_of_a_turned_image_is_measured_on_the_first_image(turns: list[str]) -> None:
    # the middle of the image stays the middle, however it is turned
    middle = replace(SAMPLE, target_boxes=(Box(150, 50, 250, 150, FRAME),))
    is_upright = len(turns) == 1 and "flip" in turns[0]
    box = (150, 50, 250, 150) if is_upright else (50, 150, 150, 250)
    found = values(played(*turns, crop(*box, image=len(turns)), sample=middle), middle)
    assert found["modf1_best"] == pytest.approx(1.0)


def test_best_final_and_cited_are_different_states() -> None:
    bad, good = crop(0, 0, 50, 25), crop(100, 50, 200, 100)
    found = values(played(good, bad, sample=ONE, answer="B, as image 1 shows"), ONE)
    assert (found["modf1_best"], found["modf1_final"], found["modf1_cited"]) == (1.0, 0.0, 1.0)


def test_a_cited_first_image_is_the_whole_of_it() -> None:
    found = values(played(crop(100, 50, 200, 100), sample=ONE, answer="image 0: B"), ONE)
    whole, target = WIDTH * HEIGHT, 5_000
    assert found["modf1_cited"] == pytest.approx(2 * target / (2 * target + 0.1 * (whole - target)))


@pytest.mark.parametrize("answer", ["B", "image 7", "images", "the image 1st"])
def test_an_answer_that_cites_no_image_has_no_cited_state(answer: str) -> None:
    assert "modf1_cited" not in values(played(crop(1, 1, 9, 9), sample=ONE, answer=answer), ONE)


def test_the_citation_may_stand_in_the_tags_that_the_answer_was_taken_from() -> None:
    conversation = played(crop(100, 50, 200, 100), sample=ONE)
    cited = Answer(text="B", how_found="boxed", reply="image 0. <answer>B (Image_1)</answer>")
    assert values(replace(conversation, answer=cited), ONE)["modf1_cited"] == 1.0
    assert "modf1_cited" not in values(replace(conversation, answer=None, stop="empty"), ONE)


@pytest.mark.parametrize(
    "reply",
    [
        '<answer image="1">B</answer>',
        "<answer>image 0</answer> no: <answer>B, image #1</answer>",
        '<answer>{"answer": "B", "image_index": 1}',
        "B (image1)",
    ],
)
def test_a_citation_has_several_forms_and_the_last_element_counts(reply: str) -> None:
    conversation = played(crop(100, 50, 200, 100), sample=ONE)
    cited = Answer(text="B (image1)", how_found="whole_reply", reply=reply)
    assert values(replace(conversation, answer=cited), ONE)["modf1_cited"] == 1.0


def test_several_targets_one_by_one_and_together() -> None:
    # the second target is 20 x 20 at (300, 100); one crop a target
    conversation = played(crop(100, 50, 200, 100), crop(300, 100, 320, 120), sample=TWO)
    found = values(conversation, TWO)
    assert (found["target_inside"], found["all_targets_inside"]) == (1.0, 1.0)
    assert (found["all_targets_in_one"], found["target_iou"]) == (0.0, 1.0)
    # their hull is 220 x 70, of which the first crop is 5,000
    assert found["all_targets_iou"] == pytest.approx(5_000 / 15_400)
    assert math.exp(found["log_crop_over_all_targets"]) == pytest.approx(5_000 / 15_400)

    half = values(played(crop(100, 50, 200, 100), sample=TWO), TWO)
    assert (half["target_inside"], half["all_targets_inside"]) == (0.5, 0.0)
    assert (half["target_iou"], half["modf1_best"]) == (0.5, 1.0)
    both = values(played(crop(100, 50, 320, 120), sample=TWO), TWO)
    assert (both["all_targets_in_one"], both["all_targets_iou"]) == (1.0, 1.0)


def test_without_a_crop_there_is_only_the_fact() -> None:
    found = values(played(call("rotate", angle=90), sample=ONE), ONE)
    assert found["cropped"] == 0.0
    assert "modf1_best" not in found


def test_without_target_boxes_a_crop_is_not_measured() -> None:
    found = measured(played(crop(1, 1, 9, 9)), SAMPLE)
    assert "cropped" not in found.values
    assert [dict(one.values) for one in found.calls] == [{}]


def test_a_crop_of_another_image_frames_nothing_of_the_first() -> None:
    sample = two_images(ONE)
    found = values(played(crop(100, 50, 200, 100, image=1), sample=sample), sample)
    assert (found["cropped"], found["modf1_best"], found["target_inside"]) == (1.0, 0.0, 0.0)
    assert "log_crop_over_target" not in found


def test_calls_tools_and_composites_are_counted() -> None:
    conversation = played(
        crop(1, 1, 9, 9), crop(2, 2, 9, 9), call("rotate", angle=90), call("zoom!"), sample=ONE
    )
    found = measured(conversation, ONE)
    counts = [found.values[name] for name in ("attempted", "executed", "tools", "composite")]
    assert counts == [4, 3, 2, 1]
    assert found.executed == ("crop_and_zoom", "crop_and_zoom", "rotate")
    assert [one.status for one in found.calls] == [*["executed"] * 3, "rejected"]


def test_orientation_at_every_state() -> None:
    sample = turned(SAMPLE, "rotate_90")
    right, wrong = call("rotate", angle=270), call("flip", direction="horizontal", image_index=1)
    found = measured(played(right, wrong, sample=sample, answer="image 1"), sample)
    assert {name: value for name, value in found.values.items() if "upright" in name} == {
        "upright_at_start": 0.0,
        "upright_best": 1.0,
        "upright_final": 0.0,
        "upright_cited": 1.0,
    }
    assert [one.values["upright"] for one in found.calls] == [1.0, 0.0]


def test_an_upright_control_is_upright_from_the_start() -> None:
    sample = turned(SAMPLE, "upright")
    found = values(played(sample=sample), sample)
    assert found["upright_at_start"] == found["upright_final"] == 1.0
    assert "upright_at_start" not in values(played(), replace(SAMPLE, transform="blurred"))


def test_lines_add_up_along_the_images_they_were_drawn_on() -> None:
    sample = replace(
        SAMPLE, target_lines=(AxisLine("x", 0.25, RELATIVE), AxisLine("y", 100, FRAME))
    )
    first = call("draw_line", axis="x", value=100)
    second = call("draw_line", axis="y", value=125, image_index=1)
    elsewhere = call("draw_line", axis="y", value=100, image_index=0)
    found = measured(played(first, second, elsewhere, sample=sample, answer="image 2"), sample)
    # x exact, y 25 px of 50 off: 2 (1 + 0.5) / 4; the third image holds one exact line of two
    assert found.values["line_best"] == pytest.approx(0.75)
    assert found.values["line_final"] == pytest.approx(2 / 3)
    assert found.values["line_cited"] == pytest.approx(0.75)
    assert [round(one.values["line"], 3) for one in found.calls] == [0.667, 0.75, 0.667]
    assert values(played(sample=sample), sample)["line_best"] == 0.0


def test_a_line_drawn_on_a_turned_crop_is_measured_on_the_first_image() -> None:
    # the crop starts at (100, 50); turned by 90 degrees, its y = 30 is x = 30 of the crop
    sample = replace(SAMPLE, target_lines=(AxisLine("x", 130, FRAME),))
    calls = (
        crop(100, 50, 300, 150),
        call("rotate", angle=90, image_index=1),
        call("draw_line", axis="y", value=30, image_index=2),
    )
    assert values(played(*calls, sample=sample), sample)["line_final"] == pytest.approx(1.0)


def test_points_by_hand() -> None:
    sample = replace(SAMPLE, target_points=(Point(0.25, 0.5, RELATIVE), Point(300, 100, FRAME)))
    exact = call("draw_point", x=100, y=100)
    near = call("draw_point", x=300, y=150, image_index=1)
    found = values(played(exact, near, sample=sample), sample)
    assert found["point_best"] == pytest.approx((2 - 50 / math.hypot(100, 50)) / 2)
    assert "line_best" not in found


def test_a_mark_on_another_image_marks_nothing() -> None:
    sample = two_images(replace(SAMPLE, target_points=(Point(100, 100, FRAME),)))
    calls = (call("draw_point", x=100, y=100, image_index=1),)
    assert values(played(*calls, sample=sample), sample)["point_best"] == 0.0


COLUMNS: dict[str, JsonValue] = {
    "2009": box_of(0, 0, 100, 200),
    "2010": box_of(100, 0, 200, 200),
    "2011": box_of(200, 0, 400, 200),
}
REGIONS: list[JsonValue] = [
    {"axis": "column", "name": "2009", "box": [0.0, 0.0, 0.25, 1.0]},
    {"axis": "column", "name": "2010", "box": [0.25, 0.0, 0.5, 1.0]},
    {"axis": "row", "name": "2010", "box": [0.0, 0.0, 1.0, 0.1]},
    {"axis": "column", "name": "", "box": [0.0, 0.0, 1.0, 1.0]},
    {"axis": "column", "name": "2010 ", "box": [0.5, 0.5, 0.5, 0.5]},
]


def focus(*names: str, axis: str = "columns", mode: str = "highlight") -> str:
    return call(f"focus_on_{axis}_with_{mode}", names=list(names), boxes=COLUMNS)


@pytest.mark.parametrize("mode", ["highlight", "draw", "mask"])
def test_focus_against_target_boxes(mode: str) -> None:
    sample = replace(SAMPLE, target_boxes=(Box(100, 0, 200, 100, FRAME),))
    found = measured(played(focus("2009", "2010", mode=mode), sample=sample), sample)
    assert found.values["focus_precision"] == pytest.approx(0.25)
    assert found.values["focus_recall"] == pytest.approx(1.0)
    assert found.calls[0].values["focus_precision"] == pytest.approx(0.25)


def test_focus_against_the_regions_that_the_question_names() -> None:
    sample = replace(SAMPLE, question="How many in 2010, not 20100?", metadata={"regions": REGIONS})
    found = values(played(focus("2010"), sample=sample), sample)
    assert (found["focus_precision"], found["focus_recall"]) == (1.0, 1.0)
    both = values(played(focus("2009"), focus("2010"), sample=sample), sample)
    assert both["focus_precision"] == pytest.approx(0.5)
    # the same name along the other axis is another region
    rows = values(played(focus("2010", axis="rows"), sample=sample), sample)
    assert rows["focus_precision"] == pytest.approx(0.1)
    assert rows["focus_recall"] == pytest.approx(0.25)


def test_regions_of_another_form_name_nothing() -> None:
    sample = replace(SAMPLE, question="How many in 2010?", metadata={"regions": REGIONS})
    conversation = played(focus("2010"), sample=sample)
    for odd in (["no region"], "2010", [{"axis": "column", "name": "2010", "box": [0.0, "a"]}]):
        other = replace(sample, metadata={"regions": odd})  # type: ignore[dict-item]
        assert "focus_precision" not in values(conversation, other)


def test_a_focus_on_nothing_finds_nothing() -> None:
    sample = replace(SAMPLE, target_boxes=(Box(100, 0, 200, 100, FRAME),))
    found = values(played(focus(), sample=sample), sample)
    assert (found["focus_precision"], found["focus_recall"]) == (0.0, 0.0)


def test_a_focus_without_anything_to_find_is_not_measured() -> None:
    sample = replace(SAMPLE, metadata={"regions": REGIONS})
    assert "focus_precision" not in values(played(focus("2010"), sample=sample), sample)
    assert "focus_precision" not in values(played(focus("2010")), SAMPLE)


def test_logs_without_images_have_counts_alone() -> None:
    bare = replace(played(crop(1, 1, 9, 9), sample=ONE), images=())
    found = measured(bare, ONE)
    assert set(found.values) == {"attempted", "executed", "observed", "tools", "composite"}
    assert [one.tool for one in found.calls] == ["crop_and_zoom"]
