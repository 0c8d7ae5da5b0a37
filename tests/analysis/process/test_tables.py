"""Rows by outcome with repeats, and what is left out where nothing is defined."""

from pathlib import Path

import numpy as np
import pytest

from medeval.analysis.med.tabulation import Tabulation
from medeval.analysis.process.measures import MeasuredCall, MeasuredTrajectory
from medeval.analysis.process.reading import ToolUse
from medeval.analysis.process.tables import process_rows
from medeval.analysis.report import Analysis, analyze
from tests.analysis.outcome_lines import outcome, run_of


def tabulation(tmp_path: Path, **options: str) -> tuple[Analysis, Tabulation]:
    lines = [outcome(name, "011", step=None) for name in "ab"]
    analysis = analyze(run_of(tmp_path, lines).path, resamples=20)
    return analysis, analysis.tabulations[0]


def process(
    sample_id: str, *, free: float, right: bool, called: bool = True, **values: float
) -> ToolUse:
    counts = {"attempted": 1.0, "executed": 1.0, "observed": 1.0, "tools": 1.0, "composite": 0.0}
    call = MeasuredCall(tool="crop_and_zoom", status="executed", values={})
    return ToolUse(
        measured=MeasuredTrajectory(
            sample_id=sample_id, repeat=0, calls=(call,), values=counts | values
        ),
        free=free,
        right=right,
        called=called,
        cluster=ord(sample_id),
    )


def test_a_trajectory_counts_for_each_outcome_as_its_free_repeats_do(tmp_path: Path) -> None:
    _, tables = tabulation(tmp_path)
    # sample a: right in a quarter of the free arm's repeats; its two trajectories differ
    rows = process_rows(
        tables,
        {
            ("small", None): [
                process("a", free=0.25, right=True, target_inside=1.0),
                process("a", free=0.25, right=False, target_inside=0.0),
                process("b", free=0.0, right=True, target_inside=0.0),
                process("b", free=0.0, right=True, called=False, target_inside=0.0),
            ]
        },
    )
    found = {row["outcome"]: row for row in rows["process_outcomes"]}
    # call gain: 0.75 of a's first and all of b's called one
    assert found["call gain"]["target_inside"] == pytest.approx(0.75 / 1.75)
    assert found["both right"]["target_inside"] == 1.0
    assert found["both wrong"]["target_inside"] == 0.0
    assert [found[name]["n"] for name in found] == [2, 1, 0, 0]
    yes, no = rows["process_quality"]
    assert (yes["met"], yes["gain_quality"], yes["harm_quality"]) == (True, 1.0, 0.0)
    assert no["gain_quality"] == pytest.approx(1.0 / 1.75)


def test_tables_without_anything_defined_have_no_rows(tmp_path: Path) -> None:
    _, tables = tabulation(tmp_path)
    rows = process_rows(tables, {("small", None): [process("a", free=0.0, right=True)]})
    assert {name for name, listed in rows.items() if listed} == {
        "process_calls",
        "process_tools",
        "process_transitions",
    }


def test_a_step_without_trajectories_is_left_out(tmp_path: Path) -> None:
    _, tables = tabulation(tmp_path)
    assert not any(process_rows(tables, {}).values())
    assert not any(process_rows(tables, {("small", None): []}).values())


def test_a_run_without_trajectories_has_no_process_tables(tmp_path: Path) -> None:
    analysis, _ = tabulation(tmp_path)
    assert analysis.process == {}


def test_every_number_lies_within_its_interval(tmp_path: Path) -> None:
    _, tables = tabulation(tmp_path)
    random = np.random.default_rng(0)
    uses = [
        process(
            "ab"[at % 2],
            free=float(random.integers(0, 3)) / 2,
            right=bool(random.integers(0, 2)),
            target_inside=float(random.random()),
            log_crop_over_target=float(random.normal()),
            cropped=1.0,
        )
        for at in range(40)
    ]
    for listed in process_rows(tables, {("small", None): uses}).values():
        for row in listed:
            for name in [name for name in row if f"{name}_low" in row]:
                if row[name] is not None:
                    assert row[f"{name}_low"] <= row[name] + 1e-9
                    assert row[name] <= row[f"{name}_high"] + 1e-9


def test_a_mean_is_over_the_benchmarks_that_have_a_number_at_every_step(tmp_path: Path) -> None:
    lines = [
        outcome("a", "011", step=step, benchmark=benchmark)
        for step in (0, 10)
        for benchmark in ("first", "second", "third")
    ]
    tables = analyze(run_of(tmp_path, lines).path, resamples=20).tabulations[0]
    good, bad = {"cropped": 1.0, "target_inside": 1.0}, {"cropped": 1.0, "target_inside": 0.0}
    values: dict[tuple[str, int], dict[str, float]] = {
        ("first", 0): good,
        ("second", 0): bad,
        ("first", 10): good,
        ("second", 10): {"cropped": 0.0},
        ("third", 0): {"point_best": 1.0},
        ("third", 10): {},
    }
    rows = process_rows(
        tables,
        {
            key: [process("a", free=0.0, right=True, called=True, **each)]
            for key, each in values.items()
        },
    )
    means = {
        (name, row["step"]): row
        for name in ("process_calls", "process_zoom", "process_outcomes", "process_quality")
        for row in rows[name]
        if row["benchmark"] == "mean of benchmarks"
        and row.get("outcome", "call gain") == "call gain"
    }
    calls, zoom = means["process_calls", 0], means["process_zoom", 0]
    assert (calls["attempted"], calls["attempted_benchmarks"], calls["n"]) == (1.0, 3, 3)
    assert (zoom["target_inside"], zoom["target_inside_benchmarks"]) == (0.5, 2)
    assert means["process_outcomes", 0]["target_inside"] == 0.5
    # at step 10 the second has no crop: never an average of some
    later = means["process_zoom", 10]
    assert (later["cropped"], later["cropped_benchmarks"]) == (0.5, 2)
    assert (later["target_inside"], later["target_inside_benchmarks"]) == (None, None)
    # what one benchmark alone has is no mean, and tools and transitions have none
    for name in ("process_marks", "process_tools", "process_transitions", "process_misuse"):
        assert all(row["benchmark"] != "mean of benchmarks" for row in rows[name])


def test_misuse_of_several_sets_is_averaged_in_shares_and_not_in_totals(tmp_path: Path) -> None:
    lines = [outcome("a", "011", step=None, benchmark=name) for name in ("first", "second")]
    tables = analyze(run_of(tmp_path, lines).path, resamples=20).tabulations[0]

    def focused(wrong: float) -> ToolUse:
        values = {"focus_attempted": 4.0, "misused_attempted": wrong, "misused": float(wrong > 0)}
        values |= {"focus_executed": 4.0, "misused_executed": wrong, "wrong_axis": 1.0}
        return process("a", free=0.0, right=True, called=True, **values)

    rows = process_rows(tables, {("first", None): [focused(1)], ("second", None): [focused(0)]})
    mean = rows["process_misuse"][-1]
    assert (mean["benchmark"], mean["n"]) == ("mean of benchmarks", 2)
    assert (mean["attempted_wrong"], mean["sample_misused"]) == (0.125, 0.5)
    assert "focus_attempted" not in mean
