"""`medeval validate`: check the rows, images and targets of a benchmark."""

from typing import TYPE_CHECKING

import click

from medeval.cli.plan_options import plan_options

if TYPE_CHECKING:
    from medeval.evaluation.validate import Marks


@click.command("validate")
@click.argument("name")
@plan_options("data_dir", "limit")
@click.pass_context
def validate_command(
    ctx: click.Context, name: str, data_dir: tuple[str, ...], limit: int | None
) -> None:
    """Load a benchmark and check its count, ids, images and targets.

    Every image is decoded. Every target must be correct by the benchmark's own judge, and target
    boxes, lines and points must be inside the image. Problems go to stdout, one a line, and make
    the exit code 1.
    """
    from medeval.evaluation.plan import plan_benchmarks
    from medeval.evaluation.plan_file import PlanFile
    from medeval.evaluation.validate import Marks, find_problems

    options = PlanFile(benchmarks=(name,), data_dir=data_dir, limit=limit)
    planned = plan_benchmarks(options)[0]
    marks = Marks()
    samples, problems = find_problems(planned, options, marks)
    click.echo(f"{planned.name}: {samples.count} rows, {samples.origin.description}")
    n_problems = 0
    n_samples = n_checked = samples.count if limit is None else min(limit, samples.count)
    for problem in problems:
        n_problems += 1
        n_checked = n_checked if problem.n_checked is None else problem.n_checked
        click.echo(f"{problem.sample_id or 'all'}: {problem.what}")
    if marks.samples:
        click.echo(_marks_text(marks), err=True)
    click.echo(_closing_line(n_checked, n_samples, n_problems), err=True)
    ctx.exit(1 if n_problems else 0)


def _marks_text(marks: "Marks") -> str:
    counts = (("box", "es", marks.boxes), ("line", "s", marks.lines), ("point", "s", marks.points))
    counted = [f"{n} target {one}{'' if n == 1 else more}" for one, more, n in counts if n]
    return f"{', '.join(counted)} in {marks.samples} sample{'' if marks.samples == 1 else 's'}"


def _closing_line(n_checked: int, n_samples: int, n_problems: int) -> str:
    problems = "1 problem" if n_problems == 1 else f"{n_problems} problems"
    if n_checked < n_samples:
        return f"stopped after {n_checked} of {n_samples} samples, {problems}"
    return f"{n_samples} sample{'' if n_samples == 1 else 's'} checked, {problems}"
