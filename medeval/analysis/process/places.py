"""What rows of process tables are about: a benchmark at a step, or the mean of several."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from medeval.analysis.med.curves import Curve
from medeval.analysis.med.outcomes import Step
from medeval.analysis.med.tabulation import TableRow, Tabulation, as_columns
from medeval.analysis.process.rates import ClusterBootstrap, Observed, geometric_mean, share
from medeval.analysis.process.reading import Process, Processes
from medeval.analysis.statistics.rate import UNDEFINED, Rate

Kind = Literal["share", "mean", "geometric mean"]

# What a trajectory adds to an average: values with their weights.
Entries = Callable[[Process], Iterable[tuple[float, float]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A benchmark's trajectories at a step; `has` are the measures it has at any step."""

    name: str
    processes: Sequence[Process]
    has: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """What a row is about: a benchmark (or a group of it) at a step, or the mean of several.

    A mean is of the benchmarks that have a measure at some step, and undefined at a step at which
    one of them lacks it: it is never an average of some.
    """

    head: TableRow
    parts: Sequence[Part]
    bootstrap: ClusterBootstrap

    @property
    def is_mean(self) -> bool:
        """Whether this is a mean over benchmarks."""
        return len(self.parts) > 1

    @property
    def processes(self) -> list[Process]:
        """All trajectories."""
        return [process for part in self.parts for process in part.processes]

    def parts_with(self, measure: str) -> list[Part]:
        """The benchmarks that have a measure; none of a mean where there is but one."""
        found = [part for part in self.parts if measure in part.has]
        return found if len(found) > 1 or not self.is_mean else []

    def rate(
        self, measure: str, kind: Kind, weight: Callable[[Process], float] | None = None
    ) -> Rate:
        """A measure over the trajectories that have it."""

        def entries(process: Process) -> Iterator[tuple[float, float]]:
            if measure in process.measured.values:
                yield process.measured.values[measure], weight(process) if weight else 1.0

        return self.average(measure, entries, kind)

    def average(self, measure: str, entries: Entries, kind: Kind) -> Rate:
        """The mean of what trajectories add, over the benchmarks that have a measure."""
        return self._mean(
            {part.name: Observed.of(*_rows_of(part, entries)) for part in self.parts_with(measure)},
            kind,
        )

    def over(self, rows: Sequence[tuple[float, int, float]], kind: Kind) -> Rate:
        """The mean of a benchmark's values, each with its cluster and its weight."""
        if not rows:
            return UNDEFINED
        values, clusters, weights = zip(*rows, strict=True)
        return self._mean({self.parts[0].name: Observed.of(values, clusters, weights)}, kind)

    def _mean(self, strata: Mapping[str, Observed], kind: Kind) -> Rate:
        if kind == "share":
            return share(*strata.values())
        if kind == "geometric mean":
            return geometric_mean(*strata.values())
        # one name for all measures: those that agree have the same interval
        return self.bootstrap.mean(strata)

    def columns(self, name: str, rate: Rate, measure: str) -> TableRow:
        """A rate as columns, in a mean with the number of benchmarks that it is of."""
        columns = {**as_columns(name, rate), f"{name}_n": rate.n}
        if self.is_mean:
            columns[f"{name}_benchmarks"] = len(self.parts_with(measure)) if rate.n else None
        return columns


def _rows_of(part: Part, entries: Entries) -> tuple[list[float], list[int], list[float]]:
    rows = [
        (value, process.cluster, weight)
        for process in part.processes
        for value, weight in entries(process)
    ]
    return [row[0] for row in rows], [row[1] for row in rows], [row[2] for row in rows]


def places(tabulation: Tabulation, processes: Processes) -> Iterator[Place]:
    """What the tables of a series have rows for: each benchmark at each step, then their mean."""
    source = tabulation.bootstrap
    bootstrap = ClusterBootstrap(resamples=source.resamples, seed=source.seed)
    outcomes = tabulation.found.outcomes
    for population in tabulation.populations:
        group = {} if population.group is None else {"group": population.group}
        measures = [_measures(curve, processes) for curve in population.curves]
        for step in population.steps:
            parts = [
                Part(
                    name=f"{curve.benchmark}\n{curve.group}",
                    processes=_own(curve, step, processes),
                    has=has,
                )
                for curve, has in zip(population.curves, measures, strict=True)
            ]
            n = sum(len(part.processes) for part in parts)
            head: TableRow = {"series": outcomes.series, "pair": outcomes.pair}
            head |= {"benchmark": population.benchmark, **group, "step": step, "n": n}
            if n and tabulation.has(population, step):
                yield Place(head=head, parts=parts, bootstrap=bootstrap)


def _own(curve: Curve, step: Step, processes: Processes) -> list[Process]:
    ids = set(curve.ids)
    of_step = processes.get((curve.benchmark, step), [])
    return [process for process in of_step if process.measured.sample_id in ids]


def _measures(curve: Curve, processes: Processes) -> frozenset[str]:
    """The measures that a trajectory of a curve has at any step."""
    return frozenset(
        measure
        for step in curve.steps
        for process in _own(curve, step, processes)
        for measure in process.measured.values
    )
