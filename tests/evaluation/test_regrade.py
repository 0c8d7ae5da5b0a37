from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import medeval
from medeval.store.run_folder import RunFolder
from tests.medeval_processes import MedevalMain
from tests.small_benchmark import scripted, write_benchmark, write_judge, write_pair


def begun(folder: Path, n: int = 6, **changes: Any) -> Path:
    write_benchmark(folder, n)
    write_pair(folder)
    values: dict[str, Any] = {
        "model": "m",
        "benchmarks": folder / "small.py",
        "pairs": folder / "small_pair.py",
        "output_dir": folder / "run",
        "open_model": scripted,
        **changes,
    }
    run = medeval.run(**values)
    # a run is graded from its folder alone
    (folder / "small.py").unlink()
    (folder / "small_pair.py").unlink()
    return run.folder.path


def records(run: Path, *patterns: str) -> dict[str, list[str]]:
    return {
        str(path.relative_to(run)): sorted(path.read_text().splitlines())
        for pattern in patterns
        for path in run.glob(pattern)
    }


def test_deferred_grading_gives_the_verdicts_of_grading_at_once(
    tmp_path: Path, medeval_main: MedevalMain, capsys: pytest.CaptureFixture[str]
) -> None:
    now = begun(tmp_path, output_dir=tmp_path / "now")
    later = begun(tmp_path, output_dir=tmp_path / "later", defer_grading=True)
    assert medeval.load_run(later).verdicts.empty
    assert medeval.load_run(later).outcomes.empty
    (tmp_path / "judge_letter.py").unlink()

    assert medeval_main("grade", later) == 0
    assert "available" in capsys.readouterr().out
    kept = ("cells/**/verdicts.*.jsonl", "outcomes/**/*.jsonl")
    assert records(later, *kept) == records(now, *kept)
    summaries = [pd.read_csv(run / "tables/summary.csv") for run in (later, now)]
    one, other = (table.drop(columns=["seconds", "engine_seconds"]) for table in summaries)
    pd.testing.assert_frame_equal(one, other)


def test_another_judge_writes_outcomes_and_a_table_of_its_own(
    tmp_path: Path, medeval_main: MedevalMain, capsys: pytest.CaptureFixture[str]
) -> None:
    run = begun(tmp_path)
    before = records(run, "outcomes/**/*.jsonl", "tables/*")
    lenient = write_judge(tmp_path, "lenient", correct_at=0.0)
    assert medeval_main("grade", run, "--judge", lenient) == 0
    after = records(run, "outcomes/**/*.jsonl", "tables/*")
    assert {name: after[name] for name in before} == before
    assert len(after) == len(before) + 3, "outcomes, summary and groups"
    folder = RunFolder(run)
    (judge,) = {key.judge for key in folder.outcome_keys()} - {None}
    assert judge is not None
    assert judge.startswith("lenient#")
    outcomes = list(folder.outcomes("m", None, "small", "small_pair", judge))
    assert all(outcome.free_correct for outcome in outcomes)
    assert folder.record().judges["small"].startswith("letter#")
    assert "accuracy" in capsys.readouterr().out


def test_naming_the_runs_own_judge_fills_the_primary_outcomes(
    tmp_path: Path, medeval_main: MedevalMain
) -> None:
    run = begun(tmp_path, defer_grading=True)
    assert medeval_main("grade", run, "--judge", tmp_path / "judge_letter.py") == 0
    assert {key.judge for key in RunFolder(run).outcome_keys()} == {None}
    assert len(medeval.load_run(run).outcomes) == 6
    tables = {path.name for path in (run / "tables").iterdir()}
    assert tables == {"summary.csv", "groups.csv"}


def test_only_what_lacks_a_verdict_is_judged_unless_again(
    tmp_path: Path, medeval_main: MedevalMain
) -> None:
    run = begun(tmp_path, 2)

    def n_lines() -> int:
        return sum(len(lines) for lines in records(run, "cells/**/verdicts.*.jsonl").values())

    assert n_lines() == 4
    assert medeval_main("grade", run) == 0
    assert n_lines() == 4
    assert medeval_main("grade", run, "--again") == 0
    assert n_lines() == 8
    assert len(medeval.load_run(run).verdicts) == 4


def test_a_run_that_lost_its_judge_or_its_samples_is_refused(
    tmp_path: Path, medeval_main: MedevalMain, capsys: pytest.CaptureFixture[str]
) -> None:
    run = begun(tmp_path, defer_grading=True)
    judge = run / "definitions/judge-letter.py"
    kept = judge.read_bytes()
    judge.write_bytes(kept + b"# changed\n")
    assert medeval_main("grade", run) == 1
    assert "has no definition of its judge 'letter#" in capsys.readouterr().err
    judge.write_bytes(kept)

    samples = run / "samples/small.jsonl"
    first, _, rest = samples.read_bytes().partition(b"\n")
    samples.write_bytes(rest)
    assert medeval_main("grade", run) == 1
    assert "no such sample" in capsys.readouterr().err
    samples.write_bytes(first + b"\n" + rest)
    assert medeval_main("grade", run) == 0


def test_a_folder_that_is_no_run_or_in_use_is_refused(
    tmp_path: Path, medeval_main: MedevalMain, capsys: pytest.CaptureFixture[str]
) -> None:
    assert medeval_main("grade", tmp_path) == 1
    assert "is not a run folder" in capsys.readouterr().err
    run = begun(tmp_path)
    with RunFolder(run).lock():
        assert medeval_main("grade", run) == 1
    assert "is in use by host" in capsys.readouterr().err


def test_a_run_whose_judge_does_not_load_any_more_is_graded_by_a_named_one(
    tmp_path: Path, medeval_main: MedevalMain, capsys: pytest.CaptureFixture[str]
) -> None:
    run = begun(tmp_path, defer_grading=True)
    for copy in (run / "definitions").glob("judge-*.py"):
        copy.write_text("from medeval.module_of_an_older_version import grade\n")
    assert medeval_main("grade", run) == 1
    error = capsys.readouterr().err
    assert "this medeval cannot load the run's own judge 'letter'" in error
    assert "hint: name a judge to take its place" in error
    assert medeval_main("grade", run, "--judge", "exact_match") == 0
