"""Leaderboards and comparisons: hand-computed rows, and bold only where it is earned."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from medeval.analysis.comparison import Comparison, Entrant, compare
from medeval.analysis.leaderboard import SHOWN, SORTS, leaderboard
from medeval.analysis.report import analyze
from medeval.cli.leaderboard import SORTS as OFFERED
from medeval.errors import RecordError, UsageError
from medeval.store.run_folder import RunFolder
from medeval.types.outcome import OutcomeRecord
from medeval.types.run import Session
from tests.analysis.outcome_lines import JUDGE, outcome, run_of


def cell(
    marks: list[str],
    *,
    step: int | None = 0,
    benchmark: str = "small",
    series: str = "rl",
    judge: str = JUDGE,
) -> Iterator[OutcomeRecord]:
    for number, each in enumerate(marks):
        yield outcome(
            f"s{number}", each, step=step, benchmark=benchmark, series=series, judge=judge
        )


LOW = ["000"] * 8 + ["110"] * 2
HIGH = ["111"] * 8 + ["101"] * 1 + ["000"] * 1


@pytest.fixture
def rising(tmp_path: Path) -> Path:
    return run_of(tmp_path / "rising", [*cell(LOW), *cell(HIGH, step=10)]).path


def test_rows_hold_both_arms_gap_calls_and_terms(rising: Path) -> None:
    frame = leaderboard([rising])
    first = frame.iloc[0]
    assert (first["series"], first["step"], first["n"]) == ("rl", 10, 10)
    assert first["free"] == pytest.approx(0.9)
    assert first["available"] == pytest.approx(0.8)
    assert first["gap"] == pytest.approx(-0.1)
    assert first["call_harm"] == pytest.approx(0.1)
    assert first["called"] == pytest.approx(0.9)
    assert first["p_value"] == 1.0
    for name in SHOWN:
        assert first[f"{name}_low"] <= first[name] <= first[f"{name}_high"]
    assert list(frame["is_baseline"]) == [False, True]


def test_the_best_is_marked_where_it_differs_from_every_other_row(rising: Path) -> None:
    # free: 8 gained, 1 lost of 10 (McNemar p = 0.039); available: 8 gained, 2 lost (p = 0.11)
    assert list(leaderboard([rising])["best"]) == ["free", ""]


def test_nothing_is_best_where_two_rows_are_equal(tmp_path: Path) -> None:
    run = run_of(
        tmp_path / "run", [*cell(LOW), *cell(["111"] * 10, step=1), *cell(["111"] * 10, step=2)]
    )
    assert set(leaderboard([run.path])["best"]) == {""}


def test_a_single_row_is_not_the_best_of_itself(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", cell(HIGH, step=None))
    frame = leaderboard([run.path])
    assert list(frame["best"]) == [""]
    assert not frame["is_baseline"].any()
    assert frame["step"].isna().all()


@pytest.mark.parametrize(
    ("sort", "steps"), [("free", [10, 0]), ("call_harm", [0, 10]), ("step", [0, 10])]
)
def test_rows_are_sorted_best_first(rising: Path, sort: str, steps: list[int]) -> None:
    assert list(leaderboard([rising], sort=sort)["step"]) == steps


def test_an_unknown_number_to_sort_by_is_refused(rising: Path) -> None:
    with pytest.raises(UsageError, match="'charm'"):
        leaderboard([rising], sort="charm")


def test_the_command_line_offers_every_sort() -> None:
    assert sorted(OFFERED) == sorted(SORTS)


def test_steps_are_filtered(tmp_path: Path) -> None:
    run = run_of(
        tmp_path / "run", [line for step in (0, 5, 9) for line in cell(LOW, step=step)]
    ).path
    assert list(leaderboard([run], last=True, sort="step")["step"]) == [0, 9]
    assert list(leaderboard([run], steps=[5])["step"]) == [5]
    with pytest.raises(UsageError, match="no checkpoint"):
        leaderboard([run], steps=[6])


def test_the_mean_of_benchmarks_is_of_checkpoints_that_have_them_all(tmp_path: Path) -> None:
    both = run_of(tmp_path / "both", [*cell(LOW), *cell(HIGH, benchmark="large")])
    half = run_of(tmp_path / "half", cell(HIGH, series="other"))
    frame = leaderboard([both.path, half.path])
    mean = frame[frame["benchmark"] == "mean of benchmarks"]
    assert list(mean["series"]) == ["rl"]
    assert mean["available"].iloc[0] == pytest.approx(0.5)
    assert list(frame["run"]) == ["both", "half", "both", "both"]


def test_the_baseline_is_named_as_the_plan_names_it(tmp_path: Path, rising: Path) -> None:
    folder = RunFolder.open(rising)
    session = Session(
        created="2026-01-01T00:00:00+00:00",
        medeval_version="0",
        command=(),
        plan={"baseline": "models/qwen"},
        git_commit=None,
        python="3.11",
        platform="linux",
        seed=0,
    )
    folder.write_record(replace(folder.record(), sessions=(session,)))
    frame = leaderboard([rising], sort="step")
    assert frame["baseline"].tolist()[0] == "models/qwen"
    assert frame["baseline"].isna().tolist() == [False, True]


def test_line_numbers_are_told_as_pairing_by_position(tmp_path: Path) -> None:
    lines = [outcome(f"line-{number:06}", "110") for number in range(4)]
    assert list(leaderboard([run_of(tmp_path / "run", lines).path])["pairing"]) == ["position"]


def test_different_judges_are_not_ranked_together(tmp_path: Path, rising: Path) -> None:
    other = run_of(tmp_path / "other", cell(LOW, judge="strict#87654321"))
    with pytest.raises(RecordError, match="different judges"):
        leaderboard([rising, other.path])


def test_repeats_and_shared_samples_are_compared_by_the_mean(tmp_path: Path) -> None:
    one = run_of(tmp_path / "one", cell(["000"] * 12))
    twice = [
        outcome(f"s{number}", "110", repeat=repeat, series="b")
        for number in range(2, 30)
        for repeat in (0, 1)
    ]
    frame = leaderboard([one.path, run_of(tmp_path / "two", twice).path])
    assert list(frame["best"]) == ["free, available", ""]


def entrants(path: Path) -> list[Entrant]:
    (found,) = analyze(path).sets
    return [Entrant(name=f"rl/{step}", found=found, step=step) for step in found.outcomes.steps]


def test_a_comparison_gives_paired_differences_and_the_flipped_samples(rising: Path) -> None:
    found = compare(*entrants(rising))
    free, available, gap = found.differences.to_dict(orient="records")
    assert (free["first"], free["other"]) == pytest.approx((0.2, 0.9))
    assert free["difference"] == pytest.approx(0.7)
    assert free["p_value"] == pytest.approx(2 * 10 / 512)
    assert available["difference"] == pytest.approx(0.6)
    assert available["p_value"] == pytest.approx(2 * 56 / 1024)
    assert gap["difference"] == pytest.approx(-0.1)
    assert -1.0 <= gap["difference_low"] <= -0.1 <= gap["difference_high"] <= 1.0
    flips = found.flips
    lost = flips[flips["other"] < flips["first"]]
    assert list(zip(lost["arm"], lost["sample_id"], strict=True)) == [
        ("free", "s9"),
        ("available", "s8"),
        ("available", "s9"),
    ]
    assert len(flips) == 9 + 10


def test_a_comparison_of_a_checkpoint_with_itself_finds_nothing(rising: Path) -> None:
    first, _ = entrants(rising)
    found = compare(first, first)
    assert (found.differences["difference"] == 0).all()
    assert (found.differences["p_value"] == 1).all()
    assert found.flips.empty
    assert isinstance(found, Comparison)


def test_only_shared_samples_are_compared_and_benchmarks_are_averaged(tmp_path: Path) -> None:
    one = run_of(tmp_path / "one", [*cell(LOW), *cell(LOW, benchmark="large")])
    fewer = run_of(tmp_path / "two", [*cell(HIGH[:5]), *cell(HIGH, benchmark="large")])
    (first,), (other,) = entrants(one.path), entrants(fewer.path)
    rows = compare(first, other).differences.set_index(["benchmark", "quantity"])
    assert rows.loc[("small", "free"), "n"] == 5
    assert rows.loc[("small", "free"), "difference"] == pytest.approx(1.0)
    assert rows.loc[("mean of benchmarks", "free"), "difference"] == pytest.approx(0.85)


def test_entrants_without_a_shared_benchmark_or_sample_are_refused(tmp_path: Path) -> None:
    (one,) = entrants(run_of(tmp_path / "one", cell(LOW)).path)
    (two,) = entrants(run_of(tmp_path / "two", cell(LOW, benchmark="large")).path)
    with pytest.raises(UsageError, match="no benchmark in common"):
        compare(one, two)
    apart = [outcome(f"t{number}", "110") for number in range(3)]
    (three,) = entrants(run_of(tmp_path / "three", apart).path)
    with pytest.raises(RecordError, match="share no sample"):
        compare(one, three)
