import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import medeval
from medeval.analysis.results import summarize_cells, write_results
from medeval.errors import RecordError
from medeval.store.run_folder import RunFolder
from tests.small_benchmark import scripted, write_benchmark, write_judge, write_pair


def run(folder: Path, **changes: Any) -> RunFolder:
    values: dict[str, Any] = {
        "model": "m",
        "benchmarks": folder / "small.py",
        "pairs": folder / "small_pair.py",
        "output_dir": folder / "run",
        "open_model": scripted,
        **changes,
    }
    return medeval.run(**values).folder


def begun(folder: Path, n: int = 8, **changes: Any) -> RunFolder:
    write_benchmark(folder, n)
    write_pair(folder)
    return run(folder, **changes)


def table(folder: RunFolder, name: str = "summary.csv") -> list[dict[str, str]]:
    with (folder.path / "tables" / name).open() as file:
        return list(csv.DictReader(file))


def test_a_summary_as_computed_by_hand(tmp_path: Path) -> None:
    """Without tools the answer is A, right for s000 and s004; with tools it is always right."""
    free, available = table(begun(tmp_path))
    assert (free["checkpoint"], free["protocol"], free["n"]) == ("m", "free", "8")
    assert float(free["score"]) == 0.25
    # Clopper and Pearson for 2 of 8, and for 8 of 8
    assert float(free["score_low"]) == pytest.approx(0.0319, abs=1e-4)
    assert float(free["score_high"]) == pytest.approx(0.6509, abs=1e-4)
    assert float(available["score"]) == 1.0
    assert float(available["score_low"]) == pytest.approx(0.025 ** (1 / 8))
    assert (float(free["called"]), float(available["called"])) == (0.0, 1.0)
    assert (free["step"], free["undecided"], free["unscored"]) == ("", "0", "0")


def test_repeats_of_a_sample_are_one_cluster(tmp_path: Path) -> None:
    once = table(begun(tmp_path, output_dir=tmp_path / "once"))
    thrice = table(begun(tmp_path, output_dir=tmp_path / "thrice", repeats=3))
    assert [row["n"] for row in thrice] == ["24", "24"]
    for name in ("score", "score_low", "score_high"):
        assert [float(row[name]) for row in thrice] == pytest.approx(
            [float(row[name]) for row in once]
        )


def test_outcomes_say_what_each_arm_did(tmp_path: Path) -> None:
    folder = begun(tmp_path)
    found = list(folder.outcomes("m", None, "small", "small_pair"))
    assert [outcome.sample_id for outcome in found] == [f"s00{n}" for n in range(8)]
    assert [outcome.free_correct for outcome in found] == [True, False, False, False] * 2
    assert all(outcome.available_correct for outcome in found)
    second = found[1]
    assert (second.free_answer, second.available_answer, second.targets) == ("A", "B", ("B",))
    assert (second.called, second.calls_executed, second.calls_observed) == (True, 1, 1)
    assert second.groups == {"half": "first"}


def test_results_are_rebuilt_from_the_records_alone(tmp_path: Path) -> None:
    folder = begun(tmp_path)
    files = [next((folder.path / "outcomes").rglob("*.jsonl")), folder.path / "tables/summary.csv"]
    before = [path.read_bytes() for path in files]
    for path in files:
        path.unlink()
    assert write_results(folder, folder.cells()) == summarize_cells(folder, folder.cells())
    assert [path.read_bytes() for path in files] == before


def test_each_cell_is_measured_by_the_repeats_asked_of_it(tmp_path: Path) -> None:
    more = write_benchmark(tmp_path, 3, name="more")
    begun(tmp_path, limit=2, repeats=3, benchmarks=more)
    folder = run(tmp_path, limit=2)
    assert {row["benchmark"]: row["unscored"] for row in table(folder)} == {
        "more": "0",
        "small": "0",
    }
    summaries = summarize_cells(folder, folder.cells())
    assert {(s.benchmark, s.score.n, s.unscored) for s in summaries} == {
        ("more", 6, 0),
        ("small", 2, 0),
    }


def test_a_judges_own_outcomes_carry_its_name(tmp_path: Path) -> None:
    lenient = write_judge(tmp_path, "lenient", correct_at=0.0)
    folder = begun(tmp_path, judge=[tmp_path / "judge_letter.py", lenient])
    record = folder.record()
    primary = record.judges["small"]
    (other,) = set(record.metrics) - {primary}
    assert (primary.split("#")[0], other.split("#")[0]) == ("letter", "lenient")
    write_results(folder, folder.cells(), judge=other)
    by_judge = {key.judge for key in folder.outcome_keys()}
    assert by_judge == {None, other}
    first, second = (
        list(folder.outcomes("m", None, "small", "small_pair", judge)) for judge in (None, other)
    )
    assert [outcome.free_correct for outcome in first] == [True, False, False, False] * 2
    assert [outcome.free_correct for outcome in second] == [True] * 8
    assert {outcome.judge for outcome in second} == {other}


def test_a_benchmark_without_a_judge_in_its_record_is_refused(tmp_path: Path) -> None:
    folder = begun(tmp_path)
    folder.write_record(replace(folder.record(), judges={}))
    with pytest.raises(RecordError, match="names no judge for benchmark 'small'"):
        write_results(folder, folder.cells())
