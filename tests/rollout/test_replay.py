"""Recorded conversations under a protocol: real ones, and each status by hand."""

import asyncio
import base64
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from medeval import tool
from medeval.errors import DataError
from medeval.evaluation.loader import load
from medeval.rollout.protocol import EvalProtocol, Pair
from medeval.rollout.recorded import Recording
from medeval.rollout.replay import UNCHECKED, replay, replay_file
from medeval.store.records import line
from medeval.types.sample import JsonValue
from tests.definitions import golden_transcripts as golden
from tests.definitions.golden_transcripts import DATA, PIXEL, ZOOM, hermes

TRACES = Path(__file__).parents[3] / "shared/data/vstar/deepeyes_traces.jsonl"
DEEPEYES = load("deepeyes", Pair).value.available
TRAIN = load("deepeyes_train", Pair).value.available
PIXEL_REASONER = load("pixel_reasoner", Pair).value.available

REFOCUS_CHART = load("refocus_chart", Pair).value.available
FOCUSED = """```python
display(focus_on_x_values_with_draw(image_1, ["2006"], x_values_bbox))
```"""

GOOD = hermes(ZOOM, bbox_2d=[0, 0, 100, 100])


def conversation(
    *replies: str, size: tuple[int, int] | None = None, unread: bool = False
) -> list[dict[str, Any]]:
    image: dict[str, Any] = {"type": "image"}
    if size is not None:
        image |= {"width": size[0], "height": size[1]}
    messages: list[dict[str, Any]] = [
        {"role": "user", "content": [image, {"type": "text", "text": "Which?"}]}
    ]
    for reply in replies:
        messages.append({"role": "assistant", "content": reply})
        messages.append({"role": "user", "content": [{"type": "text", "text": "seen"}]})
    return messages if unread else messages[:-1]


def outcome(protocol: EvalProtocol, messages: Sequence[dict[str, Any]]) -> tuple[object, ...]:
    replayed = asyncio.run(replay(Recording(messages=messages), protocol))
    return ([call.status for call in replayed.calls], replayed.stop, replayed.agreement)


@pytest.mark.skipif(not TRACES.exists(), reason="the recorded DeepEyes conversations are not here")
def test_all_recorded_deepeyes_calls_parse_and_their_stops_agree(
    medeval_main: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert medeval_main("replay", "--protocol", "deepeyes", str(TRACES), "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["n_conversations"] == 764
    assert report["calls"] == {
        "found": 781, "executed": 0, "rejected": 0, "malformed": 0, "over_limit": 0,
        "not_offered": 0, UNCHECKED: 781,
    }  # fmt: skip
    assert report["agreement"] == {
        "agrees": 763, "stops earlier": 0, "goes on": 0, "recording is cut short": 1,
    }  # fmt: skip
    texts = [json.loads(line) for line in TRACES.read_text("utf-8").splitlines()]
    answered = [item["answer"] for item in report["conversations"]]
    assert sum(a == b["pred_ans"] for a, b in zip(answered, texts, strict=True)) == 763


@pytest.mark.skipif(not TRACES.exists(), reason="the recorded DeepEyes conversations are not here")
@pytest.mark.parametrize("name", ["mini_o3", "glm45v", "pixel_reasoner"])
def test_another_model_s_protocol_reads_no_deepeyes_call(name: str) -> None:
    report = replay_file(TRACES, load(name, Pair).value.available)
    assert report.calls["executed"] == report.calls[UNCHECKED] == 0


@pytest.mark.parametrize(
    ("protocol", "messages", "expected"),
    [
        (DEEPEYES, conversation(GOOD, "<answer>B</answer>"), ([UNCHECKED], "answered", "agrees")),
        (DEEPEYES, conversation(GOOD, "<answer>B</answer>", size=(200, 200)),
         (["executed"], "answered", "agrees")),
        (DEEPEYES, conversation(hermes(ZOOM, bbox_2d=[5, 5, 1, 1]), "x"),
         (["rejected"], "answered", "stops earlier")),
        (DEEPEYES, conversation("<answer>B</answer>" + GOOD, unread=True),
         ([UNCHECKED], "answered", "agrees")),
        (DEEPEYES, conversation(GOOD, GOOD), ([UNCHECKED] * 2, None, "goes on")),
        (DEEPEYES, conversation(GOOD, unread=True), ([UNCHECKED], None, "recording is cut short")),
        (TRAIN, conversation(hermes("other"), "<answer>B</answer>"),
         (["rejected"], "answered", "agrees")),
        (TRAIN, conversation("<tool_call>oops</tool_call>", "<answer>B</answer>"),
         (["malformed"], "answered", "agrees")),
        (TRAIN, conversation(hermes(ZOOM, bbox_2d=[0, 0, 20, 20]), "<answer>B</answer>",
         size=(200, 200)), (["rejected"], "answered", "agrees")),
        (TRAIN, conversation("<answer>B</answer>" + GOOD), (["over_limit"], "answered", "agrees")),
        (TRAIN, conversation(GOOD + GOOD, "<answer>B</answer>"),
         (["over_limit", UNCHECKED], "answered", "agrees")),
        (TRAIN, conversation(*[GOOD] * 6), ([*[UNCHECKED] * 4, "over_limit"], "call_limit",
         "stops earlier")),
        (TRAIN, conversation(""), ([], "empty", "agrees")),
        (REFOCUS_CHART, conversation(FOCUSED, "FINAL ANSWER: 3. TERMINATE"),
         ([UNCHECKED], "answered", "agrees")),
        (REFOCUS_CHART, conversation("```python\nimport os\n```", "FINAL ANSWER: 3. TERMINATE"),
         (["malformed"], "answered", "agrees")),
        (REFOCUS_CHART, conversation(FOCUSED.replace("x_values", "columns"), "No. TERMINATE"),
         (["rejected"], "no_answer", "agrees")),
        (load("mini_o3", Pair).value.free, conversation("<grounding>{}</grounding>"),
         (["not_offered"], "not_offered", "agrees")),
        (load("med", Pair).value.available, conversation("<tool_call>oops</tool_call>"),
         (["malformed"], "malformed_call", "agrees")),
        (load("chain_of_focus", Pair).value.available,
         conversation("<tool_call>oops</tool_call>", "B", size=(200, 200)),
         (["executed"], "answered", "agrees")),
        (load("deepeyes_mapped", Pair).value.available,
         conversation(GOOD, "<answer>B</answer>", size=(200, 200)),
         (["executed"], "answered", "agrees")),
    ],
)  # fmt: skip
def test_a_recorded_call_gets_the_status_it_would_have(
    protocol: EvalProtocol, messages: list[dict[str, Any]], expected: tuple[object, ...]
) -> None:
    assert outcome(protocol, messages) == expected


def test_sizes_are_read_from_images_that_a_recording_holds() -> None:
    url = f"data:image/png;base64,{base64.b64encode(DATA).decode()}"
    messages = conversation(
        hermes(PIXEL, bbox_2d=[0.2, 0.2, 0.5, 0.5], target_image=1), r"\boxed{B}"
    )
    messages[0]["content"][0] = {"type": "image_url", "image_url": {"url": url}}
    assert outcome(PIXEL_REASONER, messages) == (["executed"], "answered", "agrees")
    for broken in ("data:image/png;base64,", "data:image/png;base64,AAAA", "https://x/y.png"):
        messages[0]["content"][0] = {"type": "image_url", "image_url": {"url": broken}}
        assert outcome(PIXEL_REASONER, messages)[0] == [UNCHECKED]


def test_native_calls_of_a_recording_are_read() -> None:
    native = load("crop_zoom_native", Pair).value.available
    function = {"name": "crop_and_zoom", "arguments": {"bbox_2d": [0, 0, 9, 9]}}
    messages = conversation("", "<answer>B</answer>")
    messages[1]["tool_calls"] = [{"id": "a", "function": function}, "no call"]
    assert outcome(native, messages)[:2] == ([UNCHECKED], "answered")


NATIVE5 = load("native5", Pair).value.available
VTOOL = load("vtool_r1", Pair).value.available
REGIONS = golden.SAMPLE.metadata
TURNED = hermes("rotate", angle=90)
# Beside the golden scripts: what fails, and what works on what an earlier call made.
MORE_SCRIPTS: list[tuple[EvalProtocol, list[str]]] = [
    (NATIVE5, [
        TURNED, hermes("rotate", angle=45), hermes("flip", direction="horizontal", image_index=1),
        hermes("draw_line", axis="y", value=500, image_index=2),
        hermes("draw_point", x=1200, y=5), hermes("zoom", bbox_2d=[0, 0, 500, 500], image_index=3),
        hermes("zoom", bbox_2d=[0, 0, 9, 9], image_index=7), "<answer>B</answer>",
    ]),
    (VTOOL, [
        "```python\na = focus_on_columns_with_mask(image_1, ['2006'], columns_bbox)\n"
        "b = focus_on_columns_with_draw(a, ['2005'], columns_bbox)\ndisplay(b)\n```",
        "FINAL ANSWER: B. TERMINATE",
    ]),
    (load("refocus_chart", Pair).value.available, [
        "```python\na = focus_on_x_values_with_draw(image_1, ['2099'], x_values_bbox)\n"
        "b = focus_on_x_values_with_draw(a, ['2005'], x_values_bbox)\ndisplay(b)\n```",
        "FINAL ANSWER: B. TERMINATE",
    ]),
    (load("qwen3vl_zoom", Pair).value.available, [hermes(ZOOM, bbox_2d=[0, 0, 1, 1]) * 2] * 20),
]  # fmt: skip
SCRIPTS = [
    *((load(name, Pair).value.available, list(said)) for name, said in golden.SCRIPTS.items()),
    *MORE_SCRIPTS,
]


def told(protocol: EvalProtocol, script: list[str]) -> tuple[dict[str, Any], list[object]]:
    """A trajectory as a run records it, and what its calls and its end came to."""
    ended = golden.rolled(protocol, script).trajectory
    written = json.loads(line(ended))
    calls: list[object] = [(call.status, call.error) for call in ended.calls]
    return written, [*calls, ended.stop, None if ended.answer is None else ended.answer.text]


def replayed(line: object, protocol: EvalProtocol) -> list[object]:
    recording = Recording.of(line)
    assert recording is not None
    found = asyncio.run(replay(recording, protocol))
    return [*((call.status, call.error) for call in found.calls), found.stop, found.answer]


def with_pixels(line: dict[str, Any]) -> dict[str, Any]:
    """The conversation with its first image's file in the place of its number."""
    url = f"data:image/png;base64,{base64.b64encode(DATA).decode()}"
    held = {"type": "image_url", "image_url": {"url": url}}
    contents = [
        [held if part["type"] == "image" else part for part in message["content"]]
        for message in line["messages"]
    ]
    messages = [
        {**message, "content": content}
        for message, content in zip(line["messages"], contents, strict=True)
    ]
    return {"messages": messages}


@pytest.mark.parametrize(("protocol", "script"), SCRIPTS)
def test_replay_comes_to_what_the_rollout_came_to(
    protocol: EvalProtocol, script: list[str]
) -> None:
    line, expected = told(protocol, script)
    assert replayed({**line, "metadata": REGIONS}, protocol) == expected
    assert replayed({**with_pixels(line), "metadata": REGIONS}, protocol) == expected


@pytest.mark.parametrize(("protocol", "script"), SCRIPTS)
def test_less_told_is_more_unchecked_and_never_another_verdict(
    protocol: EvalProtocol, script: list[str]
) -> None:
    line, expected = told(protocol, script)
    said = [message for message in line["messages"] if message["role"] == "assistant"]
    for less in (
        line, {**line, "images": []}, {**line, "images": [], "metadata": REGIONS}, said,
        {"messages": said, "metadata": REGIONS},
    ):  # fmt: skip
        # where a refusal ends the conversation, an unchecked call lets more of them follow
        for found, right in zip(replayed(less, protocol)[:-2], expected[:-2], strict=False):
            assert isinstance(found, tuple)
            assert isinstance(right, tuple)
            assert found[0] == right[0] or found[0].startswith("unchecked: ")


def test_a_reply_that_a_run_cut_off_ends_replay_as_it_ended_the_run() -> None:
    line, _ = told(NATIVE5, [TURNED, "<answer>B</answer>"])
    line["turns"][0]["finish"] = "length"
    line["messages"][-3]["content"] = [{"type": "text", "text": '<tool_call>\n{"name": "rot'}]
    assert replayed(line, NATIVE5)[-2:] == ["length", None]
    line["messages"][-3]["content"] = [{"type": "text", "text": "I look at the"}]
    assert replayed(line, NATIVE5) == ["length", None]


def test_a_reply_that_a_stop_string_ends_was_not_cut_off() -> None:
    line, expected = told(NATIVE5, [TURNED, "<answer>B</answer>"])
    line["turns"][0]["finish"] = "length"
    line["messages"][-3]["content"] = [{"type": "text", "text": f"{TURNED} and so on, and"}]
    assert NATIVE5.stop
    assert replayed(line, NATIVE5) == expected


def unsized(*replies: str, metadata: JsonValue = None) -> dict[str, Any]:
    return {"messages": conversation(*replies), "metadata": metadata}


def focusing(names: str, boxes: str = "columns_bbox") -> str:
    return f"```python\ndisplay(focus_on_columns_with_draw(image_1, {names}, {boxes}))\n```"


REFOCUS = load("refocus", Pair).value.available
NO_SIZE, NO_METADATA = UNCHECKED, "unchecked: sample metadata unknown"
NO_PIXELS = "unchecked: image pixels unknown"


@pytest.mark.parametrize(
    ("protocol", "said", "status", "why"),
    [
        (NATIVE5, hermes("rotate", angle=45), "rejected", "'angle' is an angle"),
        (NATIVE5, hermes("rotate"), "rejected", "'angle' is missing"),
        (NATIVE5, hermes("rotate", angle=90, by=1), "rejected", "no argument"),
        (NATIVE5, hermes("rotate", angle=90, image_index=1), "rejected", "no image 1"),
        (NATIVE5, TURNED, NO_SIZE, ""),
        (NATIVE5, hermes("flip", direction="up"), "rejected", "'direction' is"),
        (NATIVE5, hermes("draw_line", axis="z", value=5), "rejected", "'axis' is"),
        (NATIVE5, hermes("draw_line", axis="x", value=1001), "rejected", "outside image 0"),
        (NATIVE5, hermes("draw_point", x=5, y=-1), "rejected", "outside image 0"),
        (NATIVE5, hermes("zoom", bbox_2d=[1200, 0, 1300, 9]), "rejected", "entirely outside"),
        (NATIVE5, hermes("zoom", bbox_2d=[0, 0, 9, 9]), NO_SIZE, ""),
        (NATIVE5, hermes("turn", angle=90), "rejected", "named 'turn'; offered: zoom, rotate"),
        (VTOOL, focusing("'Year'"), "rejected", "'names' is a list"),
        (VTOOL, focusing("['Year']"), NO_SIZE, ""),
        (REFOCUS, focusing("['Year']", "{'Year': {'x1': 0}}"), "rejected", "a box is"),
    ],
)  # fmt: skip
def test_what_needs_no_image_is_checked_without_one(
    protocol: EvalProtocol, said: str, status: str, why: str
) -> None:
    (call, *_) = replayed(unsized(said, "done"), protocol)
    assert isinstance(call, tuple)
    assert call[0] == status
    assert why in (call[1] or "")


@pytest.mark.parametrize(
    ("name", "size", "metadata", "status"),
    [
        ("Year", (80, 40), None, NO_METADATA),
        ("Year", None, None, NO_SIZE),
        ("2006", None, REGIONS, NO_SIZE),
        ("Year", None, REGIONS, "rejected"),
        ("Year", (80, 40), REGIONS, "rejected"),
        ("2006", (80, 40), REGIONS, "executed"),
    ],
)
def test_names_of_regions_are_looked_up_where_the_recording_has_them(
    name: str, size: tuple[int, int] | None, metadata: JsonValue, status: str
) -> None:
    line = {"messages": conversation(focusing(f"[{name!r}]"), "x", size=size), "metadata": metadata}
    (call, *_) = replayed(line, REFOCUS)
    assert isinstance(call, tuple) and call[0] == status


def test_a_block_uses_the_names_of_an_unchecked_block_before_it() -> None:
    first = focusing("['Year']").replace("display(", "a = (")
    then = "```python\ndisplay(focus_on_rows_with_draw(a, ['2006'], rows_bbox))\n```"
    line = {"messages": conversation(first, then, "x", size=(80, 40))}
    shown = ("executed", None)
    assert replayed(line, REFOCUS)[:-2] == [(NO_METADATA, None), shown, (NO_METADATA, None)]


def half(image: Any, factor: int = 2) -> Any:
    """Show an image smaller.

    factor: how many times.
    """
    if image.getbbox() is None:
        raise ValueError("the image is blank")
    return image.resize((image.width // factor, image.height // factor))


OWN = replace(NATIVE5, tools=(tool(half), *NATIVE5.tools))


def test_a_tool_of_one_s_own_is_checked_by_its_hints_and_run_on_real_pixels_alone() -> None:
    said = [
        hermes("half", factor="two"), hermes("half", to=3), hermes("half", image_index=4),
        hermes("half", factor=4), hermes("rotate", angle=90, image_index=1), TURNED, "<answer>B",
    ]  # fmt: skip
    statuses = [
        [call.status for call in asyncio.run(replay(Recording(messages=messages), OWN)).calls]
        for messages in (conversation(*said), conversation(*said, size=(80, 40)))
    ]
    assert statuses == [
        [*["rejected"] * 3, NO_SIZE, NO_SIZE, NO_SIZE],
        [*["rejected"] * 3, NO_PIXELS, NO_SIZE, "executed"],
    ]
    line, expected = told(OWN, said)
    assert replayed(with_pixels(line), OWN) == expected
    assert [call.status for call in golden.rolled(OWN, said).trajectory.calls] == [
        *["rejected"] * 3, *["executed"] * 3,
    ]  # fmt: skip


def test_counts_of_other_unchecked_calls_stand_beside_the_usual_ones(
    tmp_path: Path, medeval_main: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "recorded.jsonl"
    path.write_text(json.dumps(conversation(focusing("['A']"), "x", size=(80, 40))), "utf-8")
    assert medeval_main("replay", "--protocol", "refocus", str(path), "--json") == 0
    calls = json.loads(capsys.readouterr().out)["calls"]
    assert (calls[NO_METADATA], calls[UNCHECKED], calls["found"]) == (1, 0, 1)


@pytest.mark.parametrize("size", [(0, 5), (100_000, 100_000)])
def test_a_size_that_no_image_has_is_taken_for_untold(size: tuple[int, int]) -> None:
    messages = conversation(GOOD, "<answer>B</answer>", size=size)
    assert outcome(DEEPEYES, messages)[0] == [UNCHECKED]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "holds no conversation"),
        ("{oops", "line 1: no JSON"),
        ('\n{"messages": 3}', "line 2: no conversation"),
        ('{"messages": [{"content": "x"}]}', "line 1: no conversation"),
    ],
)
def test_a_file_without_conversations_is_refused_by_line(
    tmp_path: Path, text: str, said: str
) -> None:
    path = tmp_path / "recorded.jsonl"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=said):
        replay_file(path, DEEPEYES)


def test_replay_tells_people_where_a_protocol_ends_otherwise(
    tmp_path: Path, medeval_main: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "recorded.jsonl"
    lines = [conversation(GOOD, GOOD), *[conversation(*[GOOD] * 6)] * 11]
    path.write_text("\n".join(json.dumps(line) for line in lines), encoding="utf-8")
    assert medeval_main("replay", "--protocol", "deepeyes_train", str(path)) == 0
    told = capsys.readouterr()
    assert "line 1: goes on after the last of 2 replies" in told.out
    assert "line 2: call_limit at reply 5 of 6" in told.out
    assert "and 2 more" in told.err
    assert medeval_main("replay", "--protocol", "deepeyes_train_free", str(path)) == 0
    assert "not_offered" in capsys.readouterr().out
    assert medeval_main("replay", "--protocol", "native5", str(path)) == 0
    told = capsys.readouterr()
    assert (
        "reasons, the most frequent first\n       68  rejected: there is no tool named" in told.out
    )
    odd = [conversation(*(hermes("draw_point", x=x, y=0) for x in range(2000, 2007)))]
    path.write_text(json.dumps(odd[0]), encoding="utf-8")
    assert medeval_main("replay", "--protocol", "native5", str(path)) == 0
    told = capsys.readouterr()
    assert told.out.count("rejected: 'x' lies outside image 0") == 5
    assert "and 2 more; --json shows all" in told.err
    assert medeval_main("replay", "--protocol", "deepeye", str(path)) == 2
    assert "did you mean 'deepeyes'" in capsys.readouterr().err
