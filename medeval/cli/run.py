"""`medeval run`: a plan from flags or a file, carried out and summed up."""

from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import click

from medeval.cli.judge_options import judge_options
from medeval.cli.parsing import CommaSeparated, KeyValues, given_flags

NAMES = CommaSeparated()


@click.command("run")
@click.option(
    "--plan",
    type=click.Path(path_type=Path),
    help="A TOML file with these options; flags win over it.",
)
@click.option(
    "--checkpoints",
    multiple=True,
    metavar="[NAME=]DIR",
    help="A series: a folder of global_step_N or checkpoint-N; or one model's folder. Repeatable.",
)
@click.option(
    "--model",
    multiple=True,
    metavar="[NAME=]MODEL",
    help="A single model: a folder, or the name a server knows it by. Repeatable.",
)
@click.option(
    "--baseline",
    metavar="MODEL",
    help="Step 0 of every series, evaluated once: a folder, or the name a server knows it by.",
)
@click.option("--steps", type=CommaSeparated(click.INT), help="Only these steps of each series.")
@click.option(
    "--processor",
    metavar="DIR",
    help="Tokenizer, template and image processor, where they are not beside the weights.",
)
@click.option(
    "--backend",
    type=click.Choice(["transformers", "vllm", "vllm-server", "openai"]),
    help="The engine; openai where --base-url is given, else transformers. vllm runs in this "
    "process, vllm-server starts a server; both take one checkpoint's weights after the other.",
)
@click.option(
    "--model-args",
    type=KeyValues(),
    help="Arguments of the engine, as dtype=bfloat16,max_batch_size=8.",
)
@click.option(
    "--base-url",
    metavar="URL[,URL...]",
    help="An OpenAI-compatible server, or several that serve the same model: each request goes to "
    "the one with the fewest in flight.",
)
@click.option(
    "--benchmarks",
    "--tasks",
    multiple=True,
    type=NAMES,
    help="Benchmarks: names, paths or modules.",
)
@click.option(
    "--data-dir",
    multiple=True,
    metavar="[NAME=]DIR",
    help="A benchmark's rows from a local folder. Repeatable.",
)
@click.option(
    "--pairs", multiple=True, type=NAMES, help="Pairs of protocols.  [default: crop_zoom]"
)
@click.option("--protocols", multiple=True, type=NAMES, help="Single protocols instead of pairs.")
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    metavar="N",
    help="Only the first N samples of each benchmark.",
)
@click.option("--sample-id", multiple=True, type=NAMES, help="Only these samples.")
@click.option(
    "--shard",
    metavar="I/N",
    help="Only the Ith of N parts of each benchmark's samples, for a run folder of its own; "
    "medeval merge joins them.",
)
@click.option(
    "--allow-count-mismatch",
    is_flag=True,
    help="Run a data set that is shorter or longer than published.",
)
@click.option(
    "--cluster",
    type=click.Choice(["ray"]),
    help="Deal checkpoints and parts of them out to workers on the Ray cluster that RAY_ADDRESS "
    "names, or on this machine; all they make is streamed into the one run folder.",
)
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    metavar="N",
    help="Processes on this machine, each with an engine of its own; checkpoints are dealt out "
    "to them.",
)
@click.option(
    "--gpus-per-worker",
    type=click.IntRange(min=1),
    metavar="K",
    help="GPUs of each worker, from CUDA_VISIBLE_DEVICES or all of the machine's.  "
    "[default: 1, where it has any]",
)
@click.option(
    "--concurrency",
    type=click.IntRange(min=1),
    metavar="N",
    help="Samples in flight at once; in each worker, where there are several. A server that has "
    "too many is sent fewer at once until it takes them again.  [default: 32 for a server by its "
    "address, 96 for transformers, 256 for vLLM]",
)
@click.option(
    "--repeats",
    type=click.IntRange(min=1),
    metavar="N",
    default=1,
    show_default=True,
    help="Trajectories for each sample and arm (Avg@k).",
)
@click.option(
    "--seed",
    type=int,
    metavar="N",
    default=0,
    show_default=True,
    help="Seed of the run; each request's seed comes from it.",
)
@click.option(
    "--temperature",
    type=click.FloatRange(min=0),
    metavar="T",
    help="In place of the protocol's, in both arms.",
)
@click.option(
    "--max-tokens",
    type=click.IntRange(min=1),
    metavar="N",
    help="Tokens a turn, in place of the protocol's, in both arms.",
)
@click.option(
    "--judge",
    multiple=True,
    type=NAMES,
    metavar="[NAME=]JUDGE,...",
    help="Judges in place of the benchmarks' own, or of benchmark NAME's; the first is primary.",
)
@judge_options
@click.option(
    "--defer-grading", is_flag=True, help="Only make trajectories; medeval grade judges them later."
)
@click.option(
    "--max-unscored",
    type=click.IntRange(min=0),
    metavar="N",
    default=0,
    show_default=True,
    help="Exit with 1 where more samples are left unscored.",
)
@click.option(
    "--time-limit",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    help="Finish what is in flight and exit with 3 after this long.",
)
@click.option(
    "--output-dir",
    metavar="DIR",
    help="The run folder; an existing one is resumed or extended.  [default: outputs/<series>]",
)
@click.option("--fresh", is_flag=True, help="Delete the plan's cells in the run folder first.")
@click.option(
    "--keep-images",
    type=click.IntRange(min=-1),
    metavar="N",
    default=0,
    show_default=True,
    help="Keep tool-made images of the first N samples; -1 keeps all.",
)
@click.option(
    "--dry-run",
    is_flag=True,
    help="Show the cells, what is done and what the rest will take, and stop.",
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

    The same command again resumes. Exit codes: 0 complete; 1 a cell stopped, or more unscored
    than --max-unscored; 2 usage; 3 ended by SIGTERM or --time-limit; 130 by Ctrl-C.
    """  # noqa: D301 - click reads the backspace, and a raw text would not hold one
    from medeval.evaluation.plan import read_options, resolve

    flags = given_flags(ctx)
    flags.pop("plan", None)
    flags.pop("dry_run", None)
    resolved = resolve(read_options(plan, flags))
    if dry_run:
        from medeval.cli.tables.run import plan_table
        from medeval.evaluation.run import preview

        click.echo(plan_table(preview(resolved)))
        return
    ctx.exit(run_and_report(resolved))


def run_and_report(resolved: Any) -> int:
    """Carry a resolved plan out, print its table, and return the exit code."""
    from medeval.cli.progress import ProgressBar
    from medeval.cli.tables.run import summary_table
    from medeval.evaluation.engines import model_opener
    from medeval.evaluation.interrupt import ending_at_sigterm
    from medeval.evaluation.run import carry_out

    with ExitStack() as stack:
        stack.enter_context(ending_at_sigterm(3, ProgressBar.tell))
        report = carry_out(
            resolved,
            model_opener(resolved),
            lambda n_missing: stack.enter_context(closing(ProgressBar(n_missing))),
        )
    click.echo(summary_table(report.summaries, report.folder.record()))
    click.echo(f"\n{report.closing_words}", err=True)
    return report.exit_code
