"""The analysis set: the samples that every number of a curve is computed on.

A benchmark's set holds the samples with a verdict in both arms at every shown step, each repeat
included, so that one n holds for the whole curve.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medeval.analysis.med.curves import Curve
from medeval.analysis.med.outcomes import (
    BenchmarkOutcomes,
    CalledBy,
    Columns,
    SeriesOutcomes,
    Step,
    shown_ids,
    step_name,
)
from medeval.errors import RecordError

Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Excluded:
    """A sample left out of a benchmark's analysis set; `steps` are those where `reason` holds."""

    benchmark: str
    sample_id: str
    reason: str
    steps: tuple[Step, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Coverage:
    """How much of one benchmark at one checkpoint is in the analysis set.

    `n` is the size of the analysis set. `samples` counts the samples that should have outcomes,
    `missing` those without one at every repeat. `verdicts` counts the verdicts of an arm,
    `undecided_free` and `undecided_available` those among them without a decision. The bounds are
    the accuracy over all verdicts if every undecided one were wrong, and if it were right.
    """

    step: Step
    benchmark: str
    n: int
    samples: int
    repeats: int
    missing: int
    verdicts: int
    undecided_free: int
    undecided_available: int
    free_bounds: tuple[float, float]
    available_bounds: tuple[float, float]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AnalysisSet:
    """A series ready to be measured: one curve a benchmark, and what was left out of them.

    Drifts are measured from `baseline`, the first step. `allowed_missing` is whether outcomes are
    missing, which --allow-missing permits.
    """

    outcomes: SeriesOutcomes
    baseline: Step
    curves: tuple[Curve, ...]
    excluded: tuple[Excluded, ...]
    coverage: tuple[Coverage, ...]
    allowed_missing: bool


def analysis_set(
    outcomes: SeriesOutcomes,
    *,
    called_by: CalledBy = "called",
    max_undecided: float = 0.01,
    allow_missing: bool = False,
) -> AnalysisSet:
    """The analysis set of every benchmark of a series.

    Raises RecordError where outcomes are missing and `allow_missing` is false, where more than
    the share `max_undecided` of an arm's verdicts is undecided, and where no sample is left.
    """
    if outcomes.missing and not allow_missing:
        raise _missing_error(outcomes)
    found = [
        _BenchmarkSet(benchmark, called_by, max_undecided, allow_missing)
        for benchmark in outcomes.benchmarks.values()
        if benchmark.steps
    ]
    if not found:
        raise _missing_error(outcomes)
    excluded = tuple(item for benchmark in found for item in benchmark.excluded())
    return AnalysisSet(
        outcomes=outcomes,
        baseline=outcomes.steps[0],
        curves=tuple(benchmark.curve() for benchmark in found),
        excluded=excluded,
        coverage=tuple(item for benchmark in found for item in benchmark.coverage()),
        allowed_missing=bool(outcomes.missing)
        or any(item.reason == "missing" for item in excluded),
    )


def _missing_error(outcomes: SeriesOutcomes) -> RecordError:
    lines = "".join(
        f"\n  {step_name(item.step)} x {item.benchmark}: {item.reason}" for item in outcomes.missing
    )
    return RecordError(
        f"series {outcomes.series!r}, pair {outcomes.pair!r} has no outcomes for:{lines}",
        hint="run or grade what is missing, or pass --allow-missing for marked gaps",
    )


class _BenchmarkSet:
    """The analysis set of one benchmark, and what is left out of it."""

    def __init__(
        self,
        outcomes: BenchmarkOutcomes,
        called_by: CalledBy,
        max_undecided: float,
        allow_missing: bool,
    ) -> None:
        self.outcomes = outcomes
        self.called_by = called_by
        self.steps = {
            step: outcomes.steps[step]
            for step in sorted(outcomes.steps, key=lambda step: -1 if step is None else step)
        }
        n_samples = len(outcomes.ids)
        self.missing: dict[Step, Bools] = {}
        self.undecided: dict[Step, Bools] = {}
        for step, columns in self.steps.items():
            seen = np.bincount(columns.sample, minlength=n_samples)
            self.missing[step] = seen < _n_repeats(columns)
            open_ = (columns.free < 0) | (columns.available < 0)
            self.undecided[step] = np.bincount(columns.sample[open_], minlength=n_samples) > 0
        if not allow_missing:
            self._refuse_missing()
        self._refuse_undecided(max_undecided)
        self.kept = ~(_any(self.missing) | _any(self.undecided))
        if not self.kept.any():
            raise self._nothing_left()

    def _refuse_missing(self) -> None:
        for step, mask in self.missing.items():
            if mask.any():
                raise RecordError(
                    f"benchmark {self.outcomes.name!r} at {step_name(step)} lacks outcomes of "
                    f"{shown_ids(self._ids(mask))}",
                    hint="resume the run or grade it; --allow-missing analyses the samples that "
                    "every step has, and marks every table",
                )

    def _refuse_undecided(self, allowed: float) -> None:
        for step, columns in self.steps.items():
            for arm, verdicts in (("free", columns.free), ("available", columns.available)):
                share = float((verdicts < 0).mean())
                if share > allowed:
                    ids = self._ids(self.undecided[step])
                    raise RecordError(
                        f"benchmark {self.outcomes.name!r} at {step_name(step)}: {share:.1%} of "
                        f"the {arm} arm's verdicts are undecided, allowed are {allowed:.1%}; "
                        f"{shown_ids(ids)}",
                        hint="judge them with another judge, or allow more with --max-undecided",
                    )

    def _nothing_left(self) -> RecordError:
        n_steps = len(self.steps)
        return RecordError(
            f"benchmark {self.outcomes.name!r} has no sample that is decided in both arms at "
            f"each of its {n_steps} step{'s' if n_steps != 1 else ''}",
            hint="the checkpoints, the baseline included, must be evaluated on the same samples",
        )

    def _ids(self, mask: Bools) -> list[str]:
        return [self.outcomes.ids[code] for code in np.flatnonzero(mask)]

    def excluded(self) -> Iterable[Excluded]:
        for reason, masks in (("missing", self.missing), ("undecided", self.undecided)):
            for code in np.flatnonzero(_any(masks)):
                yield Excluded(
                    benchmark=self.outcomes.name,
                    sample_id=self.outcomes.ids[code],
                    reason=reason,
                    steps=tuple(step for step, mask in masks.items() if mask[code]),
                )

    def coverage(self) -> Iterable[Coverage]:
        for step, columns in self.steps.items():
            yield Coverage(
                step=step,
                benchmark=self.outcomes.name,
                n=int(self.kept.sum()),
                samples=len(self.outcomes.ids),
                repeats=_n_repeats(columns),
                missing=int(self.missing[step].sum()),
                verdicts=len(columns.sample),
                undecided_free=int((columns.free < 0).sum()),
                undecided_available=int((columns.available < 0).sum()),
                free_bounds=_bounds(columns.free),
                available_bounds=_bounds(columns.available),
            )

    def curve(self) -> Curve:
        outcomes, kept = self.outcomes, np.flatnonzero(self.kept)
        rows = [self._counts(columns) for columns in self.steps.values()]
        _, clusters = np.unique(outcomes.clusters[kept], return_inverse=True)
        return Curve(
            benchmark=outcomes.name,
            group=None,
            metric=outcomes.metric,
            steps=tuple(self.steps),
            repeats=tuple(_n_repeats(columns) for columns in self.steps.values()),
            ids=tuple(outcomes.ids[code] for code in kept),
            groups=tuple(outcomes.groups[code] for code in kept),
            clusters=clusters.astype(np.int32),
            counts=np.stack(rows)[:, :, kept],
        )

    def _counts(self, columns: Columns) -> NDArray[np.int32]:
        """How many repeats of each sample had each event; rows in the order of `Curve.counts`."""
        called = columns.called_by(self.called_by)
        right = columns.available > 0
        happened = (
            columns.free > 0,
            right & called,
            right & ~called,
            ~right & called,
            columns.attempted,
            columns.executed,
            columns.observed,
        )
        n_samples = len(self.outcomes.ids)
        return np.stack(
            [
                np.bincount(columns.sample, weights=event, minlength=n_samples).astype(np.int32)
                for event in happened
            ]
        )


def _n_repeats(columns: Columns) -> int:
    return len(np.unique(columns.repeat))


def _any(masks: Mapping[Step, Bools]) -> Bools:
    found: Bools = np.logical_or.reduce(list(masks.values()))
    return found


def _bounds(verdicts: NDArray[np.int8]) -> tuple[float, float]:
    return float((verdicts > 0).mean()), float((verdicts != 0).mean())
