"""From an answer, or none, to a verdict that is never a guess."""

import asyncio
import math
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medeval.errors import JudgeError
from medeval.evaluation.loader import load
from medeval.scoring.grade import Graded, grade_answer, judge_identity, missing_fields
from medeval.scoring.judge import Judge
from medeval.types.definition import Loaded, Source
from medeval.types.sample import Sample
from medeval.types.trajectory import Answer, StopReason
from medeval.types.verdict import Grade

SAMPLE = Sample(id="s", question="Which?", images=(), targets=("blue",))
ANSWER = Answer(text="blue", how_found="answer_tag", reply="<answer>blue</answer>")
STOPS: list[StopReason] = [
    "no_answer", "empty", "malformed_call", "not_offered", "turn_limit", "call_limit",
    "image_limit", "length", "context", "refused",
]  # fmt: skip


def judge(
    grade: Callable[[Sample, Answer], Grade | Awaitable[Grade]], **options: Any
) -> Loaded[Judge]:
    value = Judge(name="mine", metric="m", grade=grade, **options)
    return Loaded(value, Source(Path("mine.py"), "0123456789abcdef"))


def scoring(score: float | None, **options: Any) -> Loaded[Judge]:
    return judge(lambda *_: Grade(score=score, extracted="x", reason="why"), **options)


def graded(
    by: Loaded[Judge],
    answer: Answer | None = ANSWER,
    stop: StopReason = "answered",
    sample: Sample = SAMPLE,
) -> Graded:
    return asyncio.run(grade_answer(sample, answer, stop, by, repeat=3))


@pytest.mark.parametrize("stop", STOPS)
def test_no_answer_is_incorrect_with_its_stop_reason(stop: StopReason) -> None:
    def grade(*_: object) -> Grade:
        raise AssertionError("there is nothing to judge")

    verdict = graded(judge(grade), None, stop).verdict
    assert (verdict.status, verdict.score) == ("incorrect", 0.0)
    assert verdict.reason == f"no answer: {stop}"


@pytest.mark.parametrize("answer", [None, ANSWER, replace(ANSWER, text=" ")])
def test_a_sample_without_a_label_is_undecided_whatever_was_answered(
    answer: Answer | None,
) -> None:
    unlabelled = Sample(id="s", question="?", images=(), targets=())
    verdict = graded(scoring(1.0), answer, "length", unlabelled).verdict
    assert (verdict.status, verdict.score) == ("undecided", None)
    assert verdict.reason == "no label: the sample has no targets"


@pytest.mark.parametrize(
    ("score", "correct_at", "status"),
    [
        (1.0, 1.0, "correct"), (0.999, 1.0, "incorrect"), (0.5, 0.5, "correct"),
        (0.49, 0.5, "incorrect"), (0.0, 1.0, "incorrect"), (1, 1.0, "correct"),
    ],
)  # fmt: skip
def test_an_answer_is_correct_at_the_judges_own_mark(
    score: float, correct_at: float, status: str
) -> None:
    verdict = graded(scoring(score, correct_at=correct_at)).verdict
    assert (verdict.status, verdict.score) == (status, score)


def test_a_verdict_keeps_what_the_judge_read_and_why() -> None:
    verdict = graded(scoring(1.0)).verdict
    assert (verdict.sample_id, verdict.repeat, verdict.judge) == ("s", 3, "mine#01234567")
    assert (verdict.extracted, verdict.reason) == ("x", "why")


def test_a_judge_that_cannot_decide_leaves_undecided() -> None:
    verdict = graded(scoring(None)).verdict
    assert (verdict.status, verdict.score, verdict.reason) == ("undecided", None, "why")


@given(st.floats(allow_nan=True, allow_infinity=True) | st.none() | st.booleans())
def test_a_score_is_none_exactly_where_the_verdict_is_undecided(score: float | None) -> None:
    verdict = graded(scoring(score)).verdict
    assert (verdict.status == "undecided") == (verdict.score is None)
    assert verdict.score is None or math.isfinite(verdict.score)


def test_a_judge_that_could_not_look_leaves_undecided_with_its_reason() -> None:
    def grade(*_: object) -> Grade:
        raise JudgeError("the picture is missing", hint="fetch it")

    result = graded(judge(grade))
    assert (result.verdict.status, result.verdict.reason) == ("undecided", "the picture is missing")
    assert result.failure is None


def grade_with_bug(*_: object) -> Grade:
    raise ZeroDivisionError("in the judge")


async def grade_later_with_bug(*_: object) -> Grade:
    await asyncio.sleep(0)
    return grade_with_bug()


@pytest.mark.parametrize("grade", [grade_with_bug, grade_later_with_bug])
def test_a_bug_in_a_judge_leaves_undecided_and_keeps_the_traceback(grade: Any) -> None:
    result = graded(judge(grade))
    assert result.verdict.status == "undecided"
    assert result.verdict.reason == "the judge failed: ZeroDivisionError: in the judge"
    assert result.failure is not None
    assert "grade_with_bug" in result.failure


@pytest.mark.parametrize("score", [math.nan, math.inf, -math.inf])
def test_a_score_that_is_no_number_leaves_undecided(score: float) -> None:
    verdict = graded(scoring(score)).verdict
    assert (verdict.status, verdict.score) == ("undecided", None)
    assert verdict.reason == f"judge 'mine' gave the score {score!r}"


@pytest.mark.parametrize("returned", [None, 1.0, Grade(score="high")])  # type: ignore[arg-type]
def test_a_judge_that_returns_no_grade_leaves_undecided(returned: Any) -> None:
    result = graded(judge(lambda *_: returned))
    assert result.verdict.status == "undecided"
    assert result.verdict.reason.startswith("the judge failed: ")


def test_a_judge_may_be_a_coroutine() -> None:
    async def grade(sample: Sample, answer: Answer) -> Grade:
        await asyncio.sleep(0)
        return Grade(score=float(answer.text in sample.targets))

    assert graded(judge(grade)).verdict.status == "correct"


@pytest.mark.parametrize(
    ("reads", "reason"),
    [
        (("targets", "options"), "no label: the sample has no options"),
        (("cluster", "target_boxes"), "no label: the sample has no cluster, target_boxes"),
    ],
)
def test_a_sample_without_what_the_judge_reads_is_undecided(
    reads: tuple[str, ...], reason: str
) -> None:
    verdict = graded(scoring(1.0, reads=reads)).verdict
    assert (verdict.status, verdict.reason) == ("undecided", reason)


def test_missing_fields_are_named() -> None:
    value = scoring(1.0, reads=("question", "targets", "options")).value
    assert missing_fields(SAMPLE, value) == ("options",)


def test_an_identity_names_the_judges_model_and_file() -> None:
    assert judge_identity(scoring(1.0, model="qwen")) == "mine@qwen#01234567"
    choice = load("choice", Judge)
    assert judge_identity(choice) == f"choice#{choice.source.sha256[:8]}"
