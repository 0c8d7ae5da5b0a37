"""Tables for people, on stdout."""

from collections.abc import Collection, Iterable, Sequence

from tabulate import tabulate

from medeval.analysis.agreement import Agreement, disagreement_rows
from medeval.analysis.statistics.rate import Rate
from medeval.analysis.summary import CellSummary
from medeval.evaluation.run import CellPreview
from medeval.types.run import RunRecord


def summary_table(summaries: Sequence[CellSummary], record: RunRecord) -> str:
    """The table that a run ends with, one line a cell.

    Lines below it name the metric and judge of each score, and the benchmarks that were run on more
    or fewer rows than published.
    """
    wrong = {name for name, part in record.benchmarks.items() if part.rows_mark}
    rows = [
        {
            "checkpoint": summary.checkpoint,
            "benchmark": summary.benchmark + ("*" if summary.benchmark in wrong else ""),
            "arm": summary.protocol,
            "score\n[95% interval]": _with_interval(summary.score),
            "n": summary.score.n,
            "called": _percent(summary.called),
            "truncated": _percent(summary.truncated),
            "unanswered": _percent(summary.unanswered),
            "not\noffered": _percent(summary.not_offered),
            "undecided": summary.undecided,
            "unscored": summary.unscored,
        }
        for summary in summaries
    ]
    table = tabulate(rows, headers="keys", tablefmt="simple", disable_numparse=True)
    shown = {summary.benchmark for summary in summaries}
    return "\n".join([table, "", *_metric_notes(summaries, record), *count_notes(record, shown)])


def _metric_notes(summaries: Sequence[CellSummary], record: RunRecord) -> list[str]:
    """One line for each benchmark and judge: the metric behind its score."""
    pairs = dict.fromkeys((summary.benchmark, summary.judge) for summary in summaries)
    return [
        f"{benchmark}: {record.metrics[judge].name}, judged by {judge}"
        for benchmark, judge in pairs
    ]


def count_notes(record: RunRecord, benchmarks: Collection[str]) -> list[str]:
    """One line for each of the benchmarks that was run on another number of rows than published."""
    return rows_notes(
        f"{name}: {part.rows_mark}"
        for name, part in sorted(record.benchmarks.items())
        if name in benchmarks and part.rows_mark
    )


def rows_notes(cells: Iterable[str]) -> list[str]:
    """One line for each benchmark that the `rows` cells of a table name."""
    marks = dict.fromkeys(mark for cell in cells for mark in cell.split("; ") if mark)
    return [f"* {mark}: this is not the benchmark's score" for mark in marks]


def plan_table(cells: Sequence[CellPreview]) -> str:
    """The cells of a plan, and how much of each is done."""
    rows: list[dict[str, object]] = [
        {
            "checkpoint": cell.key.checkpoint,
            "benchmark": cell.key.benchmark,
            "arm": cell.key.protocol,
            "trajectories": cell.wanted,
            "done": cell.done,
            "to do": cell.wanted - cell.done if _can_run(cell) else "refused",
            "tokens": _estimate_text(cell.estimate.tokens),
            "engine s": _estimate_text(cell.estimate.engine_s),
        }
        for cell in cells
    ]
    rows.append(_plan_total(cells))
    reasons = [f"{cell.key.protocol}: {cell.refusal}" for cell in cells if cell.refusal]
    table = tabulate(rows, headers="keys", tablefmt="simple", disable_numparse=True)
    return "\n\n".join([table, *reasons])


def _can_run(cell: CellPreview) -> bool:
    return cell.refusal is None and cell.misfit is None


def _plan_total(cells: Sequence[CellPreview]) -> dict[str, object]:
    """The last row: totals; a cost is unknown where it is for any cell that is not done."""
    left = [cell.estimate for cell in cells if cell.done < cell.wanted and _can_run(cell)]
    tokens = [estimate.tokens for estimate in left]
    seconds = [estimate.engine_s for estimate in left]
    return {
        "checkpoint": "all",
        "trajectories": sum(cell.wanted for cell in cells),
        "done": sum(cell.done for cell in cells),
        "to do": sum(cell.wanted - cell.done for cell in cells if _can_run(cell)),
        "tokens": _estimate_text(None if None in tokens else sum(filter(None, tokens))),
        "engine s": _estimate_text(None if None in seconds else sum(filter(None, seconds))),
    }


def _estimate_text(value: float | None) -> str:
    return "unknown" if value is None else f"{value:,.0f}"


# The number of disagreements that are printed; tables/disagreements.csv has all.
MAX_SHOWN = 20


def agreement_table(agreements: Sequence[Agreement]) -> str:
    """How far judges agree, and the first answers on which they disagree."""
    rows = [
        {
            "judge": agreement.first,
            "other judge": agreement.second,
            "n": agreement.n,
            "agreed": _number(agreement.agreed),
            "Cohen's kappa": _number(agreement.kappa),
            "undecided": agreement.undecided,
            "disagreements": len(agreement.disagreements),
        }
        for agreement in agreements
    ]
    table = tabulate(rows, headers="keys", tablefmt="simple", disable_numparse=True)
    listed = [row for agreement in agreements for row in disagreement_rows(agreement)]
    if not listed:
        return table
    lines = [
        f"{' x '.join(cell)}, {sample} (repeat {repeat}): {first} is {one}, {second} is {other}"
        for first, second, *cell, sample, repeat, one, other in listed[:MAX_SHOWN]
    ]
    if len(listed) > MAX_SHOWN:
        lines.append(f"and {len(listed) - MAX_SHOWN} more in tables/disagreements.csv")
    return "\n".join([table, "", *lines])


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.3f}"


def _with_interval(rate: Rate) -> str:
    if rate.value is None:
        return "undefined"
    return f"{rate.value:.3f} [{rate.low:.3f}, {rate.high:.3f}]"


def _percent(rate: Rate) -> str:
    return "undefined" if rate.value is None else f"{100 * rate.value:.1f}%"
