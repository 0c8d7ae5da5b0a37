"""`medeval demo`: tiny checkpoints and a drawn benchmark, so that a whole sweep runs anywhere."""

from pathlib import Path

import click

EXPLANATION = """\
Three checkpoints of the Qwen2.5-VL architecture, 0.9 million parameters each:
  global_step_0   random weights: it writes noise
  global_step_10  the same model halfway through learning one transcript by heart
  global_step_20  it knows that transcript: with the tool on offer one crop and then an answer,
                  without it the answer at once, whatever the image shows
They see nothing, so their scores are those of a constant guess. What is real: the architecture,
the engine, the tool, the protocol and every record that is written."""


@click.command("demo")
@click.option(
    "--output-dir",
    type=click.Path(path_type=Path),
    default=Path("outputs/demo"),
    show_default=True,
    help="Gets checkpoints/ and run/.",
)
@click.option(
    "--limit",
    type=click.IntRange(1, 200),
    default=50,
    show_default=True,
    help="Samples a checkpoint and arm.",
)
@click.pass_context
def demo_command(ctx: click.Context, output_dir: Path, limit: int) -> None:
    """Build tiny checkpoints and evaluate them on images that medeval draws: no GPU, no network.

    Needs the transformers extra. The first time, training takes about a minute on one core.
    """
    from medeval.cli.run import run_and_report
    from medeval.demo.series import demo_checkpoints
    from medeval.plan import PlanFile, resolve
    from medeval.sweep import preview

    checkpoints = output_dir / "checkpoints"
    click.echo(EXPLANATION, err=True)
    click.echo(f"\nmaking the checkpoints in {checkpoints} (kept for the next time) ...", err=True)
    demo_checkpoints(checkpoints)
    options = PlanFile(
        checkpoints=(f"demo={checkpoints}",),
        benchmarks=("markers",),
        limit=limit,
        max_tokens=64,
        keep_images=5,
        output_dir=str(output_dir / "run"),
    )
    plan = resolve(options)
    if any(cell.refusal for cell in preview(plan)):
        click.echo("the run there was made with other settings: starting it anew", err=True)
        plan = resolve(options.model_copy(update={"fresh": True}))
    ctx.exit(run_and_report(plan))
