"""The flags that name the model which judges ask, for every command that judges."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

from medeval.cli.parsing import KeyValues

Command = TypeVar("Command", bound=Callable[..., Any])

_OPTIONS = (
    click.option(
        "--judge-model",
        metavar="NAME",
        help="The model that judges ask: its name on a server, or [NAME=]DIR to be served here.",
    ),
    click.option(
        "--judge-base-url", metavar="URL", help="The OpenAI-compatible server of --judge-model."
    ),
    click.option(
        "--judge-backend",
        type=click.Choice(["openai", "vllm-server"]),
        help="vllm-server starts a vLLM server for --judge-model and ends it.  [default: openai]",
    ),
    click.option(
        "--judge-api-key-variable",
        metavar="VARIABLE",
        default="OPENAI_API_KEY",
        show_default=True,
        help="The environment variable with the key of that server.",
    ),
    click.option(
        "--judge-concurrency",
        type=click.IntRange(min=1),
        metavar="N",
        default=32,
        show_default=True,
        help="Calls to --judge-model under way at once.",
    ),
    click.option(
        "--judge-max-calls",
        type=click.IntRange(min=1),
        metavar="N",
        help="Calls to --judge-model after which answers are left unscored.",
    ),
    click.option(
        "--judge-args",
        type=KeyValues(),
        help="Arguments of that client, as max_retries=2,timeout_s=60, or of the server.",
    ),
)


def judge_options(command: Command) -> Command:
    """Add the flags to a command."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command
