"""The file that the DocVQA and InfographicVQA challenges take."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

import medeval
from medeval.cli import group
from medeval.errors import RecordError, UsageError
from medeval.interop.submission import export_submissions, submission
from medeval.store.run_folder import CellKey, RunFolder
from tests.small_benchmark import scripted, write_benchmark, write_pair


def begun(folder: Path, name: str) -> RunFolder:
    """A run on three questions whose ids are numbers."""
    path = write_benchmark(folder, 3, name=name)
    text = path.read_text().replace('id=f"s{row.index % 1000:03d}"', "id=str(row.index + 100)")
    path.write_text(text)
    write_pair(folder)
    return medeval.run(
        model="m",
        benchmarks=path,
        pairs=folder / "small_pair.py",
        output_dir=folder / "run",
        open_model=scripted,
        defer_grading=True,
    ).folder


def test_a_cells_answers_are_written_in_the_order_of_its_questions(tmp_path: Path) -> None:
    folder = begun(tmp_path, "docvqa_test")
    key = CellKey("m", None, "docvqa_test", "free")
    answers = submission(folder, key)
    assert answers == [{"questionId": number, "answer": "A"} for number in (100, 101, 102)]
    names = ["docvqa_test.m.available.json", "docvqa_test.m.free.json"]
    written = export_submissions(folder, tmp_path / "out")
    assert [path.name for path in written] == names
    arguments = ["export", "--format", "submission", str(folder.path)]
    exported = CliRunner().invoke(group, [*arguments, "--output-dir", str(tmp_path / "again")])
    assert [Path(line).name for line in exported.stdout.splitlines()] == names
    assert json.loads(written[1].read_text()) == answers


def test_a_question_without_a_trajectory_is_refused(tmp_path: Path) -> None:
    folder = begun(tmp_path, "docvqa_test")
    with pytest.raises(RecordError, match="3 of 3 questions of 'docvqa_test' have no trajectory"):
        submission(folder, CellKey("m", None, "docvqa_test", "free"), repeat=1)


def test_another_benchmark_has_no_such_file(tmp_path: Path) -> None:
    folder = begun(tmp_path, "small")
    with pytest.raises(UsageError, match="no submission format for benchmark 'small'"):
        submission(folder, CellKey("m", None, "small", "free"))
    with pytest.raises(UsageError, match="no benchmark whose answers are submitted"):
        export_submissions(folder, tmp_path / "out")
