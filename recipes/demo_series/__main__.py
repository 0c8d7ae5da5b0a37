"""`python -m recipes.demo_series DIR`: trains the series that `medeval demo` evaluates."""

from pathlib import Path

import click

from recipes.demo_series.training import Progress, Recipe, train_series

REPORT_EVERY_STEPS = 20


@click.command("demo_series")
@click.argument("directory", type=click.Path(path_type=Path, file_okay=False))
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of weights and order.")
def train(directory: Path, seed: int) -> None:
    """Train the demo's checkpoints into DIRECTORY, in fifteen minutes on one core."""
    if directory.is_dir() and any(directory.glob("global_step_*")):
        raise click.UsageError(f"{str(directory)!r} holds checkpoints; give an empty directory")
    losses: list[float] = []

    def report(progress: Progress) -> None:
        losses.append(progress.loss)
        if progress.step % REPORT_EVERY_STEPS == 0 or progress.step == progress.steps:
            mean = sum(losses) / len(losses)
            losses.clear()
            stage = f"{progress.stage} {progress.step}/{progress.steps}"
            click.echo(f"{stage}: mean loss {mean:.3f}", err=True)

    click.echo("drawing the training scenes ...", err=True)
    for path in train_series(directory, Recipe(seed=seed), report):
        click.echo(path)


if __name__ == "__main__":
    train()
