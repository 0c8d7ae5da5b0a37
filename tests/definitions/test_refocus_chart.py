"""ReFocus on charts: its prompt to the last character, and each quirk by its name."""

import hashlib
from dataclasses import replace

import pytest

from medeval.errors import DefinitionError
from medeval.evaluation.loader import load
from medeval.models.base import Sampling
from medeval.rollout.conversation import Rollout
from medeval.rollout.observation import Observation
from medeval.rollout.protocol import EvalProtocol, Pair
from medeval.types.sample import JsonValue, Sample
from medeval.types.trajectory import ImageRef, Text
from tests.definitions import golden_transcripts as golden

CHART = load("refocus_chart", Pair).value
TABLE = load("refocus", Pair).value

ANSWERED = "ANSWER: It is B. FINAL ANSWER: B. TERMINATE"
REMINDER = "\nAnd a kind reminder that the original image is:\n"


def sample(axis: str, *names: str, question: str = "Which is larger?") -> Sample:
    """A chart of bars side by side, each with a box of its own."""
    regions: list[JsonValue] = [
        {"axis": axis, "name": name, "box": [0.1 * at, 0.1, 0.1 * at + 0.1, 0.9]}
        for at, name in enumerate(names)
    ]
    return replace(golden.SAMPLE, question=question, options=(), metadata={"regions": regions})


BARS = sample("x", "2005", "2006")


def rolled(block: str, chart: Sample = BARS) -> Rollout:
    return golden.rolled(CHART.available, [f"```python\n{block}\n```", ANSWERED], chart)


def called(function: str, names: str, boxes: str) -> str:
    return f"display(focus_on_{function}(image_1, {names}, {boxes}))"


def test_the_available_arm_is_the_published_prompt_to_the_last_character() -> None:
    system, asked = CHART.available.opening(BARS)
    before, image, after = asked.content
    assert isinstance(before, Text) and isinstance(after, Text) and image == ImageRef(0)
    # src/prompt_need.py holds it from character 2,776 to 17,455, with three backslashes in each
    # of the quotes around six docstrings.
    published = before.text.removesuffix("# USER REQUEST #: ")
    assert len(published) == 17_455 - 2_776 - 6 * 2 * 3
    assert published.endswith("FINAL ANSWER: 15. TERMINATE\n\n")
    assert (
        hashlib.sha256(published.encode()).hexdigest()
        == "87af9aaab2b28a4e79660848762c937945664f49a9279510ead18a66ba5e246e"
    )
    assert after.text == (
        " Which is larger?\n# USER Bounding Box Info: x_values_bbox, storing x values and "
        "coordinates. y_values_bbox, storing x values and coordinates. The x values in the image "
        "are: ['2005', '2006']. The y values in the image are: [].\n# USER IMAGE stored in "
        "image_1, as PIL image. \nNow please generate only THOUGHT 0 and ACTION 0 in RESULT. If no "
        "action needed, also reply with ANSWER: <your answer> Please extract the final answer in "
        "FINAL ANSWER: <final answer> and ends with TERMINATE:\n# RESULT #:\n"
    )
    assert system == TABLE.available.opening(BARS)[0]


def test_the_free_arm_is_that_of_the_tables_said_of_a_chart() -> None:
    assert CHART.free_source == "derived"
    assert TABLE.free.user.replace("table", "chart") == CHART.free.user
    assert set(CHART.differences) == {"user"}


def test_the_settings_are_those_of_the_tables() -> None:
    for mine, other in zip(CHART.arms, TABLE.arms, strict=True):
        assert mine.max_generations == other.max_generations
        assert mine.sampling == other.sampling == Sampling(temperature=0.0, max_tokens=4096)
        assert mine.call_rules == other.call_rules
        assert mine.observation.error == other.observation.error
        assert mine.observation.malformed == other.observation.malformed
        assert mine.licence == other.licence == "none given"


def test_the_examples_call_functions_that_there_are_not_and_show_only_x_values() -> None:
    prompt = CHART.available.user
    assert prompt.count("= focus_on_x_values(image, ") == 3
    assert prompt.count("= focus_on_y_values(image, ") == 3
    assert prompt.count('display(image_with_focused_x_values)\n    """') == 3
    assert 'display(image_with_focused_y_values)\n    """' not in prompt
    assert prompt.count("Return the masked image.") == 6


def test_the_original_image_stands_below_the_edited_one() -> None:
    ended = rolled(called("x_values_with_draw", '["2005"]', "x_values_bbox")).trajectory
    shown = ended.messages[3]
    before, edited, reminder, original, asked = shown.content
    assert before == Text("OBSERVATION: Execution success. The output is as follows:\n")
    assert (edited, reminder, original) == (ImageRef(1), Text(REMINDER), ImageRef(0))
    assert isinstance(asked, Text) and asked.text == (
        "\nAnswer the question Which is larger?. You can turn the chart image into text and answer "
        "with step of thinking. \nReply with ANSWER: <your answer> Please extract the final answer "
        "in FINAL ANSWER: <final answer> and ends with TERMINATE."
    )


def test_a_question_that_holds_the_place_of_the_image_is_asked_as_it_is() -> None:
    chart = sample("x", "2005", question="Is $original a word?")
    ended = rolled(called("x_values_with_draw", '["2005"]', "x_values_bbox"), chart).trajectory
    assert [part for part in ended.messages[3].content if isinstance(part, ImageRef)] == [
        ImageRef(1), ImageRef(0),
    ]  # fmt: skip
    assert "Answer the question Is $original a word?." in ended.messages[3].text


def test_the_place_of_the_original_belongs_after_the_new_image() -> None:
    observation = Observation(after="${original} $$original")
    protocol = replace(CHART.free, observation=observation)
    assert isinstance(protocol, EvalProtocol)
    with pytest.raises(DefinitionError, match="before uses"):
        replace(CHART.free, observation=Observation(before="$original"))


def test_of_a_block_that_displays_two_images_the_first_is_shown() -> None:
    first = called("x_values_with_highlight", '["2005"]', "x_values_bbox")
    second = called("x_values_with_highlight", '["2006"]', "x_values_bbox")
    ended = rolled(f"{first}\n{second}").trajectory
    assert [call.observed for call in ended.calls] == [True, False]
    assert ended.messages[3].content[1] == ImageRef(1)


def test_of_a_block_that_displays_none_the_original_is_shown_twice() -> None:
    done = rolled('a = focus_on_x_values_with_highlight(image_1, ["2005"], x_values_bbox)')
    assert [call.name for call in done.trajectory.calls][-1] == "display"
    assert done.trajectory.messages[3].content[3] == ImageRef(0)
    original = golden.pictures_of(CHART.available)[0].pixels()
    assert done.made[2].pixels().tobytes() == original.tobytes()


@pytest.mark.parametrize(
    ("function", "status"),
    [
        ("x_values_with_draw", "rejected"), ("x_values_with_highlight", "executed"),
        ("x_values_with_mask", "executed"), ("y_values_with_draw", "executed"),
        ("y_values_with_highlight", "rejected"), ("y_values_with_mask", "executed"),
    ],
)  # fmt: skip
def test_an_unknown_name_fails_only_where_no_try_stands_around_it(
    function: str, status: str
) -> None:
    axis = function[0]
    block = called(function, '["1999"]', f"{axis}_values_bbox")
    done = rolled(block, sample(axis, "2005", "2006"))
    assert [call.status for call in done.trajectory.calls] == [status]
    if status == "executed":
        original = golden.pictures_of(CHART.available)[0].pixels()
        assert done.made[1].pixels().tobytes() == original.tobytes()


@pytest.mark.parametrize(
    ("names", "taken"),
    [
        (("Japan", "Peru"), "Japan"), (("Japan", "South Japan", "Peru"), "South Japan"),
        (("South Japan", "Japan"), "Japan"), (("Japan", "Japanese"), "Japanese"),
    ],
)  # fmt: skip
def test_draw_on_y_values_goes_on_from_each_close_name_to_the_next(
    names: tuple[str, ...], taken: str
) -> None:
    block = called("y_values_with_draw", '["Jap"]', "y_values_bbox")
    ended = rolled(block, sample("y", *names)).trajectory
    assert ended.images[1].arguments["names"] == [taken]


def test_a_call_along_the_axis_without_values_shows_the_image_as_it_is() -> None:
    done = rolled(called("y_values_with_draw", '["2005"]', "y_values_bbox"))
    assert [call.status for call in done.trajectory.calls] == ["executed"]
    original = golden.pictures_of(CHART.available)[0].pixels()
    assert done.made[1].pixels().tobytes() == original.tobytes()


def test_a_function_for_tables_is_not_offered_on_charts() -> None:
    ended = rolled(called("columns_with_draw", '["2005"]', "x_values_bbox")).trajectory
    assert [call.status for call in ended.calls] == ["rejected"]
    assert ended.messages[3].text.startswith("OBSERVATION: Execution error. Exit code: 1, Output:")
