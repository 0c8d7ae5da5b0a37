from typing import Any

import pytest

from medeval.analysis.pairs import Result
from medeval.analysis.summary import CellName, CellSummary, Cost, summarize, summary_rows
from medeval.types.trajectory import StopReason

NAME = CellName(
    checkpoint="rl/20",
    series="rl",
    step=20,
    benchmark="small",
    protocol="available",
    judge="letter#01234567",
)


def result(
    sample_id: str, score: float | None, stop: StopReason = "answered", **changes: Any
) -> Result:
    values: dict[str, Any] = {
        "sample_id": sample_id,
        "repeat": 0,
        "status": "undecided" if score is None else "correct" if score >= 1 else "incorrect",
        "score": score,
        "judge": NAME.judge,
        "answer": "A" if stop == "answered" else None,
        "stop": stop,
        "called": False,
        "attempted": 0,
        "executed": 0,
        "observed": 0,
        **changes,
    }
    return Result(**values)


def summary_of(*results: Result, expected: int | None = None, **clusters: str) -> CellSummary:
    return summarize(
        NAME,
        results,
        lambda sample_id: clusters.get(sample_id, sample_id),
        expected=len(results) if expected is None else expected,
        cost=Cost(),
    )


def test_a_cell_in_numbers_as_computed_by_hand() -> None:
    summary = summary_of(
        result("a", 1.0, called=True),
        result("b", 1.0),
        result("c", 0.0, called=True),
        result("d", None),
        result("e", 0.0, "length"),
        result("f", 0.0, "context"),
        result("g", 0.0, "no_answer"),
        result("h", 0.0, "empty"),
        result("i", 0.0, "turn_limit"),
        result("j", 0.0, "not_offered"),
        expected=12,
    )
    shares = {
        name: getattr(summary, name).value
        for name in ("score", "called", "truncated", "unanswered", "not_offered")
    }
    assert shares == pytest.approx(
        {"score": 2 / 9, "called": 0.2, "truncated": 0.2, "unanswered": 0.3, "not_offered": 0.1}
    )
    assert (summary.score.n, summary.called.n) == (9, 10)
    assert (summary.undecided, summary.unscored) == (1, 2)


@pytest.mark.parametrize(
    ("results", "expected", "counts"),
    [((), 5, (0, 5)), ((result("a", None), result("b", None)), 2, (2, 0))],
)
def test_no_decided_sample_has_no_score(
    results: tuple[Result, ...], expected: int, counts: tuple[int, int]
) -> None:
    summary = summary_of(*results, expected=expected)
    assert summary.score.value is None
    assert summary.score.n == 0
    assert (summary.undecided, summary.unscored) == counts


def test_samples_of_a_cluster_widen_the_interval() -> None:
    results = [
        result(name, score) for name, score in zip("abcd", (1.0, 1.0, 0.0, 0.0), strict=True)
    ]
    apart, together = summary_of(*results), summary_of(*results, a="x", b="x", c="y", d="y")
    assert together.score.value == apart.score.value
    assert together.score.low < apart.score.low  # type: ignore[operator]


def test_columns_are_flat_with_each_rate_and_its_bounds() -> None:
    (row,) = summary_rows([summary_of(result("a", 1.0), expected=3)])
    assert list(row) == [
        "checkpoint",
        "series",
        "step",
        "benchmark",
        "protocol",
        "judge",
        "n",
        *(
            f"{rate}{bound}"
            for rate in ("score", "called", "truncated", "unanswered", "not_offered")
            for bound in ("", "_low", "_high")
        ),
        "undecided",
        "unscored",
        "trajectories",
        "prompt_tokens",
        "completion_tokens",
        "cached_tokens",
        "seconds",
        "engine_seconds",
    ]
    assert (row["checkpoint"], row["n"], row["score"], row["unscored"]) == ("rl/20", 1, 1.0, 2)
    assert row["score_low"] == pytest.approx(0.025, abs=1e-4)
