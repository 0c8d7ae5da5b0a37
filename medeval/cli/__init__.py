"""The command line: data goes to stdout, messages for people to stderr.

Each command lives in a module of its own that is imported when the command is used.
"""

import logging
import os
import sys
from importlib import import_module

import click

from medeval import __version__
from medeval.errors import DefinitionError, MedevalError, UsageError

COMMANDS = {
    "run": ("medeval.cli.run", "Evaluate checkpoints on benchmarks, without and with tools."),
    "merge": ("medeval.cli.merge", "Join the run folders of shards into one."),
    "grade": ("medeval.cli.grade", "Judge a run's answers again, from its folder alone."),
    "score": ("medeval.cli.score", "Judge predictions that were made elsewhere."),
    "import-med": ("medeval.cli.import_med", "Read MED's published logs into a run folder."),
    "export": ("medeval.cli.export", "Write a run for MED's scripts, inspect view or lmms-eval."),
    "analyze": ("medeval.cli.analyze", "Measure, explain and diagnose what the tools do."),
    "plot": ("medeval.cli.plot", "Draw the figures of a run: PDF, SVG and PNG."),
    "leaderboard": (
        "medeval.cli.leaderboard",
        "Rank checkpoints and models by benchmark.",
    ),
    "compare": ("medeval.cli.compare", "Compare two checkpoints, sample by sample."),
    "list": ("medeval.cli.show", "List the benchmarks, protocols, pairs and judges."),
    "show": ("medeval.cli.show", "Show a definition, and what a model would read."),
    "replay": ("medeval.cli.replay", "Read recorded conversations as a protocol would."),
    "fetch": ("medeval.cli.fetch", "Download benchmarks, for machines without a network."),
    "validate": ("medeval.cli.validate", "Load a benchmark; check its rows, images and targets."),
    "demo": ("medeval.cli.demo", "Evaluate the shipped tiny checkpoints: no GPU, no network."),
}


class LazyGroup(click.Group):
    """A group with the names and help of its commands, which imports a command only to run it."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names of the commands, in the order of COMMANDS."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return a command; None where there is no such name."""
        if cmd_name not in COMMANDS:
            return None
        module, _ = COMMANDS[cmd_name]
        attribute = f"{cmd_name.replace('-', '_')}_command"
        command = getattr(import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the table of commands without importing any."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.command(
    cls=LazyGroup,
    context_settings={
        "help_option_names": ["-h", "--help"],
        "max_content_width": 100,
        # --output_dir is --output-dir
        "token_normalize_func": lambda name: name.replace("_", "-"),
    },
)
@click.version_option(__version__, message="medeval %(version)s")
@click.option("--verbose", is_flag=True, help="Write more messages to stderr.")
@click.pass_context
def group(ctx: click.Context, verbose: bool) -> None:
    """Evaluate vision-language models twice: without and with their visual tools."""
    if os.environ.get("NO_COLOR"):
        ctx.color = False
    logging.basicConfig(
        level=logging.INFO if verbose else logging.WARNING,
        format="%(levelname)s: %(message)s",
        stream=sys.stderr,
    )
    # it logs a line for each request
    logging.getLogger("httpx2").setLevel(logging.WARNING)


def main() -> None:
    """Run the command line. A user's mistake shows a message, never a traceback.

    click raises Abort for Ctrl-C, and exits with 1 where the reader of stdout has ended.
    """
    try:
        sys.exit(group.main(prog_name="medeval", standalone_mode=False) or 0)
    except click.exceptions.Abort:
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except MedevalError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(2 if isinstance(error, UsageError | DefinitionError) else 1)
