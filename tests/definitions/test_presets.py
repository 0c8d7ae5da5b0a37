"""The presets, word for word and quirk for quirk, each quirk by its name."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from medeval.evaluation.loader import load, shipped
from medeval.images.picture import prepare
from medeval.models.base import Reply
from medeval.rollout.protocol import EvalProtocol, Pair
from medeval.tools.base import ToolContext
from medeval.types.geometry import Size
from medeval.types.trajectory import ImageRef, Trajectory, Usage
from tests.definitions import golden_transcripts as golden
from tests.definitions.golden_transcripts import MED, PIXEL, SAMPLE, ZOOM, glm, grounding, hermes

EVERY = (*golden.SCRIPTS, *golden.NATIVE_SCRIPTS)
TRACES = Path(__file__).parents[3] / "shared/data/vstar/deepeyes_traces.jsonl"


def available(name: str) -> EvalProtocol:
    return load(name, Pair).value.available


def ended(name: str, *script: str) -> Trajectory:
    return golden.rolled(available(name), script).trajectory


def texts(trajectory: Trajectory, role: str = "user") -> list[str]:
    """What the harness said after the question."""
    return [message.text for message in trajectory.messages if message.role == role][1:]


@pytest.mark.parametrize("name", EVERY)
def test_a_preset_says_what_its_golden_transcript_says(name: str) -> None:
    kept = json.loads((golden.GOLDEN / f"{name}.json").read_text("utf-8"))
    assert golden.transcripts(name) == kept


def test_every_preset_has_a_golden_transcript() -> None:
    assert set(EVERY) == {loaded.value.name for loaded in shipped(Pair)}
    assert {path.stem for path in golden.GOLDEN.glob("*.json")} == set(EVERY)


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("deepeyes", "derived"), ("mini_o3", "derived"), ("chain_of_focus", "derived"),
        ("refocus_chart", "derived"), ("vtool_r1_v1", "published"),
        ("qwen3vl_zoom", "derived"), ("glm45v", "ours"), ("med", "published"),
        ("med_glm", "published"), ("pixel_reasoner", "published"), ("crop_zoom", "ours"),
    ],
)  # fmt: skip
def test_a_pair_says_where_its_free_arm_comes_from(name: str, source: str) -> None:
    assert load(name, Pair).value.free_source == source


@pytest.mark.parametrize("name", sorted(golden.SCRIPTS.keys() - {"crop_zoom", "native5"}))
def test_a_preset_names_its_source_and_licence(name: str) -> None:
    for arm in load(name, Pair).value.arms:
        assert "https://github.com/" in arm.source
        assert arm.licence


@pytest.mark.parametrize("name", golden.SCRIPTS)
def test_a_call_in_the_free_arm_of_a_preset_is_seen_and_not_carried_out(name: str) -> None:
    free = load(name, Pair).value.free
    call = next(line for line in golden.SCRIPTS[name] if "bbox" in line)
    trajectory = golden.rolled(free, [call]).trajectory
    assert (trajectory.stop, trajectory.calls[0].status) == ("not_offered", "not_offered")


@pytest.mark.skipif(not TRACES.exists(), reason="the recorded DeepEyes conversations are not here")
def test_deepeyes_prompts_are_those_of_its_own_recorded_conversations() -> None:
    recorded = json.loads(TRACES.read_text("utf-8").partition("\n")[0])
    system, asked = recorded["messages"][:2]
    options = [line[3:] for line in asked["content"][1]["text"].splitlines() if line[1:3] == ". "]
    sample = replace(SAMPLE, question=recorded["question"], options=tuple(options))
    opening = available("deepeyes").opening(sample)
    assert opening[0].text == system["content"]
    assert opening[1].text == asked["content"][1]["text"]
    assert opening[1].content[0] == ImageRef(0)


def test_deepeyes_schema_requires_bbox_which_is_no_property() -> None:
    parameters = available("deepeyes").tools[0].parameters
    assert parameters["required"] == ["bbox"]
    assert set(parameters["properties"]) == {"bbox_2d", "label"}  # type: ignore[arg-type]
    assert '"required":["bbox"]' in available("deepeyes").system


def test_deepeyes_example_has_two_blanks_at_its_line_ends() -> None:
    assert "**Example**:  \n<tool_call>  \n" in available("deepeyes").system


def test_deepeyes_shows_black_outside_the_image() -> None:
    rollout = golden.rolled(
        available("deepeyes"), [hermes(ZOOM, bbox_2d=[1150, 700, 1290, 840]), "<answer>B</answer>"]
    )
    pixels = rollout.made[1].pixels()
    assert pixels.size == (140, 140)
    assert pixels.getpixel((139, 139)) == (0, 0, 0)
    assert pixels.getpixel((10, 10)) != (0, 0, 0)
    assert rollout.trajectory.images[1].arguments["outside"] == "black"


def test_a_failed_call_ends_deepeyes_with_its_last_text_as_the_answer() -> None:
    call = hermes(ZOOM, bbox_2d=[10, 10, 5, 5])
    trajectory = ended("deepeyes", call)
    assert trajectory.answer is not None
    assert trajectory.answer.text == call
    assert trajectory.answer.how_found == "raw_reply at tool_error"


def test_an_answer_beside_a_call_ends_deepeyes_after_the_call() -> None:
    trajectory = ended(
        "deepeyes", hermes(ZOOM, bbox_2d=[0, 0, 50, 50]) + "<answer>A</answer><answer>B</answer>"
    )
    assert trajectory.answer is not None and trajectory.answer.text == "A"
    assert [(call.status, call.observed) for call in trajectory.calls] == [("executed", False)]


def test_deepeyes_reads_the_first_call_and_its_training_the_last() -> None:
    calls = hermes(ZOOM, bbox_2d=[0, 0, 100, 100]) + hermes(ZOOM, bbox_2d=[0, 0, 200, 100])
    for name, width in (("deepeyes", 100), ("deepeyes_train", 200)):
        assert ended(name, calls, "<answer>B</answer>").images[1].raw == Size(width, 100)


@pytest.mark.parametrize(
    ("box", "raw"),
    [
        ([100.4, 100, 130.6, 150], (31, 50)),
        # 30.4 wide, and 30 pixels once it is rounded
        ([100, 100, 130.4, 150], (30, 50)),
        # 30 wide, and 31 pixels once it is rounded
        ([100.6, 100, 130.6, 150], None),
        ([99.5, 100, 129.5, 150], None),
        # a side of 30.4, and one of 3040.1 that the clamp cuts
        ([0, 100, 1200, 130.4], (1200, 30)),
    ],
)
def test_deepeyes_training_measures_a_box_before_it_is_rounded(
    box: list[float], raw: tuple[int, int] | None
) -> None:
    trajectory = ended("deepeyes_train", hermes(ZOOM, bbox_2d=box), "<answer>B</answer>")
    if raw is None:
        assert texts(trajectory) == ["Error: ZOOM IN ARGUMENTS ARE INVALID"]
    else:
        assert trajectory.images[1].raw == Size(*raw)


@pytest.mark.parametrize("box", [[400, 100, 300, 200], [5000, 5000, 6000, 6000], [0, 0, 9, 900]])
def test_deepeyes_training_says_one_sentence_of_every_box_that_it_refuses(box: list[int]) -> None:
    trajectory = ended("deepeyes_train", hermes(ZOOM, bbox_2d=box), "<answer>B</answer>")
    assert texts(trajectory) == ["Error: ZOOM IN ARGUMENTS ARE INVALID"]


def test_deepeyes_reads_python_literals_where_json_fails() -> None:
    call = f"<tool_call>{{'name': '{ZOOM}', 'arguments': {{'bbox_2d': (0, 0, 50, 50)}}}}"
    assert ended("deepeyes", call, "<answer>B</answer>").executed == 1


def test_deepeyes_mapped_takes_boxes_from_the_image_that_the_model_saw() -> None:
    tool = available("deepeyes_mapped").tools[0]
    picture = golden.pictures_of(available("deepeyes_mapped"))[0]
    context = ToolContext(pictures=[picture], frame="pixels_model", model_sizes={0: Size(600, 400)})
    result = tool.run({"bbox_2d": [100, 100, 200, 200]}, context)
    assert result.arguments["box_px"] == [200, 200, 400, 400]


def test_mini_o3_numbers_rounds_and_not_crops_after_a_failed_call() -> None:
    trajectory = ended("mini_o3", *golden.SCRIPTS["mini_o3"])
    assert [text.partition("(")[2][:13] for text in texts(trajectory)[::2]] == [
        "Observation 1", "Observation 3",
    ]  # fmt: skip
    assert trajectory.images[2].parent == 1
    again = ended(
        "mini_o3", *golden.SCRIPTS["mini_o3"][:3],
        grounding([0.0, 0.0, 0.5, 0.5], "observation_3"), "<answer>B</answer>",
    )  # fmt: skip
    assert again.calls[-1].error == "there is no observation 3; there are 2 so far"


def test_mini_o3_cuts_a_crop_of_a_crop_from_full_resolution() -> None:
    trajectory = ended(
        "mini_o3", grounding([0.2, 0.2, 0.6, 0.6], "original_image"),
        grounding([0.0, 0.0, 0.5, 0.5], "observation_1"), "<answer>B</answer>",
    )  # fmt: skip
    assert trajectory.images[2].raw == Size(240, 160)


def test_mini_o3_loses_the_last_row_and_column_to_its_clamp() -> None:
    trajectory = ended(
        "mini_o3", grounding([0.5, 0.5, 1.0, 1.0], "original_image"), "<answer>B</answer>"
    )
    assert trajectory.images[1].raw == Size(599, 399)


@pytest.mark.parametrize(("name", "rounds"), [("mini_o3", 12), ("mini_o3_train", 6)])
def test_mini_o3_over_its_rounds_has_no_answer(name: str, rounds: int) -> None:
    call = grounding([0.0, 0.0, 0.5, 0.5], "original_image")
    trajectory = ended(name, *[call] * rounds)
    assert (trajectory.stop, trajectory.executed) == ("call_limit", rounds - 1)


def test_mini_o3_s_training_differs_in_its_rounds_alone() -> None:
    evaluated, trained = (available(name).describe() for name in ("mini_o3", "mini_o3_train"))
    assert {key for key, value in trained.items() if evaluated[key] != value} == {
        "name", "max_generations", "max_calls",
    }  # fmt: skip
    assert load("mini_o3_train", Pair).value.free == load("mini_o3", Pair).value.free


def test_a_pixel_reasoner_coordinate_of_exactly_1_makes_the_box_pixels() -> None:
    boxes = {1.0: (120, 80), 0.999: (719, 479)}
    for edge, raw in boxes.items():
        trajectory = ended(
            "pixel_reasoner", hermes(PIXEL, bbox_2d=[0.5, 0.5, edge, edge], target_image=1),
            r"\boxed{B}",
        )  # fmt: skip
        size = trajectory.images[1].raw
        assert abs(size.width_px - raw[0]) <= 1 and abs(size.height_px - raw[1]) <= 1


def test_pixel_reasoner_calls_only_where_the_reply_ends_with_a_call() -> None:
    call = hermes(PIXEL, bbox_2d=[0.2, 0.2, 0.5, 0.5], target_image=1)
    assert ended("pixel_reasoner", call + r" so \boxed{B}").calls == ()
    assert ended("pixel_reasoner", call, r"\boxed{B}").executed == 1


def test_pixel_reasoner_says_that_a_crop_is_too_small() -> None:
    small = replace(available("pixel_reasoner"), pixel_budget=None)
    tool = small.tools[0]
    picture = prepare(golden.drawn(100, 100), name="small")
    context = ToolContext(pictures=[picture], frame="guess_pixel_reasoner")
    with pytest.raises(Exception, match="Cropped image is too small: 22x28"):
        tool.run({"bbox_2d": [0.5, 0.5, 0.52, 0.58], "target_image": 1}, context)


def test_pixel_reasoner_stops_over_its_context_with_what_was_said() -> None:
    call = hermes(PIXEL, bbox_2d=[0.2, 0.2, 0.5, 0.5], target_image=1)
    long = Reply(text=r"\boxed{A} " + call, finish="stop", usage=Usage(prompt_tokens=12089))
    trajectory = golden.rolled(available("pixel_reasoner"), [long]).trajectory
    assert [made.status for made in trajectory.calls] == ["over_limit"]
    assert trajectory.answer is not None
    assert (trajectory.answer.text, trajectory.answer.how_found) == (
        "A", "boxed_anywhere at context",
    )  # fmt: skip


WHOLE = {
    "inverted": hermes(ZOOM, bbox_2d=[430, 270, 290, 190]),
    "outside": hermes(ZOOM, bbox_2d=[0, 0, 5000, 100]),
    "unreadable": "<tool_call>{oops</tool_call>",
}


@pytest.mark.parametrize("call", WHOLE.values(), ids=WHOLE)
def test_an_invalid_box_gives_chain_of_focus_the_whole_image_enlarged(call: str) -> None:
    trajectory = ended("chain_of_focus", call, "<answer>B</answer>")
    assert trajectory.images[0].sent == trajectory.images[1].raw == Size(1204, 812)
    assert trajectory.images[1].sent == Size(2408, 1624)


def test_a_box_of_three_numbers_gives_chain_of_focus_the_whole_image_as_it_is() -> None:
    trajectory = ended("chain_of_focus", hermes(ZOOM, bbox_2d=[1, 2, 3]), "<answer>B</answer>")
    assert trajectory.images[1].sent == Size(1204, 812)


@pytest.mark.parametrize("name", ["zoom", "<|im_end|>", ""])
def test_chain_of_focus_takes_any_tool_name_and_none(name: str) -> None:
    call = hermes(name, bbox_2d=[300, 300, 400, 380])
    trajectory = ended("chain_of_focus", call, "<answer>B</answer>")
    assert trajectory.images[1].arguments["box_px"] == [275, 280, 425, 400]
    without = call.replace('"name": ' + json.dumps(name) + ", ", "")
    assert ended("chain_of_focus", without, "<answer>B</answer>").images == trajectory.images


def test_a_call_that_is_cut_off_gives_chain_of_focus_the_whole_image_and_goes_on() -> None:
    whole = hermes(ZOOM, bbox_2d=[300, 300, 400, 380]).removesuffix("\n</tool_call>")
    for said in (whole, whole[:-20]):
        cut_off = Reply(text=said, finish="length")
        script = [cut_off, "<answer>B</answer>"]
        trajectory = golden.rolled(available("chain_of_focus"), script).trajectory  # type: ignore[arg-type]
        assert trajectory.images[1].sent == Size(2408, 1624)
        assert trajectory.stop == "answered"


def test_chain_of_focus_enlarges_a_box_by_half_and_its_cut_twofold() -> None:
    call = hermes(ZOOM, bbox_2d=[300, 300, 400, 380])
    image = ended("chain_of_focus", call, "<answer>B</answer>").images[1]
    assert image.arguments["box_px"] == [275, 280, 425, 400]
    assert image.sent == Size(308, 252)


def test_a_call_in_the_sixth_reply_leaves_chain_of_focus_without_an_answer() -> None:
    trajectory = ended("chain_of_focus", *[hermes(ZOOM, bbox_2d=[0, 0, 90, 90])] * 6)
    assert (trajectory.answer, trajectory.executed) == (None, 5)


def test_med_never_looks_for_a_call_in_its_fifth_reply() -> None:
    call = hermes(MED, bbox_2d=[0, 0, 500, 500], label="x", image_index=0)
    trajectory = ended("med", *[call] * 4, call + r"\boxed{B}")
    assert [made.status for made in trajectory.calls] == [*["executed"] * 4, "over_limit"]
    without = ended("med", *[call] * 5)
    assert (without.stop, without.answer) == ("call_limit", None)


def test_med_refuses_an_image_index_from_the_number_of_originals_on() -> None:
    call = hermes(MED, bbox_2d=[0, 0, 500, 500], label="x", image_index=0)
    crop_of_crop = hermes(MED, bbox_2d=[0, 0, 500, 500], label="x", image_index=1)
    trajectory = ended("med", call, crop_of_crop, r"\boxed{B}")
    assert trajectory.calls[1].error == (
        "image_index must be a valid index (0 to 0). But You have 1."
    )


def test_med_passes_over_a_call_that_it_cannot_read_and_ends() -> None:
    trajectory = ended("med", r"<tool_call>{oops</tool_call>")
    assert (trajectory.stop, trajectory.called) == ("malformed_call", False)
    answered = ended("med", r"\boxed{B} <tool_call>{oops</tool_call>")
    assert answered.answer is not None and answered.answer.text == "B"


def test_med_takes_text_for_an_index_and_fractions_for_thousandths() -> None:
    call = hermes(MED, bbox_2d=[400.2, 400.2, 400.6, 400.6], label="x", image_index="0")
    assert ended("med", call, r"\boxed{B}").images[1].raw == Size(45, 29)
    corner = hermes(MED, bbox_2d=[0.2, 0.2, 0.6, 0.6], label="x", image_index=0)
    assert ended("med", corner, r"\boxed{B}").calls[0].status == "rejected"


@pytest.mark.parametrize(
    ("box", "raw"),
    [
        ([600, 500, 400, 300], Size(240, 160)),
        ([1100, 700, 1200, 800], Size(100, 100)),
        ([2000, 2000, 2000, 2000], Size(28, 28)),
    ],
)
def test_med_mends_a_bad_box(box: list[float], raw: Size) -> None:
    call = hermes(MED, bbox_2d=box, label="x", image_index=0)
    assert ended("med", call, r"\boxed{B}").images[1].raw == raw


def test_med_counts_an_answer_of_an_earlier_reply() -> None:
    call = hermes(MED, bbox_2d=[0, 0, 500, 500], label="x", image_index=0)
    trajectory = ended("med", r"\boxed{A} " + call, "I cannot say.")
    assert trajectory.answer is not None and trajectory.answer.text == "A"


@pytest.mark.parametrize("name", ["med", "med_glm"])
def test_wordings_are_drawn_by_the_sample_and_equal_in_both_arms(name: str) -> None:
    pair = load(name, Pair).value
    asked: dict[str, set[str]] = {"free": set(), "available": set()}
    for number in range(40):
        sample = replace(SAMPLE, id=f"s{number}", options=())
        free, offered = (arm.opening(sample)[-1].text for arm in pair.arms)
        assert free == pair.free.opening(replace(sample))[-1].text
        question, _, rest = free.partition("\n\n")
        assert offered.startswith(question) and offered.endswith(rest)
        asked["free"].add(rest)
        asked["available"].add(offered.split("\n\n")[1])
    assert len(asked["free"]) > 20
    assert len(asked["available"]) > 5


def test_med_says_even_ifunsure() -> None:
    assert "even ifunsure" in available("med").opening(SAMPLE)[-1].text


def test_glm_arguments_are_decoded_from_their_tags() -> None:
    call = glm(MED, bbox_2d=[240, 240, 360, 340], label="3", image_index=0)
    arguments = ended("med_glm", call, "<|begin_of_box|>B<|end_of_box|>").calls[0].arguments
    assert arguments == {"bbox_2d": [240, 240, 360, 340], "label": 3, "image_index": 0}


def test_qwen3vl_carries_out_every_call_of_a_reply() -> None:
    call = hermes(ZOOM, bbox_2d=[0, 0, 500, 500], label="x", img_idx=0)
    trajectory = ended("qwen3vl_zoom", call * 3, "B")
    assert trajectory.executed == 3
    refused = ended("qwen3vl_zoom", hermes(ZOOM, bbox_2d=[0, 0, 5, 5], label="x"), "B")
    assert refused.calls[0].error == "'img_idx' is missing; it is an integer"


@pytest.mark.parametrize("name", ["grit", "deepeyes_reasoner"])
def test_a_reasoner_without_tools_has_no_pair(name: str) -> None:
    protocol = load(name, EvalProtocol).value
    assert protocol.tools == ()
    assert name not in {loaded.value.name for loaded in shipped(Pair)}
    trajectory = golden.rolled(protocol, ['<think>{"bbox_2d": [1, 2, 3, 4]}</think> <answer>B'])
    assert trajectory.trajectory.answer is not None
    assert trajectory.trajectory.answer.text == "B"


SANDBOX: Mapping[str, Any] = {
    "DeepEyesV2": "<code>\n```python\nimage_1.crop((0, 0, 9, 9))\n```\n</code>",
    "Thyme": "<code>\nfrom PIL import Image\nprint('x.png')\n</code>",
}


@pytest.mark.parametrize("program", SANDBOX.values(), ids=SANDBOX)
@pytest.mark.parametrize("name", ["deepeyes", "glm45v", "qwen3vl_zoom", "crop_zoom"])
def test_a_program_for_a_sandbox_is_recognised_and_refused(name: str, program: str) -> None:
    trajectory = ended(name, program, "<answer>B</answer>", "<answer>B</answer>")
    assert trajectory.calls[0].status == "malformed"
    assert "medeval runs no code that a model wrote" in (trajectory.calls[0].error or "")
