"""`medeval score`: judge predictions from elsewhere, line by line."""

import json
from typing import IO, Any

import click

from medeval.cli.parsing import given_flags
from medeval.cli.plan_options import JUDGE_MODEL, plan_options


@click.command("score")
@click.argument("predictions", type=click.File("rb"), default="-")
@click.option(
    "--judge", required=True, metavar="JUDGE", help="The judge: a name, a path or a module."
)
@plan_options(*JUDGE_MODEL)
@click.pass_context
def score_command(ctx: click.Context, /, predictions: IO[bytes], judge: str, **_: Any) -> None:
    """Judge predictions that were made elsewhere, line by line.

    PREDICTIONS is a JSONL file, or stdin where it is `-` or left out. A line has `answer` (null
    where the model gave none) and the fields of a sample that the judge reads: `targets`,
    `question`, `options`, ... Verdict lines go to stdout.

    Exit codes: 0 every line is judged; 1 a line cannot be read, or the judge or its endpoint failed
    on one; 2 usage.
    """
    from medeval.data.lines import read_objects
    from medeval.evaluation.loader import load
    from medeval.evaluation.plan import judge_client, ready_judge
    from medeval.evaluation.plan_file import read_options
    from medeval.scoring.judge import Judge
    from medeval.scoring.predictions import score_lines

    named = {name: value for name, value in given_flags(ctx).items() if name.startswith("judge_")}
    options = read_options(None, named)
    client = judge_client(options)
    loaded = ready_judge(load(judge, Judge), client)
    lines = read_objects(predictions, skip_blank=False)
    scored = score_lines(lines, loaded, client=client, concurrency=options.judge_concurrency)
    n_lines = n_failed = 0
    for line in scored:
        n_lines += 1
        n_failed += line.judge_failed
        # ASCII only, since an answer may contain half of a surrogate pair
        click.echo(json.dumps(line.model_dump()))
    for note in () if client is None else client.notes():
        click.echo(note, err=True)
    if n_failed:
        what = f"the judge failed on {n_failed} of {n_lines} lines: see their reasons"
        click.echo(what, err=True)
    ctx.exit(1 if n_failed else 0)
