"""The table a run ends with says where a benchmark was not run as it was published."""

from pathlib import Path

import medeval
from medeval.analysis.summary import CellSummary
from medeval.cli.tables import count_notes, summary_table
from medeval.results import summarize_cells
from medeval.store import RunFolder
from tests.small_benchmark import scripted, write_benchmark, write_pair


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
    assert note == ("* small: 4 rows here, 1,000 were published: this is not the benchmark's score")
    assert sum("small*" in line for line in lines) == len(summaries) == 2


def test_a_whole_data_set_is_not(tmp_path: Path) -> None:
    summaries, folder = begun(tmp_path, 4)
    assert "*" not in summary_table(summaries, folder.record())


def test_a_benchmark_that_is_not_shown_has_no_note(tmp_path: Path) -> None:
    _, folder = begun(tmp_path, 1000)
    assert count_notes(folder.record(), {"other"}) == []
    assert len(count_notes(folder.record(), {"small", "other"})) == 1
