"""`medeval analyze`: Measure, Explain and Diagnose a run."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from medeval.cli.parsing import CommaSeparated

if TYPE_CHECKING:
    import pandas as pd

    from medeval.analysis.report import Analysis

TABLES = ("coverage", "measure", "explain", "diagnose", "contribution", "changes")
SOMETIMES = ("noise_floor", "excluded")


@click.command("analyze")
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--series", help="Only this series.")
@click.option("--pair", help="Only this pair.")
@click.option("--benchmarks", "--tasks", type=CommaSeparated(), help="Only these benchmarks.")
@click.option("--by-group", metavar="NAME", help="Split each benchmark by a group of its samples.")
@click.option(
    "--called-by",
    type=click.Choice(["attempted", "executed", "observed"]),
    help="What counts as a call. Default: a call that was executed or rejected.",
)
@click.option(
    "--allow-missing",
    is_flag=True,
    help="Analyse the samples that every step has; marks every table.",
)
@click.option(
    "--max-undecided",
    type=click.FloatRange(0, 1),
    default=0.01,
    show_default=True,
    help="The share of an arm's verdicts that may be undecided.",
)
@click.option("--noise-floor", is_flag=True, help="Also compare two repeats of the free arm.")
@click.option(
    "--process",
    "with_process",
    is_flag=True,
    help="Also measure how the tools were used: crops against target boxes, orientation, lines, "
    "points, focus and misuse, by tool and by outcome. Needs no model.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the resampling.")
@click.option(
    "--resamples",
    type=click.IntRange(min=1),
    default=10_000,
    show_default=True,
    help="Bootstrap resamples.",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "csv", "json", "med-csv"]),
    default="table",
    show_default=True,
    help="What to print: tables for people, or every number. med-csv writes MED's own "
    "110-column tables into --output-dir instead, one file for each experiment.",
)
@click.option(
    "--output-dir",
    type=click.Path(path_type=Path, file_okay=False),
    help="The folder of the CSV files. Default: the run's own tables folder.",
)
def analyze_command(
    run: Path,
    noise_floor: bool,
    with_process: bool,
    form: str,
    output_dir: Path | None,
    called_by: Any,
    **options: Any,
) -> None:
    """Measure, explain and diagnose what the tools of a run do.

    Prints the tables, and writes each as a CSV file with every interval.
    """
    if form == "med-csv":
        _write_med_tables(run, output_dir, options["pair"], allow_missing=options["allow_missing"])
        return
    from medeval.analysis.report import analyze

    analysis = analyze(run, called_by=called_by or "called", **options)
    frames = {**_frames(analysis, noise_floor), **(analysis.process if with_process else {})}
    for name, frame in frames.items():
        _write(frame, run, output_dir, f"{name}.csv")
    if output_dir is None:
        _drop_others(run, frames)
    _report(analysis)
    if form == "json":
        rows = {name: json.loads(frame.to_json(orient="records")) for name, frame in frames.items()}
        click.echo(json.dumps(rows))
    elif form == "csv":
        click.echo(
            "\n".join(f"# {name}\n{_csv(frame)}" for name, frame in frames.items()), nl=False
        )
    else:
        from medeval.cli.tables.analysis import analysis_text
        from medeval.cli.tables.process import process_text

        click.echo("\n\n".join(filter(None, [analysis_text(frames), process_text(frames)])))


def _write_med_tables(
    run: Path, output_dir: Path | None, pair: str | None, *, allow_missing: bool
) -> None:
    """Write the tables of MED's own code, and print their paths."""
    from medeval.interop.med.export_run import export_med_csv
    from medeval.store.run_folder import RunFolder

    if output_dir is None:
        raise click.UsageError("--format med-csv needs --output-dir")
    folder = RunFolder.open(run)
    for path in export_med_csv(folder, output_dir, pair=pair, allow_missing=allow_missing):
        click.echo(path)


def _frames(analysis: "Analysis", noise_floor: bool) -> Mapping[str, "pd.DataFrame"]:
    drift = {"contribution", "changes"}
    names = [name for name in TABLES if analysis.has_drift or name not in drift]
    if noise_floor:
        names.append("noise_floor")
    if not analysis.excluded.empty:
        names.append("excluded")
    return {name: getattr(analysis, name) for name in names}


def _write(frame: "pd.DataFrame", run: Path, output_dir: Path | None, name: str) -> None:
    from medeval.store.files import make_folder, write_whole
    from medeval.store.run_folder import RunFolder

    if output_dir is None:
        RunFolder.open(run).write_table(name, _csv(frame))
    else:
        make_folder(output_dir)
        write_whole(output_dir / name, [_csv(frame).encode()])


def _drop_others(run: Path, frames: Mapping[str, "pd.DataFrame"]) -> None:
    """Remove tables of an earlier analysis that this one did not write."""
    from medeval.analysis.process.tables import TABLES as PROCESS_TABLES
    from medeval.store.run_folder import RunFolder

    for name in (*TABLES, *SOMETIMES, *PROCESS_TABLES):
        if name not in frames:
            RunFolder.open(run).drop_table(f"{name}.csv")


def _csv(frame: "pd.DataFrame") -> str:
    # a column with a missing step would otherwise print step 10 as 10.0
    steps = {name: "Int64" for name in ("step", "since", "baseline") if name in frame.columns}
    return str(frame.astype(steps).to_csv(index=False))


def _report(analysis: "Analysis") -> None:
    """Report on stderr what is missing, left out, or measured from another step than 0."""
    for part in analysis.sets:
        series = part.outcomes.series
        if part.baseline is None or len(part.outcomes.steps) < 2:
            click.echo(
                f"{series}: no drift and no tool contribution, because they need at least two "
                "steps of one series; evaluate several checkpoints of a training run",
                err=True,
            )
        elif part.baseline != 0:
            click.echo(
                f"{series}: there is no step 0, so drifts are measured from step {part.baseline}",
                err=True,
            )
        if part.allowed_missing:
            click.echo(f"{series}: outcomes are missing, and every table says so", err=True)
        if part.excluded:
            click.echo(
                f"{series}: {len(part.excluded)} samples are left out of the analysis set; "
                "excluded.csv lists them",
                err=True,
            )
