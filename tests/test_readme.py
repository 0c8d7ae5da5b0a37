"""The README and the pages of docs/ name only commands, flags and figures that exist."""

import re
from pathlib import Path

import click
import pytest

from medeval.analysis.breakdowns import breakdowns
from medeval.analysis.process.tables import TABLES as PROCESS_TABLES
from medeval.cli import COMMANDS, group
from medeval.cli.analyze import TABLES
from medeval.data.benchmark import Benchmark
from medeval.evaluation.loader import shipped

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
TEXT = README + "".join(
    path.read_text(encoding="utf-8") for path in sorted((ROOT / "docs").glob("*.md"))
)
CONSOLE = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# `medeval ...` in running text, and each command of a console block
IN_TEXT = re.compile(r"`medeval ([^`]+)`")
IN_BLOCK = re.compile(r"^\$ medeval (.+?)(?: +#.*)?$", re.MULTILINE)


def commands() -> list[list[str]]:
    """The words of every medeval command in the README and in docs/."""
    blocks = "".join(CONSOLE.findall(TEXT)).replace("\\\n", " ")
    return [line.split() for line in [*IN_BLOCK.findall(blocks), *IN_TEXT.findall(TEXT)]]


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_a_command_of_the_readme_has_the_flags_it_is_given(words: list[str]) -> None:
    found = group.get_command(click.Context(group), words[0])
    assert found is not None, words[0]
    known = {name for parameter in found.params for name in parameter.opts}
    assert {word for word in words if word.startswith("--")} <= known


def test_every_command_is_mentioned() -> None:
    mentioned = {words[0] for words in commands()} | set(re.findall(r"`([a-z-]+)`", TEXT))
    assert set(COMMANDS) <= mentioned


def test_every_flag_in_the_text_is_one_of_run() -> None:
    run = group.get_command(click.Context(group), "run")
    assert run is not None
    known = {name for parameter in run.params for name in parameter.opts}
    text = IN_TEXT.sub("", CONSOLE.sub("", README))
    assert {name for name in re.findall(r"`(--[a-z-]+)", text)} <= known


def test_the_benchmarks_are_counted() -> None:
    assert f"\n{len(shipped(Benchmark))} benchmarks are shipped: " in README


def test_it_is_short() -> None:
    assert len(README.splitlines()) <= 150


def test_the_tables_of_a_run_folder_are_listed() -> None:
    text = (ROOT / "outputs/README.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"^\| `(\w+)", text, re.MULTILINE))
    assert {"summary", "disagreements", "noise_floor", "excluded"} <= listed
    assert {*TABLES, *PROCESS_TABLES, *breakdowns([])} <= listed
