"""Recorded conversations under a protocol: real ones, and each status by hand."""

import base64
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from medeval.definitions import EvalProtocol, Pair
from medeval.errors import DataError
from medeval.loader import load
from medeval.replay import UNCHECKED, replay, replay_file
from tests.definitions.golden_transcripts import DATA, PIXEL, ZOOM, hermes

TRACES = Path(__file__).parents[2] / "shared/data/vstar/deepeyes_traces.jsonl"
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
    replayed = replay(messages, protocol)
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
    assert medeval_main("replay", "--protocol", "deepeye", str(path)) == 2
    assert "did you mean 'deepeyes'" in capsys.readouterr().err
