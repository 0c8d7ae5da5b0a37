"""Every call a model writes is found, and nothing it writes raises."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medeval.tools.calls.find import CallSyntax, ends_at_stop, find_calls, named
from medeval.types.sample import JsonValue
from medeval.types.trajectory import NativeCall, ParsedCall

TRACES = Path(__file__).parents[3] / "../shared/data/vstar/deepeyes_traces.jsonl"
ZOOM = '{"name": "zoom", "arguments": {"bbox_2d": [1, 2.5, 3, 4]}}'
ZOOM_ARGUMENTS: dict[str, JsonValue] = {"bbox_2d": [1, 2.5, 3, 4]}


def hermes(text: str) -> tuple[ParsedCall, ...]:
    return find_calls(text, (), "hermes")


def only(text: str) -> ParsedCall:
    (call,) = hermes(text)
    return call


@pytest.mark.parametrize(
    "text",
    [
        f"<tool_call>{ZOOM}</tool_call>",
        f"<tool_call>\n{ZOOM}\n</tool_call>",
        f"<tool_call>\r\n\t {ZOOM} \n\n</tool_call>",
        f"<tool_call>{ZOOM}",
        f"<tool_call>\n{ZOOM}\n",
        f"<think>look closer</think>\n<tool_call>\n{ZOOM}\n</tool_call>",
        f"<think>never closed <tool_call>{ZOOM}",
        f"<tool_call>```json\n{ZOOM}\n```</tool_call>",
        f"<tool_call>\n```\n{ZOOM}\n```\n</tool_call>",
        f"<tool_call>```json\n{ZOOM}",
        f"stray </tool_call> <tool_call>{ZOOM}</tool_call> and more",
        '<tool_call>{"name": "zoom", "arguments": "{\\"bbox_2d\\": [1, 2.5, 3, 4]}"}</tool_call>',
        '<tool_call>{"id": 7, "name": "zoom", "arguments": {"bbox_2d": [1, 2.5, 3, 4]}}',
    ],
)
def test_a_hermes_call_is_read(text: str) -> None:
    call = only(text)
    assert (call.error, call.name, call.arguments) == (None, "zoom", ZOOM_ARGUMENTS)
    assert call.raw_text == text[call.start : call.end]
    assert call.raw_text.startswith("<tool_call>") and call.native_id is None


@pytest.mark.parametrize(
    ("block", "name", "said"),
    [
        ("", None, "holds no JSON object"),
        (" \n", None, "holds no JSON object"),
        ("zoom(1, 2)", None, "holds no JSON object"),
        ("[1, 2]", None, "holds no JSON object"),
        ("[{}]", None, "one JSON object, not an array"),
        ('"{}"', None, "one JSON object, not a string"),
        ("{'name': 'zoom'}", None, "cannot be read"),
        (f"{ZOOM} trailing", None, "Extra data"),
        (f"{ZOOM}\n{ZOOM}", None, "Extra data"),
        ('{"name": "zoom", "arguments": {', None, "cannot be read"),
        ("{}", None, 'under "name"'),
        ('{"name": null, "arguments": {}}', None, 'under "name"'),
        ('{"name": "", "arguments": {}}', None, 'under "name"'),
        ('{"name": 3, "arguments": {}}', None, 'under "name"'),
        ('{"name": "zoom"}', None, 'no "arguments"'),
        ('{"name": "zoom", "arguments": null}', "zoom", "JSON object, not null"),
        ('{"name": "zoom", "arguments": [1]}', "zoom", "JSON object, not an array"),
        ('{"name": "zoom", "arguments": 1}', "zoom", "JSON object, not a number"),
        ('{"name": "zoom", "arguments": true}', "zoom", "JSON object, not a boolean"),
        ('{"name": "zoom", "arguments": "[1]"}', "zoom", "JSON object, not an array"),
        ('{"name": "zoom", "arguments": "\\"{}\\""}', "zoom", "JSON object, not a string"),
        ('{"name": "zoom", "arguments": "{"}', "zoom", "cannot be read"),
        ('{"name": "zoom", "arguments": {"x": NaN}}', None, "NaN is not a finite number"),
        ('{"name": "zoom", "arguments": {"x": -Infinity}}', None, "not a finite number"),
        ('{"name": "zoom", "arguments": {"x": 1e999}}', None, "1e999 is not a finite number"),
        ('{"name": "zoom", "arguments": {"x": "\\ud800"}}', None, "surrogate"),
        ('{"name": "\\udfff", "arguments": {}}', None, "surrogate"),
        ('{"name": "zoom", "arguments": {"\\ud800": 1}}', None, "surrogate"),
        ('{"a": ' * 40 + "1" + "}" * 40, None, "nested more than 32 deep"),
        ('{"a": ' * 100_000 + "1" + "}" * 100_000, None, "nested more than 32 deep"),
        ('{"a": ' + "9" * 5000 + "}", None, "cannot be read"),
    ],
)
@pytest.mark.parametrize("closing", ["</tool_call>", ""])
def test_a_garbled_call_says_what_is_wrong_with_it(
    block: str, name: str | None, said: str, closing: str
) -> None:
    call = only(f"text <tool_call>{block}{closing}")
    assert call.error is not None and said in call.error
    assert call.error.endswith(
        'write a call as <tool_call>{"name": ..., "arguments": {...}}</tool_call>'
    )
    assert call.arguments is None
    assert call.name == name


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("zoom", "named 'zoom'"),
        ("image_zoom-in.v2", "named 'image_zoom-in.v2'"),
        ("x" * 64, f"named '{'x' * 64}'"),
        ("x" * 65, "of another name"),
        ("<|image_pad|>", "of another name"),
        ("zoom\n", "of another name"),
        ("", "of another name"),
        (None, "of another name"),
    ],
)
def test_a_name_is_repeated_to_the_model_only_where_it_is_safe(name: str | None, told: str) -> None:
    assert named(name) == told


def test_the_name_of_a_garbled_call_is_repeated_only_where_it_is_safe() -> None:
    error = only('<tool_call>{"name": "<|im_end|>"}</tool_call>').error
    assert error is not None and error.startswith('the call of a tool of another name has no "arg')


def test_calls_come_in_order_with_their_places() -> None:
    first, second = f"<tool_call>{ZOOM}</tool_call>", "<tool_call>oops</tool_call>"
    third = ZOOM.replace("zoom", "turn")
    text = f"a {first} b {second} c <tool_call>{third}"
    calls = hermes(text)
    assert [call.name for call in calls] == ["zoom", None, "turn"]
    assert [call.raw_text for call in calls] == [first, second, f"<tool_call>{third}"]
    assert [call.error is None for call in calls] == [True, False, True]


def test_only_the_last_call_may_lack_its_closing_tag() -> None:
    first, second = hermes(f"<tool_call>{ZOOM}\n<tool_call>{ZOOM}</tool_call>")
    assert first.error is not None and "not closed before the next" in first.error
    assert first.raw_text == f"<tool_call>{ZOOM}\n"
    assert second.error is None


@pytest.mark.parametrize(
    ("text", "n_calls"),
    [
        (f"<think>I write <tool_call>{ZOOM}</tool_call> to call</think> <answer>A</answer>", 0),
        (f"the prompt opened it <tool_call>{ZOOM}</tool_call></think> <answer>A</answer>", 0),
        (f"<THINK><tool_call>{ZOOM}</tool_call></THINK>", 0),
        (f"<think>a <tool_call>{ZOOM}</think> <tool_call>{ZOOM}", 1),
        (f"<think>a</think> <tool_call>{ZOOM}</tool_call> <think><tool_call></think>", 1),
        (f"<think>a</think> <think>b <tool_call>{ZOOM}", 1),
        ("no call </tool_call> at all", 0),
        ("", 0),
    ],
)
def test_closed_reasoning_holds_no_calls(text: str, n_calls: int) -> None:
    calls = hermes(text)
    assert len(calls) == n_calls
    assert all(call.error is None for call in calls)


@pytest.mark.parametrize("syntax", ["none", "openai"])
def test_only_the_hermes_syntax_reads_calls_in_text(syntax: CallSyntax) -> None:
    assert find_calls(f"<tool_call>{ZOOM}</tool_call>", (), syntax) == ()


@pytest.mark.parametrize("syntax", ["none", "openai", "hermes"])
def test_native_calls_are_read_in_every_syntax(syntax: CallSyntax) -> None:
    native = NativeCall(id="call_1", name="zoom", arguments='{"bbox_2d": [1, 2.5, 3, 4]}')
    assert find_calls("text", (native,), syntax) == (
        ParsedCall(
            raw_text=native.arguments, name="zoom", arguments=ZOOM_ARGUMENTS, native_id="call_1"
        ),
    )


@pytest.mark.parametrize(
    ("name", "arguments", "said"),
    [
        ("zoom", "", "cannot be read"),
        ("zoom", "[1]", "not an array"),
        ("zoom", '"{}"', "not a string"),
        ("zoom", '{"x": Infinity}', "finite"),
        ("", "{}", "names no tool"),
    ],
)
def test_a_garbled_native_call_says_what_is_wrong_with_it(
    name: str, arguments: str, said: str
) -> None:
    (call,) = find_calls("", (NativeCall(id="1", name=name, arguments=arguments),), "openai")
    assert call.error is not None and said in call.error
    assert (call.name, call.arguments, call.native_id) == (name or None, None, "1")


def test_calls_in_text_come_before_native_ones() -> None:
    native = NativeCall(id="1", name="native", arguments="{}")
    calls = find_calls(f"<tool_call>{ZOOM}", (native,), "hermes")
    assert [call.name for call in calls] == ["zoom", "native"]


fragments = st.sampled_from(
    [
        *("<tool_call>", "</tool_call>", "<think>", "</think>", "```", "```json\n"),
        *("{", "}", "[", '"', ":", ",", "\\u", "\\ud800", "NaN", "1e999", " ", "\n"),
        *(ZOOM, '"name"', '"arguments"'),
    ]
)
wild_text = st.lists(fragments | st.text(max_size=8)).map("".join)


@settings(deadline=None)
@given(wild_text)
def test_no_text_raises_and_every_call_is_either_sound_or_explained(text: str) -> None:
    end = 0
    for call in hermes(text):
        assert end <= call.start < call.end <= len(text)
        assert call.raw_text == text[call.start : call.end]
        assert (call.error is None) == (call.arguments is not None)
        end = call.end


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    # Text that looks like a tag ends a block: JSON can escape it, no published parser looks.
    | st.text(alphabet=st.characters(exclude_characters="<", exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner),
    max_leaves=8,
)


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(["bbox_2d", "label"]), json_values), st.booleans())
def test_whatever_a_model_writes_as_json_comes_back(
    arguments: dict[str, object], ascii_only: bool
) -> None:
    call = json.dumps({"name": "zoom", "arguments": arguments}, ensure_ascii=ascii_only)
    assert only(f"<think>so</think><tool_call>{call}</tool_call>").arguments == arguments


@settings(deadline=None)
@given(wild_text)
def test_no_native_arguments_raise(arguments: str) -> None:
    (call,) = find_calls("", (NativeCall(id="1", name="zoom", arguments=arguments),), "openai")
    assert (call.error is None) == (call.arguments is not None)


@pytest.mark.parametrize(
    ("make", "n_calls"),
    [
        (lambda n: "<tool_call>" * n, lambda n: n),
        (lambda n: "<tool_call>{" * n, lambda n: n),
        (lambda n: "<tool_call></tool_call>" * n, lambda n: n),
        (lambda n: "<think><tool_call>" * n, lambda n: n),
        (lambda n: "<think><tool_call>" * n + "</think>", lambda n: 0),
        (lambda n: "<tool_call>" + "{" * n, lambda n: 1),
        (lambda n: '<tool_call>{"a":' + "[" * n, lambda n: 1),
        (lambda n: "<tool_call>{" + " " * n + "x```", lambda n: 1),
        (lambda n: "<" * n, lambda n: 0),
        (lambda n: '<tool_call>{"a":"' + "\\" * n, lambda n: 1),
    ],
)
@pytest.mark.parametrize("n", [10, 20_000])
def test_a_long_degenerate_reply_is_read(
    make: Callable[[int], str], n_calls: Callable[[int], int], n: int
) -> None:
    calls = hermes(make(n))
    assert len(calls) == n_calls(n)
    assert all(call.error for call in calls)


@pytest.mark.parametrize(
    ("text", "stops", "kept"),
    [
        ("a</t>b</t>", ("</t>",), "a</t>"),
        ("a</t>b</u>", ("</u>", "</t>"), "a</t>"),
        ("a<<stop>>", ("<<stop>>", "stop"), "a<<stop"),
        ("abc", ("</t>",), "abc"),
        ("abc", (), "abc"),
        ("abc", ("",), "abc"),
        ("a</t>b", ("", "</t>"), "a</t>"),
        ("</t>", ("</t>",), "</t>"),
        ("", ("</t>",), ""),
    ],
)
def test_a_text_ends_at_its_first_stop_string(text: str, stops: tuple[str, ...], kept: str) -> None:
    assert ends_at_stop(text, stops) == kept


@given(st.text("ab<>"), st.lists(st.text("ab<>", max_size=3), max_size=3))
def test_ending_at_a_stop_string_twice_changes_nothing(text: str, stops: list[str]) -> None:
    once = ends_at_stop(text, stops)
    assert text.startswith(once)
    assert ends_at_stop(once, stops) == once
    assert all(once.find(stop) in (-1, len(once) - len(stop)) for stop in stops if stop)


def assistant_texts() -> list[list[str]]:
    """What the model wrote in each real conversation, turn by turn."""
    conversations = map(json.loads, TRACES.read_text(encoding="utf-8").splitlines())
    return [
        [
            message["content"]
            for message in conversation["messages"]
            if message["role"] == "assistant"
        ]
        for conversation in conversations
    ]


@pytest.mark.skipif(not TRACES.exists(), reason=f"{TRACES.name} is not at hand")
def test_all_781_calls_of_the_real_deepeyes_conversations_are_read() -> None:
    conversations = assistant_texts()
    calls = [call for texts in conversations for text in texts for call in hermes(text)]
    assert (len(conversations), len(calls)) == (764, 781)
    assert [call.error for call in calls if call.error] == []
    assert {call.name for call in calls} == {"image_zoom_in_tool"}
    for call in calls:
        assert call.arguments is not None
        box = call.arguments["bbox_2d"]
        assert isinstance(box, list) and len(box) == 4
        assert all(isinstance(value, int | float) and math.isfinite(value) for value in box)
