import pytest

from medeval.analysis.aggregates import Scored
from medeval.analysis.breakdowns import CellScores, breakdowns
from medeval.store.keys import CellKey
from medeval.types.run import BenchmarkRecord


def cell(
    benchmark: str,
    scored: list[Scored],
    *,
    suite: str | None = None,
    cluster_size: int | None = None,
) -> CellScores:
    return CellScores(
        key=CellKey("rl", 20, benchmark, "tool_free"),
        part=BenchmarkRecord(
            origin="made here",
            revision=None,
            count=len(scored),
            expected_count=None,
            suite=suite,
            cluster_size=cluster_size,
        ),
        scored=scored,
    )


def test_each_group_has_its_own_score_n_and_interval() -> None:
    scored = [
        Scored(sample_id=f"s{index}", score=score, groups={"category": group})
        for index, (score, group) in enumerate([(1, "single"), (0, "single"), (1, "cross")])
    ]
    cross, single = breakdowns([cell("hrbench_4k", scored)])["groups"]
    assert (cross["group"], cross["n"], cross["score"]) == ("cross", 1, 1.0)
    assert (single["group"], single["n"], single["score"]) == ("single", 2, 0.5)
    assert single["score_low"] == pytest.approx(0.0126, abs=1e-4)
    assert single["score_high"] == pytest.approx(0.9874, abs=1e-4)


def test_clusters_count_questions_right_throughout_and_answered_alike() -> None:
    answers = {"a": [("x", 1), ("x", 1)], "b": [("y", 0), ("y", 0)], "c": [("x", 1), ("y", 0)]}
    scored = [
        Scored(sample_id=f"{question}{index}", score=score, cluster=question, choice=choice)
        for question, rotations in answers.items()
        for index, (choice, score) in enumerate(rotations)
    ]
    (row,) = breakdowns([cell("hrbench_4k", scored, cluster_size=2)])["clusters"]
    assert row["all_correct"] == pytest.approx(1 / 3)
    assert row["letter_consistency"] == pytest.approx(2 / 3)


def test_shares_of_clusters_are_undefined_where_none_is_complete() -> None:
    scored = [Scored(sample_id="a", score=1.0, cluster="q")]
    (row,) = breakdowns([cell("hrbench_4k", scored, cluster_size=4)])["clusters"]
    assert (row["all_correct"], row["letter_consistency"]) == (None, None)


def test_a_suite_is_averaged_over_the_samples_of_its_benchmarks() -> None:
    vwtq = [Scored(sample_id=f"v{index}", score=float(index < 3)) for index in range(6)]
    vtabfact = [Scored(sample_id=f"t{index}", score=1.0) for index in range(2)]
    (row,) = breakdowns(
        [
            cell("tablevqa_vwtq", vwtq, suite="tablevqa"),
            cell("tablevqa_vtabfact", vtabfact, suite="tablevqa"),
            cell("vstar", vtabfact),
        ]
    )["suites"]
    assert (row["suite"], row["n"], row["score"]) == ("tablevqa", 8, 5 / 8)
    assert row["benchmarks"] == "tablevqa_vwtq tablevqa_vtabfact"
