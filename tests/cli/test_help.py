"""Every command says what it does; the program starts at once; flags are read as they are meant."""

import re
import signal
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

import medeval
from medeval.cli import COMMANDS, group
from medeval.cli.parsing import CommaSeparated, KeyValues, ParamType, given_flags
from medeval.cli.run import run_command
from medeval.evaluation.plan_file import Flag, PlanFile
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


def test_run_has_a_flag_for_every_option_of_a_plan_shown_in_its_group(
    medeval_main: MedevalMain, capsys: Capture
) -> None:
    assert medeval_main("run", "--help") == 0
    _, *sections = re.split(r"^(\w+):$", capsys.readouterr().out, flags=re.MULTILINE)
    shown = dict(zip(sections[::2], sections[1::2], strict=True))
    assert list(shown) == ["Models", "Data", "Protocol", "Engine", "Judging", "Run"]
    for name, field in PlanFile.model_fields.items():
        (flag,) = (item for item in field.metadata if isinstance(item, Flag))
        assert f"--{name.replace('_', '-')}" in shown[flag.group]
    assert {flag for flag in ("--plan", "--dry-run", "--help") if flag in shown["Run"]} == {
        "--plan", "--dry-run", "--help",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "type_", "multiple", "default"),
    [
        ("checkpoints", click.STRING, True, None),
        ("benchmarks", CommaSeparated(), True, None),
        ("steps", CommaSeparated(click.INT), False, None),
        ("model_args", KeyValues(), False, None),
        ("backend", click.Choice(("transformers", "vllm", "vllm-server", "openai")), False, None),
        ("limit", click.IntRange(min=1), False, None),
        ("repeats", click.IntRange(min=1), False, 1),
        ("seed", click.INT, False, 0),
        ("temperature", click.FloatRange(min=0), False, None),
        ("time_limit", click.FloatRange(min=0, min_open=True), False, None),
        ("judge_api_key_variable", click.STRING, False, "OPENAI_API_KEY"),
        ("shard", click.STRING, False, None),
        ("fresh", click.BOOL, False, False),
    ],
)
def test_a_flag_reads_values_as_its_field_has_them(
    name: str, type_: ParamType, multiple: bool, default: object
) -> None:
    (flag,) = (parameter for parameter in run_command.params if parameter.name == name)
    assert flag.type.to_info_dict() == type_.to_info_dict()
    assert (flag.multiple, flag.to_info_dict()["default"]) == (multiple, default)


def test_underscores_in_a_flag_are_read_as_dashes_and_values_stay_as_they_are(
    medeval_main: MedevalMain, capsys: Capture, tmp_path: Path
) -> None:
    assert medeval_main("export", tmp_path / "a_b", "--format=med", "--output_dir", "x") == 1
    assert f"'{tmp_path / 'a_b'}' is not a run folder" in capsys.readouterr().err
    assert medeval_main("run", "--dry_run", "--base_url", "u") == 2
    assert "no benchmark to run" in capsys.readouterr().err
    assert medeval_main("show", "tool_free", "--question", "--a_b c_d") == 0
    assert "--a_b c_d" in capsys.readouterr().out


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
