"""Scores by group, by cluster of questions, and by suite of benchmarks."""

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass

from medeval.analysis.aggregates import (
    Scored,
    all_correct,
    letter_consistency,
    official_score,
    weighted_average,
)
from medeval.analysis.statistics.rate import TableRow, mean_rate
from medeval.errors import DataError
from medeval.store.keys import CellKey
from medeval.types.run import BenchmarkRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class CellScores:
    """The decided scores of one cell, at least one, with what run.json says of its benchmark."""

    key: CellKey
    part: BenchmarkRecord
    scored: Collection[Scored]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Member:
    """A cell's score and size, for the average of its suite."""

    benchmark: str
    score: float
    n: int
    rows_mark: str


class Breakdowns:
    """The rows of each breakdown, collected cell by cell.

    `groups`: each group of each grouping, with n and a 95% interval. `clusters`: the share of
    questions answered right in all their samples, and answered alike in all of them. `suites`:
    the average over the samples of several benchmarks together.
    """

    def __init__(self) -> None:
        self._groups: list[TableRow] = []
        self._clusters: list[TableRow] = []
        self._suites: dict[tuple[str, CellKey], list[_Member]] = {}

    def add(self, cell: CellScores) -> None:
        """Add a cell; its scores are not kept."""
        self._groups.extend(_group_rows(cell))
        self._clusters.extend(_cluster_rows(cell))
        key, suite = cell.key, cell.part.suite
        if suite is not None:
            place = CellKey(key.series, key.step, suite, key.protocol)
            self._suites.setdefault((suite, place), []).append(
                _Member(
                    benchmark=key.benchmark,
                    score=official_score(cell.part.aggregate, cell.scored),
                    n=len(cell.scored),
                    rows_mark=cell.part.rows_mark,
                )
            )

    def tables(self) -> dict[str, list[TableRow]]:
        """The rows by their table's name; a table may have none."""
        suites = [
            _suite_row(suite, place, members) for (suite, place), members in self._suites.items()
        ]
        return {"groups": self._groups, "clusters": self._clusters, "suites": suites}


def breakdowns(cells: Iterable[CellScores]) -> dict[str, list[TableRow]]:
    """The rows of each breakdown of some cells, as `Breakdowns` has them."""
    found = Breakdowns()
    for cell in cells:
        found.add(cell)
    return found.tables()


def _names(key: CellKey) -> TableRow:
    return {"checkpoint": key.checkpoint, "series": key.series, "step": key.step}


def _group_rows(cell: CellScores) -> Iterable[TableRow]:
    groups: dict[tuple[str, str], list[Scored]] = {}
    for one in cell.scored:
        for named in one.groups.items():
            groups.setdefault(named, []).append(one)
    for grouping, group in sorted(groups):
        scored = groups[grouping, group]
        rate = mean_rate(
            [one.score for one in scored], [one.cluster or one.sample_id for one in scored]
        )
        yield {
            **_names(cell.key),
            "benchmark": cell.key.benchmark,
            "protocol": cell.key.protocol,
            "grouping": grouping,
            "group": group,
            "n": rate.n,
            "score": rate.value,
            "score_low": rate.low,
            "score_high": rate.high,
            "rows": cell.part.rows_mark,
        }


def _cluster_rows(cell: CellScores) -> Iterable[TableRow]:
    size = cell.part.cluster_size
    if size is not None:
        yield {
            **_names(cell.key),
            "benchmark": cell.key.benchmark,
            "protocol": cell.key.protocol,
            "cluster_size": size,
            "all_correct": _or_none(lambda: all_correct(cell.scored, size=size)),
            "letter_consistency": _or_none(lambda: letter_consistency(cell.scored, size=size)),
            "rows": cell.part.rows_mark,
        }


def _or_none(share: Callable[[], float]) -> float | None:
    """A share over complete clusters; None, undefined, where no cluster is complete."""
    try:
        return share()
    except DataError:
        return None


def _suite_row(suite: str, place: CellKey, members: Sequence[_Member]) -> TableRow:
    means = {member.benchmark: (member.score, member.n) for member in members}
    return {
        **_names(place),
        "suite": suite,
        "protocol": place.protocol,
        "benchmarks": " ".join(member.benchmark for member in members),
        "n": sum(member.n for member in members),
        "score": weighted_average(means),
        "rows": "; ".join(
            f"{member.benchmark}: {member.rows_mark}" for member in members if member.rows_mark
        ),
    }
