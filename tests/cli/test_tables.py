"""The table a run ends with says where a benchmark was not run as it was published."""

import html
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner

import medeval
from medeval.analysis.results import summarize_cells
from medeval.analysis.summary import CellSummary
from medeval.cli import group
from medeval.cli.tables.run import count_notes, summary_table
from medeval.store.run_folder import RunFolder
from tests.small_benchmark import scripted, write_benchmark, write_pair

MARK = "small: 4 rows, 1,000 published"
NOTE = f"* {MARK}: this is not the benchmark's score"


def begun(folder: Path, published: int) -> tuple[list[CellSummary], RunFolder]:
    path = write_benchmark(folder, 4, count=published)
    write_pair(folder)
    run = medeval.run(
        model="m",
        benchmarks=path,
        pairs=folder / "small_pair.py",
        output_dir=folder / "run",
        open_model=scripted,
        allow_count_mismatch=True,
    )
    return summarize_cells(run.folder, run.folder.cells()), run.folder


def test_a_short_data_set_is_marked_in_its_lines_and_told_below(tmp_path: Path) -> None:
    summaries, folder = begun(tmp_path, 1000)
    *lines, note = summary_table(summaries, folder.record()).splitlines()
    assert note == NOTE
    assert sum("small*" in line for line in lines) == len(summaries) == 2


def test_a_whole_data_set_is_not(tmp_path: Path) -> None:
    summaries, folder = begun(tmp_path, 4)
    assert "*" not in summary_table(summaries, folder.record())


def test_a_benchmark_that_is_not_shown_has_no_note(tmp_path: Path) -> None:
    _, folder = begun(tmp_path, 1000)
    assert count_notes(folder.record(), {"other"}) == []
    assert len(count_notes(folder.record(), {"small", "other"})) == 1


COMMANDS = {
    "analyze": ["analyze", "RUN", "--resamples", "50"],
    "leaderboard": ["leaderboard", "RUN"],
    "leaderboard in html": ["leaderboard", "RUN", "--format", "html"],
    "compare": ["compare", "RUN", "RUN"],
}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("published", [1000, 4])
def test_every_other_table_says_so_too(tmp_path: Path, command: str, published: int) -> None:
    begun(tmp_path, published)
    arguments = [str(tmp_path / "run") if part == "RUN" else part for part in COMMANDS[command]]
    result = CliRunner().invoke(group, arguments)
    assert result.exit_code == 0, result.output
    assert (MARK in html.unescape(result.stdout)) == (published == 1000)


def test_every_table_file_says_so_in_a_column(tmp_path: Path) -> None:
    _, folder = begun(tmp_path, 1000)
    CliRunner().invoke(group, ["analyze", str(folder.path), "--resamples", "50"])
    tables = {path.name: pd.read_csv(path) for path in folder.path.glob("tables/*.csv")}
    assert {"summary.csv", "measure.csv", "explain.csv", "diagnose.csv"} <= set(tables)
    assert all(MARK.endswith(str(table["rows"].iloc[0])[-9:]) for table in tables.values())
