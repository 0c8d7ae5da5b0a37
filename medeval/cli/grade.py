"""`medeval grade`: judge a run's answers again, from its folder alone."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from medeval.cli.parsing import CommaSeparated, given_flags
from medeval.cli.plan_options import JUDGE_MODEL, plan_options

if TYPE_CHECKING:
    from medeval.store.run_folder import RunFolder


@click.command("grade")
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--judge",
    "judges",
    multiple=True,
    type=CommaSeparated(),
    help="Judges: names, paths or modules.  [default: the run's own]",
)
@plan_options(*JUDGE_MODEL)
@click.option(
    "--backend", type=click.Choice(["openai", "vllm-server"]), help="The same as --judge-backend."
)
@click.option("--again", is_flag=True, help="Also judge answers that have a verdict.")
@click.pass_context
def grade_command(
    ctx: click.Context,
    /,
    run: Path,
    judges: tuple[tuple[str, ...], ...],
    again: bool,
    backend: str | None,
    **_: Any,
) -> None:
    """Judge a run's answers that lack a verdict, and rebuild its outcomes and table.

    Another judge's verdicts, outcomes and table are kept next to the run's own, under its name.
    With two judges or more, a second table shows how far they agree, and tables/disagreements.csv
    in the run's folder lists the answers on which they disagree.

    Exit codes: 0 all is scored; 1 something is unscored or a judge failed; 2 usage.
    """
    from medeval.cli.tables.run import agreement_table, summary_table
    from medeval.evaluation.loader import load
    from medeval.evaluation.plan import judge_client, ready_judge
    from medeval.evaluation.plan_file import read_options
    from medeval.evaluation.regrade import RegradeSettings, regrade, write_agreements
    from medeval.scoring.grade import judge_identity
    from medeval.scoring.judge import Judge
    from medeval.store.run_folder import RunFolder

    named = {name: value for name, value in given_flags(ctx).items() if name.startswith("judge_")}
    if backend is not None:
        named["judge_backend"] = backend
    options = read_options(None, named)
    client = judge_client(options)
    loaded = [ready_judge(load(name, Judge), client) for group in judges for name in group]
    folder = RunFolder.open(run)
    n_before = _n_judge_failures(folder)
    how = RegradeSettings(
        client=client,
        concurrency=options.judge_concurrency,
        again=again,
        tell=lambda message: click.echo(message, err=True),
    )
    summaries = regrade(folder, loaded, how)
    click.echo(summary_table(summaries, folder.record()))
    if agreements := write_agreements(folder, [judge_identity(judge) for judge in loaded]):
        click.echo(f"\n{agreement_table(agreements)}")
    n_failed = _n_judge_failures(folder) - n_before
    n_unscored = sum(summary.unscored for summary in summaries)
    if n_failed:
        what = f"{n_failed} judge failures: failures.jsonl in each cell's folder says why"
        click.echo(f"\n{what}", err=True)
    if n_unscored:
        what = (
            f"{n_unscored} unscored: run this command again to judge answers without a verdict, "
            "and medeval run to generate missing answers"
        )
        click.echo(f"\n{what}", err=True)
    ctx.exit(1 if n_failed or n_unscored else 0)


def _n_judge_failures(folder: "RunFolder") -> int:
    failures = (failure for key in folder.cells() for failure in folder.cell(key).failures())
    return sum(failure.kind == "judge" for failure in failures)
