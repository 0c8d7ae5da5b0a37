"""EXPLAIN: the gap between the arms as the sum of four terms."""

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from medeval.analysis.figures.style import (
    BLACK,
    GREY,
    LOOKS,
    draw_line,
    draw_lines,
    finish_steps,
    forest,
    panels,
)
from medeval.analysis.figures.view import View
from medeval.analysis.med.terms import SIGNS, TERMS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TERMS_IN, GROSS_IN = 1.6, 1.1
BAR_SHARE = 0.7


def explain_figure(view: View) -> "Figure":
    """Gains upwards, harms downwards and their sum; then gain, harm and gap with bands.

    Without steps, the terms and the gap of the only checkpoint. Draw within `styled`.
    """
    titles = view.titles("EXPLAIN")
    if not view.has_steps:
        return _single(view, titles)
    figure, rows = panels((TERMS_IN, GROSS_IN), titles=titles, note=view.note)
    terms, gross = rows[0][0], rows[1][0]
    _bars(terms, view)
    lines = [
        view.line(view.explain, "gross_gain", "gain"),
        view.line(view.explain, "gross_harm", "harm"),
        view.line(view.explain, "gap", "gap"),
    ]
    draw_lines(gross, lines, height_in=GROSS_IN, smooth=view.smooth)
    gross.axhline(0.0, color=GREY, linewidth=0.5)
    gross.set_ylabel("gain, harm,\ngap (points)")
    gross.set_xlabel("step")
    finish_steps(gross, view.steps)
    half = BAR_SHARE * _narrowest(view) / 2.0
    low, high = gross.get_xlim()
    gross.set_xlim(min(low, view.steps[0] - 1.2 * half), max(high, view.steps[-1] + 1.2 * half))
    figure.align_ylabels()
    return figure


def _single(view: View, titles: list[str]) -> "Figure":
    figure, rows = panels([1.3], titles=titles, note=view.note)
    names = (*TERMS, "gap")
    lines = [view.line(view.explain, name, name.replace("_", " ")) for name in names]
    forest(rows[0][0], lines)
    rows[0][0].set_xlabel("points of accuracy; gap = gains - harms")
    return figure


def _narrowest(view: View) -> float:
    return float(np.diff(view.steps).min())


def _bars(axes: "Axes", view: View) -> None:
    """The terms stacked away from zero, gains above and harms below, under the line of the gap."""
    from matplotlib.patches import Patch

    axes.use_sticky_edges = False
    handles = []
    for sign in (1, -1):
        reached = np.zeros(len(view.steps))
        for term in (name for name in TERMS if SIGNS[name] == sign):
            height = np.nan_to_num(sign * view.line(view.explain, term, term).value)
            look = LOOKS[term]
            axes.bar(
                view.steps,
                height,
                BAR_SHARE * _narrowest(view),
                bottom=reached,
                color=look.colour,
                linewidth=0,
            )
            reached = reached + height
            handles.append(Patch(facecolor=look.colour, label=term.replace("_", " ")))
    axes.axhline(0.0, color=GREY, linewidth=0.5)
    gap_line = view.line(view.explain, "gap", "gap")
    nowhere = np.full_like(gap_line.value, np.nan)
    draw_line(axes, replace(gap_line, low=nowhere, high=nowhere), view.smooth)
    (gap,) = axes.plot([], [], color=BLACK, marker=LOOKS["gap"].marker, label="gap")
    axes.legend(handles=[*handles, gap], ncols=3, loc="lower left", bbox_to_anchor=(-0.02, 1.0))
    axes.set_ylabel("available - free\n(points)")
