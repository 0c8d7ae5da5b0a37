"""Scores below and above a cell: its groups, its clusters, and the suites it belongs to."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from medeval.analysis.aggregates import (
    Scored,
    all_correct,
    letter_consistency,
    official_score,
    weighted_average,
)
from medeval.analysis.uncertainty import mean_rate
from medeval.errors import DataError
from medeval.keys import CellKey
from medeval.records import BenchmarkPart

TableRow = dict[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class CellScores:
    """The decided scores of one cell, at least one, with what run.json says of its benchmark."""

    key: CellKey
    part: BenchmarkPart
    scored: Sequence[Scored]


def breakdowns(cells: Sequence[CellScores]) -> dict[str, list[TableRow]]:
    """The rows of each breakdown by its table's name; a table may have none.

    `groups`: each group of each grouping, with n and a 95% interval. `clusters`: the share of
    questions answered right in all their samples, and answered alike in all of them. `suites`:
    the average over the samples of several benchmarks together.
    """
    return {
        "groups": [row for cell in cells for row in _group_rows(cell)],
        "clusters": [row for cell in cells for row in _cluster_rows(cell)],
        "suites": _suite_rows(cells),
    }


def _names(key: CellKey) -> TableRow:
    return {"checkpoint": key.checkpoint, "series": key.series, "step": key.step}


def _group_rows(cell: CellScores) -> Iterable[TableRow]:
    groups: dict[tuple[str, str], list[Scored]] = {}
    for one in cell.scored:
        for grouping, group in one.groups.items():
            groups.setdefault((grouping, group), []).append(one)
    for (grouping, group), members in sorted(groups.items()):
        rate = mean_rate(
            [one.score for one in members], [one.cluster or one.sample_id for one in members]
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


def _suite_rows(cells: Sequence[CellScores]) -> list[TableRow]:
    suites: dict[tuple[str, CellKey], list[CellScores]] = {}
    for cell in cells:
        if cell.part.suite is not None:
            key = cell.key
            place = CellKey(key.series, key.step, cell.part.suite, key.protocol)
            suites.setdefault((cell.part.suite, place), []).append(cell)
    return [
        {
            **_names(place),
            "suite": suite,
            "protocol": place.protocol,
            "benchmarks": " ".join(member.key.benchmark for member in members),
            "n": sum(len(member.scored) for member in members),
            "score": weighted_average(
                {
                    member.key.benchmark: (
                        official_score(member.part.aggregate, member.scored),
                        len(member.scored),
                    )
                    for member in members
                }
            ),
            "rows": "; ".join(
                f"{member.key.benchmark}: {member.part.rows_mark}"
                for member in members
                if member.part.rows_mark
            ),
        }
        for (suite, place), members in suites.items()
    ]
