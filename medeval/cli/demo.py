"""`medeval demo`: tiny checkpoints of a real training run, on a benchmark of drawn images."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from medeval.models.checkpoints import discover

if TYPE_CHECKING:
    import pandas as pd

    from medeval.analysis.report import Analysis

EXPLANATION = """\
A training run of a real architecture (Qwen2.5-VL, 1.1 million parameters), shipped with medeval.
The model first learned to name the colour inside a marker, without tools: step 0. Then it learned
to crop and zoom for markers that are too small to read. Every step is evaluated twice, without
and with the tool: the weights, the calls and the crops are real.
"""
# The first step, the step with the largest call harm, and the last.
FAST_STEPS = (0, 40, 760)
FAST_LIMIT = 40
FULL_LIMIT = 200
# A call takes 37 tokens, an answer 4.
MAX_TOKENS = 48
# The folder of the shipped checkpoints, each in the usual layout of Hugging Face.
SERIES_DIRECTORY: Final = Path(__file__).parents[1] / "demo" / "series"


@click.command("demo")
@click.option(
    "--output-dir",
    type=click.Path(path_type=Path),
    default=Path("outputs/demo"),
    show_default=True,
    help="The run folder; an existing one is resumed.",
)
@click.option("--fast", is_flag=True, help="Three steps on 40 samples: a look in 20 seconds.")
@click.pass_context
def demo_command(ctx: click.Context, output_dir: Path, fast: bool) -> None:
    """Evaluate the shipped checkpoints on images that medeval draws: no GPU, no network.

    Needs the transformers extra, and plot for the figures. Takes two to three
    minutes on two cores.
    """
    click.echo(EXPLANATION, err=True)
    code = _evaluate(output_dir, fast)
    if code == 0:
        _explain(output_dir)
    ctx.exit(code)


def _evaluate(output_dir: Path, fast: bool) -> int:
    from medeval.cli.run import run_and_report
    from medeval.evaluation.plan import resolve
    from medeval.evaluation.plan_file import PlanFile
    from medeval.evaluation.run import preview

    options = PlanFile(
        checkpoints=(f"demo={SERIES_DIRECTORY}",),
        steps=FAST_STEPS if fast else None,
        benchmarks=("markers",),
        limit=FAST_LIMIT if fast else FULL_LIMIT,
        max_tokens=MAX_TOKENS,
        keep_images=5,
        output_dir=str(output_dir),
    )
    plan = resolve(options)
    if any(cell.refusal for cell in preview(plan)):
        click.echo("the run in that folder was made with other settings: starting again", err=True)
        plan = resolve(options.model_copy(update={"fresh": True}))
    return run_and_report(plan)


def _explain(run: Path) -> None:
    """Print the terms, write the figures, and print what they show."""
    from medeval.analysis.report import analyze
    from medeval.cli.tables.analysis import analysis_text

    analysis = analyze(run)
    click.echo(f"\n{analysis_text({'explain': analysis.explain})}\n")
    for line in _draw(analysis, run):
        click.echo(line)
    click.echo()
    for line in story(analysis):
        click.echo(line)


def _draw(analysis: Any, run: Path) -> list[str]:
    """Write the figures; returns a line for each, or one line that says why there are none."""
    from importlib.util import find_spec

    from medeval.analysis.figures import figures, write_figure
    from medeval.store.run_folder import RunFolder

    if find_spec("matplotlib") is None:
        return ["no figures: they need matplotlib (pip install 'medeval[plot]')"]
    folder = RunFolder.open(run)
    return [
        f"{name.upper():10} {path}"
        for name, figure in figures(analysis, folder)
        for path in write_figure(figure, folder.path / "figures", name, ("png",))
    ]


def shipped_checkpoints() -> list[Path]:
    """The directories `global_step_*` of the shipped series, the baseline first."""
    return [Path(checkpoint.location) for checkpoint in discover(str(SERIES_DIRECTORY))]


def story(analysis: "Analysis") -> tuple[str, str]:
    """One sentence on the steps with the largest harms, and one on the gain at the last step."""
    explain, measure = analysis.explain, analysis.measure
    schema, call = _worst(explain, "schema_harm"), _worst(explain, "call_harm")
    harm = (
        f"Harm: at step {schema['step']} the mere sight of the tool's schema costs "
        f"{_points(schema, 'schema_harm')} (schema harm); at step {call['step']} calls whose crops "
        f"mislead cost {_points(call, 'call_harm')} (call harm)."
    )
    last, final = measure.iloc[-1], explain.iloc[-1]
    gain = (
        f"Gain: at step {last['step']} the model calls on {last['called']:.0%} of the samples, and "
        f"the tool is worth {_points(last, 'gap')}: {_points(final, 'call_gain')} won by calls, "
        f"{_points(final, 'call_harm')} lost by them."
    )
    return harm, gain


def _worst(explain: "pd.DataFrame", term: str) -> Any:
    return explain.sort_values(term, ascending=False, kind="stable").iloc[0]


def _points(row: Any, name: str) -> str:
    low, high = (100 * row[f"{name}_{end}"] for end in ("low", "high"))
    return f"{100 * row[name]:.1f} points [{low:.1f}, {high:.1f}]"
