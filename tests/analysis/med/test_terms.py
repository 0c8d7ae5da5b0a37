"""The identities of Measure, Explain and Diagnose, for any outcomes with any repeats."""

from itertools import product
from random import Random

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from medeval.analysis.med.analysis_set import analysis_set
from medeval.analysis.med.curves import Curve, Population, Shares
from medeval.analysis.med.quantities import factors, gap, mean_share, within_variance
from medeval.analysis.med.read import read_frame
from medeval.analysis.med.terms import PARTITIONS, TERMS, Partition, Term, domain, term_parts

# shape (n_steps, n_samples, n_repeats, 3): free correct, available correct, called
Bits = NDArray[np.bool_]


@st.composite
def runs(draw: st.DrawFn) -> Bits:
    """Outcomes of a baseline and a later step; shape (2 steps, n_samples, k repeats, 3)."""
    n, k = draw(st.integers(1, 12)), draw(st.integers(1, 3))
    bits = draw(st.lists(st.booleans(), min_size=6 * n * k, max_size=6 * n * k))
    return np.array(bits).reshape(2, n, k, 3)


def frame_of(outcomes: Bits) -> pd.DataFrame:
    n_steps, n, k, _ = outcomes.shape
    return pd.DataFrame(
        {
            "series": "rl",
            "step": 10 * step,
            "benchmark": "drawn",
            "pair": "crop_zoom",
            "sample_id": f"s{sample}",
            "repeat": repeat,
            "free_correct": bool(outcomes[step, sample, repeat, 0]),
            "available_correct": bool(outcomes[step, sample, repeat, 1]),
            "called": bool(outcomes[step, sample, repeat, 2]),
        }
        for step, sample, repeat in product(range(n_steps), range(n), range(k))
    )


def curve_of(outcomes: Bits) -> Curve:
    n_steps, n, k, _ = outcomes.shape
    free, available, called = np.moveaxis(outcomes, -1, 0)
    happened = [free, available & called, available & ~called, ~available & called]
    counts = np.stack([each.sum(axis=2) for each in [*happened, called, called, called]], axis=1)
    return Curve(
        benchmark="drawn",
        group=None,
        metric="share correct",
        steps=tuple(10 * step for step in range(n_steps)),
        repeats=(k,) * n_steps,
        ids=tuple(f"s{sample}" for sample in range(n)),
        groups=({},) * n,
        clusters=np.arange(n, dtype=np.int32),
        counts=counts.astype(np.int32),
    )


def population_of(outcomes: Bits) -> Population:
    return Population(benchmark="drawn", group=None, curves=(curve_of(outcomes),))


def values(curve: Curve, step: int, partition: Partition) -> dict[Term, tuple[float, float, float]]:
    """The mean domain, acted and flipped share of each term."""
    now = curve.at(step)
    then = now if step == 0 else curve.at(0)
    parts = term_parts(domain(partition, now, then), now)
    return {
        term: (part.domain.mean(), part.acted.mean(), part.flipped.mean())
        for term, part in parts.items()
    }


def net(terms: dict[Term, tuple[float, float, float]]) -> float:
    gains = terms["call_gain"][2] + terms["schema_gain"][2]
    return gains - terms["call_harm"][2] - terms["schema_harm"][2]


@given(runs())
def test_terms_on_the_current_partition_sum_to_the_gap(outcomes: Bits) -> None:
    curve = curve_of(outcomes)
    for step, index in ((0, 0), (10, 1)):
        expected = outcomes[index, :, :, 1].mean() - outcomes[index, :, :, 0].mean()

        assert net(values(curve, step, "current")) == pytest.approx(expected, abs=1e-12)


@given(runs())
def test_terms_on_the_fixed_partition_sum_to_the_change_since_the_free_baseline(
    outcomes: Bits,
) -> None:
    expected = outcomes[1, :, :, 1].mean() - outcomes[0, :, :, 0].mean()

    assert net(values(curve_of(outcomes), 10, "fixed")) == pytest.approx(expected, abs=1e-12)


@given(runs())
@settings(max_examples=40)
def test_each_term_is_mass_times_policy_times_quality(outcomes: Bits) -> None:
    population = population_of(outcomes)
    for partition in PARTITIONS:
        for rates in factors(population, 10, 0, partition).values():
            value, mass, policy, quality = (
                rates[name].value for name in ("value", "mass", "policy", "quality")
            )
            assert (policy is None) == (mass == 0)
            assert (quality is None) == (mass == 0 or policy == 0)
            if mass is None or policy is None or quality is None:
                assert value == 0
            else:
                assert value == pytest.approx(mass * policy * quality, abs=1e-12)


@given(runs(), st.randoms(use_true_random=False))
def test_the_order_of_samples_does_not_matter(outcomes: Bits, random: Random) -> None:
    order = list(range(outcomes.shape[1]))
    random.shuffle(order)
    first, second = population_of(outcomes), population_of(outcomes[:, order])

    for term in TERMS:
        one, other = (mean_share(population, 10, term) for population in (first, second))
        assert (one.value, one.low, one.high) == pytest.approx((other.value, other.low, other.high))


@given(runs())
def test_gain_and_harm_mirror_each_other(outcomes: Bits) -> None:
    """With every verdict turned round, gains become harms and the gap its opposite."""
    turned = outcomes.copy()
    turned[..., :2] = ~turned[..., :2]
    mirror: dict[Term, Term] = {
        "call_gain": "call_harm",
        "schema_gain": "schema_harm",
        "call_harm": "call_gain",
        "schema_harm": "schema_gain",
    }
    for partition in PARTITIONS:
        terms = values(curve_of(outcomes), 10, partition)
        turned_terms = values(curve_of(turned), 10, partition)
        for term, opposite in mirror.items():
            assert turned_terms[opposite] == pytest.approx(terms[term])
    one, other = gap(population_of(outcomes), 10), gap(population_of(turned), 10)
    assert one.value is not None
    assert one.low is not None
    assert one.high is not None
    assert (other.value, other.low, other.high) == pytest.approx(
        (-one.value, -one.high, -one.low), abs=1e-9
    )


@given(runs())
def test_with_repeats_terms_are_means_over_all_pairs_of_repeats(outcomes: Bits) -> None:
    """Brute force: every repeat of the free arm against every repeat of the available arm."""
    _, n, k, _ = outcomes.shape
    counted = dict.fromkeys(TERMS, 0)
    for sample, one, other in product(range(n), range(k), range(k)):
        free, (_, available, called) = outcomes[1, sample, one, 0], outcomes[1, sample, other]
        if not free and available:
            counted["call_gain" if called else "schema_gain"] += 1
        if free and not available:
            counted["call_harm" if called else "schema_harm"] += 1

    terms = values(curve_of(outcomes), 10, "current")
    assert {term: part[2] for term, part in terms.items()} == pytest.approx(
        {term: number / (n * k * k) for term, number in counted.items()}, abs=1e-12
    )


@given(runs())
def test_at_the_baseline_all_partitions_are_one(outcomes: Bits) -> None:
    curve = curve_of(outcomes)

    assert values(curve, 0, "fixed") == values(curve, 0, "current")
    assert values(curve, 0, "persistent") == values(curve, 0, "current")


@given(runs())
def test_within_variance_is_the_mean_sample_variance(outcomes: Bits) -> None:
    found = within_variance(population_of(outcomes), 10, "free")

    if outcomes.shape[2] == 1:
        assert found is None
    else:
        expected = outcomes[1, :, :, 0].astype(float).var(axis=1, ddof=1).mean()
        assert found == pytest.approx(expected, abs=1e-12)


def test_the_four_available_shares_sum_to_one() -> None:
    outcomes = np.random.default_rng(0).random((2, 30, 3, 3)) < 0.5
    shares: Shares = curve_of(outcomes).at(10)
    parts = shares.right_called + shares.right_uncalled + shares.wrong_called

    np.testing.assert_allclose(parts + shares.wrong_uncalled, 1.0)
    np.testing.assert_allclose(shares.called + shares.uncalled, 1.0)


def test_a_frame_is_read_into_the_same_curve() -> None:
    outcomes = np.random.default_rng(0).random((2, 30, 3, 3)) < 0.5
    (found,) = read_frame(frame_of(outcomes))
    (curve,) = analysis_set(found).curves
    expected = curve_of(outcomes)

    np.testing.assert_array_equal(curve.counts, expected.counts)
    assert (curve.ids, curve.steps, curve.repeats) == (
        expected.ids,
        expected.steps,
        expected.repeats,
    )
