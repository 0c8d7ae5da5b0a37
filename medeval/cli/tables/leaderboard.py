"""A leaderboard as Markdown, LaTeX (booktabs), HTML and CSV."""

import html
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal

from tabulate import tabulate

from medeval.cli.tables.analysis import is_known
from medeval.cli.tables.run import rows_notes

if TYPE_CHECKING:
    import pandas as pd
    from pandas.io.formats.style import Styler

NUMBERS = {
    "free": "free",
    "available": "available",
    "gap": "gap",
    "called": "called",
    "call_gain": "call gain",
    "schema_gain": "schema gain",
    "call_harm": "call harm",
    "schema_harm": "schema harm",
}
# Below each of these q values, a gap gets one more star.
STARRED_BELOW = (0.05, 0.01, 0.001)
NOTES = (
    "Percent of samples, gap and terms in points, each with its 95% interval.",
    "* q < 0.05, ** q < 0.01, *** q < 0.001: the gap differs from 0 (exact McNemar, "
    "Benjamini-Hochberg over the table).",
    "Bold: better than every other row, each difference significant at 5% (paired).",
)
# How each format writes a bold number, a star and an interval.
MARKUP = {
    "markdown": ("**{}**", r"\*", "{}"),
    "latex": (r"\textbf{{{}}}", r"\textsuperscript{*}", r"{{\scriptsize {}}}"),
    "html": ("<strong>{}</strong>", "*", "<small>{}</small>"),
}
# The usual fonts print other characters for < and >, and [ after a line's end is an argument.
LATEX_RULES = str.maketrans({"<": r"\textless{}", ">": r"\textgreater{}", "[": "{[}"})
MARKDOWN_SPECIAL = re.compile(r"([\\`*_\[\]|<>$])")


def leaderboard_text(
    frame: "pd.DataFrame", form: Literal["markdown", "csv", "latex", "html"]
) -> str:
    """A leaderboard in a format."""
    if form == "csv":
        return str(frame.to_csv(index=False))
    notes = [_one_line(note) for note in _notes(frame)]
    if form == "markdown":
        return "\n".join([*_markdown(frame), *(f"{_marked_down(note)}  " for note in notes), ""])
    styler = _styled(frame, form)
    if form == "latex":
        columns = "ll" + "r" * (1 + len(NUMBERS))
        table = styler.to_latex(column_format=columns, hrules=True, multirow_align="naive")
        return table + "".join(f"% {note}\n" for note in notes)
    styler = styler.set_table_styles(
        [
            {"selector": "th", "props": "padding: 0.2em 0.6em; text-align: right"},
            {"selector": "th.row_heading", "props": "text-align: left; font-weight: normal"},
            {"selector": "td", "props": "padding: 0.2em 0.6em; text-align: right"},
            {"selector": "tbody tr", "props": "vertical-align: top"},
            {"selector": "small", "props": "white-space: nowrap"},
        ]
    )
    table = styler.to_html(table_uuid="leaderboard", cell_ids=False)
    return table + "".join(f"<p>{html.escape(note)}</p>\n" for note in notes)


def _styled(frame: "pd.DataFrame", form: Literal["latex", "html"]) -> "Styler":
    """The table by benchmark and checkpoint, with their names escaped."""
    import pandas as pd

    rows = frame.to_dict(orient="records")
    # the position separates checkpoints of the same name
    names = [
        (_one_line(str(row["benchmark"])), position, _name(row, frame))
        for position, row in enumerate(rows)
    ]
    cells = pd.DataFrame(
        [_cells(row, form) for row in rows],
        index=pd.MultiIndex.from_tuples(names),
        columns=["n", *NUMBERS.values()],
    )
    escape_rest = (lambda text: text.translate(LATEX_RULES)) if form == "latex" else None
    return cells.style.format_index(escape_rest, level=[0, 2], escape=form).hide(
        axis="index", level=1
    )


def _cells(row: Mapping[Any, Any], form: str) -> list[str]:
    """The numbers of a row in the markup of a format."""
    bold, star, small = MARKUP[form]
    best = row["best"].split(", ")
    cells = [f"{row['n']:,}"]
    for name in NUMBERS:
        # adding 0.0 turns a rounded -0.0 into 0.0
        value, low, high = (
            f"{round(100 * row[key], 1) + 0.0:.1f}" for key in (name, f"{name}_low", f"{name}_high")
        )
        number = bold.format(value) if name in best else value
        if name == "gap":
            n_stars = sum(row["q_value"] < limit for limit in STARRED_BELOW)
            number += star * n_stars
        cells.append(f"{number} {small.format(f'[{low}, {high}]')}")
    return cells


def _name(row: Mapping[Any, Any], frame: "pd.DataFrame") -> str:
    """A checkpoint's name, with what sets it apart from the others."""
    step = f"/{row['step']}" if is_known(row["step"]) else ""
    run = f"{row['run']}: " if frame["run"].nunique() > 1 else ""
    pair = f" {row['pair']}" if frame["pair"].nunique() > 1 else ""
    named = f": {row['baseline']}" if row["baseline"] else ""
    baseline = f" (baseline{named})" if row["is_baseline"] else ""
    return _one_line(f"{run}{row['series']}{step}{pair}{baseline}")


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _notes(frame: "pd.DataFrame") -> Iterator[str]:
    yield from NOTES
    for metric in frame["metric"].unique():
        if metric != "share correct":
            yield f"Metric: {metric}."
    if (frame["pairing"] == "position").any():
        yield "Pairing: position (the logs have no sample ids)."
    if (frame["missing"] == "allowed").any():
        yield "Missing: allowed (outcomes are missing)."
    yield from rows_notes(frame["rows"])


def _markdown(frame: "pd.DataFrame") -> Iterator[str]:
    """A heading and a table for each benchmark."""
    head = ["checkpoint", "n", *NUMBERS.values()]
    for benchmark, part in frame.groupby("benchmark", sort=False):
        rows = [
            [_marked_down(_name(row, frame)), *_cells(row, "markdown")]
            for row in part.to_dict(orient="records")
        ]
        yield f"### {_marked_down(_one_line(str(benchmark)))}\n"
        yield tabulate(
            rows,
            head,
            tablefmt="pipe",
            disable_numparse=True,
            colalign=["left", *["right"] * (len(head) - 1)],
        )
        yield ""


def _marked_down(text: str) -> str:
    return MARKDOWN_SPECIAL.sub(r"\\\1", text)
