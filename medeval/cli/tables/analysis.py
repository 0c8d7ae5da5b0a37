"""The tables of an analysis for people, on stdout: percentages with their intervals."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from tabulate import tabulate

from medeval.cli.tables.run import rows_notes

if TYPE_CHECKING:
    import pandas as pd

HEADINGS: Mapping[str, str] = {
    "measure": "Measure: share correct without and with tools, in percent",
    "explain": "Explain: gap = call gain + schema gain - call harm - schema harm, in percent",
    "diagnose": "Diagnose (current partition): term = mass x policy x quality",
    "contribution": "Tool contribution to drift",
    "noise_floor": "Noise floor: the free arm against itself, in percent",
}
UNDEFINED = "undefined"


def analysis_text(frames: Mapping[str, "pd.DataFrame"]) -> str:
    """Every table with a heading, and under it the marks of `table_marks`."""
    return "\n\n".join(
        "\n".join([heading, *table_marks(frames[name]), _table(frames[name], name)])
        for name, heading in HEADINGS.items()
        if name in frames
    )


def table_marks(frame: "pd.DataFrame") -> Iterator[str]:
    """Lines on missing outcomes, pairing by position, other row counts and metrics of a table."""
    if (frame["missing"] == "allowed").any():
        yield "missing: allowed (outcomes are missing; gaps are marked)"
    if (frame["pairing"] == "position").any():
        yield "pairing: position (the logs have no sample ids)"
    yield from rows_notes(frame["rows"])
    if "metric" in frame.columns:
        for metric in frame["metric"].dropna().unique():
            if metric != "share correct":
                yield f"metric: {metric}"


def _table(frame: "pd.DataFrame", name: str) -> str:
    if name == "diagnose":
        frame = frame[frame["partition"] == "current"]
    rows = [
        {**row_names(row, frame), **_CELLS[name](row)} for row in frame.to_dict(orient="records")
    ]
    return tabulate(rows, headers="keys", tablefmt="simple", disable_numparse=True)


def row_names(row: Mapping[Any, Any], frame: "pd.DataFrame") -> dict[str, str]:
    """The first columns of a row; series and pair are left out where all rows have the same."""
    names = [name for name in ("series", "pair") if frame[name].nunique() > 1]
    names += [name for name in ("benchmark", "group", "step") if name in frame.columns]
    return {
        name: str(int(row[name])) if name == "step" else str(row[name])
        for name in names
        if not (name == "step" and frame["step"].isna().all())
    }


def _measure(row: Mapping[Any, Any]) -> dict[str, str]:
    cells = {"n": str(row["n"])}
    for title, name in (("free", "free"), ("available", "available"), ("gap", "gap")):
        cells[f"{title} [95%]"] = _percent(row, name)
    cells["q"] = _number(row, "q_value")
    cells["called"] = _percent(row, "called")
    for arm in ("free", "available", "tool"):
        cells[f"{arm} drift"] = _percent(row, f"{arm}_drift")
    return _or_note(cells, row, "free")


def _explain(row: Mapping[Any, Any]) -> dict[str, str]:
    names = ("call_gain", "schema_gain", "call_harm", "schema_harm", "gap")
    cells = {name.replace("_", " "): _percent(row, name) for name in names}
    return _or_note({"n": str(row["n"]), **cells}, row, "gap")


def _diagnose(row: Mapping[Any, Any]) -> dict[str, str]:
    cells = {name: _percent(row, name) for name in ("value", "mass", "policy", "quality")}
    return _or_note({"term": row["term"].replace("_", " "), **cells}, row, "value")


def _contribution(row: Mapping[Any, Any]) -> dict[str, str]:
    return {
        "form": str(row.get("form", "")),
        "value [95%]": interval_text(row, "value", 1.0, 3),
        "expected without effect": _number(row, "expected_without_effect"),
        "p": _number(row, "p_value"),
        "note": row["note"],
    }


def _noise_floor(row: Mapping[Any, Any]) -> dict[str, str]:
    names = ("floor", "gross_gain", "gross_harm")
    cells = {name.replace("_", " "): _percent(row, name) for name in names}
    return _or_note({"n": str(row["n"]), **cells}, row, "floor")


_CELLS = {
    "measure": _measure,
    "explain": _explain,
    "diagnose": _diagnose,
    "contribution": _contribution,
    "noise_floor": _noise_floor,
}


def _or_note(cells: dict[str, str], row: Mapping[Any, Any], number: str) -> dict[str, str]:
    """The cells, or the word "gap" and the reason where the row has no numbers."""
    if not row["note"] or is_known(row.get(number)):
        return cells
    gap = dict.fromkeys(cells, "")
    return gap | {next(iter(cells)): "gap", "note": row["note"]}


def is_known(value: Any) -> bool:
    """Whether a cell of a frame holds a value."""
    return value is not None and value == value


def _percent(row: Mapping[Any, Any], name: str) -> str:
    return interval_text(row, name, 100.0, 1)


def interval_text(row: Mapping[Any, Any], name: str, scale: float, places: int) -> str:
    """A number with its interval."""
    value = row.get(name)
    if not is_known(value):
        return UNDEFINED
    numbers = [value, row[f"{name}_low"], row[f"{name}_high"]]
    # adding 0.0 turns a rounded -0.0 into 0.0
    value, low, high = (f"{round(scale * number, places) + 0.0:.{places}f}" for number in numbers)
    return f"{value} [{low}, {high}]"


def _number(row: Mapping[Any, Any], name: str) -> str:
    value = row.get(name)
    return f"{value:.3g}" if is_known(value) else UNDEFINED
