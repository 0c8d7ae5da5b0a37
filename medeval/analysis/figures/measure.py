"""MEASURE: both arms along the steps, and how much of their drift the tool accounts for."""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from medeval.analysis.figures.style import (
    BLUE,
    GREY,
    LOOKS,
    VERMILION,
    Line,
    draw_lines,
    finish_steps,
    forest,
    panels,
)
from medeval.analysis.figures.view import View, column
from medeval.analysis.med.curves import Floats

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BAR_IN, DRIFT_IN, TOOL_IN, ACCURACY_IN, CALLED_IN = 0.1, 1.25, 0.9, 1.2, 0.75
# The opacity of an area where no sample called a tool, and where all did.
LEAST_OPAQUE, MOST_OPAQUE = 0.2, 0.75
AREAS = (
    ("area_intrinsic", "intrinsic", GREY),
    ("area_tool_positive", "tool, up", BLUE),
    ("area_tool_negative", "tool, down", VERMILION),
)


def measure_figure(view: View) -> "Figure":
    """Drifts since the baseline with their areas, tool-induced drift, accuracies and calls.

    Without steps, accuracies, gap and calls of the only checkpoint. Draw within `styled`.
    """
    if not view.has_steps:
        return _single(view)
    heights = (BAR_IN, DRIFT_IN, TOOL_IN, ACCURACY_IN, CALLED_IN)
    note = f"{view.note}; shade of an area: share of samples that called"
    if view.contribution() is not None:
        note += "; by chance: S_tool expected where the tool has no effect on drift"
    figure, rows = panels(heights, titles=view.titles("MEASURE"), note=note)
    bar, drift, tool, accuracy, called = (row[0] for row in rows)
    _composition(bar, view.contribution(), view.steps)
    _drift(drift, view)
    tool.axhline(0.0, color=GREY, linewidth=0.5)
    _lines(tool, view, [("tool_drift", "tool")], TOOL_IN)
    tool.set_ylabel("tool-induced\ndrift (points)")
    _lines(accuracy, view, [("free", "free"), ("available", "available")], ACCURACY_IN)
    accuracy.set_ylabel("correct (%)")
    called.set_ylim(-4, 104)
    _lines(called, view, [("called", "called")], CALLED_IN)
    called.set_ylabel("called (%)")
    called.set_xlabel("step")
    finish_steps(called, view.steps)
    figure.align_ylabels()
    return figure


def _single(view: View) -> "Figure":
    figure, rows = panels([1.1], titles=view.titles("MEASURE"), note=view.note)
    names = ("free", "available", "gap", "called")
    forest(rows[0][0], [view.line(view.measure, name, name) for name in names])
    rows[0][0].set_xlabel("percent of samples; gap in points")
    return figure


def _lines(axes: "Axes", view: View, names: list[tuple[str, str]], height_in: float) -> None:
    lines = [view.line(view.measure, name, label) for name, label in names]
    draw_lines(axes, lines, height_in=height_in, smooth=view.smooth)


def _composition(axes: "Axes", found: dict[str, Any] | None, steps: Floats) -> None:
    """The tool contribution as a title, over a bar that is divided by the shares of the areas."""
    axes.set_axis_off()
    if found is None:
        axes.set_title("S_tool undefined", loc="left", fontsize=7)
        return
    axes.set_title(
        f"S_tool = {found['value']:.2f} [{found['value_low']:.2f}, {found['value_high']:.2f}], "
        f"by chance {found['expected_without_effect']:.2f}",
        loc="left",
        fontsize=7,
    )
    total = sum(found[name] for name, _, _ in AREAS)
    left = float(steps[0])
    for name, _, colour in AREAS:
        width = float(steps[-1] - steps[0]) * found[name] / total
        axes.barh(0, width, left=left, **_fill(colour))
        left += width
    axes.margins(y=0)


def _drift(axes: "Axes", view: View) -> None:
    """Both arms' drifts over the areas behind the tool contribution."""
    free = view.line(view.measure, "free_drift", "free")
    available = view.line(view.measure, "available_drift", "available")
    # show at least one point up and down, so that drifts near 0 look small
    axes.update_datalim([(view.steps[0], -1.0), (view.steps[0], 1.0)])
    _areas(axes, free, available, column(view.measure, "called"))
    axes.axhline(0.0, color=GREY, linewidth=0.5)
    nowhere = np.full_like(free.value, np.nan)
    lines = [
        replace(line, look=LOOKS[line.label], low=nowhere, high=nowhere)
        for line in (free, available)
    ]
    draw_lines(axes, lines, height_in=DRIFT_IN, smooth=view.smooth)
    _area_legend(axes, view.contribution())
    axes.set_ylabel("drift since the\nbaseline (points)")


def _areas(axes: "Axes", free: Line, available: Line, called: Floats) -> None:
    """Hatch the free drift; fill the available arm's lead or lag, more opaque with more calls."""
    x, base, top = free.steps, free.value, available.value
    for left in range(len(x) - 1):
        part = slice(left, left + 2)
        if np.isnan(base[part]).any() or np.isnan(top[part]).any():
            continue
        axes.fill_between(x[part], 0.0, base[part], **_fill(GREY))
        opaque = LEAST_OPAQUE + (MOST_OPAQUE - LEAST_OPAQUE) * float(called[part].mean())
        for leads, colour in ((top[part] >= base[part], BLUE), (top[part] < base[part], VERMILION)):
            axes.fill_between(
                x[part],
                base[part],
                top[part],
                where=leads.tolist(),
                interpolate=True,
                color=colour,
                alpha=opaque,
                linewidth=0,
            )


def _fill(colour: str) -> dict[str, Any]:
    """The filling of an area of a colour; the intrinsic one is hatched."""
    if colour == GREY:
        return {"facecolor": "none", "edgecolor": GREY, "hatch": "////", "linewidth": 0}
    return {"facecolor": colour, "alpha": MOST_OPAQUE, "linewidth": 0}


def _area_legend(axes: "Axes", found: dict[str, Any] | None) -> None:
    from matplotlib.patches import Patch

    total = 0.0 if found is None else sum(found[name] for name, _, _ in AREAS)
    handles = []
    for name, label, colour in AREAS:
        share = "" if found is None else f" {found[name] / total:.0%}"
        handles.append(Patch(label=label + share, **_fill(colour)))
    axes.legend(handles=handles, ncols=3, loc="lower left", bbox_to_anchor=(-0.02, 1.0))
