"""How well tools were used, joined to the terms: call gains and call harms against other calls."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from typing import Final

from medeval.analysis.med.tabulation import TableRow
from medeval.analysis.process.places import Place
from medeval.analysis.process.rates import difference
from medeval.analysis.process.reading import Process
from medeval.analysis.statistics.rate import Rate

# What tells a good use of tools from a bad one, for the tables by outcome.
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
# Whether a trajectory used its tools well, in one way each: the measure, and what is good of it.
CRITERIA: Final[Mapping[str, tuple[str, Callable[[float], bool]]]] = {
    "a target inside a crop": ("target_inside", lambda share: share > 0.0),
    "upright at the end": ("upright_final", lambda share: share > 0.0),
    "no focus along the wrong axis": ("wrong_axis", lambda share: share == 0.0),
}


def by_outcome(place: Place) -> tuple[list[TableRow], list[TableRow]]:
    """The qualities among calls that gained, harmed or changed nothing, and their differences."""
    rates: dict[tuple[str, str], Rate] = {}
    rows, contrasts = [], []
    for outcome, weight_of in OUTCOMES.items():
        weight = partial(_of_called, weight_of)
        n = round(sum(map(weight, place.processes)))
        row = {**place.head, "n": n, "outcome": outcome}
        row |= place.columns("executed", place.rate("executed", "mean", weight), "executed")
        row |= place.columns("cropped", place.rate("cropped", "share", weight), "cropped")
        for measure in QUALITIES:
            rates[outcome, measure] = place.rate(measure, "share", weight)
            row |= place.columns(measure, rates[outcome, measure], measure)
        rows.append(row)
    for first, second in CONTRASTS:
        for measure in QUALITIES:
            found = difference(rates[first, measure], rates[second, measure])
            if found.value is not None:
                row = {**place.head, "outcome": first, "against": second, "measure": measure}
                contrasts.append(
                    {**row, "n": found.n} | place.columns("difference", found, measure)
                )
    is_used = any(row["n"] for row in rows) and any(rate.n for rate in rates.values())
    return (rows if is_used else []), contrasts


def _of_called(weight_of: Callable[[Process], float], process: Process) -> float:
    return weight_of(process) * process.called


def quality(place: Place) -> Iterator[TableRow]:
    """The terms' quality, among calls that used their tools well and among those that did not.

    `gain_quality`: of the called samples that fail without tools, the share that is right with
    them; `harm_quality`: of those solved without tools, the share that is wrong with them.
    """
    for criterion, (measure, is_good) in CRITERIA.items():
        rated = [p for p in place.processes if p.called and measure in p.measured.values]
        for met in (True, False) if rated and place.parts_with(measure) else ():
            own = [p for p in rated if is_good(p.measured.values[measure]) == met]
            row = {**place.head, "n": len(own), "criterion": criterion, "met": met}
            yield row | _qualities(place, measure, {id(process) for process in own})


def _qualities(place: Place, measure: str, own: Collection[int]) -> TableRow:
    """The qualities of call gain and call harm among some of a place's trajectories."""

    def gained(process: Process) -> Iterator[tuple[float, float]]:
        if id(process) in own:
            yield float(process.right), 1.0 - process.free

    def harmed(process: Process) -> Iterator[tuple[float, float]]:
        if id(process) in own:
            yield float(not process.right), process.free

    gain = place.average(measure, gained, "share")
    harm = place.average(measure, harmed, "share")
    columns = place.columns("gain_quality", gain, measure)
    return columns | place.columns("harm_quality", harm, measure)
