"""`medeval leaderboard`: checkpoints and models side by side."""

from pathlib import Path
from typing import Any

import click

from medeval.cli.parsing import CommaSeparated

SORTS = [
    "step", "free", "available", "gap", "called",
    "call_gain", "schema_gain", "call_harm", "schema_harm",
]  # fmt: skip


@click.command("leaderboard")
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="RUN...")
@click.option("--series", help="Only this series.")
@click.option("--pair", help="Only this pair.")
@click.option("--benchmarks", "--tasks", type=CommaSeparated(), help="Only these benchmarks.")
@click.option("--steps", type=CommaSeparated(click.INT), help="Only these steps.")
@click.option("--last", is_flag=True, help="Only the last step and the baseline of each series.")
@click.option(
    "--sort",
    type=click.Choice(SORTS),
    metavar="NUMBER",
    default="available",
    show_default=True,
    help=f"Sort a benchmark's rows by this number, best first: {', '.join(SORTS)}.",
)
@click.option(
    "--allow-missing", is_flag=True, help="Show the samples that every step has; marks the table."
)
@click.option(
    "--max-undecided",
    type=click.FloatRange(0, 1),
    default=0.01,
    show_default=True,
    help="The share of an arm's verdicts that may be undecided.",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["markdown", "csv", "latex", "html"]),
    default="markdown",
    show_default=True,
    help="latex needs the package booktabs; csv has every number.",
)
def leaderboard_command(runs: tuple[Path, ...], form: Any, **options: Any) -> None:
    """Rank checkpoints and models on each benchmark.

    Shows both arms, their gap, call rate and terms, with intervals. The best number is bold only
    where it differs significantly from every other row.
    """
    from medeval.analysis.leaderboard import leaderboard
    from medeval.cli.tables.leaderboard import leaderboard_text

    click.echo(leaderboard_text(leaderboard(runs, **options), form), nl=False)
