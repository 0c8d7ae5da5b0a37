"""Checkpoints and models side by side on each benchmark, with what sets them apart."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from medeval.analysis.comparison import Entrant, Paired, paired, paired_test
from medeval.analysis.med.curves import MEAN, Curve, Population
from medeval.analysis.med.outcomes import Step, rows_marks
from medeval.analysis.med.quantities import gap, gap_strata, mean_share
from medeval.analysis.med.terms import SIGNS
from medeval.analysis.report import LINE_NUMBER, Analysis, analyze
from medeval.analysis.statistics.rate import TableRow
from medeval.analysis.statistics.significance import benjamini_hochberg, exact_test, mean_test
from medeval.errors import UsageError
from medeval.store.run_folder import RunFolder

if TYPE_CHECKING:
    import pandas as pd

LEVEL_OF_BEST = 0.05
SHOWN = ("free", "available", "gap", "called", *SIGNS)
# A call is neither good nor bad in itself.
BETTER = {"free": 1, "available": 1, "gap": 1} | {str(term): sign for term, sign in SIGNS.items()}
SORTS = ("step", *SHOWN)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Ranked:
    """A row: an entrant on a benchmark, or on the mean of them."""

    entrant: Entrant
    run: str
    baseline: str | None
    population: Population

    @property
    def is_baseline(self) -> bool:
        """Whether drifts of its series are measured from it."""
        return len(self.entrant.found.outcomes.steps) > 1 and (
            self.entrant.step == self.entrant.found.baseline
        )


def leaderboard(
    runs: Sequence[str | Path],
    *,
    series: str | None = None,
    pair: str | None = None,
    benchmarks: Sequence[str] | None = None,
    steps: Sequence[int] | None = None,
    last: bool = False,
    sort: str = "available",
    allow_missing: bool = False,
    max_undecided: float = 0.01,
) -> "pd.DataFrame":
    """A leaderboard of the checkpoints of one or several runs.

    Parameters
    ----------
    runs : sequence of path
        Run folders.
    series, pair, benchmarks : optional
        Which to show; all by default.
    steps : sequence of int, optional
        Only these steps; models without a step stay.
    last : bool, default False
        Only the last step and the baseline of each series.
    sort : str, default "available"
        The number that a benchmark's rows are sorted by, best first; "step" for series and step.
    allow_missing, max_undecided
        As in `analyze`.

    Returns
    -------
    DataFrame
        One row for each benchmark and checkpoint, and one for the mean of benchmarks where a
        checkpoint has them all. Shares `free`, `available`, `called` and the terms have binomial
        intervals, `gap` a paired score interval. `q_value` is the p-value of the gap after
        Benjamini-Hochberg over the table. `best` lists the numbers that are better than in every
        other row of the benchmark, each difference significant at 5% in a paired test on the shared
        samples.

    Raises
    ------
    UsageError
        A name that no run has, or nothing left to show.
    RecordError
        As `analyze`, and where entrants on a benchmark had different judges.
    """
    import pandas as pd

    if sort not in SORTS:
        raise UsageError(f"no number {sort!r} to sort by; known: {', '.join(SORTS)}")
    entrants = [
        item
        for run in runs
        for item in _entrants(
            Path(run),
            last=last,
            steps=steps,
            series=series,
            pair=pair,
            benchmarks=benchmarks,
            allow_missing=allow_missing,
            max_undecided=max_undecided,
        )
    ]
    if not entrants:
        raise UsageError("no checkpoint is left to show", hint="ask for fewer conditions")
    names = list(dict.fromkeys(name for one, _, _ in entrants for name in one.benchmarks))
    tables = [_table(entrants, [name], name, sort) for name in names]
    rows = _with_q_values([row for table in tables for row in table])
    if len(names) > 1:
        rows += _with_q_values(_table(entrants, names, MEAN, sort))
    return pd.DataFrame(rows).astype({"step": "Int64"})


def _entrants(
    path: Path, *, last: bool, steps: Sequence[int] | None, **options: Any
) -> Iterable[tuple[Entrant, str, str | None]]:
    """Every checkpoint to show, with the names of its run and of the run's baseline."""
    folder = RunFolder.open(path)
    analysis: Analysis = analyze(path, **options)
    plans = [session.plan for session in folder.record().sessions]
    baselines = [str(plan["baseline"]) for plan in plans if plan.get("baseline")]
    for found in analysis.sets:
        outcomes = found.outcomes
        for step in outcomes.steps:
            is_end = step in (outcomes.steps[-1], found.baseline)
            is_asked = steps is None or step is None or step in steps
            if is_asked and (is_end or not last):
                name = outcomes.series if step is None else f"{outcomes.series}/{step}"
                entrant = Entrant(name=name, found=found, step=step)
                baseline = baselines[-1] if baselines and step == 0 else None
                yield entrant, folder.path.resolve().name, baseline


def _table(
    entrants: Sequence[tuple[Entrant, str, str | None]],
    names: Sequence[str],
    title: str,
    sort: str,
) -> list[TableRow]:
    """The rows of one benchmark, or of the mean of several that an entrant has all of."""
    ranked = []
    for entrant, run, baseline in entrants:
        curves = [entrant.curve(name) for name in names]
        known = tuple(curve for curve in curves if curve is not None)
        if len(known) == len(names):
            population = Population(benchmark=title, group=None, curves=known)
            ranked.append(
                Ranked(entrant=entrant, run=run, baseline=baseline, population=population)
            )
    rows = [_row(each) for each in ranked]
    for name in BETTER:
        position = _best(ranked, rows, name)
        if position is not None:
            rows[position]["best"] = ", ".join(filter(None, [rows[position]["best"], name]))
    if sort != "step":
        rows.sort(key=lambda row: -BETTER.get(sort, 1) * row[sort])
    return rows


def _row(ranked: Ranked) -> TableRow:
    entrant, population = ranked.entrant, ranked.population
    outcomes = entrant.found.outcomes
    metrics = dict.fromkeys(curve.metric for curve in population.curves)
    row: TableRow = {
        "benchmark": population.benchmark,
        "run": ranked.run,
        "series": outcomes.series,
        "step": entrant.step,
        "pair": outcomes.pair,
        "is_baseline": ranked.is_baseline,
        "baseline": ranked.baseline,
        "n": population.n,
        "metric": " / ".join(metrics),
    }
    for name in SHOWN:
        rate = (
            gap(population, entrant.step)
            if name == "gap"
            else mean_share(population, entrant.step, name)
        )
        row |= rate.columns(name)
    row |= {"p_value": _gap_test(population, entrant.step), "q_value": None, "best": ""}
    row["pairing"] = "position" if _is_by_position(population.curves) else "id"
    row["missing"] = "allowed" if entrant.found.allowed_missing else "none"
    row["rows"] = rows_marks(outcomes, (curve.benchmark for curve in population.curves))
    return row


def _gap_test(population: Population, step: Step) -> float:
    strata = gap_strata(population, step)
    if population.is_mean:
        return mean_test(strata)
    (curve,) = population.curves
    return exact_test(curve, strata[0].values * curve.repeats[curve.steps.index(step)])


def _is_by_position(curves: Iterable[Curve]) -> bool:
    return any(all(LINE_NUMBER.fullmatch(name) for name in curve.ids) for curve in curves)


def _best(ranked: Sequence[Ranked], rows: Sequence[TableRow], name: str) -> int | None:
    """The position of the row that is best and differs from every other; None without one."""
    if len(rows) < 2:
        return None
    position = int(np.argmax([BETTER[name] * row[name] for row in rows]))
    champion = ranked[position]
    benchmarks = [curve.benchmark for curve in champion.population.curves]
    for other in ranked:
        if other is not champion:
            pairs = [paired(other.entrant, champion.entrant, each) for each in benchmarks]
            if not _leads(pairs, name) or paired_test(pairs, name) >= LEVEL_OF_BEST:
                return None
    return position


def _leads(pairs: Sequence[Paired], name: str) -> bool:
    """Whether the champion is ahead on the samples that both have, too."""
    mean = np.mean([pair.stratum(name).values.mean() for pair in pairs])
    return bool(BETTER[name] * mean > 0)


def _with_q_values(rows: list[TableRow]) -> list[TableRow]:
    adjusted = benjamini_hochberg([row["p_value"] for row in rows])
    return [{**row, "q_value": q} for row, q in zip(rows, adjusted, strict=True)]
