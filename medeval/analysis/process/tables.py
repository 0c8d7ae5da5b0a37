"""The tables of the process metrics as rows: by benchmark, step and tool, each with intervals."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from medeval.analysis.process.measures import Values
from medeval.analysis.process.rates import (
    ClusterBootstrap,
    Observed,
    difference,
    geometric_mean,
    share,
)
from medeval.analysis.process.reading import Process, Processes
from medeval.analysis.tabulation import Row, Tabulation, as_columns
from medeval.analysis.uncertainty import UNDEFINED, Rate

Kind = Literal["share", "mean", "geometric mean"]

# The columns of each table: the measure behind each, and how it is averaged.
COLUMNS: Final[Mapping[str, Mapping[str, tuple[str, Kind]]]] = {
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
OF_A_CALL: Final[Mapping[str, tuple[str, Kind]]] = {
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
# What tells a good use of tools from a bad one, for the tables by outcome.
QUALITIES: Final[Sequence[str]] = (
    "target_inside",
    "all_targets_inside",
    "modf1_best",
    "modf1_final",
    "modf1_cited",
    "hit_iou_50",
    "upright_best",
    "upright_final",
    "upright_cited",
    "line_best",
    "line_final",
    "point_best",
    "point_final",
    "focus_precision",
    "focus_recall",
    "wrong_axis",
)
# Called trajectories by both arms' verdicts: the terms and what they are set against.
OUTCOMES: Final[Mapping[str, Callable[[Process], float]]] = {
    "call gain": lambda process: (1.0 - process.free) * process.right,
    "both wrong": lambda process: (1.0 - process.free) * (not process.right),
    "call harm": lambda process: process.free * (not process.right),
    "both right": lambda process: process.free * process.right,
}
CONTRASTS: Final[Sequence[tuple[str, str]]] = (
    ("call gain", "both wrong"),
    ("call harm", "both right"),
    ("call gain", "call harm"),
)
# Whether a trajectory used its tools well, in one way each; None where that is undefined.
CRITERIA: Final[Mapping[str, Callable[[Values], bool | None]]] = {
    "a target inside a crop": lambda values: _is_positive(values, "target_inside"),
    "upright at the end": lambda values: _is_positive(values, "upright_final"),
    "no focus along the wrong axis": lambda values: (
        None if "wrong_axis" not in values else not values["wrong_axis"]
    ),
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


def _is_positive(values: Values, measure: str) -> bool | None:
    return values[measure] > 0.0 if measure in values else None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """A benchmark (or a group of it) at a step: its trajectories and how a row begins."""

    head: Row
    processes: Sequence[Process]
    bootstrap: ClusterBootstrap

    def rate(self, measure: str, kind: Kind, weights: Sequence[float] | None = None) -> Rate:
        """A measure over the trajectories that have it; `weights` are of all trajectories."""
        rows = [
            (process.measured.values[measure], process.cluster, weight)
            for process, weight in zip(
                self.processes, weights or [1.0] * len(self.processes), strict=True
            )
            if measure in process.measured.values
        ]
        return self.average(rows, kind)

    def average(self, rows: Sequence[tuple[float, object, float]], kind: Kind) -> Rate:
        """The mean of values with clusters and weights."""
        if not rows:
            return UNDEFINED
        values, clusters, weights = zip(*rows, strict=True)
        observed = Observed.of(values, clusters, weights)
        if kind == "share":
            return share(observed)
        if kind == "geometric mean":
            return geometric_mean(observed)
        # one name for all measures: those that agree have the same interval
        return self.bootstrap.mean(observed, f"{self.head['benchmark']}\n{self.head.get('group')}")


def _columns(name: str, rate: Rate) -> Row:
    return {**as_columns(name, rate), f"{name}_n": rate.n}


def process_rows(tabulation: Tabulation, processes: Processes) -> dict[str, list[Row]]:
    """The rows of every table, by its name; a table may have none."""
    rows: dict[str, list[Row]] = {name: [] for name in TABLES}
    for place in _places(tabulation, processes):
        for name, columns in COLUMNS.items():
            rows[name] += _averages(place, columns)
        rows["process_misuse"] += _misuse(place)
        rows["process_tools"] += _tools(place)
        rows["process_transitions"] += _transitions(place)
        outcomes, contrasts = _by_outcome(place)
        rows["process_outcomes"] += outcomes
        rows["process_contrasts"] += contrasts
        rows["process_quality"] += _quality(place)
    return rows


def _places(tabulation: Tabulation, processes: Processes) -> Iterator[_Place]:
    source = tabulation.bootstrap
    bootstrap = ClusterBootstrap(resamples=source.resamples, seed=source.seed)
    outcomes = tabulation.found.outcomes
    for population in tabulation.populations:
        if population.is_mean:
            continue
        (curve,) = population.curves
        ids = set(curve.ids)
        group = {} if curve.group is None else {"group": curve.group}
        for step in curve.steps:
            of_step = processes.get((curve.benchmark, step), [])
            own = [process for process in of_step if process.measured.sample_id in ids]
            head: Row = {"series": outcomes.series, "pair": outcomes.pair}
            head |= {"benchmark": curve.benchmark, **group, "step": step, "n": len(own)}
            if own:
                yield _Place(head=head, processes=own, bootstrap=bootstrap)


def _averages(place: _Place, columns: Mapping[str, tuple[str, Kind]]) -> Iterator[Row]:
    """One row of averages, unless none of them is defined."""
    rates = {name: place.rate(measure, kind) for name, (measure, kind) in columns.items()}
    defined = max(rate.n for rate in rates.values())
    if defined:
        row = {**place.head, "n": defined}
        for name, rate in rates.items():
            row |= _columns(name, rate)
        yield row


def _misuse(place: _Place) -> Iterator[Row]:
    """Totals over the set, as IAPO counts them, and the same as shares."""
    charts = [p for p in place.processes if "misused" in p.measured.values]
    if not charts:
        return
    names = ("focus_attempted", "misused_attempted", "focus_executed", "misused_executed")
    totals = {name: sum(int(p.measured.values[name]) for p in charts) for name in names}
    samples = sum(int(p.measured.values["misused"]) for p in charts)
    row = {**place.head, "n": len(charts), **totals, "samples_misused": samples}
    row |= _columns(
        "attempted_wrong", _ratio(place, charts, "misused_attempted", "focus_attempted")
    )
    row |= _columns("executed_wrong", _ratio(place, charts, "misused_executed", "focus_executed"))
    row |= _columns("sample_misused", place.rate("misused", "share"))
    called = [(float(p.measured.values["attempted"] > 0), p.cluster, 1.0) for p in charts]
    row |= _columns("sample_called", place.average(called, "share"))
    yield row | _columns("call_executed", _ratio(place, charts, "executed", "attempted"))


def _ratio(place: _Place, charts: Sequence[Process], part: str, whole: str) -> Rate:
    """The share of some calls among others, over all trajectories together."""
    rows = [
        (p.measured.values[part] / p.measured.values[whole], p.cluster, p.measured.values[whole])
        for p in charts
        if p.measured.values[whole]
    ]
    return place.average(rows, "share")


def _tools(place: _Place) -> Iterator[Row]:
    """One row a tool that was called by name: its calls, and how good the executed ones were."""
    calls = [(call, p.cluster) for p in place.processes for call in p.measured.calls]
    for tool in sorted({call.tool for call, _ in calls}):
        own = [(call, cluster) for call, cluster in calls if call.tool == tool]
        row = {**place.head, "tool": tool, "calls": len(own)}
        ran = [(float(call.status == "executed"), cluster, 1.0) for call, cluster in own]
        row |= _columns("executed", place.average(ran, "share"))
        for name, (measure, kind) in OF_A_CALL.items():
            values = [
                (call.values[measure], cluster, 1.0)
                for call, cluster in own
                if measure in call.values
            ]
            row |= _columns(name, place.average(values, kind))
        yield row


def _transitions(place: _Place) -> Iterator[Row]:
    """How often each executed call was followed by which; the share is of what came before."""
    followed: Counter[tuple[str, str]] = Counter()
    by_trajectory = []
    for process in place.processes:
        tools = process.measured.executed
        if tools:
            found = Counter(zip((START, *tools), (*tools, END), strict=True))
            followed += found
            by_trajectory.append((process.cluster, found))
    for (before, after), count in sorted(followed.items()):
        rows = []
        for cluster, found in by_trajectory:
            total = sum(number for (first, _), number in found.items() if first == before)
            if total:
                rows.append((found[before, after] / total, cluster, float(total)))
        rate = place.average(rows, "share")
        yield {**place.head, "from": before, "to": after, "count": count} | as_columns(
            "share", rate
        )


def _by_outcome(place: _Place) -> tuple[list[Row], list[Row]]:
    """The qualities among calls that gained, harmed or changed nothing, and their differences."""
    rates: dict[tuple[str, str], Rate] = {}
    rows, contrasts = [], []
    for outcome, weight_of in OUTCOMES.items():
        weights = [weight_of(p) * p.called for p in place.processes]
        row = {**place.head, "n": round(sum(weights)), "outcome": outcome}
        row |= _columns("executed", place.rate("executed", "mean", weights))
        row |= _columns("cropped", place.rate("cropped", "share", weights))
        for quality in QUALITIES:
            rates[outcome, quality] = place.rate(quality, "share", weights)
            row |= _columns(quality, rates[outcome, quality])
        rows.append(row)
    for first, second in CONTRASTS:
        for quality in QUALITIES:
            found = difference(rates[first, quality], rates[second, quality])
            if found.value is not None:
                row = {**place.head, "outcome": first, "against": second, "measure": quality}
                contrasts.append({**row, "n": found.n} | as_columns("difference", found))
    is_used = any(row["n"] for row in rows) and any(rate.n for rate in rates.values())
    return (rows if is_used else []), contrasts


def _quality(place: _Place) -> Iterator[Row]:
    """The terms' quality, among calls that used their tools well and among those that did not.

    `gain_quality`: of the called samples that fail without tools, the share that is right with
    them; `harm_quality`: of those solved without tools, the share that is wrong with them.
    """
    for criterion, holds in CRITERIA.items():
        called = [
            (process, met)
            for process in place.processes
            if process.called and (met := holds(process.measured.values)) is not None
        ]
        for met in (True, False) if called else ():
            own = [process for process, has_met in called if has_met == met]
            gain = [(float(p.right), p.cluster, 1.0 - p.free) for p in own]
            harm = [(float(not p.right), p.cluster, p.free) for p in own]
            row = {**place.head, "n": len(own), "criterion": criterion, "met": met}
            row |= _columns("gain_quality", place.average(gain, "share"))
            yield row | _columns("harm_quality", place.average(harm, "share"))
