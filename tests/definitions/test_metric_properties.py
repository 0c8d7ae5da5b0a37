"""What holds for every rule that scores text, whatever a model writes."""

import asyncio
import importlib.util
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medeval.evaluation.loader import load, shipped
from medeval.scoring.grade import grade_answer
from medeval.scoring.judge import Judge
from medeval.types.sample import Sample
from medeval.types.trajectory import Answer
from medeval.types.verdict import Verdict

HAS_MATH = importlib.util.find_spec("math_verify") is not None
# math-verify is slow, and is looked at by itself
RULES = [
    judge.value.name
    for judge in shipped(Judge)
    if not judge.value.needs_endpoint and judge.value.name != "math"
]
# Numbers and years may match though they differ, and "True" scores what "untrue" does.
SYMMETRIC = ("exact_match", "tablevqa_vwtq", "tablevqa_fintabnetqa", "tablevqa_fintabnetqa_exact")

HARD_TEXTS = [
    "nan", "NaN%", "inf", "-inf", "1e999", "1e-999", "9" * 5000, "٣", "½", "1_000", "0x10",
    "\x00\x1b[31m\x07", "\ud800", "\u202e\u2066", "e\u0301" * 99, "{" * 999 + "}" * 999,
    "\\boxed{" * 500, "[" * 999, "['a', 'b'", "[1, [2, [3]]]", "(" * 999, "$" * 999, "'" * 999,
    "||", "|", "a||" * 999, "x" * 100_000, "[1]" * 33_000, " (a)" * 25_000, "A. B. C. D.",
    "true false", "<answer>", "</think>",
]  # fmt: skip
# the longest are each looked at by themselves
TEXTS = st.text() | st.sampled_from([text for text in HARD_TEXTS if len(text) < 10_000])


# each rule is read from its file once; a test grades with it some hundred times
loaded = cache(load)


def verdict(judge: str, text: str, *targets: str) -> Verdict:
    sample = Sample(
        id="s", question="?", images=(), targets=targets, options=("red", "a blue car"),
        groups={"question_type": "Factoid"}, metadata={"years": ["NO"]},
    )  # fmt: skip
    answer = Answer(text=text, how_found="answer_tag", reply=text)
    graded = asyncio.run(grade_answer(sample, answer, "answered", loaded(judge, Judge)))
    assert graded.failure is None, graded.failure
    return graded.verdict


def target_of(judge: str, text: str) -> str:
    """A target that the judge can read."""
    return {"choice": "A", "tablevqa_vtabfact": "true"}.get(judge, text)


@pytest.mark.parametrize("judge", RULES)
@given(text=TEXTS, target=TEXTS)
def test_any_two_texts_get_a_score_from_0_to_1(judge: str, text: str, target: str) -> None:
    score = verdict(judge, text, target_of(judge, target)).score
    assert score is not None
    assert 0.0 <= score <= 1.0


@pytest.mark.parametrize("judge", RULES)
@pytest.mark.parametrize("text", HARD_TEXTS, ids=range(len(HARD_TEXTS)))
def test_no_text_made_to_hurt_breaks_a_rule(judge: str, text: str) -> None:
    other = "12" if judge not in ("choice", "tablevqa_vtabfact") else target_of(judge, "")
    assert verdict(judge, text, other).score is not None


@pytest.mark.parametrize("judge", SYMMETRIC)
@given(first=TEXTS, second=TEXTS)
def test_equality_is_symmetric(judge: str, first: str, second: str) -> None:
    if not first.strip() or not second.strip() or "||" in first + second:
        return
    assert verdict(judge, first, second).score == verdict(judge, second, first).score


@pytest.mark.parametrize("judge", RULES)
@given(text=TEXTS, targets=st.lists(TEXTS, min_size=1, max_size=2), more=TEXTS)
def test_one_more_target_never_lowers_a_score(
    judge: str, text: str, targets: list[str], more: str
) -> None:
    readable = [target_of(judge, target) for target in targets]
    before = verdict(judge, text, *readable).score
    after = verdict(judge, text, *readable, target_of(judge, more)).score
    assert before is not None
    assert after is not None
    assert after >= before


@pytest.mark.skipif(not HAS_MATH, reason="math-verify is not installed")
@settings(max_examples=25, deadline=None)
@given(
    text=st.text(max_size=40) | st.sampled_from([text for text in HARD_TEXTS if len(text) > 999])
)
def test_no_text_breaks_the_mathematical_rule(text: str) -> None:
    assert verdict("math", text, "12").score in (0.0, 1.0)


def test_every_judge_declares_its_metric_and_when_an_answer_is_correct() -> None:
    marks = {judge.value.name: judge.value.correct_at for judge in shipped(Judge)}
    assert {name for name, mark in marks.items() if mark != 1.0} == {"anls", "anls_lmms"}
    assert {marks["anls"], marks["anls_lmms"]} == {0.5}
    assert all(judge.value.metric and judge.value.source for judge in shipped(Judge))
