"""A cell's trajectories with their samples and the primary judge's verdicts, for other formats."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from medeval.store.run_folder import CellKey, RunFolder
from medeval.types.run import Metric, RunRecord
from medeval.types.sample import SampleRecord
from medeval.types.trajectory import Trajectory
from medeval.types.verdict import Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedTrajectory:
    """One trajectory with its sample and the primary judge's verdict, None where there is none.

    `position` is that of the sample in its benchmark, counted from 0.
    """

    sample: SampleRecord
    position: int
    trajectory: Trajectory
    verdict: Verdict | None


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedCell:
    """One cell of a run; in other formats it is the log of one task.

    `samples` maps an id to the sample and its position in the benchmark, `judge` is the identity of
    the benchmark's primary judge.
    """

    key: CellKey
    judge: str
    metric: Metric
    samples: Mapping[str, tuple[int, SampleRecord]]
    folder: RunFolder

    @property
    def task(self) -> str:
        """The name of the task: benchmark and protocol."""
        return f"{self.key.benchmark}_{self.key.protocol}"

    def judged(self) -> Iterator[JudgedTrajectory]:
        """Each trajectory of the cell in the order of the samples, then by repeat."""
        cell = self.folder.cell(self.key)
        verdicts = {
            (verdict.sample_id, verdict.repeat): verdict
            for verdict in cell.verdicts()
            if verdict.judge == self.judge
        }

        def order(trajectory: Trajectory) -> tuple[int, int]:
            return self.samples[trajectory.sample_id][0], trajectory.repeat

        for trajectory in sorted(cell.trajectories(), key=order):
            position, sample = self.samples[trajectory.sample_id]
            yield JudgedTrajectory(
                sample=sample,
                position=position,
                trajectory=trajectory,
                verdict=verdicts.get((trajectory.sample_id, trajectory.repeat)),
            )


def judged_cells(folder: RunFolder) -> Iterator[JudgedCell]:
    """Every cell of a run, by series, step, benchmark and protocol."""
    record = folder.record()
    samples = {name: _samples(folder, name) for name in folder.benchmarks()}
    for key in folder.cells():
        judge = record.judges[key.benchmark]
        yield JudgedCell(
            key=key,
            judge=judge,
            metric=record.metrics[judge],
            samples=samples[key.benchmark],
            folder=folder,
        )


def _samples(folder: RunFolder, benchmark: str) -> dict[str, tuple[int, SampleRecord]]:
    return {
        sample.id: (position, sample) for position, sample in enumerate(folder.samples(benchmark))
    }


def created(record: RunRecord) -> str:
    """When the run began, as ISO 8601 in UTC."""
    return record.sessions[0].created
