"""`medeval plot`: the figures of a run."""

from pathlib import Path
from typing import Any

import click

from medeval.cli.parsing import CommaSeparated


@click.command("plot")
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--series", help="Only this series.")
@click.option("--pair", help="Only this pair.")
@click.option("--benchmarks", "--tasks", type=CommaSeparated(), help="Only these benchmarks.")
@click.option(
    "--allow-missing",
    is_flag=True,
    help="Draw the samples that every step has; marks every figure.",
)
@click.option(
    "--max-undecided",
    type=click.FloatRange(0, 1),
    default=0.01,
    show_default=True,
    help="The share of an arm's verdicts that may be undecided.",
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
    "--smooth",
    type=click.IntRange(min=3),
    metavar="N",
    help="Draw lines as moving means over N steps (odd); the figure says so. Default: off.",
)
@click.option(
    "--format",
    "formats",
    type=CommaSeparated(click.Choice(["pdf", "svg", "png"])),
    default="pdf,svg,png",
    show_default=True,
    help="The formats of the files.",
)
@click.option(
    "--output-dir",
    type=click.Path(path_type=Path, file_okay=False),
    help="The folder of the figures. Default: the run's own figures folder.",
)
def plot_command(
    run: Path,
    smooth: int | None,
    formats: tuple[Any, ...],
    output_dir: Path | None,
    **options: Any,
) -> None:
    """Draw MEASURE, EXPLAIN, DIAGNOSE and the calls of a run.

    There is one figure over all benchmarks and one for each. Prints the paths of the files.
    """
    from medeval.analysis.figures import figures, write_figure
    from medeval.analysis.report import analyze
    from medeval.store.run_folder import RunFolder

    folder = RunFolder.open(run)
    analysis = analyze(run, **options)
    directory = folder.path / "figures" if output_dir is None else output_dir
    for name, figure in figures(analysis, folder, smooth=smooth):
        for path in write_figure(figure, directory, name, formats):
            click.echo(path)
