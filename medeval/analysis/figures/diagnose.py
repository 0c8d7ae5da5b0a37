"""DIAGNOSE: each term as the product of mass, policy and quality."""

from dataclasses import replace
from typing import TYPE_CHECKING

from medeval.analysis.figures.style import LOOKS, Line, draw_lines, finish_steps, forest, panels
from medeval.analysis.figures.view import View
from medeval.analysis.med.terms import TERMS, Term

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ROW_IN = 1.05
FACTORS = ("mass", "policy", "quality")


def diagnose_figure(view: View) -> "Figure":
    """One row for each term: the term on the left, its three factors on the right.

    Where a factor is undefined, its line breaks. Draw within `styled`.
    """
    titles = view.titles("DIAGNOSE")
    note = f"term = mass x policy x quality (current partition); {view.note}"
    if not view.has_steps:
        return _single(view, titles, note)
    figure, rows = panels([ROW_IN] * len(TERMS), columns=2, titles=titles, note=note)
    for term, (left, right) in zip(TERMS, rows, strict=True):
        _term(left, right, view, term)
    for axes in rows[-1]:
        axes.set_xlabel("step")
        finish_steps(axes, view.steps, most_ticks=3)
    rows[0][0].set_title("term (points)", fontsize=7)
    rows[0][1].set_title("factors (%)", fontsize=7)
    figure.align_ylabels()
    return figure


def _rows(view: View, term: Term) -> "pd.DataFrame":
    return view.diagnose[view.diagnose["term"] == term]


def _value(view: View, term: Term, label: str) -> Line:
    return replace(view.line(_rows(view, term), "value", label), look=LOOKS[term])


def _term(left: "Axes", right: "Axes", view: View, term: Term) -> None:
    draw_lines(left, [_value(view, term, "")], height_in=ROW_IN, smooth=view.smooth)
    left.set_ylim(bottom=min(0.0, left.get_ylim()[0]))
    left.set_ylabel(term.replace("_", " "))
    right.set_ylim(-4, 104)
    factors = [view.line(_rows(view, term), name, name) for name in FACTORS]
    draw_lines(right, factors, height_in=ROW_IN, smooth=view.smooth)


def _single(view: View, titles: list[str], note: str) -> "Figure":
    figure, rows = panels([2.6], titles=titles, note=note)
    lines = []
    for term in TERMS:
        lines.append(_value(view, term, term.replace("_", " ")))
        lines += [view.line(_rows(view, term), name, name) for name in FACTORS]
    forest(rows[0][0], lines)
    rows[0][0].set_xlabel("percent; terms in points of accuracy")
    return figure
