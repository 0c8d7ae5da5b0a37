"""`medeval run`: a plan from flags or a file, carried out and summed up."""

import sys
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import click
from tqdm import tqdm

from medeval.cli.parsing import given_flags
from medeval.cli.plan_options import GroupedCommand, plan_options


@click.command("run", cls=GroupedCommand)
@plan_options()
@click.option(
    "--plan",
    type=click.Path(path_type=Path),
    help="A TOML file with these options; flags win over it.",
)
@click.option(
    "--dry-run",
    is_flag=True,
    help="Show each cell, what of it is done and what the rest will cost, and stop.",
)
@click.pass_context
def run_command(ctx: click.Context, /, plan: Path | None, dry_run: bool, **_: Any) -> None:
    """Evaluate checkpoints on benchmarks, without and with tools.

    \b
    A series of checkpoints on two benchmarks; models are folders:
      medeval run --checkpoints runs/crop_rl --baseline models/Qwen2.5-VL-7B \\
                  --benchmarks vstar,chartqa
    A model behind a server:
      medeval run --model my-model --base-url http://127.0.0.1:8000 \\
                  --benchmarks vstar

    A training run while it goes on; each new step is evaluated once it is written:
      medeval run --checkpoints runs/crop_rl --benchmarks vstar --watch

    To resume a run, give the same command again.

    \b
    Exit codes:
      0    complete
      1    a cell stopped, or more samples are unscored than --max-unscored
      2    wrong usage
      3    ended early by SIGTERM or --time-limit
      130  ended early by Ctrl-C
    """  # noqa: D301 - click reads the backspace, and a raw text would not hold one
    from medeval.evaluation.plan import resolve
    from medeval.evaluation.plan_file import read_options

    flags = given_flags(ctx)
    flags.pop("plan", None)
    flags.pop("dry_run", None)
    resolved = resolve(read_options(plan, flags))
    if dry_run or not resolved.options.watch:
        for note in resolved.notes:
            click.echo(note, err=True)
    if dry_run:
        from medeval.cli.tables.run import plan_table
        from medeval.evaluation.misfits import refuse_misfits
        from medeval.evaluation.run import preview

        cells = preview(resolved)
        click.echo(plan_table(cells))
        refuse_misfits({cell.key: cell.misfit for cell in cells if cell.misfit is not None})
        return
    ctx.exit(run_and_report(resolved))


def run_and_report(resolved: Any) -> int:
    """Carry a resolved plan out, print its table, and return the exit code."""
    from medeval.cli.tables.run import summary_table
    from medeval.evaluation.interrupt import Interrupt, ending_at_sigterm
    from medeval.evaluation.watch import watch

    with ending_at_sigterm(3, ProgressBar.tell):
        interrupt = Interrupt()
        if resolved.options.watch:
            report = watch(resolved, _evaluate_and_show, interrupt, ProgressBar.tell)
        else:
            report = _evaluate(resolved, interrupt)
    if report.summaries:
        click.echo(summary_table(report.summaries, report.folder.record()))
    click.echo(f"\n{report.closing_words}", err=True)
    return report.exit_code


def _evaluate(resolved: Any, interrupt: Any) -> Any:
    """Carry a plan out below a progress bar; returns its report."""
    from medeval.evaluation.engines import model_opener
    from medeval.evaluation.run import carry_out

    with ExitStack() as stack:
        return carry_out(
            resolved,
            model_opener(resolved),
            lambda n_missing: stack.enter_context(closing(ProgressBar(n_missing))),
            interrupt,
        )


def _evaluate_and_show(resolved: Any, interrupt: Any) -> Any:
    """Carry a plan out and print its table to stderr, as stdout gets the table of all steps."""
    from medeval.cli.tables.run import summary_table

    report = _evaluate(resolved, interrupt)
    click.echo(f"\n{summary_table(report.summaries, report.folder.record())}\n", err=True)
    return report


class ProgressBar:
    """A bar with rate and time left; where stderr is no terminal, a line every ten seconds.

    Nothing is shown where no trajectory is missing.
    """

    def __init__(self, n_missing: int) -> None:
        is_terminal = sys.stderr.isatty()
        self._unscored = 0
        self._bar = tqdm(
            total=n_missing,
            disable=n_missing == 0,
            unit=" samples",
            file=sys.stderr,
            dynamic_ncols=is_terminal,
            mininterval=0.1 if is_terminal else 10.0,
            ascii=None if is_terminal else " -#",
            # samples end in bursts: a mean over more of them keeps the time left steady
            smoothing=0.05,
        )

    def advance(self, *, scored: bool) -> None:
        """Move the bar by one trajectory, and count it where it is left unscored."""
        if not scored:
            self._unscored += 1
            self._bar.set_postfix_str(f"{self._unscored} unscored", refresh=False)
        self._bar.update()

    @staticmethod
    def tell(message: str) -> None:
        """Print a message above the bar, if there is one."""
        tqdm.write(message, file=sys.stderr)

    def close(self) -> None:
        """Leave the bar as it is."""
        self._bar.close()
