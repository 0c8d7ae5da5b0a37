"""`medeval import-med`: read MED's published logs into an ordinary run folder."""

from pathlib import Path

import click


@click.command("import-med")
@click.argument("directory", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option(
    "--output-dir",
    type=click.Path(path_type=Path),
    required=True,
    metavar="DIR",
    help="The run folder; an imported one is extended.",
)
@click.option(
    "--baseline",
    "baselines",
    multiple=True,
    metavar="[EXPERIMENT=]BASELINE",
    help="Step 0 of an experiment, or of all: an experiment of the logs, or a folder. Repeatable."
    "  [default: by the prefixes of MED's own scripts, or the only one in baseline/]",
)
@click.option(
    "--repeats",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="How many consecutive lines belong to one sample.",
)
@click.option(
    "--allow-missing",
    is_flag=True,
    help="Leave out logs that are damaged or missing, and import the rest.",
)
def import_med_command(
    directory: Path,
    output_dir: Path,
    baselines: tuple[str, ...],
    repeats: int,
    allow_missing: bool,
) -> None:
    """Read MED's published logs into a run folder, which every other command then reads.

    DIRECTORY holds evals/<experiment>/global_step_<N>/<benchmark>/, or is evals itself, or one
    experiment. Released logs have no sample ids, so samples are called line-000001 and so on, and
    pair by position. Where raw logs have ids, these are used to check the order.
    """
    from medeval.cli.tables.run import summary_table
    from medeval.interop.med.import_run import import_med

    report = import_med(
        directory,
        output_dir,
        baselines=baselines,
        repeats=repeats,
        allow_missing=allow_missing,
    )
    click.echo(summary_table(report.summaries, report.folder.record()))
    click.echo("pairing: position")
    for note in report.notes:
        click.echo(note, err=True)
    click.echo(
        "the logs do not say why a conversation stopped: truncated, unanswered and not offered "
        "are 0 above, except in logs that medeval wrote",
        err=True,
    )
    click.echo(f"run folder: {report.folder.path}", err=True)
