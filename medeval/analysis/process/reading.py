"""The measured trajectories of an analysis set, each beside its verdicts in both arms."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from medeval.analysis.med.analysis_set import AnalysisSet
from medeval.analysis.med.outcomes import CalledBy, Columns, Step
from medeval.analysis.process.measures import Measured, measured
from medeval.store.keys import BASELINE
from medeval.store.run_folder import CellKey, RunFolder
from medeval.types.sample import Sample


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """A measured trajectory of the available arm.

    `free` is the share of the sample's repeats that the free arm got right, `right` whether this
    trajectory was right, `called` whether it called a tool, `cluster` the sample's cluster.
    """

    measured: Measured
    free: float
    right: bool
    called: bool
    cluster: int


Processes = Mapping[tuple[str, Step], list[Process]]


def read_processes(folder: RunFolder, found: AnalysisSet, called_by: CalledBy) -> Processes:
    """The measured trajectories by benchmark and step; those without images have counts only.

    Raises RecordError where a line cannot be read.
    """
    record = folder.record()
    _, protocol = record.pairs[found.outcomes.pair]
    processes: dict[tuple[str, Step], list[Process]] = {}
    for curve in found.curves:
        kept = set(curve.ids)
        samples = _samples(folder, curve.benchmark, kept)
        for step in curve.steps:
            key = _cell(folder, found.outcomes.series, step, curve.benchmark, protocol)
            verdicts = _verdicts(found, curve.benchmark, step, called_by)
            processes[curve.benchmark, step] = list(_joined(folder, key, samples, verdicts))
    return processes


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
) -> Iterator[Process]:
    for trajectory in folder.cell(key).trajectories():
        sample = samples.get(trajectory.sample_id)
        verdict = verdicts.get((trajectory.sample_id, trajectory.repeat))
        if sample is not None and verdict is not None:
            yield Process(
                measured=measured(trajectory, sample),
                free=verdict.free,
                right=verdict.right,
                called=verdict.called,
                cluster=verdict.cluster,
            )
