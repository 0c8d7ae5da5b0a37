"""The whole analysis against the official code's numbers and a table worked out by hand."""

import numpy as np
import pandas as pd
import pytest

from medeval.analysis.med.curves import MEAN
from medeval.analysis.report import Analysis, analyze
from medeval.errors import UsageError
from tests.analysis.published_logs import logged_outcomes

# What the official scripts computed on the same logs, at step 10 of vstar, to the digits printed.
GOLDEN_MEASURE = {"free": 0.45, "available": 0.5, "called": 11 / 40, "calls_attempted": 32 / 40}
GOLDEN_FACTORS = [
    ("current", "call_gain", {"value": 0.025, "policy": 0.227273, "quality": 0.2, "n_mass": 22}),
    ("current", "call_gain", {"n_policy": 5, "mass": 22 / 40}),
    ("current", "schema_gain", {"value": 0.1}),
    ("current", "call_harm", {"value": 0.0, "quality": 0.0, "n_mass": 18}),
    ("current", "schema_harm", {"value": 0.075}),
    ("fixed", "call_gain", {"value": 0.1, "mass": 0.6, "policy": 0.291667, "quality": 0.571429}),
    ("persistent", "call_gain", {"value": 0.0, "mass": 0.375}),
    ("persistent", "call_harm", {"mass": 0.225}),
]
# s_tool_med of each benchmark alone, from the raw curves of both parts.
GOLDEN_CONTRIBUTIONS = {
    "vstar": 0.22,
    "hrbench4k": 0.22,
    "hrbench8k": 0.38,
    "visualprobeasy": 0.22,
    "visualprobmedium": 0.36,
    "visualprobhard": 0.45,
}


@pytest.fixture(scope="module")
def published() -> Analysis:
    return analyze(logged_outcomes(), resamples=500)


def row(frame: pd.DataFrame, **values: object) -> pd.Series:
    for name, value in values.items():
        frame = frame[frame[name] == value]
    assert len(frame) == 1
    return frame.iloc[0]


def test_accuracies_and_calls_are_those_of_the_official_code(published: Analysis) -> None:
    found = row(published.measure, benchmark="vstar", step=10)

    assert {name: found[name] for name in GOLDEN_MEASURE} == pytest.approx(GOLDEN_MEASURE)


@pytest.mark.parametrize(("partition", "term", "expected"), GOLDEN_FACTORS)
def test_factors_are_those_of_the_official_code(
    published: Analysis, partition: str, term: str, expected: dict[str, float]
) -> None:
    found = row(published.diagnose, benchmark="vstar", step=10, partition=partition, term=term)

    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=5e-7)


def test_the_contribution_over_benchmarks_is_that_of_the_official_code(
    published: Analysis,
) -> None:
    found = row(published.contribution, benchmark=MEAN, form="s_tool_med")

    assert found["value"] == pytest.approx(0.236888, abs=5e-7)


@pytest.mark.parametrize(("benchmark", "expected"), GOLDEN_CONTRIBUTIONS.items())
def test_the_contribution_of_one_benchmark_is_that_of_the_raw_curves(
    published: Analysis, benchmark: str, expected: float
) -> None:
    found = row(published.contribution, benchmark=benchmark, form="s_tool_med")

    assert found["value"] == pytest.approx(expected, abs=0.005)


def test_factors_of_the_mean_multiply_to_the_mean_term(published: Analysis) -> None:
    terms = published.diagnose.dropna(subset=["quality"])
    product = terms["mass"] * terms["policy"] * terms["quality"]

    assert (terms["benchmark"] == MEAN).any()
    np.testing.assert_allclose(product, terms["value"], atol=1e-12)


def test_terms_of_the_mean_are_means_of_terms(published: Analysis) -> None:
    table = published.explain
    names = ["call_gain", "schema_gain", "call_harm", "schema_harm", "gap"]
    means = table[table["benchmark"] != MEAN].groupby("step")[names].mean()

    np.testing.assert_allclose(table[table["benchmark"] == MEAN][names], means, atol=1e-12)


def test_logs_without_ids_say_that_they_pair_by_position(published: Analysis) -> None:
    assert set(published.measure["pairing"]) == {"position"}
    assert set(published.diagnose["pairing"]) == {"position"}


#  id  free0 with0 call0 | free10 with10 call10
HAND = """
    a   0     1     1       0      1      1
    b   0     0     1       1      1      0
    c   0     1     0       0      0      1
    d   1     0     1       1      1      1
    e   1     1     0       0      1      0
    f   1     0     0       1      0      1
    g   0     0     0       0      1      1
    h   1     1     1       1      1      0
"""


def hand_outcomes() -> pd.DataFrame:
    lines = [line.split() for line in HAND.strip().splitlines()]
    return pd.DataFrame(
        [
            {
                "series": "rl",
                "step": step,
                "benchmark": "small",
                "pair": "crop_zoom",
                "sample_id": name,
                "free_correct": verdicts[0] == "1",
                "available_correct": verdicts[1] == "1",
                "called": verdicts[2] == "1",
            }
            for name, *numbers in lines
            for step, verdicts in ((0, numbers[:3]), (10, numbers[3:]))
        ]
    )


# (partition, term): (value, mass, policy, quality) in eighths, counted by hand from HAND at step 10
HAND_FACTORS = {
    # failed now: a c e g; solved now: b d f h
    ("current", "call_gain"): (2 / 8, 4 / 8, 3 / 4, 2 / 3),
    ("current", "schema_gain"): (1 / 8, 4 / 8, 1 / 4, 1 / 1),
    ("current", "call_harm"): (1 / 8, 4 / 8, 2 / 4, 1 / 2),
    ("current", "schema_harm"): (0 / 8, 4 / 8, 2 / 4, 0 / 2),
    # failed at 0: a b c g; solved at 0: d e f h
    ("fixed", "call_gain"): (2 / 8, 4 / 8, 3 / 4, 2 / 3),
    ("fixed", "schema_gain"): (1 / 8, 4 / 8, 1 / 4, 1 / 1),
    ("fixed", "call_harm"): (1 / 8, 4 / 8, 2 / 4, 1 / 2),
    ("fixed", "schema_harm"): (0 / 8, 4 / 8, 2 / 4, 0 / 2),
    # failed at both: a c g; solved at both: d f h
    ("persistent", "call_gain"): (2 / 8, 3 / 8, 3 / 3, 2 / 3),
    ("persistent", "schema_gain"): (0 / 8, 3 / 8, 0 / 3, None),
    ("persistent", "call_harm"): (1 / 8, 3 / 8, 2 / 3, 1 / 2),
    ("persistent", "schema_harm"): (0 / 8, 3 / 8, 1 / 3, 0 / 1),
}


@pytest.mark.parametrize(("key", "expected"), HAND_FACTORS.items())
def test_factors_are_as_counted_by_hand(
    key: tuple[str, str], expected: tuple[float | None, ...]
) -> None:
    table = analyze(hand_outcomes(), resamples=20).diagnose
    found = row(table, step=10, partition=key[0], term=key[1])
    values = [found[name] for name in ("value", "mass", "policy", "quality")]

    assert [None if np.isnan(value) else value for value in values] == pytest.approx(list(expected))


def test_drifts_and_contribution_are_as_counted_by_hand() -> None:
    analysis = analyze(hand_outcomes(), resamples=20)
    found = row(analysis.measure, step=10)

    # free 4/8 -> 4/8, available 4/8 -> 6/8
    assert found[["free_drift", "available_drift", "tool_drift"]].tolist() == [0.0, 0.25, 0.25]
    contribution = row(analysis.contribution, form="s_tool")
    assert contribution["value"] == 1.0
    assert contribution["area_tool_positive"] == pytest.approx(10 * 0.25 / 2)


def test_undefined_factors_enter_no_mean() -> None:
    # in benchmark "silent" nothing is called: policy 0, quality undefined
    silent = hand_outcomes().assign(benchmark="silent", called=False)
    both = pd.concat([hand_outcomes(), silent])
    found = row(
        analyze(both, resamples=20).diagnose,
        benchmark=MEAN,
        step=10,
        partition="current",
        term="call_gain",
    )

    # mass (4/8 + 4/8) / 2, policy (3/8 + 0) / 2 over it, quality of the calls there are
    assert found[["value", "mass", "policy", "quality"]].tolist() == pytest.approx(
        [1 / 8, 1 / 2, 3 / 8, 2 / 3]
    )


def test_a_single_model_has_everything_but_drift() -> None:
    outcomes = hand_outcomes().query("step == 10").assign(step=None)
    analysis = analyze(outcomes, resamples=20)

    assert row(analysis.explain)["gap"] == pytest.approx(2 / 8)
    assert np.isnan(row(analysis.measure)["tool_drift"])
    for table in ("contribution", "changes"):
        with pytest.raises(UsageError, match=r"at least two steps of one series\n\nhint:"):
            getattr(analysis, table)


def test_the_same_seed_gives_the_same_intervals() -> None:
    first, second, other = (
        analyze(logged_outcomes(), benchmarks=["vstar"], resamples=200, seed=seed).changes
        for seed in (1, 1, 2)
    )

    pd.testing.assert_frame_equal(first, second)
    assert not first.equals(other)


def test_a_benchmarks_numbers_do_not_depend_on_the_others(published: Analysis) -> None:
    alone = analyze(logged_outcomes(), benchmarks=["hrbench8k"], resamples=500)
    columns = ["step", "quantity", "change", "change_low", "change_high"]
    together = published.changes.query("benchmark == 'hrbench8k'")[columns]

    pd.testing.assert_frame_equal(alone.changes[columns], together.reset_index(drop=True))


def test_q_values_count_every_benchmark_and_step(published: Analysis) -> None:
    singles = published.measure[published.measure["benchmark"] != MEAN]
    ordered = singles.sort_values("p_value")
    ranks = np.arange(1, len(ordered) + 1)
    by_hand = (ordered["p_value"] * len(ordered) / ranks)[::-1].cummin()[::-1]

    np.testing.assert_allclose(ordered["q_value"], by_hand)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resamples": 0}, "resamples must be at least 1, seen 0"),
        ({"max_undecided": 2.0}, "between 0 and 1, seen 2.0"),
        ({"series": "sft"}, "no series 'sft'; it has: rl"),
        ({"pair": "rotate"}, "no pair 'rotate'; it has: crop_zoom"),
        ({"benchmarks": ["vstr"]}, "no benchmark 'vstr'; it has: small"),
        ({"by_group": "category"}, "benchmark 'small' has no group 'category'; it has: none"),
    ],
)
def test_options_that_cannot_be_carried_out_are_refused(
    options: dict[str, object], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        analyze(hand_outcomes(), **options)  # type: ignore[arg-type]


def test_groups_split_a_benchmark() -> None:
    outcomes = hand_outcomes()
    halves = [{"half": "first" if name < "e" else "last"} for name in outcomes["sample_id"]]
    outcomes.insert(0, "groups", halves)
    table = analyze(outcomes, by_group="half", resamples=20).explain

    assert table[["group", "step", "n"]].to_numpy().tolist() == [
        ["first", 0, 4],
        ["first", 10, 4],
        ["last", 0, 4],
        ["last", 10, 4],
    ]
    # step 10, a b c d: free 2/4, available 3/4; e f g h: free 2/4, available 3/4
    assert table.query("step == 10")["gap"].tolist() == pytest.approx([1 / 4, 1 / 4])


def test_what_counts_as_a_call_can_be_chosen() -> None:
    outcomes = hand_outcomes().assign(calls_attempted=1, calls_executed=0)

    assert set(analyze(outcomes, called_by="attempted", resamples=20).measure["called"]) == {1.0}
    assert set(analyze(outcomes, called_by="executed", resamples=20).measure["called"]) == {0.0}


def test_nothing_that_changed_is_no_certainty() -> None:
    still = hand_outcomes().query("step == 0")
    changes = analyze(pd.concat([still, still.assign(step=10)]), resamples=50).changes
    known = changes.dropna(subset=["change"])

    assert set(known["change"]) == {0.0}
    assert (known["change_low"] < -0.05).all()
    assert (known["change_high"] > 0.05).all()
