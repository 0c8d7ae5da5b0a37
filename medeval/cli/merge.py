"""`medeval merge`: run folders of shards or machines, joined into one."""

from pathlib import Path

import click


@click.command("merge")
@click.argument("out", type=click.Path(path_type=Path))
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="RUN...")
@click.pass_context
def merge_command(ctx: click.Context, /, out: Path, runs: tuple[Path, ...]) -> None:
    """Join run folders into the folder OUT, which may be there already.

    \b
    Four jobs of a scheduler, and then:
      medeval merge outputs/rl outputs/rl-shard-*

    Every cell must have been made with the same settings, and every sample from the same data;
    nothing is written otherwise. The same sample in two runs is refused unless both lines are
    equal. The same command again adds what is new, and OUT can be resumed, extended, graded and
    analysed as any run.

    Exit codes: 0 all is there; 1 refused, a shard is missing or something is unscored; 2 usage.
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
