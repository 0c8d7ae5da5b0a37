"""The rows of the process tables: by benchmark, step and tool, each number with its interval."""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Final

from medeval.analysis.med.tabulation import Tabulation
from medeval.analysis.process.outcomes import by_outcome, quality
from medeval.analysis.process.reading import ToolUse, ToolUses
from medeval.analysis.process.scopes import Average, Scope, scopes
from medeval.analysis.statistics.rate import Rate, TableRow

# The columns of each table: the measure behind each, and how it is averaged.
COLUMNS: Final[Mapping[str, Mapping[str, tuple[str, Average]]]] = {
    "process_calls": {
        "attempted": ("attempted", "mean"),
        "executed": ("executed", "mean"),
        "tools": ("tools", "mean"),
        "composite": ("composite", "share"),
    },
    "process_zoom": {
        "cropped": ("cropped", "share"),
        "modf1_best": ("modf1_best", "share"),
        "modf1_final": ("modf1_final", "share"),
        "modf1_cited": ("modf1_cited", "share"),
        "hit_iou_50": ("hit_iou_50", "share"),
        "target_inside": ("target_inside", "share"),
        "all_targets_inside": ("all_targets_inside", "share"),
        "all_targets_in_one": ("all_targets_in_one", "share"),
        "target_iou": ("target_iou", "share"),
        "all_targets_iou": ("all_targets_iou", "share"),
        "crop_over_target": ("log_crop_over_target", "geometric mean"),
        "crop_over_all_targets": ("log_crop_over_all_targets", "geometric mean"),
    },
    "process_orientation": {
        name: (name, "share")
        for name in ("upright_at_start", "upright_best", "upright_final", "upright_cited")
    },
    "process_marks": {
        f"{kind}_{state}": (f"{kind}_{state}", "share")
        for kind in ("line", "point")
        for state in ("best", "final", "cited")
    },
    "process_focus": {name: (name, "share") for name in ("focus_precision", "focus_recall")},
}
OF_A_CALL: Final[Mapping[str, tuple[str, Average]]] = {
    "modf1": ("modf1", "share"),
    "any_target_inside": ("any_target_inside", "share"),
    "crop_over_target": ("log_crop_over_target", "geometric mean"),
    "upright": ("upright", "share"),
    "line": ("line", "share"),
    "point": ("point", "share"),
    "focus_precision": ("focus_precision", "share"),
    "focus_recall": ("focus_recall", "share"),
    "misused": ("misused", "share"),
}
TABLES: Final = (
    *COLUMNS,
    "process_misuse",
    "process_tools",
    "process_transitions",
    "process_outcomes",
    "process_contrasts",
    "process_quality",
)
START, END = "(start)", "(end)"


def process_rows(tabulation: Tabulation, uses: ToolUses) -> dict[str, list[TableRow]]:
    """The rows of every table, by its name; a table may have none."""
    rows: dict[str, list[TableRow]] = {name: [] for name in TABLES}
    for scope in scopes(tabulation, uses):
        for name, columns in COLUMNS.items():
            rows[name] += _averages(scope, columns)
        rows["process_misuse"] += _misuse(scope)
        if not scope.is_mean:
            rows["process_tools"] += _tools(scope)
            rows["process_transitions"] += _transitions(scope)
        outcomes, contrasts = by_outcome(scope)
        rows["process_outcomes"] += outcomes
        rows["process_contrasts"] += contrasts
        rows["process_quality"] += quality(scope)
    return rows


def _averages(scope: Scope, columns: Mapping[str, tuple[str, Average]]) -> Iterator[TableRow]:
    """One row of averages, unless none of them is defined."""
    rates = {name: scope.rate(measure, kind) for name, (measure, kind) in columns.items()}
    defined = max(rate.n for rate in rates.values())
    if defined:
        row = {**scope.head, "n": defined}
        for name, rate in rates.items():
            row |= scope.columns(name, rate, columns[name][0])
        yield row


def _misuse(scope: Scope) -> Iterator[TableRow]:
    """Totals over all charts, as IAPO counts them, and the same as shares."""
    charts = [use for use in scope.uses if "misused" in use.measured.values]
    if not charts:
        return
    rates = {
        "attempted_wrong": _ratio(scope, "misused_attempted", "focus_attempted"),
        "executed_wrong": _ratio(scope, "misused_executed", "focus_executed"),
        "sample_misused": scope.rate("misused", "share"),
        "sample_called": scope.average("misused", _has_called, "share"),
        "call_executed": _ratio(scope, "executed", "attempted"),
    }
    if scope.is_mean and not any(rate.n for rate in rates.values()):
        return
    row = {**scope.head, "n": len(charts)}
    if not scope.is_mean:
        row |= {name: sum(int(use.measured.values[name]) for use in charts) for name in TOTALS}
        row["samples_misused"] = sum(int(use.measured.values["misused"]) for use in charts)
    for name, rate in rates.items():
        row |= scope.columns(name, rate, "misused")
    yield row


TOTALS: Final = ("focus_attempted", "misused_attempted", "focus_executed", "misused_executed")


def _has_called(use: ToolUse) -> Iterator[tuple[float, float]]:
    if "misused" in use.measured.values:
        yield float(use.measured.values["attempted"] > 0), 1.0


def _ratio(scope: Scope, part: str, whole: str) -> Rate:
    """The share of the calls `part` among the calls `whole`, over all charts together."""

    def entries(use: ToolUse) -> Iterator[tuple[float, float]]:
        values = use.measured.values
        if "misused" in values and values[whole]:
            yield values[part] / values[whole], values[whole]

    return scope.average("misused", entries, "share")


def _tools(scope: Scope) -> Iterator[TableRow]:
    """One row a tool that was called by name: its calls, and how good the executed ones were."""
    calls = [(call, use.cluster) for use in scope.uses for call in use.measured.calls]
    for tool in sorted({call.tool for call, _ in calls}):
        own = [(call, cluster) for call, cluster in calls if call.tool == tool]
        row = {**scope.head, "tool": tool, "calls": len(own)}
        ran = [(float(call.status == "executed"), cluster, 1.0) for call, cluster in own]
        row |= scope.columns("executed", scope.over(ran, "share"), "executed")
        for name, (measure, kind) in OF_A_CALL.items():
            values = [
                (call.values[measure], cluster, 1.0)
                for call, cluster in own
                if measure in call.values
            ]
            row |= scope.columns(name, scope.over(values, kind), measure)
        yield row


def _transitions(scope: Scope) -> Iterator[TableRow]:
    """How often the call of one tool was followed by that of another.

    The share is of all calls of the first tool.
    """
    followed: Counter[tuple[str, str]] = Counter()
    by_trajectory = []
    for use in scope.uses:
        tools = use.measured.executed
        if tools:
            found = Counter(zip((START, *tools), (*tools, END), strict=True))
            followed += found
            by_trajectory.append((use.cluster, found))
    for (before, after), count in sorted(followed.items()):
        rows = []
        for cluster, found in by_trajectory:
            total = sum(number for (first, _), number in found.items() if first == before)
            if total:
                rows.append((found[before, after] / total, cluster, float(total)))
        rate = scope.over(rows, "share")
        yield {**scope.head, "from": before, "to": after, "count": count} | rate.columns("share")
