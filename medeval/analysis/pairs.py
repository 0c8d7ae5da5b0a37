"""The arms of a pair joined sample by sample, by id and repeat, never by position."""

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from medeval.types.outcome import OutcomeRecord
from medeval.types.sample import SampleRecord
from medeval.types.trajectory import StopReason, Trajectory
from medeval.types.verdict import Verdict, VerdictStatus

CORRECT: Mapping[VerdictStatus, bool | None] = {
    "correct": True,
    "incorrect": False,
    "undecided": None,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class PairName:
    """Which pair at which checkpoint outcomes are of; `checkpoint` may be a shared baseline."""

    checkpoint: str
    series: str
    step: int | None
    benchmark: str
    pair: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Labels:
    """What outcomes and aggregates need of a sample."""

    id: str
    options: Sequence[str]
    targets: tuple[str, ...]
    groups: Mapping[str, str]
    cluster: str | None

    @classmethod
    def of(cls, sample: SampleRecord) -> "Labels":
        """Those of a sample, without the rest of it."""
        return cls(
            id=sys.intern(sample.id),
            options=sample.options,
            targets=sample.targets,
            groups=sample.groups,
            cluster=sample.cluster,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What one trajectory came to under one judge: all that outcomes and tables need of it."""

    sample_id: str
    repeat: int
    status: VerdictStatus
    score: float | None
    judge: str
    answer: str | None
    stop: StopReason
    called: bool
    attempted: int
    executed: int
    observed: int


def join_verdicts(
    trajectories: Iterable[Trajectory], verdicts: Iterable[Verdict], judge: str
) -> Iterator[Result]:
    """Each trajectory with the given judge's verdict; one without a verdict is left out.

    Where a judge's verdict on a trajectory was written more than once, the last one holds.
    """
    judged = {
        (verdict.sample_id, verdict.repeat): (verdict.status, verdict.score)
        for verdict in verdicts
        if verdict.judge == judge
    }
    for trajectory in trajectories:
        key = (trajectory.sample_id, trajectory.repeat)
        if key in judged:
            status, score = judged.pop(key)
            yield Result(
                # one text for both arms' results and the sample's labels
                sample_id=sys.intern(trajectory.sample_id),
                repeat=trajectory.repeat,
                status=status,
                score=score,
                judge=judge,
                answer=None if trajectory.answer is None else trajectory.answer.text,
                stop=trajectory.stop,
                called=trajectory.called,
                attempted=trajectory.attempted,
                executed=trajectory.executed,
                observed=trajectory.observed,
            )


def pair_outcomes(
    name: PairName,
    samples: Iterable[SampleRecord | Labels],
    free: Iterable[Result],
    available: Iterable[Result],
) -> Iterator[OutcomeRecord]:
    """One outcome for each sample and repeat that has a verdict in both arms.

    In the order of the samples, then by repeat.
    """
    one, other = _by_repeat(free), _by_repeat(available)
    for sample in samples:
        for repeat in sorted(one.keys() & other.keys()):
            result, opposite = one[repeat].get(sample.id), other[repeat].get(sample.id)
            if result is not None and opposite is not None:
                yield _outcome(name, sample, result, opposite)


def _by_repeat(results: Iterable[Result]) -> dict[int, dict[str, Result]]:
    """The results of each repeat by their samples' ids."""
    found: dict[int, dict[str, Result]] = {}
    for result in results:
        found.setdefault(result.repeat, {})[result.sample_id] = result
    return found


def _outcome(
    name: PairName, sample: SampleRecord | Labels, free: Result, available: Result
) -> OutcomeRecord:
    return OutcomeRecord(
        checkpoint=name.checkpoint,
        series=name.series,
        step=name.step,
        benchmark=name.benchmark,
        pair=name.pair,
        sample_id=sample.id,
        groups=dict(sample.groups),
        cluster=sample.cluster,
        repeat=free.repeat,
        free_correct=CORRECT[free.status],
        available_correct=CORRECT[available.status],
        free_score=free.score,
        available_score=available.score,
        called=available.called,
        calls_attempted=available.attempted,
        calls_executed=available.executed,
        calls_observed=available.observed,
        free_answer=free.answer,
        available_answer=available.answer,
        targets=sample.targets,
        free_stop=free.stop,
        available_stop=available.stop,
        judge=available.judge,
    )
