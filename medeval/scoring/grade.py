"""Gives a verdict on an answer. A score is never a guess.

A missing answer is incorrect, with the stop reason as its reason. Where the judge cannot decide or
fails, or the sample has no label, the verdict is undecided; nothing is scored 0 by default.
"""

import inspect
import math
import traceback
from dataclasses import dataclass

from medeval.errors import JudgeError, ModelError, RecordError
from medeval.scoring.judge import Judge
from medeval.types.definition import Loaded
from medeval.types.sample import Sample
from medeval.types.trajectory import Answer, StopReason
from medeval.types.verdict import Grade, Verdict, VerdictStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class Graded:
    """A verdict, and the traceback of the judge's own failure, if any.

    `is_scored` is False where the judge's endpoint did not answer: the verdict is then undecided,
    gives the reason, and is not recorded.
    """

    verdict: Verdict
    failure: str | None = None
    is_scored: bool = True


def judge_identity(judge: Loaded[Judge]) -> str:
    """`<name>[@<model>]#<first 8 hex of its definition's sha256>`."""
    model = "" if judge.value.model is None else f"@{judge.value.model}"
    return f"{judge.value.name}{model}#{judge.source.sha256[:8]}"


async def grade_answer(
    sample: Sample,
    answer: Answer | None,
    stop: StopReason,
    judge: Loaded[Judge],
    *,
    repeat: int = 0,
) -> Graded:
    """One judge's verdict on an answer; `stop` says why there is none where `answer` is None.

    The verdict is undecided where the sample lacks a field that the judge reads. Raises
    RecordError where a reply of the judge's model cannot be written to disk.
    """
    missing = missing_fields(sample, judge.value)
    if missing:
        grade = Grade(score=None, reason=f"no label: the sample has no {', '.join(missing)}")
        return Graded(verdict=_verdict(sample, repeat, judge, grade))
    if answer is None or not answer.text.strip():
        reason = f"no answer: {stop}" if answer is None else "the answer is empty"
        grade = Grade(score=0.0, reason=reason)
        return Graded(verdict=_verdict(sample, repeat, judge, grade))
    try:
        outcome = judge.value.grade(sample, answer)
        grade = await outcome if inspect.isawaitable(outcome) else outcome
        return Graded(verdict=_verdict(sample, repeat, judge, grade))
    except JudgeError as error:
        failed = Grade(score=None, reason=error.message)
        return Graded(verdict=_verdict(sample, repeat, judge, failed), failure=None)
    except RecordError:
        raise
    except ModelError as error:
        failed = Grade(score=None, reason=f"not judged: {error.message}")
        return Graded(
            verdict=_verdict(sample, repeat, judge, failed),
            failure=traceback.format_exc(),
            is_scored=False,
        )
    except Exception as error:  # noqa: BLE001 - the boundary of one judging: recorded, not raised
        failed = Grade(score=None, reason=f"the judge failed: {type(error).__name__}: {error}")
        return Graded(
            verdict=_verdict(sample, repeat, judge, failed), failure=traceback.format_exc()
        )


def missing_fields(sample: Sample, judge: Judge) -> tuple[str, ...]:
    """The Sample fields that the judge reads and this sample leaves empty."""
    return tuple(name for name in judge.reads if not getattr(sample, name))


def _verdict(sample: Sample, repeat: int, judge: Loaded[Judge], grade: Grade) -> Verdict:
    score = grade.score
    if score is not None and not math.isfinite(score):
        raise JudgeError(f"judge {judge.value.name!r} gave the score {score!r}")
    return Verdict(
        sample_id=sample.id,
        repeat=repeat,
        judge=judge_identity(judge),
        status=_status(score, judge.value.correct_at),
        score=score,
        extracted=grade.extracted,
        reason=grade.reason,
        parts=grade.parts,
    )


def _status(score: float | None, correct_at: float) -> VerdictStatus:
    if score is None:
        return "undecided"
    return "correct" if score >= correct_at else "incorrect"
