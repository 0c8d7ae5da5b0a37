"""Merged shards have the records of one whole run, and none twice."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import medeval
from medeval.errors import RecordError, UsageError
from medeval.evaluation.merge import merge
from medeval.store.run_folder import RunFolder
from medeval.store.shards import Shard
from tests.evaluation.test_kill_and_resume import contents, lines
from tests.evaluation.test_run import Recorded
from tests.medeval_processes import MedevalMain
from tests.small_benchmark import play, scripted, write_benchmark, write_judge, write_pair

TIMES = ["seconds", "engine_seconds"]
RECORDS = (
    "samples/small.jsonl",
    "cells/*/*/*/*/trajectories.0.jsonl",
    "cells/*/*/*/*/verdicts.0.jsonl",
    "outcomes/*/*/*/*.jsonl",
)


def run(folder: Path, name: str, **options: Any) -> Path:
    values: dict[str, Any] = {
        "model": "m",
        "benchmarks": folder / "small.py",
        "pairs": folder / "small_pair.py",
        "open_model": scripted,
        **options,
    }
    return medeval.run(output_dir=folder / name, **values).folder.path


@pytest.fixture
def definitions(tmp_path: Path) -> Path:
    write_benchmark(tmp_path, 11)
    write_pair(tmp_path)
    return tmp_path


def shards(folder: Path, count: int = 3, **options: Any) -> list[Path]:
    return [
        run(folder, f"shard-{number}", shard=f"{number}/{count}", **options)
        for number in range(1, count + 1)
    ]


def everything(run: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(run)): path.read_bytes()
        for path in run.rglob("*")
        if path.is_file() and path.suffix != ".lock"
    }


def test_shards_merged_hold_what_one_run_holds(definitions: Path) -> None:
    local = run(definitions, "local", repeats=2, keep_images=5)
    parts = shards(definitions, repeats=2, keep_images=5)
    report = merge(definitions / "out", parts)
    assert (report.n_added, report.is_complete) == (44, True)
    for pattern in RECORDS:
        assert lines(report.folder.path, pattern) == lines(local, pattern), pattern
        assert lines(local, pattern)
    for pattern in ("tables/summary.csv", "tables/groups.csv"):
        # sums in another order differ in the last digit
        merged, alone = (
            pd.read_csv(folder / pattern).drop(columns=TIMES, errors="ignore")
            for folder in (report.folder.path, local)
        )
        pd.testing.assert_frame_equal(merged, alone)
    assert {path.name for path in (definitions / "out/images").iterdir()} == {
        path.name for path in (local / "images").iterdir()
    }
    before = everything(report.folder.path)
    assert merge(definitions / "out", parts).n_added == 0
    assert everything(report.folder.path) == before


def test_lines_are_copied_byte_for_byte_and_both_arms_of_a_sample_share_a_shard(
    definitions: Path,
) -> None:
    parts = shards(definitions)
    out = merge(definitions / "out", parts).folder.path
    for cell in ("free", "available"):
        pattern = f"cells/*/*/*/{cell}/trajectories.0.jsonl"
        copied = [line for part in parts for line in contents(part, pattern)]
        assert contents(out, pattern) == [b"".join(copied)]
    for part in parts:
        run_of = medeval.load_run(part)
        assert len(run_of.outcomes) == len(run_of.samples) >= 3
        assert run_of.summary.unscored.sum() == 0, "a shard lacks nothing of its own"


def test_a_run_merged_in_steps_tells_what_is_missing_and_then_is_complete(
    definitions: Path,
) -> None:
    first, second, third = shards(definitions)
    report = merge(definitions / "out", [first, third])
    assert not report.is_complete
    assert report.missing == [
        "m x small x available lacks shards 2/3",
        "m x small x free lacks shards 2/3",
    ]
    report = merge(definitions / "out", [second])
    assert (report.n_added, report.missing, report.is_complete) == (6 + 2, [], True)


def test_a_merged_run_is_resumed_and_extended_as_any_run(definitions: Path) -> None:
    merge(definitions / "out", shards(definitions)[:2])
    opened = Recorded()
    run(definitions, "out", open_model=opened)
    assert len(opened.requests) == 3 * 3
    assert medeval.load_run(definitions / "out").summary.unscored.sum() == 0
    assert len(medeval.load_run(definitions / "out").outcomes) == 11


def test_what_failed_in_a_shard_is_unscored_in_the_merged_run(definitions: Path) -> None:
    from medeval.errors import ModelError
    from medeval.models.base import Request
    from tests.small_benchmark import question_number

    def fails_once(request: Request) -> str:
        if question_number(request) == 1:
            raise ModelError("the server is gone")
        return play(request)

    parts = [
        run(definitions, "one", shard="1/2"),
        run(definitions, "two", shard="2/2", open_model=Recorded(fails_once)),
    ]
    report = merge(definitions / "out", parts)
    assert [summary.unscored for summary in report.summaries] == [1, 1]
    assert not report.is_complete
    assert merge(definitions / "out", parts).n_added == 0
    assert len(lines(definitions / "out", "cells/*/*/*/*/failures.jsonl")) == 2


@pytest.mark.parametrize(
    ("changes", "shown"),
    [
        ({"seed": 1}, "seed: recorded 0, now 1"),
        ({"temperature": 0.5}, "protocol.sampling.temperature: recorded 0, now 0.5"),
    ],
)
def test_runs_of_other_settings_are_refused_with_nothing_written(
    changes: dict[str, Any], shown: str, definitions: Path
) -> None:
    parts = [
        run(definitions, "one", shard="1/2"),
        run(definitions, "two", shard="2/2", **changes),
    ]
    with pytest.raises(RecordError, match=shown):
        merge(definitions / "out", parts)
    assert not (definitions / "out/run.json").exists()
    assert not (definitions / "out/cells").exists()


def test_another_judge_or_other_data_are_refused(definitions: Path) -> None:
    first = run(definitions, "one", shard="1/2")
    judge = write_judge(definitions, "other")
    second = run(definitions, "two", shard="2/2", judge=str(judge))
    with pytest.raises(RecordError, match="differ in the judge of 'small'"):
        merge(definitions / "out", [first, second])
    write_benchmark(definitions, 12)
    third = run(definitions, "three", shard="2/2")
    with pytest.raises(RecordError, match="differ in the count of 'small': 11 and 12"):
        merge(definitions / "out", [first, third])


def test_the_same_sample_run_twice_is_refused_unless_it_is_the_same_line(
    definitions: Path,
) -> None:
    first, again = run(definitions, "one"), run(definitions, "two")
    with pytest.raises(RecordError, match="have different records of"):
        merge(definitions / "out", [first, again])
    copy = definitions / "copy"
    merge(copy, [first])
    report = merge(definitions / "out", [first, copy, first])
    assert (report.n_added, report.is_complete) == (22, True)


def test_a_run_in_use_or_merged_into_itself_is_refused(definitions: Path) -> None:
    part = run(definitions, "one")
    with RunFolder(part).lock(), pytest.raises(RecordError, match="is in use by host"):
        merge(definitions / "out", [part])
    with pytest.raises(UsageError, match="both the folder to merge into and a run"):
        merge(part, [part])


def test_replies_of_judges_are_kept_once(definitions: Path) -> None:
    parts = shards(definitions, 2)
    for part, keys in zip(parts, (("a", "b"), ("b", "c")), strict=True):
        (part / "judge_replies.jsonl").write_text(
            "".join(json.dumps({"key": key}) + "\n" for key in keys)
        )
    merge(definitions / "out", parts)
    merge(definitions / "out", parts)
    replies = (definitions / "out/judge_replies.jsonl").read_text().splitlines()
    assert [json.loads(line)["key"] for line in replies] == ["a", "b", "c"]


def test_the_command_prints_the_table_and_exits_with_1_where_a_shard_is_missing(
    definitions: Path, medeval_main: MedevalMain, capsys: pytest.CaptureFixture[str]
) -> None:
    parts = shards(definitions, 2)
    assert medeval_main("merge", definitions / "out", parts[0]) == 1
    assert "lacks shards 2/2" in capsys.readouterr().err
    assert medeval_main("merge", definitions / "out", *parts) == 0
    seen = capsys.readouterr()
    assert "10 trajectories added" in seen.err
    assert "available" in seen.out


@pytest.mark.parametrize("text", ["0/4", "5/4", "2", "a/b", "1/0", "-1/4"])
def test_a_shard_that_is_none_is_refused(text: str, definitions: Path) -> None:
    with pytest.raises(UsageError, match="shard"):
        run(definitions, "one", shard=text)


@pytest.mark.parametrize("n", [1, 7, 100])
@pytest.mark.parametrize("count", [1, 3, 8])
def test_shards_deal_each_sample_once_and_evenly(n: int, count: int) -> None:
    dealt = [[p for p in range(n) if Shard(i + 1, count).holds(p)] for i in range(count)]
    assert sorted(position for part in dealt for position in part) == list(range(n))
    assert max(map(len, dealt)) - min(map(len, dealt)) <= 1
