"""The process tables for people, on stdout: how the tools were used, in percent."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from tabulate import tabulate

from medeval.analysis.med.curves import MEAN
from medeval.analysis.process.outcomes import CONTRASTS
from medeval.cli.tables.analysis import interval_text, is_known, row_names, table_marks

if TYPE_CHECKING:
    import pandas as pd

Style = Literal["percent", "number", "count", "text"]

SCOPE = ("series", "pair", "benchmark", "group", "step")
# The measures that are printed, with their titles; the CSV files have more.
NAMES = {
    "target_inside": "target inside",
    "target_iou": "IoU",
    "modf1_best": "best ModF1",
    "modf1_cited": "cited ModF1",
    "upright_final": "upright, end",
    "upright_cited": "upright, cited",
    "line_final": "lines, final",
    "point_final": "points, final",
    "focus_precision": "focus precision",
    "focus_recall": "focus recall",
    "wrong_axis": "wrong axis",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Layout:
    """A printed table: its heading, the frame it shows, and its columns with their styles."""

    heading: str
    frame: str
    columns: Mapping[str, tuple[str, Style]]
    n: str = "n"


BY_TOOL: Mapping[str, Mapping[str, tuple[str, Style]]] = {
    "the share of its calls that ran, in percent": {"executed": ("executed", "percent")},
    "its crops, each call by itself, in percent; area as above": {
        "ModF1": ("modf1", "percent"),
        "target inside": ("any_target_inside", "percent"),
        "area": ("crop_over_target", "number"),
    },
    "what it turned and drew, as the image stood after each call, in percent": {
        "upright": ("upright", "percent"),
        "line": ("line", "percent"),
        "point": ("point", "percent"),
    },
    "what it focused on, each call by itself, in percent": {
        "precision": ("focus_precision", "percent"),
        "recall": ("focus_recall", "percent"),
        "wrong axis": ("misused", "percent"),
    },
}
LAYOUTS: Sequence[_Layout] = (
    _Layout(
        heading="Process, calls: per sample; composite = samples with more than one kind of "
        "tool, in percent",
        frame="process_calls",
        columns={
            "attempted": ("attempted", "number"),
            "executed": ("executed", "number"),
            "kinds of tool": ("tools", "number"),
            "composite": ("composite", "percent"),
        },
    ),
    _Layout(
        heading="Process, zoom: ModF1 of the crops against the target boxes, in percent",
        frame="process_zoom",
        columns={
            "cropped": ("cropped", "percent"),
            "best crop": ("modf1_best", "percent"),
            "final image": ("modf1_final", "percent"),
            "cited image": ("modf1_cited", "percent"),
        },
    ),
    _Layout(
        heading="Process, targets: where a crop was made, in percent; area = crop over target, "
        "geometric mean",
        frame="process_zoom",
        columns={
            "inside": ("target_inside", "percent"),
            "all inside": ("all_targets_inside", "percent"),
            "IoU": ("target_iou", "percent"),
            "area": ("crop_over_target", "number"),
        },
        n="target_inside_n",
    ),
    _Layout(
        heading="Process, orientation: images set upright, in percent",
        frame="process_orientation",
        columns={
            "at the start": ("upright_at_start", "percent"),
            "at some time": ("upright_best", "percent"),
            "at the end": ("upright_final", "percent"),
            "cited image": ("upright_cited", "percent"),
        },
    ),
    *(
        _Layout(
            heading=f"Process, {kind}s: drawn {kind}s matched with the targets, in percent",
            frame="process_marks",
            columns={
                "best": (f"{kind}_best", "percent"),
                "final": (f"{kind}_final", "percent"),
                "cited": (f"{kind}_cited", "percent"),
            },
        )
        for kind in ("line", "point")
    ),
    _Layout(
        heading="Process, focus: area focused on against the area to focus on, in percent",
        frame="process_focus",
        columns={
            "precision": ("focus_precision", "percent"),
            "recall": ("focus_recall", "percent"),
        },
    ),
    _Layout(
        heading="Process, misuse: focus along the wrong axis (charts labelled by ReFocus's files, "
        "not IAPO's 256)",
        frame="process_misuse",
        columns={
            "calls": ("focus_attempted", "count"),
            "wrong": ("misused_attempted", "count"),
            "wrong, percent": ("attempted_wrong", "percent"),
            "executed": ("focus_executed", "count"),
            "wrong ": ("misused_executed", "count"),
            "samples misused": ("samples_misused", "count"),
            "called": ("sample_called", "percent"),
        },
    ),
    *(
        _Layout(
            heading=f"Process, by tool: {what}",
            frame="process_tools",
            columns={"tool": ("tool", "text"), "calls": ("calls", "count"), **columns},
        )
        for what, columns in BY_TOOL.items()
    ),
    _Layout(
        heading="Process, transitions: which tool follows which, in percent of the first",
        frame="process_transitions",
        columns={
            "from": ("from", "text"),
            "to": ("to", "text"),
            "count": ("count", "count"),
            "share": ("share", "percent"),
        },
    ),
)
MEANS = (
    "Process: n counts trajectories. A mean of benchmarks is unweighted, of those that have the\n"
    "number at some step; it is undefined at a step where one of them lacks it."
)
BY_OUTCOME = (
    "Process and terms: do call gains come from good use of the tools, call harms from bad use?\n"
    "Called samples, in percent. call gain > both wrong: gains come from better use; call harm <\n"
    "both right: harms come from worse use; ~: the interval of the difference holds 0"
)
DIFFERENCES = "Process and terms: those differences with their intervals, in percentage points"
QUALITY = (
    "Process and terms: what good and bad use come to. Of called samples that fail without tools,\n"
    "the share gained; of those solved without tools, the share harmed; in percent"
)


def process_text(frames: Mapping[str, "pd.DataFrame"]) -> str:
    """Every process table that has a number, with its heading; "" where there is none."""
    parts = [MEANS] if any((frame["benchmark"] == MEAN).any() for frame in _own(frames)) else []
    parts += [
        _laid_out(layout, frames[layout.frame]) for layout in LAYOUTS if layout.frame in frames
    ]
    if "process_outcomes" in frames:
        rows_of = partial(_outcome_rows, contrasts=frames.get("process_contrasts"))
        parts.append(_table(BY_OUTCOME, frames["process_outcomes"], rows_of))
    if "process_contrasts" in frames:
        parts.append(_table(DIFFERENCES, frames["process_contrasts"], _contrast_rows))
    if "process_quality" in frames:
        parts.append(_table(QUALITY, frames["process_quality"], _quality_rows))
    return "\n\n".join(filter(None, parts))


def _own(frames: Mapping[str, "pd.DataFrame"]) -> "list[pd.DataFrame]":
    return [frame for name, frame in frames.items() if name.startswith("process_")]


def _table(heading: str, frame: "pd.DataFrame", rows_of: Any) -> str:
    rows = list(rows_of(frame))
    if not rows:
        return ""
    table = tabulate(rows, headers="keys", tablefmt="simple", disable_numparse=True)
    return "\n".join([heading, *table_marks(frame), table])


def _laid_out(layout: _Layout, frame: "pd.DataFrame") -> str:
    """A table without those columns and rows in which every number is undefined."""
    shown = {
        title: (column, style)
        for title, (column, style) in layout.columns.items()
        if frame[column].notna().any()
    }
    numbers = [column for column, style in shown.values() if style in ("percent", "number")]
    frame = frame[frame[numbers].notna().any(axis=1)]

    def rows(frame: "pd.DataFrame") -> Iterator[dict[str, str]]:
        for row in frame.to_dict(orient="records"):
            cells = {title: _cell(row, *column) for title, column in shown.items()}
            size = {} if "calls" in shown or "count" in shown else {"n": str(row[layout.n])}
            columns = [column for column, _ in shown.values()]
            yield {**_row_names(row, frame, columns), **size, **cells}

    return _table(layout.heading, frame, rows)


def _cell(row: Mapping[Any, Any], column: str, style: Style) -> str:
    if style == "percent":
        return interval_text(row, column, 100.0, 1)
    if style == "number":
        return interval_text(row, column, 1.0, 2)
    if style == "count":
        return str(int(row[column])) if is_known(row[column]) else ""
    return str(row[column])


def _row_names(
    row: Mapping[Any, Any], frame: "pd.DataFrame", columns: Sequence[str]
) -> dict[str, str]:
    """The first columns of a row; for a mean, the first one names the number of benchmarks."""
    names = row_names(row, frame)
    if row["benchmark"] != MEAN:
        return names
    counts = [row.get(f"{column}_benchmarks") for column in columns]
    known = [int(count) for count in counts if count is not None and is_known(count)]
    if known:
        fewest, most = min(known), max(known)
        names["benchmark"] = f"mean of {most}" if fewest == most else f"mean of {fewest}-{most}"
    return names


def _outcome_rows(
    frame: "pd.DataFrame", contrasts: "pd.DataFrame | None"
) -> Iterator[dict[str, str]]:
    """One row a measure, one column an outcome; the first row counts their trajectories."""
    names = [name for name in SCOPE if name in frame]
    signs = _signs(contrasts, names)
    for _, part in frame.groupby(names, sort=False, dropna=False):
        by_outcome = {row["outcome"]: row for row in part.to_dict(orient="records")}
        first = by_outcome["call gain"]
        head = _row_names(first, frame, list(NAMES))
        cells = {name: str(row["n"]) for name, row in by_outcome.items()}
        yield {**head, "use": "n", **_side_by_side(cells, "", "")}
        for quality, title in NAMES.items():
            if any(is_known(row[quality]) for row in by_outcome.values()):
                cells = {name: _quality_cell(row, quality) for name, row in by_outcome.items()}
                key = (*(str(first[name]) for name in names), quality)
                gain, harm = (signs.get((*key, *pair), "") for pair in CONTRASTS[:2])
                yield {**head, "use": title, **_side_by_side(cells, gain, harm)}


def _side_by_side(cells: Mapping[str, str], gain: str, harm: str) -> dict[str, str]:
    """The cells of each contrast, with the sign of their difference between them."""
    left, right = CONTRASTS[:2]
    # "vs " is a second column with the heading "vs"
    between = ((left, "vs", gain), (right, "vs ", harm))
    return {
        title: cell
        for (first, against), title_between, sign in between
        for title, cell in ((first, cells[first]), (title_between, sign), (against, cells[against]))
    }


def _quality_cell(row: Mapping[Any, Any], quality: str) -> str:
    """A share with its interval, and with its n where that differs from the outcome's."""
    text = interval_text(row, quality, 100.0, 0)
    return text if row[f"{quality}_n"] in (0, row["n"]) else f"{text} n {row[f'{quality}_n']}"


def _signs(contrasts: "pd.DataFrame | None", names: Sequence[str]) -> dict[tuple[str, ...], str]:
    """The sign of each difference between two outcomes, by scope, measure and outcomes."""
    rows = [] if contrasts is None else contrasts.to_dict(orient="records")
    return {
        (
            *(str(row[name]) for name in names),
            row["measure"],
            row["outcome"],
            row["against"],
        ): _sign(row)
        for row in rows
    }


def _sign(row: Mapping[Any, Any]) -> str:
    """Which of two outcomes is higher; "~" where the interval of the difference holds 0."""
    if row["difference_low"] > 0:
        return ">"
    return "<" if row["difference_high"] < 0 else "~"


def _contrast_rows(frame: "pd.DataFrame") -> Iterator[dict[str, str]]:
    """One row a measure, one column a pair of outcomes."""
    names = [name for name in SCOPE if name in frame]
    frame = frame[frame["measure"].isin(list(NAMES))]
    for _, part in frame.groupby([*names, "measure"], sort=False, dropna=False):
        rows = part.to_dict(orient="records")
        by_outcomes = {(row["outcome"], row["against"]): row for row in rows}
        cells = {
            f"{first} - {second}": interval_text(
                by_outcomes.get((first, second), {}), "difference", 100.0, 1
            )
            for first, second in CONTRASTS
        }
        yield {
            **_row_names(rows[0], frame, ["difference"]),
            "use": NAMES[rows[0]["measure"]],
            **cells,
        }


def _quality_rows(frame: "pd.DataFrame") -> Iterator[dict[str, str]]:
    for row in frame.to_dict(orient="records"):
        yield {
            **_row_names(row, frame, ["gain_quality", "harm_quality"]),
            "use": row["criterion"],
            "met": "yes" if row["met"] else "no",
            "n": str(row["n"]),
            "gained": interval_text(row, "gain_quality", 100.0, 1),
            "harmed": interval_text(row, "harm_quality", 100.0, 1),
        }
