"""Two checkpoints compared sample by sample, of one run or of two."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from medeval.analysis.med.analysis_set import AnalysisSet
from medeval.analysis.med.curves import MEAN, Curve, Shares
from medeval.analysis.med.outcomes import Step, rows_marks
from medeval.analysis.med.quantities import SHARES, PerSample
from medeval.analysis.med.terms import TERMS
from medeval.analysis.statistics.intervals import Stratum, difference
from medeval.analysis.statistics.rate import Rate, TableRow
from medeval.analysis.statistics.significance import benjamini_hochberg, exact_test, mean_test
from medeval.errors import RecordError, UsageError

if TYPE_CHECKING:
    import pandas as pd

QUANTITIES: Mapping[str, PerSample] = {
    "free": SHARES["free"],
    "available": SHARES["available"],
    "gap": lambda shares: shares.available - shares.free,
    **{term: SHARES[term] for term in TERMS},
}
COMPARED = ("free", "available", "gap")
# The largest possible difference of a quantity, 1 where it is not named: a gap is from -1 to 1.
REACH = {"gap": 2.0}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Entrant:
    """One checkpoint under one pair, ready to be compared."""

    name: str
    found: AnalysisSet
    step: Step

    def curve(self, benchmark: str) -> Curve | None:
        """The curve of a benchmark, None where there are no outcomes at the step."""
        for curve in self.found.curves:
            if curve.benchmark == benchmark and self.step in curve.steps:
                return curve
        return None

    @property
    def benchmarks(self) -> tuple[str, ...]:
        """The benchmarks with outcomes at the step."""
        return tuple(curve.benchmark for curve in self.found.curves if self.step in curve.steps)

    def judge(self, benchmark: str) -> str:
        """The identity of the judge of a benchmark."""
        return self.found.outcomes.benchmarks[benchmark].judge


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Paired:
    """Two entrants on the samples of a benchmark that both have."""

    curve: Curve
    first: Shares
    other: Shares
    exact: bool

    def stratum(self, quantity: str) -> Stratum:
        """Each sample's value of the other entrant less that of the first."""
        of = QUANTITIES[quantity]
        return Stratum(curve=self.curve, values=of(self.other) - of(self.first))


def paired(first: Entrant, other: Entrant, benchmark: str) -> Paired:
    """Two entrants joined by sample id.

    Raises RecordError where they were judged differently or share no sample.
    """
    judges = {first.judge(benchmark), other.judge(benchmark)}
    if len(judges) > 1:
        raise RecordError(
            f"benchmark {benchmark!r} was scored by different judges: {first.name!r} by "
            f"{first.judge(benchmark)!r}, {other.name!r} by {other.judge(benchmark)!r}",
            hint="score both with one judge: `medeval grade --judge NAME --again`",
        )
    one, two = first.curve(benchmark), other.curve(benchmark)
    assert one is not None
    assert two is not None
    repeats = {one.repeats[one.steps.index(first.step)], two.repeats[two.steps.index(other.step)]}
    if one.ids != two.ids:
        positions = {sample_id: position for position, sample_id in enumerate(two.ids)}
        kept = [position for position, sample_id in enumerate(one.ids) if sample_id in positions]
        if not kept:
            raise RecordError(
                f"{first.name!r} and {other.name!r} share no sample of benchmark {benchmark!r}",
                hint="they must be evaluated on the same data to be compared",
            )
        two = only(two, [positions[one.ids[position]] for position in kept])
        one = only(one, kept)
    return Paired(
        curve=one, first=one.at(first.step), other=two.at(other.step), exact=repeats == {1}
    )


def only(curve: Curve, kept: Sequence[int]) -> Curve:
    """A curve of the samples at the given positions, in that order."""
    _, clusters = np.unique(curve.clusters[kept], return_inverse=True)
    return replace(
        curve,
        ids=tuple(curve.ids[position] for position in kept),
        groups=tuple(curve.groups[position] for position in kept),
        clusters=clusters.astype(np.int32),
        counts=curve.counts[:, :, kept],
    )


def paired_difference(pairs: Sequence[Paired], quantity: str) -> Rate:
    """The other entrant's mean less the first's, unweighted over benchmarks."""
    reach = REACH.get(quantity, 1.0)
    strata = [pair.stratum(quantity) for pair in pairs]
    found = difference([replace(each, values=each.values / reach) for each in strata])
    value, low, high = (
        None if each is None else reach * each for each in (found.value, found.low, found.high)
    )
    return Rate(value=value, low=low, high=high, n=found.n)


def paired_test(pairs: Sequence[Paired], quantity: str) -> float:
    """The two-sided p-value of no difference.

    Exact (signs of clusters flipped at random) on one benchmark without repeats, by the normal
    approximation to that otherwise.
    """
    strata = [pair.stratum(quantity) for pair in pairs]
    if len(pairs) == 1 and pairs[0].exact:
        return exact_test(pairs[0].curve, strata[0].values)
    return mean_test(strata)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Comparison:
    """Paired differences by benchmark, and the samples that flipped.

    `differences` has one row for each benchmark (and for their mean, where there are several) and
    quantity: both values, the other's less the first's with its 95% interval, p, and q (p after
    Benjamini-Hochberg over benchmarks and quantities). Its column `rows` says where a number of
    rows differs from the published one. `flips` has one row for each sample and arm whose share of
    correct repeats changed.
    """

    differences: "pd.DataFrame"
    flips: "pd.DataFrame"


def compare(first: Entrant, other: Entrant) -> Comparison:
    """Compare two checkpoints on the samples that both have.

    Raises UsageError where they have no benchmark in common; RecordError where they were judged
    differently or share no sample of a benchmark.
    """
    import pandas as pd

    shared = [name for name in first.benchmarks if name in other.benchmarks]
    if not shared:
        raise UsageError(
            f"{first.name!r} and {other.name!r} have no benchmark in common: "
            f"{', '.join(first.benchmarks)} against {', '.join(other.benchmarks)}"
        )
    pairs = {name: [paired(first, other, name)] for name in shared}
    rows = list(_differences(pairs))
    if len(shared) > 1:
        rows += _differences({MEAN: [pair for (pair,) in pairs.values()]})
    for row in rows:
        names = shared if row["benchmark"] == MEAN else [row["benchmark"]]
        marks = (rows_marks(each.found.outcomes, names) for each in (first, other))
        row["rows"] = "; ".join(dict.fromkeys(filter(None, marks)))
    flips = [row for name, (pair,) in pairs.items() for row in _flips(name, pair)]
    columns = ["benchmark", "sample_id", "arm", "first", "other"]
    return Comparison(differences=pd.DataFrame(rows), flips=pd.DataFrame(flips, columns=columns))


def _differences(pairs: Mapping[str, Sequence[Paired]]) -> Iterator[TableRow]:
    """The rows of a family of tests."""
    rows: list[TableRow] = []
    for benchmark, joined in pairs.items():
        for quantity in COMPARED:
            of = QUANTITIES[quantity]
            found = paired_difference(joined, quantity)
            rows.append(
                {
                    "benchmark": benchmark,
                    "quantity": quantity,
                    "n": found.n,
                    "first": float(np.mean([of(pair.first).mean() for pair in joined])),
                    "other": float(np.mean([of(pair.other).mean() for pair in joined])),
                    **found.columns("difference"),
                    "p_value": paired_test(joined, quantity),
                }
            )
    adjusted = benjamini_hochberg([row["p_value"] for row in rows])
    for row, q_value in zip(rows, adjusted, strict=True):
        yield {**row, "q_value": q_value}


def _flips(benchmark: str, pair: Paired) -> Iterator[TableRow]:
    for arm in ("free", "available"):
        before, after = QUANTITIES[arm](pair.first), QUANTITIES[arm](pair.other)
        for place in np.flatnonzero(before != after):
            yield {
                "benchmark": benchmark,
                "sample_id": pair.curve.ids[place],
                "arm": arm,
                "first": float(before[place]),
                "other": float(after[place]),
            }
