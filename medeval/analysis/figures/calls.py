"""CALLS: how many samples call a tool, and how many calls a sample makes by status and tool."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, get_args

import numpy as np

from medeval.analysis.figures.style import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    VERMILION,
    Line,
    Look,
    draw_lines,
    finish_steps,
    forest,
    panels,
    plain,
)
from medeval.analysis.figures.view import View
from medeval.analysis.med.curves import Curve, Floats
from medeval.analysis.med.outcomes import Step
from medeval.analysis.statistics.intervals import Stratum, moments
from medeval.analysis.statistics.rate import critical_value
from medeval.store.keys import BASELINE
from medeval.store.run_folder import CellKey, RunFolder
from medeval.types.trajectory import CallStatus

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CALLED_IN, COUNTS_IN = 0.8, 1.2
MOST_TOOLS = 4
OTHER = "other"
STATUSES: tuple[CallStatus, ...] = get_args(CallStatus)
RECORDED = ("attempted", "executed", "observed")
LOOKS = (
    Look(colour=BLUE),
    Look(colour=ORANGE, marker="s", dash="--"),
    Look(colour=VERMILION, marker="^", dash=":"),
    Look(colour=PURPLE, marker="v", dash="-."),
    Look(colour=GREEN, marker="D"),
    Look(colour=BLACK, marker="P", dash="--"),
    Look(colour=GREY, marker="X", dash=":"),
)

Counts = Mapping[str, Counter[str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class CellCalls:
    """How many calls each sample of a cell made over its repeats, by status and by tool."""

    by_status: Counts
    by_tool: Counts


class CallReader:
    """Reads the calls of a run's available arms, each cell once."""

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder
        self.pairs = folder.record().pairs
        self._known: dict[CellKey, CellCalls | None] = {}
        self._cells = set(folder.cells())

    def calls(self, series: str, step: Step, benchmark: str, pair: str) -> CellCalls | None:
        """The calls of the available arm of a pair; None where the run has no trajectories."""
        arms = self.pairs.get(pair)
        if arms is None:
            return None
        for owner in (series, BASELINE) if step == 0 else (series,):
            key = CellKey(owner, step, benchmark, arms[1])
            if key in self._cells:
                if key not in self._known:
                    self._known[key] = self._read(key)
                return self._known[key]
        return None

    def _read(self, key: CellKey) -> CellCalls | None:
        by_status: dict[str, Counter[str]] = {}
        by_tool: dict[str, Counter[str]] = {}
        for trajectory in self.folder.cell(key).trajectories():
            statuses = by_status.setdefault(trajectory.sample_id, Counter())
            tools = by_tool.setdefault(trajectory.sample_id, Counter())
            for call in trajectory.calls:
                statuses[call.status] += 1
                if call.name:
                    tools[call.name] += 1
        return CellCalls(by_status=by_status, by_tool=by_tool) if by_status else None


def calls_figure(view: View, reader: CallReader | None = None) -> "Figure":
    """The share of samples that called a tool; calls a sample by status, and by tool.

    Without trajectories (`reader` is None, or the run was imported), calls a sample as the outcomes
    record them: attempted, executed and observed. Draw within `styled`.
    """
    called = view.line(view.measure, "called", "called")
    groups = _groups(view, None if reader is None else _read_cells(view, reader))
    titles = view.titles("CALLS")
    if not view.has_steps:
        return _single(view, titles, called, groups)
    heights = [CALLED_IN, *(COUNTS_IN for _ in groups)]
    figure, rows = panels(heights, titles=titles, note=view.note)
    first = rows[0][0]
    first.set_ylim(-4, 104)
    draw_lines(first, [called], height_in=CALLED_IN, smooth=view.smooth)
    first.set_ylabel("called (%)")
    for (name, lines), (axes,) in zip(groups, rows[1:], strict=True):
        draw_lines(axes, lines, height_in=COUNTS_IN, smooth=view.smooth)
        axes.set_ylabel(name)
    rows[-1][0].set_xlabel("step")
    finish_steps(rows[-1][0], view.steps)
    figure.align_ylabels()
    return figure


def _groups(
    view: View, found: Mapping[tuple[Step, str], CellCalls] | None
) -> list[tuple[str, list[Line]]]:
    """The panels of counts, each with its axis label."""
    if found is None:
        return [("calls a sample", _recorded(view))]
    groups = [("calls a sample,\nby outcome", _by_status(view, found))]
    by_tool = _by_tool(view, found)
    return [*groups, ("calls a sample,\nby tool", by_tool)] if by_tool else groups


def _single(
    view: View, titles: list[str], called: Line, groups: Sequence[tuple[str, list[Line]]]
) -> "Figure":
    heights = [0.3, *(0.15 + 0.22 * len(lines) for _, lines in groups)]
    figure, rows = panels(heights, titles=titles, note=view.note, together=False)
    for (name, lines), (axes,) in zip([("called (%)", [called]), *groups], rows, strict=True):
        forest(axes, lines)
        axes.set_xlabel(name.replace("\n", " "))
    return figure


def _read_cells(view: View, reader: CallReader) -> dict[tuple[Step, str], CellCalls] | None:
    """The calls at each step and benchmark; None unless all of them have trajectories."""
    outcomes = view.tabulation.found.outcomes
    found = {}
    for curve in view.population.curves:
        for step in curve.steps:
            calls = reader.calls(outcomes.series, step, curve.benchmark, outcomes.pair)
            if calls is None or not calls.by_status.keys() >= set(curve.ids):
                return None
            found[step, curve.benchmark] = calls
    return found


def _recorded(view: View) -> list[Line]:
    def values(position: int, curve: Curve, step: Step) -> Floats:
        at = curve.steps.index(step)
        found: Floats = curve.counts[at, 4 + position] / curve.repeats[at]
        return found

    return [
        _line(view, name, LOOKS[position], partial(values, position))
        for position, name in enumerate(RECORDED)
    ]


def _by_status(view: View, found: Mapping[tuple[Step, str], CellCalls]) -> list[Line]:
    seen = _total(calls.by_status for calls in found.values())
    always = ("executed", "rejected", "malformed")
    names = [name for name in STATUSES if name in always or seen[name]]
    return [
        _line(
            view,
            name.replace("_", " "),
            LOOKS[position],
            partial(_values, {key: calls.by_status for key, calls in found.items()}, {name}),
        )
        for position, name in enumerate(names)
    ]


def _by_tool(view: View, found: Mapping[tuple[Step, str], CellCalls]) -> list[Line]:
    counts = {key: calls.by_tool for key, calls in found.items()}
    seen = _total(counts.values())
    ranked = sorted(seen, key=lambda name: (-seen[name], name))
    groups = [(plain(name, 16), {name}) for name in ranked[:MOST_TOOLS]]
    if len(ranked) > MOST_TOOLS:
        groups.append((OTHER, set(ranked[MOST_TOOLS:])))
    return [
        _line(view, label, LOOKS[position], partial(_values, counts, names))
        for position, (label, names) in enumerate(groups)
    ]


def _total(counts: Iterable[Counts]) -> Counter[str]:
    return sum((one for cell in counts for one in cell.values()), Counter())


def _values(
    counts: Mapping[tuple[Step, str], Counts], names: set[str], curve: Curve, step: Step
) -> Floats:
    """Each sample's calls of the named statuses or tools, per repeat."""
    cell = counts[step, curve.benchmark]
    repeats = curve.repeats[curve.steps.index(step)]
    sums = [sum(cell[sample_id][name] for name in names) for sample_id in curve.ids]
    return np.array(sums, dtype=float) / repeats


def _line(view: View, label: str, look: Look, values: "partial[Floats]") -> Line:
    """Mean calls a sample along the steps, with a cluster-robust normal interval, at least 0."""
    rows = []
    for step in view.tabulation.found.outcomes.steps:
        curves = view.population.curves
        found = None
        if all(step in curve.steps for curve in curves):
            strata = [Stratum(curve=curve, values=values(curve, step)) for curve in curves]
            found = moments(strata)
        if found is None:
            rows.append((np.nan, np.nan, np.nan))
        else:
            reach = critical_value() * found.variance**0.5
            rows.append((found.value, max(0.0, found.value - reach), found.value + reach))
    value, low, high = np.array(rows).T
    return Line(label=label, look=look, steps=view.steps, value=value, low=low, high=high)
