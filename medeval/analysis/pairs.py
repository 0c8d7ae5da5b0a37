"""The arms of a pair joined sample by sample, by id and repeat, never by position."""

import math
from array import array
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

from medeval.analysis.held import STATUSES, HeldResults, Labels, Result
from medeval.store.endings import Ending
from medeval.store.packed import SampleKey, SampleKeys
from medeval.store.records import OutcomeRecord, SampleRecord
from medeval.types.trajectory import Trajectory
from medeval.types.verdict import Verdict, VerdictStatus

TAKEN = len(STATUSES)

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


def join_verdicts(
    trajectories: Iterable[Trajectory | Ending], verdicts: Iterable[Verdict], judge: str
) -> Iterator[Result]:
    """Each trajectory with the given judge's verdict; one without a verdict is left out.

    Where a judge's verdict on a trajectory was written more than once, the last one holds.
    """
    judged = _Judged(verdict for verdict in verdicts if verdict.judge == judge)
    for trajectory in trajectories:
        verdict = judged.take((trajectory.sample_id, trajectory.repeat))
        if verdict is not None:
            status, score = verdict
            yield Result(
                sample_id=trajectory.sample_id,
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


class _Judged:
    """Statuses and scores by sample and repeat, each to be taken once."""

    def __init__(self, verdicts: Iterable[Verdict]) -> None:
        self._keys = SampleKeys()
        self._statuses = bytearray()
        self._scores = array("d")
        for verdict in verdicts:
            place = self._keys.add((verdict.sample_id, verdict.repeat))
            score = math.nan if verdict.score is None else verdict.score
            self._statuses[place : place + 1] = bytes([STATUSES.index(verdict.status)])
            self._scores[place : place + 1] = array("d", [score])

    def take(self, key: SampleKey) -> tuple[VerdictStatus, float | None] | None:
        place = self._keys.place(key)
        if place is None or self._statuses[place] == TAKEN:
            return None
        status, score = STATUSES[self._statuses[place]], self._scores[place]
        self._statuses[place] = TAKEN
        return status, None if math.isnan(score) else score


def pair_outcomes(
    name: PairName,
    samples: Iterable[SampleRecord | Labels],
    free: Collection[Result],
    available: Collection[Result],
) -> Iterator[OutcomeRecord]:
    """One outcome for each sample and repeat that has a verdict in both arms.

    In the order of the samples, then by repeat.
    """
    one, other = HeldResults.of(free), HeldResults.of(available)
    for sample in samples:
        for repeat in one.repeats:
            result, opposite = one.get((sample.id, repeat)), other.get((sample.id, repeat))
            if result is not None and opposite is not None:
                yield _outcome(name, sample, result, opposite)


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
