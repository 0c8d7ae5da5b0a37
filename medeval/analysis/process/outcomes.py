"""How well tools were used where calls gained, harmed, or changed nothing."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from typing import Final

from medeval.analysis.process.averages import unpaired_difference
from medeval.analysis.process.reading import ToolUse
from medeval.analysis.process.scopes import Scope
from medeval.analysis.statistics.rate import Rate, TableRow

# The measures that set good uses of a tool apart from bad ones, for the tables by outcome.
QUALITIES: Final[Sequence[str]] = (
    "target_inside",
    "all_targets_inside",
    "target_iou",
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
# How much of a called trajectory belongs to each outcome, by the verdicts of both arms.
OUTCOMES: Final[Mapping[str, Callable[[ToolUse], float]]] = {
    "call gain": lambda use: (1.0 - use.free) * use.right,
    "both wrong": lambda use: (1.0 - use.free) * (not use.right),
    "call harm": lambda use: use.free * (not use.right),
    "both right": lambda use: use.free * use.right,
}
CONTRASTS: Final[Sequence[tuple[str, str]]] = (
    ("call gain", "both wrong"),
    ("call harm", "both right"),
    ("call gain", "call harm"),
)
# Signs that a trajectory used its tools well: the measure, and the values that are good.
CRITERIA: Final[Mapping[str, tuple[str, Callable[[float], bool]]]] = {
    "a target inside a crop": ("target_inside", lambda share: share > 0.0),
    "upright at the end": ("upright_final", lambda share: share > 0.0),
    "no focus along the wrong axis": ("wrong_axis", lambda share: share == 0.0),
}


def by_outcome(scope: Scope) -> tuple[list[TableRow], list[TableRow]]:
    """The measures of QUALITIES by outcome, and the differences of CONTRASTS between outcomes."""
    rates: dict[tuple[str, str], Rate] = {}
    rows, contrasts = [], []
    for outcome, weight_of in OUTCOMES.items():
        weight = partial(_of_called, weight_of)
        n = round(sum(map(weight, scope.uses)))
        row = {**scope.head, "n": n, "outcome": outcome}
        row |= scope.columns("executed", scope.rate("executed", "mean", weight), "executed")
        row |= scope.columns("cropped", scope.rate("cropped", "share", weight), "cropped")
        for measure in QUALITIES:
            rates[outcome, measure] = scope.rate(measure, "share", weight)
            row |= scope.columns(measure, rates[outcome, measure], measure)
        rows.append(row)
    for first, second in CONTRASTS:
        for measure in QUALITIES:
            found = unpaired_difference(rates[first, measure], rates[second, measure])
            if found.value is not None:
                row = {**scope.head, "outcome": first, "against": second, "measure": measure}
                contrasts.append(
                    {**row, "n": found.n} | scope.columns("difference", found, measure)
                )
    is_used = any(row["n"] for row in rows) and any(rate.n for rate in rates.values())
    return (rows if is_used else []), contrasts


def _of_called(weight_of: Callable[[ToolUse], float], use: ToolUse) -> float:
    return weight_of(use) * use.called


def quality(scope: Scope) -> Iterator[TableRow]:
    """The terms' quality, among calls that used their tools well and among those that did not.

    `gain_quality` is the share correct with tools, of the called samples that fail without them;
    `harm_quality` the share wrong with tools, of those solved without them.
    """
    for criterion, (measure, is_good) in CRITERIA.items():
        rated = [use for use in scope.uses if use.called and measure in use.measured.values]
        for met in (True, False) if rated and scope.benchmarks_with(measure) else ():
            own = [use for use in rated if is_good(use.measured.values[measure]) == met]
            row = {**scope.head, "n": len(own), "criterion": criterion, "met": met}
            yield row | _qualities(scope, measure, {id(use) for use in own})


def _qualities(scope: Scope, measure: str, own: Collection[int]) -> TableRow:
    """The qualities of call gain and call harm among the trajectories whose ids are in `own`."""

    def gained(use: ToolUse) -> Iterator[tuple[float, float]]:
        if id(use) in own:
            yield float(use.right), 1.0 - use.free

    def harmed(use: ToolUse) -> Iterator[tuple[float, float]]:
        if id(use) in own:
            yield float(not use.right), use.free

    gain = scope.average(measure, gained, "share")
    harm = scope.average(measure, harmed, "share")
    columns = scope.columns("gain_quality", gain, measure)
    return columns | scope.columns("harm_quality", harm, measure)
