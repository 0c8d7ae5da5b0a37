"""`medeval export`: a run in the formats of other tools."""

from pathlib import Path

import click


@click.command("export")
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--format",
    "format_name",
    type=click.Choice(["med", "med-csv", "inspect", "lmms-eval", "submission"]),
    required=True,
    help="med: the layout of MED's published logs; med-csv: its 110-column tables; "
    "inspect: logs for inspect view; lmms-eval: its logged samples; "
    "submission: the answers to a test split, in the format of its challenge.",
)
@click.option(
    "--output-dir",
    type=click.Path(path_type=Path),
    required=True,
    metavar="DIR",
    help="The folder of the files; files of the same name are replaced.",
)
@click.option(
    "--pair", metavar="NAME", help="For med formats: the pair, where the run has several."
)
@click.option(
    "--model-family",
    type=click.Choice(["qwen25vl_instruct", "qwen3vl_instruct"]),
    metavar="[qwen25vl_instruct|qwen3vl_instruct]",
    help="For med formats: the prefix by which MED's scripts find the baseline."
    "  [default: the prefix of a series' name, else qwen25vl_instruct]",
)
@click.option(
    "--allow-missing",
    is_flag=True,
    help="For med formats: leave out samples that are unscored at any checkpoint.",
)
def export_command(
    run: Path,
    format_name: str,
    output_dir: Path,
    pair: str | None,
    model_family: str | None,
    allow_missing: bool,
) -> None:
    """Write a run in another tool's format, and print the paths of the files.

    MED's own create_csv.py and plot scripts run in DIR on the files of `med` and `med-csv`.
    """
    from medeval.store.run_folder import RunFolder

    folder = RunFolder.open(run)
    if format_name in ("med", "med-csv"):
        from medeval.interop.med.export_run import export_med, export_med_csv

        export = export_med if format_name == "med" else export_med_csv
        written = export(
            folder, output_dir, pair=pair, family=model_family, allow_missing=allow_missing
        )
    elif format_name == "inspect":
        from medeval.interop.inspect_logs import export_inspect

        written = export_inspect(folder, output_dir)
    elif format_name == "lmms-eval":
        from medeval.interop.lmms_eval import export_lmms_eval

        written = export_lmms_eval(folder, output_dir)
    else:
        from medeval.interop.submission import export_submissions

        written = export_submissions(folder, output_dir)
    for path in written:
        click.echo(path)
