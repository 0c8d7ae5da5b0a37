"""Broken and incomplete input: a clear error or a marked gap, never a silent zero."""

from dataclasses import asdict
from pathlib import Path

import pandas as pd
import pytest

from medeval.analysis.med.curves import MEAN
from medeval.analysis.med.read import read_run
from medeval.analysis.report import Analysis, analyze
from medeval.errors import RecordError, UsageError
from medeval.store.run_folder import CellKey, RunFolder
from medeval.types.outcome import OutcomeRecord
from medeval.types.run import Metric, RunRecord
from tests.analysis.outcome_lines import JUDGE, outcome, run_of, sample_record

LINES = {"a": "010", "b": "111", "c": "100", "d": "011"}


def checkpoint(step: int | None, benchmark: str = "small") -> list[OutcomeRecord]:
    return [
        outcome(name, verdicts, step=step, benchmark=benchmark) for name, verdicts in LINES.items()
    ]


def claim(folder: RunFolder, step: int, benchmark: str, arm: str, **fields: object) -> None:
    cell = folder.cell(CellKey("rl", step, benchmark, arm))
    cell.claim({"model": {"id": step}, "protocol": {"name": arm}, "seed": 0, **fields}, {})


def small(folder: RunFolder, **options: object) -> Analysis:
    return analyze(folder.path, resamples=20, **options)  # type: ignore[arg-type]


def test_a_whole_run_is_measured(tmp_path: Path) -> None:
    found = small(run_of(tmp_path, checkpoint(0) + checkpoint(10))).measure

    assert found[["step", "n", "free", "available", "called"]].to_numpy().tolist() == [
        [0, 4, 0.5, 0.75, 0.5],
        [10, 4, 0.5, 0.75, 0.5],
    ]
    assert set(found["missing"]) == {"none"}
    assert set(found["pairing"]) == {"id"}


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    folder = run_of(tmp_path, checkpoint(0) + checkpoint(10))
    path = folder.path / "outcomes/rl/10/small/crop_zoom.jsonl"
    path.write_bytes(path.read_bytes()[:-40])

    with pytest.raises(RecordError, match=r"crop_zoom.jsonl, line 4: the file ends in the middle"):
        small(folder, allow_missing=True)


def test_duplicate_ids_are_refused_by_name(tmp_path: Path) -> None:
    folder = run_of(tmp_path, [*checkpoint(0), outcome("b", "000"), outcome("d", "000")])

    with pytest.raises(RecordError, match=r"'small' at step 0 has more than one .*: 'b', 'd'"):
        small(folder, allow_missing=True)


def test_other_repeats_are_no_duplicates(tmp_path: Path) -> None:
    again = [outcome(name, "000", repeat=1) for name in LINES]

    assert small(run_of(tmp_path, checkpoint(0) + again)).measure["repeats"].tolist() == [2]


def test_different_judges_are_refused_by_name(tmp_path: Path) -> None:
    other = [outcome(name, line, step=10, judge="llm@m#1") for name, line in LINES.items()]
    folder = run_of(tmp_path, checkpoint(0) + other)

    message = f"different judges: '{JUDGE}' \\(step 0\\), 'llm@m#1' \\(step 10\\)"
    with pytest.raises(RecordError, match=message):
        small(folder)


def test_other_clusters_at_another_step_are_refused(tmp_path: Path) -> None:
    moved = [outcome("a", "111", step=10, cluster="q1")]

    with pytest.raises(RecordError, match="sample 'a' of benchmark 'small' has cluster None"):
        small(run_of(tmp_path, checkpoint(0) + moved))


def test_a_benchmark_absent_at_one_step_is_refused_by_name(tmp_path: Path) -> None:
    lines = checkpoint(0) + checkpoint(10) + checkpoint(0, "other")

    with pytest.raises(RecordError, match=r"step 10 x other: no outcomes\n\nhint: .*--allow-miss"):
        small(run_of(tmp_path, lines))


def test_a_benchmark_absent_at_one_step_is_a_marked_gap_where_allowed(tmp_path: Path) -> None:
    lines = checkpoint(0) + checkpoint(10) + checkpoint(0, "other")
    analysis = small(run_of(tmp_path, lines), allow_missing=True)
    later = analysis.measure.query("step == 10").set_index("benchmark")

    assert later["free"].isna().to_dict() == {"small": False, "other": True, MEAN: True}
    assert later["note"].to_dict() == {
        "small": "",
        "other": "other: no outcomes",
        MEAN: "other: no outcomes",
    }
    assert set(analysis.measure["missing"]) == {"allowed"}
    contribution = analysis.contribution.set_index("benchmark")
    assert contribution.loc["other", "note"] == "no baseline, or no step beside it"
    gap = analysis.diagnose.query("benchmark == 'other' and step == 10")
    assert gap[["value", "mass", "policy", "quality"]].isna().all(axis=None)
    assert len(gap) == 12
    assert "other" not in set(analysis.changes["benchmark"])


def test_a_gap_between_steps_is_named_on_the_contribution(tmp_path: Path) -> None:
    lines = [line for step in (0, 10, 20) for line in checkpoint(step)]
    lines += checkpoint(0, "other") + checkpoint(20, "other")
    found = small(run_of(tmp_path, lines), allow_missing=True).contribution

    notes = found.groupby("benchmark")["note"].first()
    assert notes["small"] == ""
    assert notes["other"] == notes[MEAN] == "some steps are gaps"


def test_a_missing_arm_is_named(tmp_path: Path) -> None:
    folder = run_of(tmp_path, checkpoint(0))
    claim(folder, 10, "small", "free")

    with pytest.raises(RecordError, match="step 10 x small: arm 'available' was not evaluated"):
        small(folder)


def test_an_empty_checkpoint_is_named(tmp_path: Path) -> None:
    folder = run_of(tmp_path, checkpoint(0))
    for arm in ("free", "available"):
        claim(folder, 10, "small", arm)
    with pytest.raises(RecordError, match="step 10 x small: no sample has a verdict in both arms"):
        small(folder)

    folder = run_of(tmp_path / "other", checkpoint(0))
    folder.write_outcomes("rl", 10, "small", "crop_zoom", [])
    with pytest.raises(RecordError, match="step 10 x small: its outcomes are empty"):
        small(folder)


def test_a_run_of_empty_outcomes_is_refused_even_where_gaps_are_allowed(tmp_path: Path) -> None:
    folder = run_of(tmp_path, [])
    with pytest.raises(RecordError, match="has no outcomes\n\nhint: `medeval grade`"):
        small(folder)
    folder.write_outcomes("rl", 10, "small", "crop_zoom", [])
    with pytest.raises(RecordError, match="step 10 x small: its outcomes are empty"):
        small(folder, allow_missing=True)


def test_a_missing_sample_is_refused_by_name_and_left_out_where_allowed(tmp_path: Path) -> None:
    folder = run_of(tmp_path, checkpoint(0) + checkpoint(10)[:-1])
    with pytest.raises(RecordError, match="at step 10 lacks outcomes of 1 sample: 'd'"):
        small(folder)

    analysis = small(folder, allow_missing=True)

    assert analysis.measure["n"].tolist() == [3, 3]
    assert analysis.excluded[["sample_id", "reason", "steps", "missing"]].to_numpy().tolist() == [
        ["d", "missing", "step 10", "allowed"]
    ]
    assert analysis.coverage["missing_samples"].tolist() == [0, 1]


def test_a_sample_that_lacks_a_repeat_is_missing(tmp_path: Path) -> None:
    again = [outcome(name, "000", repeat=1) for name in "abc"]

    with pytest.raises(RecordError, match="at step 0 lacks outcomes of 1 sample: 'd'"):
        small(run_of(tmp_path, checkpoint(0) + again))


def test_a_baseline_with_other_samples_is_refused(tmp_path: Path) -> None:
    folder = run_of(tmp_path, [outcome("x", "111"), outcome("y", "000"), *checkpoint(10)])

    with pytest.raises(RecordError, match="at step 0 lacks outcomes of 4 samples: 'a', 'b'"):
        small(folder)
    with pytest.raises(RecordError, match="no sample that is decided in both arms at each of its"):
        small(folder, allow_missing=True)


def test_too_many_undecided_are_refused_and_few_are_left_out(tmp_path: Path) -> None:
    folder = run_of(tmp_path, [*checkpoint(0)[:-1], outcome("d", "?10"), *checkpoint(10)])
    message = "25.0% of the free arm's verdicts are undecided, allowed are 1.0%; 1 sample: 'd'"
    with pytest.raises(RecordError, match=message):
        small(folder)

    analysis = small(folder, max_undecided=0.25)

    assert analysis.measure["n"].tolist() == [3, 3]
    assert analysis.excluded["reason"].tolist() == ["undecided"]
    assert set(analysis.measure["missing"]) == {"none"}
    first = analysis.coverage.iloc[0]
    assert (first["undecided_free"], first["free_least"], first["free_most"]) == (1, 0.5, 0.75)


def test_arms_of_different_models_are_refused(tmp_path: Path) -> None:
    folder = run_of(tmp_path, checkpoint(0))
    claim(folder, 0, "small", "free", model={"dtype": "float32"})
    claim(folder, 0, "small", "available", model={"dtype": "bfloat16"})

    with pytest.raises(RecordError, match=r"different settings:\n  model.dtype: recorded"):
        small(folder)


def test_checkpoints_under_different_protocols_are_refused(tmp_path: Path) -> None:
    folder = run_of(tmp_path, checkpoint(0) + checkpoint(10))
    claim(folder, 0, "small", "free", protocol={"max_turns": 5})
    claim(folder, 10, "small", "free", protocol={"max_turns": 6})

    with pytest.raises(RecordError, match=r"protocol\.max_turns: recorded 5, now 6"):
        small(folder)


def test_steps_and_a_checkpoint_without_one_do_not_mix(tmp_path: Path) -> None:
    folder = run_of(tmp_path, checkpoint(None) + checkpoint(10))

    with pytest.raises(RecordError, match=r"mixes a checkpoint without a step with steps \[10\]"):
        small(folder)


def test_every_series_has_its_rows(tmp_path: Path) -> None:
    lines = [outcome(name, "110", series=series) for series in ("rl", "sft") for name in "ab"]
    folder = run_of(tmp_path, lines)

    assert small(folder).measure["series"].tolist() == ["rl", "sft"]
    assert small(folder, series="sft").measure["series"].tolist() == ["sft"]
    with pytest.raises(UsageError, match="no series 'dpo'; it has: rl, sft"):
        small(folder, series="dpo")


def test_benchmarks_can_be_chosen(tmp_path: Path) -> None:
    folder = run_of(tmp_path, checkpoint(0) + checkpoint(0, "other"))

    assert small(folder, benchmarks=["other"]).measure["benchmark"].tolist() == ["other"]
    with pytest.raises(UsageError, match="no benchmark 'vstar'; it has: other, small"):
        small(folder, benchmarks=["vstar"])


def test_a_graded_metric_heads_the_table(tmp_path: Path) -> None:
    folder = run_of(tmp_path, checkpoint(0))
    record = RunRecord(
        sessions=(),
        judges={"small": JUDGE},
        metrics={JUDGE: Metric(name="ANLS", correct_at=0.5)},
    )
    folder.write_record(folder.record().extended(record))

    assert read_run(folder)[0].benchmarks["small"].metric == "share correct, ANLS >= 0.5"


def test_the_noise_floor_is_that_of_two_repeats(tmp_path: Path) -> None:
    repeats = [
        outcome(name, line, repeat=repeat)
        for name, lines in {"a": ("000", "100"), "b": ("110", "110"), "c": ("010", "110")}.items()
        for repeat, line in enumerate(lines)
    ]
    analysis = small(run_of(tmp_path, repeats))

    # a and c differ between their repeats: half of the ordered pairs gain, half lose
    assert analysis.noise_floor["floor"].tolist() == pytest.approx([(0.5 + 0 + 0.5) / 3])
    assert analysis.measure["free_within_variance"].tolist() == pytest.approx([1 / 3])


def test_the_noise_floor_needs_repeats(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"needs two repeats .*'small' has 1\n\nhint: .*--repeats"):
        _ = small(run_of(tmp_path, checkpoint(0))).noise_floor


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (pd.DataFrame({"series": []}), "no column 'step'"),
        (
            pd.DataFrame([asdict(line) for line in checkpoint(0)]).iloc[:0],
            "the frame of outcomes is empty",
        ),
        (
            pd.DataFrame([asdict(line) for line in checkpoint(0)]).assign(free_correct=0.9),
            "sample 'a': correct is true, false or missing, seen 0.9",
        ),
    ],
)
def test_frames_that_cannot_be_read_are_refused(frame: pd.DataFrame, message: str) -> None:
    with pytest.raises((UsageError, RecordError), match=message):
        analyze(frame)


def test_a_frame_may_hold_undecided_verdicts() -> None:
    lines = [*checkpoint(0)[:-1], outcome("d", "?10")]
    frame = pd.DataFrame([asdict(line) for line in lines])

    assert analyze(frame, max_undecided=0.25).measure["n"].tolist() == [3]


def test_a_benchmark_that_only_another_pair_with_the_same_free_arm_ran_is_no_gap(
    tmp_path: Path,
) -> None:
    folder = run_of(tmp_path, checkpoint(0))
    claim(folder, 0, "other", "free")
    with pytest.raises(RecordError, match="step 0 x other: arm 'available' was not evaluated"):
        small(folder)

    pairs = RunRecord(sessions=(), pairs={"rotate": ("free", "rotating")})
    folder.write_record(folder.record().extended(pairs))

    assert small(folder).measure["benchmark"].tolist() == ["small"]


def test_samples_without_any_outcome_are_missing(tmp_path: Path) -> None:
    folder = run_of(tmp_path, checkpoint(0))
    samples = [sample_record(name) for name in "abcde"]
    folder.write_samples("small", samples)

    with pytest.raises(RecordError, match="at step 0 lacks outcomes of 1 sample: 'e'"):
        small(folder)


def test_a_run_and_its_frame_give_the_same_tables(tmp_path: Path) -> None:
    from medeval.analysis.frames import Run

    run = Run(run_of(tmp_path, checkpoint(0) + checkpoint(10)).path)

    pd.testing.assert_frame_equal(analyze(run).measure, analyze(run.outcomes).measure)
