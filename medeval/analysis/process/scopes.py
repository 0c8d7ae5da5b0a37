"""What the rows of process tables cover: a benchmark at a step, or the mean of several."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from medeval.analysis.med.curves import Curve
from medeval.analysis.med.outcomes import Step
from medeval.analysis.med.tabulation import Tabulation
from medeval.analysis.process.averages import (
    ClusterBootstrap,
    WeightedValues,
    geometric_mean,
    share,
)
from medeval.analysis.process.reading import ToolUse, ToolUses
from medeval.analysis.statistics.rate import UNDEFINED, Rate, TableRow

Average = Literal["share", "mean", "geometric mean"]

# The values, each with its weight, that a trajectory adds to an average.
Entries = Callable[[ToolUse], Iterable[tuple[float, float]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchmarkUses:
    """A benchmark's trajectories at a step; `has` names the measures that it has at any step."""

    name: str
    uses: Sequence[ToolUse]
    has: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """What a row covers: a benchmark (or a group of it) at a step, or the mean of several.

    `head` holds the row's first columns. A mean of a measure is over the benchmarks that have the
    measure at any step. It is undefined at a step where one of those lacks it, so that means at two
    steps are always over the same benchmarks.
    """

    head: TableRow
    benchmarks: Sequence[BenchmarkUses]
    bootstrap: ClusterBootstrap

    @property
    def is_mean(self) -> bool:
        """Whether this is a mean over benchmarks."""
        return len(self.benchmarks) > 1

    @property
    def uses(self) -> list[ToolUse]:
        """All trajectories."""
        return [use for benchmark in self.benchmarks for use in benchmark.uses]

    def benchmarks_with(self, measure: str) -> list[BenchmarkUses]:
        """The benchmarks that have a measure; none where a mean would be over one alone."""
        found = [benchmark for benchmark in self.benchmarks if measure in benchmark.has]
        return found if len(found) > 1 or not self.is_mean else []

    def rate(
        self, measure: str, kind: Average, weight: Callable[[ToolUse], float] | None = None
    ) -> Rate:
        """A measure over the trajectories that have it."""

        def entries(use: ToolUse) -> Iterator[tuple[float, float]]:
            if measure in use.measured.values:
                yield use.measured.values[measure], weight(use) if weight else 1.0

        return self.average(measure, entries, kind)

    def average(self, measure: str, entries: Entries, kind: Average) -> Rate:
        """The average of the entries, over the benchmarks that have a measure."""
        return self._mean(
            {
                benchmark.name: WeightedValues.of(*_columns(benchmark, entries))
                for benchmark in self.benchmarks_with(measure)
            },
            kind,
        )

    def over(self, rows: Sequence[tuple[float, int, float]], kind: Average) -> Rate:
        """The average of one benchmark's values, given as (value, cluster, weight)."""
        if not rows:
            return UNDEFINED
        values, clusters, weights = zip(*rows, strict=True)
        return self._mean(
            {self.benchmarks[0].name: WeightedValues.of(values, clusters, weights)}, kind
        )

    def _mean(self, strata: Mapping[str, WeightedValues], kind: Average) -> Rate:
        if kind == "share":
            return share(*strata.values())
        if kind == "geometric mean":
            return geometric_mean(*strata.values())
        # equal values get equal intervals, whatever their measure, for the draws have one name
        return self.bootstrap.mean(strata)

    def columns(self, name: str, rate: Rate, measure: str) -> TableRow:
        """A rate as columns; of a mean, with the number of benchmarks that it covers."""
        columns = {**rate.columns(name), f"{name}_n": rate.n}
        if self.is_mean:
            columns[f"{name}_benchmarks"] = len(self.benchmarks_with(measure)) if rate.n else None
        return columns


def _columns(
    benchmark: BenchmarkUses, entries: Entries
) -> tuple[list[float], list[int], list[float]]:
    rows = [
        (value, use.cluster, weight) for use in benchmark.uses for value, weight in entries(use)
    ]
    return [row[0] for row in rows], [row[1] for row in rows], [row[2] for row in rows]


def scopes(tabulation: Tabulation, uses: ToolUses) -> Iterator[Scope]:
    """Each benchmark of a series at each step, then their mean; empty ones are left out."""
    source = tabulation.bootstrap
    bootstrap = ClusterBootstrap(resamples=source.resamples, seed=source.seed)
    outcomes = tabulation.found.outcomes
    for population in tabulation.populations:
        group = {} if population.group is None else {"group": population.group}
        measures = [_measures(curve, uses) for curve in population.curves]
        for step in population.steps:
            benchmarks = [
                BenchmarkUses(
                    name=f"{curve.benchmark}\n{curve.group}",
                    uses=_own(curve, step, uses),
                    has=has,
                )
                for curve, has in zip(population.curves, measures, strict=True)
            ]
            n = sum(len(benchmark.uses) for benchmark in benchmarks)
            head: TableRow = {"series": outcomes.series, "pair": outcomes.pair}
            head |= {"benchmark": population.benchmark, **group, "step": step, "n": n}
            if n and tabulation.has(population, step):
                yield Scope(head=head, benchmarks=benchmarks, bootstrap=bootstrap)


def _own(curve: Curve, step: Step, uses: ToolUses) -> list[ToolUse]:
    ids = set(curve.ids)
    of_step = uses.get((curve.benchmark, step), [])
    return [use for use in of_step if use.measured.sample_id in ids]


def _measures(curve: Curve, uses: ToolUses) -> frozenset[str]:
    """The measures that a trajectory of a curve has at any step."""
    return frozenset(
        measure
        for step in curve.steps
        for use in _own(curve, step, uses)
        for measure in use.measured.values
    )
