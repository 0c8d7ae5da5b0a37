"""No text makes a parser raise, hang or run anything."""

import asyncio
import json
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medeval.evaluation.loader import shipped
from medeval.rollout.protocol import Pair
from medeval.rollout.recorded import Recording
from medeval.rollout.replay import replay
from medeval.tools.calls.find import CallRules, CallSyntax, find_calls
from tests.tools.calls.mutated_calls import BITS, SYNTAXES, WRITTEN, mutated

IDS = [f"{syntax}-{index}" for index, (syntax, _) in enumerate(SYNTAXES)]

# Several times what the slowest text takes on a busy core.
SECONDS_A_KILOBYTE = 0.05
LEAST_SECONDS = 0.5

texts = st.lists(st.sampled_from([*BITS, *WRITTEN]) | st.text(max_size=20), max_size=12).map(
    "".join
)


def check(text: str, syntax: CallSyntax, rules: CallRules) -> None:
    for call in find_calls(text, (), syntax, rules):
        assert (call.error is None) == (call.arguments is not None)
        assert 0 <= call.start <= call.end <= len(text)
        json.dumps(call.arguments, allow_nan=False)
        assert "executed" not in (call.error or "")


@pytest.mark.parametrize(("syntax", "rules"), SYNTAXES, ids=IDS)
def test_written_calls_are_read_in_their_own_syntax(syntax: CallSyntax, rules: CallRules) -> None:
    assert any(
        call.error is None for text in WRITTEN for call in find_calls(text, (), syntax, rules)
    )


@settings(deadline=None, max_examples=150)
@given(text=texts, which=st.integers(0, len(SYNTAXES) - 1))
def test_no_text_makes_a_parser_raise(text: str, which: int) -> None:
    syntax, rules = SYNTAXES[which]
    check(text, syntax, rules)


@pytest.mark.parametrize(("syntax", "rules"), SYNTAXES, ids=IDS)
def test_mutated_real_calls_neither_raise_nor_run(
    syntax: CallSyntax, rules: CallRules, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A small part of what tests/perf/mutated_calls_speed.py does a hundred thousand times."""
    monkeypatch.chdir(tmp_path)
    for text in mutated(400, seed=7):
        check(text, syntax, rules)
    assert list(tmp_path.iterdir()) == []


LONG = {
    "openings": "<tool_call>" * 20_000,
    "braces": "<tool_call>" + "{" * 100_000,
    "thoughts": "<think>" * 30_000,
    "keys": "<tool_call>x" + "<arg_key>" * 20_000,
    "groundings": "<grounding>" + '{"a": ' * 20_000,
    "actions": "{" * 20_000 + '"actions"' * 2_000,
    "literal": "<tool_call>{'a': " + "(" * 19_000 + "}",
    "sum": "<grounding>{'a': " + "1+" * 9_000 + "1}",
    "fence": "```python\n" + "f(" * 20_000,
    "lines": "```python\n" + "image_1 = image_1\n" * 5_000,
    "code": "<code>" * 30_000,
    "blanks": "<code>" + " " * 200_000,
}


@pytest.mark.parametrize("text", LONG.values(), ids=LONG)
def test_the_time_is_bounded_by_the_length(text: str) -> None:
    for syntax, rules in SYNTAXES:
        started = time.process_time()
        check(text, syntax, rules)
        spent = time.process_time() - started
        assert spent < LEAST_SECONDS + SECONDS_A_KILOBYTE * len(text) / 1000, (syntax, spent)


@settings(deadline=None, max_examples=60)
@given(replies=st.lists(texts, max_size=4), which=st.integers(0, 100))
def test_any_conversation_can_be_replayed_under_any_preset(replies: list[str], which: int) -> None:
    pairs = shipped(Pair)
    image = {"type": "image", "width": 60, "height": 40}
    messages = [{"role": "user", "content": [image]}]
    messages += [{"role": "assistant", "content": reply} for reply in replies]
    recording = Recording.of(messages)
    assert recording is not None
    for arm in pairs[which % len(pairs)].value.arms:
        replayed = asyncio.run(replay(recording, arm))
        assert replayed.n_replies == len(replies)
