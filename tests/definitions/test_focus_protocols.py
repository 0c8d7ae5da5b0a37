"""VTool-R1, IAPO and ReFocus, word for word: what each arm sends for one drawn table."""

import asyncio
import hashlib
import io
from dataclasses import replace

import pytest
from PIL import Image

from medeval.evaluation.loader import load
from medeval.images.picture import prepare
from medeval.images.resize import PixelBudget
from medeval.models.base import Sampling
from medeval.models.scripted import Script, ScriptedModel
from medeval.rollout.conversation import Rollout, roll_out
from medeval.rollout.protocol import EvalProtocol, Pair
from medeval.rollout.recorded import Recording
from medeval.rollout.replay import UNCHECKED, replay
from medeval.tools import remake
from medeval.types.geometry import Size
from medeval.types.sample import ImageSource, JsonValue, Sample
from medeval.types.trajectory import Content, ImageRef, Message, Text

VTOOL = load("vtool_r1", Pair).value
CHART = load("vtool_r1_chart", Pair).value
IAPO = load("iapo", Pair).value
FIRST = load("vtool_r1_v1", Pair).value
FIRST_CHART = load("vtool_r1_v1_chart", Pair).value
REFOCUS = load("refocus", Pair).value

ANSWERED = "ANSWER: It is B. FINAL ANSWER: B. TERMINATE"
BOX_INFO = """# USER REQUEST #: Which is larger?
# USER Bounding Box Info: columns_bbox, where keys are column headers and values are column bounding boxes. rows_bbox, where keys row headers and values are row bounding boxes. The columns in the image are: ['Year', 'Team']. The rows in the image start with: ['Year', '2003'].
# USER IMAGE stored in image_1, as PIL image."""  # noqa: E501

BLOCK = """THOUGHT 0: I focus.
ACTION 0:
```python
a = focus_on_columns_with_mask(image_1, ["Team"], columns_bbox)
b = focus_on_rows_with_draw(a, ["2003"], rows_bbox)
display(b)
```"""
UNKNOWN = """```python
a = focus_on_columns_with_draw(image_1, ["Team"], columns_bbox)
b = focus_on_rows_with_draw(image_1, ["1999"], rows_bbox)
c = focus_on_rows_with_draw(b, ["2003"], rows_bbox)
display(c)
```"""
LOOP = "```python\nfor name in columns_bbox:\n    display(image_1)\n```"
SHOWN = """OBSERVATION: Execution success. The output is as follows:
<the image outputs of the code is added as the second image>"""
FAILED = "OBSERVATION: Execution failed. The code did not produce a valid edited image. Please regenerate your final answer."  # noqa: E501


def region(axis: str, name: str, *box: float) -> JsonValue:
    return {"axis": axis, "name": name, "box": list(box)}


TABLE: list[JsonValue] = [
    region("column", "Year", 0.0, 0.0, 0.5, 1.0),
    region("column", "Team", 0.5, 0.0, 1.0, 1.0),
    region("row", "Year", 0.0, 0.0, 1.0, 0.5),
    region("row", "2003", 0.0, 0.5, 1.0, 1.0),
]
BARS: list[JsonValue] = [
    region("x", "2003", 0.0, 0.0, 0.5, 1.0),
    region("x", "2004", 0.5, 0.0, 1.0, 1.0),
]


def drawn() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (80, 40), (0, 255, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def rolled(protocol: EvalProtocol, script: Script, regions: list[JsonValue]) -> Rollout:
    data = drawn()
    sample = Sample(
        id="table",
        question="Which is larger?",
        images=(ImageSource(name="table", read=lambda: data),),
        targets=("B",),
        metadata={"regions": regions},
    )
    picture = prepare(data, name="table", budget=protocol.pixel_budget)
    return asyncio.run(roll_out(sample, [picture], protocol, ScriptedModel(script)))


def said(text: str) -> Message:
    return Message(role="assistant", content=(Text(text),))


def user(*content: Content) -> Message:
    return Message(role="user", content=content)


def sha256(message: Message) -> str:
    return hashlib.sha256(message.text.encode()).hexdigest()


def pixels_sha256(rollout: Rollout, index: int) -> str:
    return hashlib.sha256(rollout.made[index].pixels().tobytes()).hexdigest()


def colours(rollout: Rollout, index: int) -> dict[tuple[int, ...], int]:
    data = rollout.made[index].pixels().tobytes()
    found: dict[tuple[int, ...], int] = {}
    for at in range(0, len(data), 3):
        pixel = tuple(data[at : at + 3])
        found[pixel] = found.get(pixel, 0) + 1
    return found


def test_vtool_r1_s_free_arm_is_its_baseline_s_prompt() -> None:
    ended = rolled(VTOOL.free, [ANSWERED], TABLE).trajectory
    asked, answered = ended.messages
    assert asked.content[0] == ImageRef(0)
    assert asked.text.startswith(f"<image>{BOX_INFO}\nYou will be given a table figure: image_1")
    assert asked.text.endswith("FINAL ANSWER: Alice Smith||Bob Johnson. TERMINATE")
    assert "# REQUIREMENTS #:\n1. " in asked.text and "\n3. If you think" in asked.text
    assert len(asked.text) == len("<image>") + len(BOX_INFO) + 1118
    assert (answered, ended.stop) == (said(ANSWERED), "answered")
    assert ended.answer is not None and ended.answer.text == "B"


def test_vtool_r1_s_available_arm_is_the_published_prompt_to_the_last_character() -> None:
    asked = rolled(VTOOL.available, [ANSWERED], TABLE).trajectory.messages[0]
    assert asked.content[0] == ImageRef(0)
    assert asked.text.startswith(f'{BOX_INFO} \n\n"""\n\nHere are some tools that can help you.')
    assert asked.text.endswith('2006 is $364,263. FINAL ANSWER: 364263. TERMINATE\n\n"""')
    # examples/format_prompt/chartQA.jinja has 15,108 characters, 19 of them the place of content.
    assert len(asked.text) == len(BOX_INFO) + 15_108 - len("{{ content | trim }}")
    assert sha256(asked) == "daaafbf18f3b771049bb3cda7381680b01437c96fef3cf6484f694f934aab9ba"


def test_vtool_r1_shows_what_the_block_displays_and_reads_the_second_reply_as_the_answer() -> None:
    done = rolled(VTOOL.available, [BLOCK, ANSWERED], TABLE)
    ended = done.trajectory
    assert ended.messages[1:] == (
        said(BLOCK), user(ImageRef(2), Text(SHOWN)), said(ANSWERED)
    )  # fmt: skip
    assert [(call.name, call.status, call.image, call.observed) for call in ended.calls] == [
        ("focus_on_columns_with_mask", "executed", 1, False),
        ("focus_on_rows_with_draw", "executed", 2, True),
    ]
    assert [image.parent for image in ended.images] == [None, 0, 1]
    # White one pixel beyond the column of 40 x 40, then a stroke of 3 along (0, 18) to (80, 40),
    # the last pixels of which are outside.
    assert colours(done, 1) == {(255, 255, 255): 42 * 40, (0, 255, 0): 38 * 40}
    assert colours(done, 2)[(255, 0, 0)] == 3 * 80 + 17 * (3 + 2) + 2 * 80
    assert (
        pixels_sha256(done, 2) == "9a51e0cd23588683cdafe796326e33f693c5e6f3c2389dd174d245007060c76a"
    )


@pytest.mark.parametrize(
    "block", [LOOP, "```python\n\n```", "```python\ndisplay(columns_bbox)\n```"]
)
def test_vtool_r1_answers_any_failure_with_one_sentence(block: str) -> None:
    ended = rolled(VTOOL.available, [block, ANSWERED], TABLE).trajectory
    assert ended.messages[1:] == (said(block), user(Text(FAILED)), said(ANSWERED))
    assert ended.stop == "answered" and not ended.executed


def test_vtool_r1_passes_over_a_name_that_is_unknown_and_says_success() -> None:
    done = rolled(VTOOL.available, [UNKNOWN, ANSWERED], TABLE)
    assert done.trajectory.messages[2] == user(ImageRef(3), Text(SHOWN))
    assert [call.status for call in done.trajectory.calls] == ["executed"] * 3
    # The second call paints nothing; as upstream it works on the image that the first one edited.
    assert [image.parent for image in done.trajectory.images] == [None, 0, 1, 2]
    assert colours(done, 1) == colours(done, 2)


@pytest.mark.parametrize(
    ("said", "answer"),
    [
        ("ANSWER: It is B.", "It is B."),
        ("ANSWER: It is B. TERMINATE", "It is B."),
        ("ANSWER: no. FINAL ANSWER: B. TERMINATE", "B"),
        (r"So \boxed{B} ANSWER: it is B", "it is B"),
    ],
)
def test_vtool_r1_reads_what_follows_answer_where_there_is_no_final_answer(
    said: str, answer: str
) -> None:
    ended = rolled(VTOOL.available, [said], TABLE).trajectory
    assert ended.answer is not None and ended.answer.text == answer


def test_vtool_r1_carries_out_the_chart_functions_that_no_prompt_names() -> None:
    block = '```python\ndisplay(focus_on_x_values_with_draw(image_1, ["Team"], columns_bbox))\n```'
    [call] = rolled(VTOOL.available, [block, ANSWERED], TABLE).trajectory.calls
    assert (call.name, call.status) == ("focus_on_x_values_with_draw", "executed")
    refused = rolled(REFOCUS.available, [block, ANSWERED], TABLE).trajectory.calls[0]
    assert refused.status == "rejected"


def test_vtool_r1_never_parses_its_second_reply() -> None:
    ended = rolled(VTOOL.available, [BLOCK, f"{BLOCK}\n{ANSWERED}"], TABLE).trajectory
    assert ended.executed == 2
    assert [call.status for call in ended.calls[2:]] == ["over_limit"] * 2
    assert ended.answer is not None
    assert (ended.answer.text, ended.answer.how_found) == ("B", "final_answer at turn_limit")


def test_vtool_r1_s_first_code_puts_the_image_second_and_the_observation_into_the_reply() -> None:
    imagined = f"{BLOCK}\nOBSERVATION: Execution success. I see 3.\n{ANSWERED}"
    done = rolled(FIRST.available, [imagined, ANSWERED], TABLE)
    asked, reply, answered = done.trajectory.messages
    assert asked.content[:2] == (ImageRef(0), ImageRef(2))
    assert asked.text == rolled(VTOOL.available, [ANSWERED], TABLE).trajectory.messages[0].text
    assert reply == said(f"{BLOCK}\n{SHOWN}")
    assert (answered, done.trajectory.stop) == (said(ANSWERED), "answered")
    # The insets and the stroke of the first version, the images enlarged as its data set does it.
    assert [image.raw for image in done.trajectory.images] == [Size(80, 40)] * 3
    assert [image.sent for image in done.trajectory.images] == [Size(724, 362)] * 3
    # White from (2, 2) to (38, 38), then a stroke of 5 from (2, 22) to (78, 38).
    assert colours(done, 1) == {(255, 255, 255): 37 * 37, (0, 255, 0): 80 * 40 - 37 * 37}
    assert colours(done, 2)[(255, 0, 0)] == 2 * 5 * 77 + 2 * 5 * 7


def test_vtool_r1_s_first_code_keeps_a_reply_to_its_last_fence_not_to_its_block() -> None:
    again = f"{BLOCK}\nNot enough.\n{BLOCK} and so on"
    done = rolled(FIRST.available, [again, ANSWERED], TABLE)
    assert done.trajectory.messages[1] == said(f"{BLOCK}\nNot enough.\n{BLOCK}\n{SHOWN}")
    assert done.trajectory.executed == 2


@pytest.mark.parametrize("block", [LOOP, UNKNOWN, "```python\na = image_1\n```"])
def test_vtool_r1_s_first_code_scores_the_first_reply_where_a_block_fails(block: str) -> None:
    for text, found in ((f"{block} {ANSWERED}", "B"), (block, block)):
        ended = rolled(FIRST.available, [text], TABLE).trajectory
        assert len(ended.turns) == 1
        assert ended.answer is not None and ended.answer.text == found


def test_vtool_r1_s_first_code_asks_of_charts_without_the_blank_before_the_request() -> None:
    block = '```python\ndisplay(focus_on_rows_with_draw(image_1, ["2003"], rows_bbox))\n```'
    first = rolled(FIRST_CHART.available, [ANSWERED], BARS).trajectory.messages[0]
    assert first.content[0] == ImageRef(0) and first.text.startswith(" # USER REQUEST #: ")
    again = rolled(FIRST_CHART.available, [block, ANSWERED], BARS).trajectory.messages[0]
    assert again.content == (ImageRef(0), ImageRef(1), Text(first.text.lstrip()))


def test_vtool_r1_s_first_code_samples() -> None:
    for arm in (*FIRST.arms, *FIRST_CHART.arms):
        assert arm.sampling == Sampling(temperature=1.0, top_p=0.99, max_tokens=1024)
        assert arm.pixel_budget == PixelBudget(
            min_px=262_144, max_px=4_194_304, factor=1, rule="area"
        )
    assert [arm.user for arm in FIRST.arms] == [arm.user for arm in VTOOL.arms]


def test_a_wrong_axis_call_on_a_chart_is_carried_out() -> None:
    block = '```python\ndisplay(focus_on_rows_with_draw(image_1, ["2003"], rows_bbox))\n```'
    ended = rolled(IAPO.available, [block, ANSWERED], BARS).trajectory
    assert [(call.name, call.status) for call in ended.calls] == [
        ("focus_on_rows_with_draw", "executed")
    ]
    assert ended.images[1].arguments["axis"] == "rows"
    assert ended.images[1].arguments["focused_px"] == [[0.0, 0.0, 40.0, 40.0]]


def test_the_chart_s_request_names_its_values_and_the_variable_it_names_is_not_bound() -> None:
    block = '```python\ndisplay(focus_on_columns_with_draw(image_1, ["2003"], x_values_bbox))\n```'
    ended = rolled(CHART.available, [block, ANSWERED], BARS).trajectory
    assert ended.messages[0].text.startswith(" # USER REQUEST #: Which is larger?\n")
    assert (
        "The x values in the image are: ['2003', '2004']. The y values in the image are: []."
        in (ended.messages[0].text)
    )
    assert ended.calls[0].status == "malformed"
    assert ended.messages[2] == user(Text(FAILED))


def test_iapo_is_vtool_r1_on_charts_under_its_own_name() -> None:
    for mine, other in zip(IAPO.arms, CHART.arms, strict=True):
        first, second = mine.describe(), other.describe()
        assert {key: value for key, value in first.items() if key != "name"} == {
            key: value for key, value in second.items() if key != "name"
        }


def test_a_block_in_the_free_arm_is_not_offered() -> None:
    ended = rolled(VTOOL.free, [BLOCK], TABLE).trajectory
    assert (ended.stop, {call.status for call in ended.calls}) == ("not_offered", {"not_offered"})


REFOCUS_ASKED = """
Solve the following question: Which is larger?Please extract the final answer in FINAL ANSWER: <final answer> and ends with TERMINATE
"""  # noqa: E501
REFOCUS_SHOWN = "OBSERVATION: Execution success. The output is as follows:\n"
REFOCUS_ASKED_AGAIN = """
Answer the question Which is larger?. You can turn the table image into text and answer with step of thinking.\u0020
Reply with ANSWER: <your answer> Please extract the final answer in FINAL ANSWER: <final answer> and ends with TERMINATE."""  # noqa: E501


def test_refocus_s_free_arm_is_its_baseline_s_prompt() -> None:
    ended = rolled(REFOCUS.free, [ANSWERED], TABLE).trajectory
    system, asked, answered = ended.messages
    assert system.text.startswith("You are a helpful multimodal AI assistant.\nSolve tasks using")
    assert system.text.endswith('and ends with "TERMINATE".\n')
    assert asked == user(Text("Given the table figure "), ImageRef(0), Text(REFOCUS_ASKED))
    assert (answered, ended.stop) == (said(ANSWERED), "answered")


def test_refocus_s_request_stands_around_the_image() -> None:
    messages = rolled(REFOCUS.available, [ANSWERED], TABLE).trajectory.messages
    before, image, after = messages[1].content
    assert isinstance(before, Text) and before.text.endswith("TERMINATE\n\n# USER REQUEST #: ")
    assert image == ImageRef(0)
    assert isinstance(after, Text)
    assert after.text == (
        BOX_INFO.replace("# USER REQUEST #: ", " ")
        + " \nNow please generate only THOUGHT 0 and ACTION 0 in RESULT. If no action needed, also "
        "reply with ANSWER: <your answer> Please extract the final answer in FINAL ANSWER: <final "
        "answer> and ends with TERMINATE:\n# RESULT #:\n"
    )
    assert sha256(messages[1]) == "9dc6d6cc4eadc43488d86ca3a5c5f50ce701dfdde9ac085aea361b5c85e4f821"
    assert messages[0] == rolled(REFOCUS.free, [ANSWERED], TABLE).trajectory.messages[0]


def test_refocus_shows_the_image_and_asks_the_question_again() -> None:
    done = rolled(REFOCUS.available, [BLOCK, ANSWERED], TABLE)
    assert done.trajectory.messages[3] == user(
        Text(REFOCUS_SHOWN), ImageRef(2), Text(REFOCUS_ASKED_AGAIN)
    )
    # White from (2, 2) to (38, 38), then a stroke of 5 from (2, 22) to (78, 38).
    assert colours(done, 1) == {(255, 255, 255): 37 * 37, (0, 255, 0): 80 * 40 - 37 * 37}
    assert colours(done, 2)[(255, 0, 0)] == 2 * 5 * 77 + 2 * 5 * 7
    assert (
        pixels_sha256(done, 2) == "156e6e5ead9c5ce2b85ea8e3134f01819c003e4c54f77413924b002957ad24f2"
    )


def test_refocus_tells_an_execution_error_from_a_parsing_error_and_goes_on() -> None:
    ended = rolled(REFOCUS.available, [UNKNOWN, LOOP, "```python\n", ANSWERED], TABLE).trajectory
    assert [(call.status, call.observed) for call in ended.calls] == [
        ("executed", False),
        ("rejected", True),
        ("rejected", False),
        ("malformed", True),
        ("malformed", True),
    ]
    told = [message.text for message in ended.messages if message.role == "user"][1:]
    assert told[0] == (
        'OBSERVATION: Execution error. Exit code: 1, Output:\nthere is no box for "1999"; there '
        'are boxes for ["Year", "2003"]\nPlease fix the error and generate the fixed code, in the '
        "next THOUGHT and ACTION."
    )
    assert told[1].startswith(
        "OBSERVATION: Parsing error. Error code: unknown, Error message:\nline 1 of the block is a "
        "loop; a block holds only"
    )
    assert ended.calls[2].error == "not run: an earlier call of the same block failed"


def code(*lines: str) -> str:
    return "```python\n" + "\n".join(lines) + "\n```"


FOCUS_A = 'a = focus_on_columns_with_highlight(image_1, ["Team"], columns_bbox)'


def parents(script: Script) -> list[int | None]:
    return [image.parent for image in rolled(REFOCUS.available, script, TABLE).trajectory.images]


def test_refocus_keeps_the_names_of_an_earlier_block() -> None:
    again = code('b = focus_on_rows_with_draw(a, ["2003"], rows_bbox)', "display(b)")
    done = rolled(REFOCUS.available, [code(FOCUS_A), again, ANSWERED], TABLE)
    # the first block shows the original, as an image of its own
    assert [call.name for call in done.trajectory.calls] == [
        "focus_on_columns_with_highlight", "display", "focus_on_rows_with_draw",
    ]  # fmt: skip
    assert [image.parent for image in done.trajectory.images] == [None, 0, 0, 1]
    assert done.trajectory.calls[2].observed
    shown = [code(FOCUS_A), code("display(a)"), ANSWERED]
    assert parents(shown) == [None, 0, 0, 1]


def test_refocus_keeps_what_an_earlier_block_painted_on_the_image() -> None:
    first = code('focus_on_columns_with_draw(image_1, ["Team"], columns_bbox)')
    again = code('display(focus_on_rows_with_draw(image_1, ["2003"], rows_bbox))')
    assert parents([first, again, ANSWERED]) == [None, 0, 0, 1]
    # a highlight is a new image, and leaves the old one as it is
    assert parents([code(FOCUS_A), again, ANSWERED]) == [None, 0, 0, 0]


def test_refocus_keeps_what_a_block_bound_before_a_call_of_it_failed_and_nothing_after() -> None:
    failed = code(FOCUS_A, 'b = focus_on_rows_with_draw(a, ["1999"], rows_bbox)', "c = image_1")
    ended = rolled(REFOCUS.available, [failed, code("display(a)"), ANSWERED], TABLE).trajectory
    assert [call.status for call in ended.calls] == ["executed", "rejected", "rejected", "executed"]
    assert ended.images[2].parent == 1
    for name in ("b", "c"):
        [*_, call] = rolled(
            REFOCUS.available, [failed, code(f"display({name})"), ANSWERED], TABLE
        ).trajectory.calls
        assert f"uses a variable named {name!r}, which is not defined" in (call.error or "")


def test_refocus_binds_nothing_of_a_block_that_it_does_not_carry_out() -> None:
    refused = code(FOCUS_A, "for name in columns_bbox:", "    display(image_1)")
    script = [refused, code("display(a)"), ANSWERED]
    ended = rolled(REFOCUS.available, script, TABLE).trajectory
    assert [call.status for call in ended.calls] == ["malformed", "malformed"]


def test_a_replay_of_refocus_keeps_names_too() -> None:
    boxes = "{'Team': {'x1': 0, 'y1': 0, 'x2': 0.5, 'y2': 1}}"
    first = code(f'a = focus_on_columns_with_highlight(image_1, ["Team"], {boxes})')
    again = code(f'display(focus_on_columns_with_draw(a, ["Team"], {boxes}))')
    picture = {"type": "image", "width": 80, "height": 40}
    messages: list[dict[str, object]] = [
        {"role": "user", "content": [picture, {"type": "text", "text": "Which?"}]}
    ]
    for text in (first, again, ANSWERED):
        messages += [
            {"role": "assistant", "content": text},
            {"role": "user", "content": "OBSERVATION"},
        ]
    messages.pop()
    done = asyncio.run(replay(Recording(messages=messages), REFOCUS.available))
    assert [call.status for call in done.calls] == ["executed"] * 3
    assert (done.stop, done.answer) == ("answered", "B")
    asked: dict[str, object] = {"role": "user", "content": [{"type": "image"}]}
    recording = Recording(messages=[asked, *messages[1:]])
    unsized = asyncio.run(replay(recording, REFOCUS.available))
    assert {call.status for call in unsized.calls} == {UNCHECKED}


def test_vtool_r1_has_no_earlier_block() -> None:
    longer = replace(VTOOL.available, max_generations=3)
    ended = rolled(longer, [code(FOCUS_A), code("display(a)"), ANSWERED], TABLE).trajectory
    assert "uses a variable named 'a'" in (ended.calls[-1].error or "")


def test_refocus_gives_up_after_six_replies() -> None:
    ended = rolled(REFOCUS.available, [BLOCK] * 6, TABLE).trajectory
    assert (ended.stop, len(ended.turns), ended.executed) == ("turn_limit", 6, 10)


def test_refocus_takes_a_reply_with_terminate_for_the_answer_whatever_else_it_holds() -> None:
    ended = rolled(REFOCUS.available, [f"{BLOCK}\n{ANSWERED}"], TABLE).trajectory
    assert (ended.stop, ended.calls) == ("answered", ())


@pytest.mark.parametrize("pair", [VTOOL, CHART, IAPO, REFOCUS], ids=lambda pair: pair.name)
def test_settings_of_both_arms(pair: Pair) -> None:
    free, available = pair.arms
    assert pair.free_source == "published"
    assert set(pair.differences) == {"user"}
    licence = "none given" if pair is REFOCUS else "Apache-2.0"
    assert free.licence == available.licence == licence
    assert "github.com" in available.source and " at " in available.source
    tokens = 4096 if pair is REFOCUS else 2048
    assert free.sampling == available.sampling == Sampling(temperature=0.0, max_tokens=tokens)
    assert available.max_generations == (6 if pair is REFOCUS else 2)
    assert [tool.name for tool in available.tools][-1] == "display"
    assert len(available.tools) == (7 if pair is REFOCUS else 13)


@pytest.mark.parametrize("pair", [VTOOL, REFOCUS], ids=lambda pair: pair.name)
def test_a_block_may_show_the_image_as_it_is(pair: Pair) -> None:
    done = rolled(pair.available, ["```python\ndisplay(image_1)\n```", ANSWERED], TABLE)
    [call] = done.trajectory.calls
    assert (call.name, call.status, call.observed) == ("display", "executed", True)
    assert colours(done, 1) == {(0, 255, 0): 80 * 40}
    image = done.trajectory.images[1]
    assert (image.operation, image.arguments["mode"]) == ("focus", "show")
    picture = prepare(drawn(), name="table")
    assert remake("focus", image.arguments, picture).sent_image.sha256 == image.pixels_sha256
