"""`medeval merge`: run folders of shards or machines, joined into one."""

from pathlib import Path

import click


@click.command("merge")
@click.argument("out", type=click.Path(path_type=Path))
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="RUN...")
@click.pass_context
def merge_command(ctx: click.Context, /, out: Path, runs: tuple[Path, ...]) -> None:
    """Join run folders into the folder OUT, which may already exist.

    \b
    After four jobs of a scheduler:
      medeval merge outputs/rl outputs/rl-shard-*

    Nothing is written unless the runs have the same settings and data. A sample in two runs is
    refused unless both lines are equal. The same command again adds new lines. OUT can be resumed,
    extended, graded and analysed like any run.

    Exit codes: 0 complete; 1 refused, a shard is missing or something is unscored; 2 usage.
    """  # noqa: D301 - click reads the backspace, and a raw text would not hold one
    from medeval.cli.tables.run import summary_table
    from medeval.evaluation.merge import merge

    report = merge(out, runs)
    click.echo(summary_table(report.summaries, report.folder.record()))
    n_unscored = sum(summary.unscored for summary in report.summaries)
    lines = [*report.missing, f"{report.n_added} trajectories added: {report.folder.path}"]
    if n_unscored:
        lines.insert(0, f"{n_unscored} unscored: medeval run --output-dir {out} tries them again")
    click.echo("\n" + "\n".join(lines), err=True)
    ctx.exit(0 if report.is_complete else 1)
