"""Every command says what it does; the program starts at once; flags are read as they are meant."""

import signal
import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

import medeval
from medeval.cli import COMMANDS, group
from medeval.cli.parsing import CommaSeparated, KeyValues, given_flags
from tests.medeval_processes import MedevalMain
from tests.processes import ROOT, run_python, wait_for_line

Capture = pytest.CaptureFixture[str]


def test_help_lists_every_command_with_what_it_does(
    medeval_main: MedevalMain, capsys: Capture
) -> None:
    assert medeval_main("--help") == 0
    shown = capsys.readouterr()
    assert shown.out.startswith("Usage: medeval [OPTIONS] COMMAND [ARGS]...\n")
    for name, (_, text) in COMMANDS.items():
        assert f"  {name} " in shown.out
        assert text in shown.out
    assert shown.err == ""


@pytest.mark.parametrize("flag", ["--help", "-h"])
@pytest.mark.parametrize("command", COMMANDS)
def test_each_commands_help_names_each_of_its_options(
    medeval_main: MedevalMain, capsys: Capture, command: str, flag: str
) -> None:
    assert medeval_main(command, flag) == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"Usage: medeval {command} ")
    found = group.get_command(click.Context(group), command)
    assert found is not None
    assert found.help
    for parameter in found.params:
        if isinstance(parameter, click.Option):
            assert parameter.opts[0] in shown
            assert parameter.help, f"{command} {parameter.opts[0]} has no help"
            assert parameter.help.rstrip()[-1] in ".]", parameter.help


def test_without_a_command_the_help_is_shown_and_the_code_is_2(
    medeval_main: MedevalMain, capsys: Capture
) -> None:
    assert medeval_main() == 2
    assert "Commands:" in capsys.readouterr().err


def test_the_version_is_the_packages(medeval_main: MedevalMain, capsys: Capture) -> None:
    assert medeval_main("--version") == 0
    assert capsys.readouterr().out == f"medeval {medeval.__version__}\n"


HEAVY = "torch transformers pydantic pandas numpy datasets huggingface_hub openai PIL matplotlib"


@pytest.mark.parametrize("arguments", [["--help"], ["list"], ["list", "--json"], ["show", "vstar"]])
def test_a_quick_command_imports_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import sys\nfrom medeval.cli import main\n"
        "try:\n    main()\nexcept SystemExit as ended:\n    assert ended.code == 0, ended.code\n"
        "print('loaded:', *sorted(name for name in sys.modules if '.' not in name))\n"
    )
    loaded = run_python(code, *arguments).splitlines()[-1].split()[1:]
    assert set(loaded) & set(HEAVY.split()) == set()


def started(*arguments: str) -> subprocess.Popen[str]:
    """The program as a process whose stdin, stdout and stderr are pipes.

    It heeds Ctrl-C even where the tests run in a shell's background, which ignores that.
    """
    return subprocess.Popen(
        [sys.executable, "-m", "medeval", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def test_a_reader_that_stops_reading_ends_it_without_a_traceback() -> None:
    with started("list") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        errors = process.stderr.read()
    assert process.returncode == 1
    assert "Traceback" not in errors


def test_ctrl_c_ends_it_with_130_and_without_a_traceback() -> None:
    with started("score", "-", "--judge", "choice") as process:
        assert process.stdin is not None
        process.stdin.write('{"answer": "A", "targets": ["A"], "options": ["x", "y"]}\n')
        process.stdin.flush()
        wait_for_line(process)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Traceback" not in errors


def test_shells_complete_the_names_of_the_commands() -> None:
    assert group.list_commands(click.Context(group)) == list(COMMANDS)


@click.command()
@click.option("--names", multiple=True, type=CommaSeparated())
@click.option("--steps", type=CommaSeparated(click.INT))
@click.option("--arguments", type=KeyValues())
@click.option("--number", type=int, default=3)
@click.pass_context
def echo(ctx: click.Context, /, **_: object) -> None:
    click.echo(repr(given_flags(ctx)))


@pytest.mark.parametrize(
    ("arguments", "given"),
    [
        ([], {}),
        (["--number", "3"], {"number": 3}),
        (["--names", "a, b,,c", "--names", "d"], {"names": ("a", "b", "c", "d")}),
        (["--names", ""], {"names": ()}),
        (["--steps", "0,20"], {"steps": (0, 20)}),
        (["--arguments", "a=1,b=x,c=true,d=1.5,e=,f=p=q"],
         {"arguments": {"a": 1, "b": "x", "c": True, "d": 1.5, "e": "", "f": "p=q"}}),
        (["--arguments", ""], {"arguments": {}}),
        (["--arguments", '{"a": [1, 2], "b": {"c": 3}}'],
         {"arguments": {"a": [1, 2], "b": {"c": 3}}}),
    ],
)  # fmt: skip
def test_flags_are_read_and_only_the_given_ones_are_told(
    arguments: list[str], given: dict[str, object]
) -> None:
    assert CliRunner().invoke(echo, arguments).output == f"{given!r}\n"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--steps", "0,x"], "'x' is not a valid integer"),
        (["--arguments", "a"], "'a' is not k=v"),
        (["--arguments", '{"a": '], "is not a JSON object"),
    ],
)
def test_a_flag_that_cannot_be_read_is_named(arguments: list[str], told: str) -> None:
    result = CliRunner().invoke(echo, arguments)
    assert (result.exit_code, told in result.output) == (2, True)


def test_values_that_were_read_already_are_kept() -> None:
    assert CommaSeparated().convert(("a",), None, None) == ("a",)
    assert KeyValues().convert({"a": 1}, None, None) == {"a": 1}
