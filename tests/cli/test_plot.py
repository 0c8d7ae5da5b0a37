"""`medeval plot`: the files it writes."""

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from medeval.cli import group
from medeval.errors import RecordError
from tests.analysis.outcome_lines import outcome, run_of


@pytest.fixture
def run(tmp_path: Path) -> Path:
    marks = ["110", "101", "011", "000"] * 4
    return run_of(
        tmp_path / "run",
        [
            outcome(f"s{number}", each, step=step)
            for step in (0, 10)
            for number, each in enumerate(marks[step // 10 :])
        ],
    ).path


def plot(run: Path, *arguments: object) -> Result:
    command = ["plot", str(run), "--resamples", "20", "--allow-missing", *map(str, arguments)]
    return CliRunner().invoke(group, command, catch_exceptions=False)


def test_every_figure_is_written_in_every_format_into_the_run(run: Path) -> None:
    result = plot(run)
    assert result.exit_code == 0
    written = [Path(line) for line in result.stdout.splitlines()]
    names = {"measure", "explain", "diagnose", "calls"}
    assert {path.name for path in written} == {
        f"{name}.{form}" for name in names for form in ("pdf", "svg", "png")
    }
    heads = {"pdf": b"%PDF", "svg": b"<?xml", "png": b"\x89PNG"}
    for path in written:
        assert path.parent == run / "figures"
        assert path.read_bytes().startswith(heads[path.suffix[1:]])


def test_one_format_goes_where_it_is_asked(run: Path, tmp_path: Path) -> None:
    result = plot(run, "--format", "svg", "--output-dir", tmp_path / "out", "--smooth", "3")
    assert len(result.stdout.splitlines()) == 4
    assert {path.suffix for path in (tmp_path / "out").iterdir()} == {".svg"}
    assert not (run / "figures").exists()


def test_missing_outcomes_are_refused_unless_allowed(run: Path) -> None:
    with pytest.raises(RecordError, match="lacks outcomes"):
        CliRunner().invoke(group, ["plot", str(run)], catch_exceptions=False)


@pytest.mark.parametrize("command", ["plot", "leaderboard", "compare"])
def test_the_commands_are_listed_and_explain_themselves(command: str) -> None:
    assert command in CliRunner().invoke(group, ["--help"]).stdout
    shown = CliRunner().invoke(group, [command, "--help"])
    assert shown.exit_code == 0
    assert "Usage:" in shown.stdout
