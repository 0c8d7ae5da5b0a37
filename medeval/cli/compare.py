"""`medeval compare`: two checkpoints, sample by sample."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from medeval.cli.parsing import CommaSeparated
from medeval.errors import UsageError

if TYPE_CHECKING:
    import pandas as pd

    from medeval.analysis.comparison import Comparison, Entrant

# The number of sample ids that are printed; the CSV file and the JSON have all.
MAX_SHOWN = 20


@click.command("compare")
@click.argument("first", metavar="A")
@click.argument("other", metavar="B")
@click.option("--pair", help="The pair, where a run has several.")
@click.option("--benchmarks", "--tasks", type=CommaSeparated(), help="Only these benchmarks.")
@click.option("--allow-missing", is_flag=True, help="Compare the samples that both have.")
@click.option(
    "--max-undecided",
    type=click.FloatRange(0, 1),
    default=0.01,
    show_default=True,
    help="The share of an arm's verdicts that may be undecided.",
)
@click.option("--json", "as_json", is_flag=True, help="Print every number as JSON.")
@click.option(
    "--output-dir",
    type=click.Path(path_type=Path, file_okay=False),
    help="Also write differences.csv and flips.csv to this folder.",
)
def compare_command(
    first: str, other: str, as_json: bool, output_dir: Path | None, **options: Any
) -> None:
    """Compare two checkpoints: paired differences by benchmark, and the samples that flipped.

    A and B are run folders with one checkpoint each, or RUN@CHECKPOINT, such as
    outputs/rl@rl/200; both may be of the same run.
    """
    from medeval.analysis.comparison import compare

    entrants = [_entrant(reference, **options) for reference in (first, other)]
    comparison = compare(*entrants)
    if output_dir is not None:
        _write(comparison, output_dir)
    if as_json:
        parts = {"differences": comparison.differences, "flips": comparison.flips}
        rows = {name: json.loads(part.to_json(orient="records")) for name, part in parts.items()}
        click.echo(json.dumps({"first": first, "other": other, **rows}))
    else:
        click.echo(_text(comparison, first, other))


def _entrant(reference: str, **options: Any) -> "Entrant":
    """The checkpoint that a reference names. Raises UsageError where it names none or several."""
    from medeval.analysis.comparison import Entrant
    from medeval.analysis.report import analyze

    path, checkpoint = reference, ""
    if not Path(reference).exists():
        path, _, checkpoint = reference.rpartition("@")
    entrants = [
        Entrant(name=name if step is None else f"{name}/{step}", found=found, step=step)
        for found in analyze(path or reference, **options).sets
        for name, step in ((found.outcomes.series, step) for step in found.outcomes.steps)
    ]
    chosen = [each for each in entrants if checkpoint in ("", each.name)]
    if len(chosen) == 1:
        return chosen[0]
    names = ", ".join(f"{each.name} ({each.found.outcomes.pair})" for each in (chosen or entrants))
    raise UsageError(
        f"{reference!r} names {'several checkpoints' if chosen else 'no checkpoint'}; "
        f"the run has: {names}",
        hint="name one as RUN@CHECKPOINT; choose among pairs with --pair",
    )


def _write(comparison: "Comparison", directory: Path) -> None:
    from medeval.store.files import write_whole

    for name, frame in (("differences", comparison.differences), ("flips", comparison.flips)):
        write_whole(directory / f"{name}.csv", [frame.to_csv(index=False).encode()])


def _text(comparison: "Comparison", first: str, other: str) -> str:
    from tabulate import tabulate

    from medeval.cli.tables.run import rows_notes

    rows = [
        {
            "benchmark": row["benchmark"],
            "": row["quantity"],
            "n": row["n"],
            "A": _percent(row["first"]),
            "B": _percent(row["other"]),
            "B - A [95%]": f"{_percent(row['difference'])} "
            f"[{_percent(row['difference_low'])}, {_percent(row['difference_high'])}]",
            "p": f"{row['p_value']:.3g}",
            "q": f"{row['q_value']:.3g}",
        }
        for row in comparison.differences.to_dict(orient="records")
    ]
    table = tabulate(rows, headers="keys", tablefmt="simple", disable_numparse=True)
    heads = [f"A: {first}", f"B: {other}", "Share correct, in percent, on the shared samples"]
    notes = rows_notes(comparison.differences["rows"])
    return "\n".join([*heads, "", table, *notes, "", *_flips(comparison.flips)])


def _percent(share: float) -> str:
    # adding 0.0 turns a rounded -0.0 into 0.0
    return f"{round(100 * share, 1) + 0.0:.1f}"


def _flips(frame: "pd.DataFrame") -> list[str]:
    lines = []
    for (benchmark, arm), part in frame.groupby(["benchmark", "arm"], sort=False):
        lost, gained = part[part["other"] < part["first"]], part[part["other"] > part["first"]]
        lines.append(f"{benchmark}, {arm}: {len(gained)} gained, {len(lost)} lost")
        for title, ids in (("gained", gained["sample_id"]), ("lost", lost["sample_id"])):
            if len(ids):
                more = f", and {len(ids) - MAX_SHOWN} more" if len(ids) > MAX_SHOWN else ""
                lines.append(f"  {title}: {', '.join(ids[:MAX_SHOWN])}{more}")
    return lines or ["no sample flipped"]
