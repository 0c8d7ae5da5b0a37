"""`medeval score`: predictions made elsewhere, judged line by line."""

import json
from collections.abc import Iterator
from typing import IO, Any

import click

from medeval.cli.judges import judge_options
from medeval.cli.parsing import given_flags


@click.command("score")
@click.argument("predictions", type=click.File("rb"), default="-")
@click.option("--judge", required=True, metavar="JUDGE", help="A judge's name, path or module.")
@judge_options
@click.pass_context
def score_command(ctx: click.Context, /, predictions: IO[bytes], judge: str, **_: Any) -> None:
    """Judge predictions that were made elsewhere, line by line.

    PREDICTIONS is a JSONL file, or stdin where it is `-` or left out. A line holds `answer`
    (null where the model gave none) and what the judge reads of a sample: `targets`, `question`,
    `options`, ... Verdict lines go to stdout.
    """
    from medeval.definitions import Judge
    from medeval.loader import load
    from medeval.plan import judge_client, read_options, ready_judge
    from medeval.scoring import score_lines

    named = {name: value for name, value in given_flags(ctx).items() if name.startswith("judge_")}
    options = read_options(None, named)
    client = judge_client(options)
    loaded = ready_judge(load(judge, Judge), client)
    scored = score_lines(
        _lines(predictions), loaded, client=client, places=options.judge_concurrency
    )
    for line in scored:
        # escaped, since an answer may hold half of a surrogate pair
        click.echo(json.dumps(line.model_dump()))
    for note in () if client is None else client.notes():
        click.echo(note, err=True)


def _lines(predictions: IO[bytes]) -> Iterator[dict[str, Any]]:
    from medeval.errors import DataError

    for number, text in enumerate(predictions, start=1):
        try:
            line = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise DataError(f"line {number} is not JSON: {error}") from error
        if not isinstance(line, dict):
            raise DataError(f"line {number} is not a JSON object")
        yield line
