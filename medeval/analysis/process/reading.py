"""The measured trajectories of an analysis set, each with the verdicts of both arms."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from medeval.analysis.med.analysis_set import AnalysisSet
from medeval.analysis.med.outcomes import CalledBy, Columns, Step
from medeval.analysis.process.measures import MeasuredTrajectory, measured
from medeval.store.keys import BASELINE
from medeval.store.run_folder import CellKey, RunFolder
from medeval.types.sample import Sample


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolUse:
    """How one trajectory of the available arm used its tools, with the verdicts of both arms.

    `free` is the share of the sample's repeats that are correct in the free arm, `right` whether
    this trajectory is correct, `called` whether it called a tool, `cluster` the sample's cluster.
    """

    measured: MeasuredTrajectory
    free: float
    right: bool
    called: bool
    cluster: int


ToolUses = Mapping[tuple[str, Step], list[ToolUse]]


def read_tool_uses(folder: RunFolder, found: AnalysisSet, called_by: CalledBy) -> ToolUses:
    """The trajectories of the available arm by benchmark and step, measured.

    A trajectory without images has counts of calls only.

    Raises RecordError where a line cannot be read.
    """
    record = folder.record()
    _, protocol = record.pairs[found.outcomes.pair]
    uses: dict[tuple[str, Step], list[ToolUse]] = {}
    for curve in found.curves:
        kept = set(curve.ids)
        samples = _samples(folder, curve.benchmark, kept)
        for step in curve.steps:
            key = _cell(folder, found.outcomes.series, step, curve.benchmark, protocol)
            verdicts = _verdicts(found, curve.benchmark, step, called_by)
            uses[curve.benchmark, step] = list(_joined(folder, key, samples, verdicts))
    return uses


def _samples(folder: RunFolder, benchmark: str, kept: Collection[str]) -> dict[str, Sample]:
    if benchmark not in folder.benchmarks():
        return {}
    records = (record for record in folder.samples(benchmark) if record.id in kept)
    return {record.id: record.sample() for record in records}


def _cell(folder: RunFolder, series: str, step: Step, benchmark: str, protocol: str) -> CellKey:
    """The cell of a checkpoint; that of the shared baseline where step 0 has none of its own."""
    own = CellKey(series, step, benchmark, protocol)
    shared = CellKey(BASELINE, 0, benchmark, protocol)
    return shared if step == 0 and folder.cell(own).record() is None else own


@dataclass(frozen=True, slots=True, kw_only=True)
class _Verdict:
    free: float
    right: bool
    called: bool
    cluster: int


def _verdicts(
    found: AnalysisSet, benchmark: str, step: Step, called_by: CalledBy
) -> dict[tuple[str, int], _Verdict]:
    outcomes = found.outcomes.benchmarks[benchmark]
    columns: Columns = outcomes.steps[step]
    n_samples = len(outcomes.ids)
    right = np.bincount(columns.sample, weights=columns.free > 0, minlength=n_samples)
    repeats = np.bincount(columns.sample, minlength=n_samples)
    called = columns.called_by(called_by)
    return {
        (outcomes.ids[code], int(repeat)): _Verdict(
            free=float(right[code] / repeats[code]),
            right=bool(available > 0),
            called=bool(has_called),
            cluster=int(outcomes.clusters[code]),
        )
        for code, repeat, available, has_called in zip(
            columns.sample, columns.repeat, columns.available, called, strict=True
        )
    }


def _joined(
    folder: RunFolder,
    key: CellKey,
    samples: Mapping[str, Sample],
    verdicts: Mapping[tuple[str, int], _Verdict],
) -> Iterator[ToolUse]:
    for trajectory in folder.cell(key).trajectories():
        sample = samples.get(trajectory.sample_id)
        verdict = verdicts.get((trajectory.sample_id, trajectory.repeat))
        if sample is not None and verdict is not None:
            yield ToolUse(
                measured=measured(trajectory, sample),
                free=verdict.free,
                right=verdict.right,
                called=verdict.called,
                cluster=verdict.cluster,
            )
