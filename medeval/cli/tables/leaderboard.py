"""A leaderboard as Markdown, LaTeX (booktabs), HTML and CSV."""

import html
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from medeval.cli.tables.run import rows_notes

if TYPE_CHECKING:
    import pandas as pd

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
MARKS = ((0.001, "***"), (0.01, "**"), (0.05, "*"))
NOTES = (
    "Percent of samples, gap and terms in points, each with its 95% interval.",
    "* q < 0.05, ** q < 0.01, *** q < 0.001: the gap differs from 0 (exact McNemar, "
    "Benjamini-Hochberg over the table).",
    "Bold: better than every other row, each difference significant at 5% (paired).",
)
LATEX_SPECIAL = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
}
MARKDOWN_SPECIAL = re.compile(r"([\\`*_\[\]|<>$])")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """What stands in a cell: a number with its interval and mark."""

    value: str
    interval: str = ""
    mark: str = ""
    bold: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A benchmark's rows."""

    benchmark: str
    rows: Sequence[Sequence[Cell]]


def leaderboard_text(frame: "pd.DataFrame", form: str) -> str:
    """A leaderboard in a format: markdown, csv, latex or html."""
    if form == "csv":
        return str(frame.to_csv(index=False))
    writers = {"markdown": _markdown, "latex": _latex, "html": _html}
    blocks = [
        Block(benchmark=str(name), rows=[_cells(row, frame) for row in _records(part)])
        for name, part in frame.groupby("benchmark", sort=False)
    ]
    return writers[form](["checkpoint", "n", *NUMBERS.values()], blocks, list(_notes(frame)))


def _records(frame: "pd.DataFrame") -> list[dict[Any, Any]]:
    return frame.to_dict(orient="records")


def _cells(row: dict[Any, Any], frame: "pd.DataFrame") -> list[Cell]:
    best = row["best"].split(", ")
    cells = [Cell(value=_name(row, frame)), Cell(value=f"{row['n']:,}")]
    for name in NUMBERS:
        # adding 0.0 turns a rounded -0.0 into 0.0
        value, low, high = (
            f"{round(100 * row[key], 1) + 0.0:.1f}" for key in (name, f"{name}_low", f"{name}_high")
        )
        mark = _mark(row["q_value"]) if name == "gap" else ""
        cells.append(Cell(value=value, interval=f"[{low}, {high}]", mark=mark, bold=name in best))
    return cells


def _mark(q_value: float) -> str:
    return next((mark for level, mark in MARKS if q_value < level), "")


def _name(row: dict[Any, Any], frame: "pd.DataFrame") -> str:
    """A checkpoint's name, with what it needs to be told from the others."""
    step = "" if row["step"] is None or row["step"] != row["step"] else f"/{row['step']}"
    run = f"{row['run']}: " if frame["run"].nunique() > 1 else ""
    pair = f" {row['pair']}" if frame["pair"].nunique() > 1 else ""
    named = f": {row['baseline']}" if row["baseline"] else ""
    baseline = f" (baseline{named})" if row["is_baseline"] else ""
    return f"{run}{row['series']}{step}{pair}{baseline}"


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


def _markdown(head: Sequence[str], blocks: Sequence[Block], notes: Sequence[str]) -> str:
    lines = []
    for block in blocks:
        lines += [f"### {_marked_down(block.benchmark)}", "", f"| {' | '.join(head)} |"]
        lines.append(f"| --- |{' ---: |' * (len(head) - 1)}")
        for row in block.rows:
            cells = []
            for cell in row:
                value = _marked_down(cell.value)
                value = f"**{value}**" if cell.bold else value
                cells.append(f"{value}{_marked_down(cell.mark)} {cell.interval}".strip())
            lines.append(f"| {' | '.join(cells)} |")
        lines.append("")
    return "\n".join([*lines, *(f"{_marked_down(note)}  " for note in notes), ""])


def _marked_down(text: str) -> str:
    return MARKDOWN_SPECIAL.sub(r"\\\1", " ".join(text.split()))


def _latex(head: Sequence[str], blocks: Sequence[Block], notes: Sequence[str]) -> str:
    lines = [f"\\begin{{tabular}}{{l{'r' * (len(head) - 1)}}}", "\\toprule"]
    lines.append(" & ".join(map(_tex, head)) + " \\\\")
    for block in blocks:
        title = f"\\textit{{{_tex(block.benchmark)}}}"
        lines += ["\\midrule", f"\\multicolumn{{{len(head)}}}{{l}}{{{title}}} \\\\"]
        for row in block.rows:
            cells = []
            for cell in row:
                value = _tex(cell.value)
                value = f"\\textbf{{{value}}}" if cell.bold else value
                mark = f"\\textsuperscript{{{cell.mark}}}" if cell.mark else ""
                interval = f" {{\\scriptsize {_tex(cell.interval)}}}" if cell.interval else ""
                cells.append(f"{value}{mark}{interval}")
            lines.append(" & ".join(cells) + " \\\\")
    lines += ["\\bottomrule", "\\end{tabular}", *(f"% {note}" for note in notes), ""]
    return "\n".join(lines)


def _tex(text: str) -> str:
    return "".join(LATEX_SPECIAL.get(character, character) for character in " ".join(text.split()))


def _html(head: Sequence[str], blocks: Sequence[Block], notes: Sequence[str]) -> str:
    lines = ["<table>", "<thead><tr>", *(f"<th>{html.escape(name)}</th>" for name in head)]
    lines.append("</tr></thead>")
    for block in blocks:
        title = html.escape(block.benchmark)
        lines += ["<tbody>", f'<tr><th colspan="{len(head)}">{title}</th></tr>']
        for row in block.rows:
            cells = []
            for cell in row:
                value = html.escape(cell.value)
                value = f"<strong>{value}</strong>" if cell.bold else value
                interval = f" <small>{cell.interval}</small>" if cell.interval else ""
                cells.append(f"<td>{value}{cell.mark}{interval}</td>")
            lines.append(f"<tr>{''.join(cells)}</tr>")
        lines.append("</tbody>")
    lines.append("</table>")
    return "\n".join([*lines, *(f"<p>{html.escape(note)}</p>" for note in notes), ""])
