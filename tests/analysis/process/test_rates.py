"""Means with intervals: those of the other tables where these have them, and sane elsewhere."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medeval.analysis.intervals import binomial_interval
from medeval.analysis.process.rates import (
    ClusterBootstrap,
    Observed,
    difference,
    geometric_mean,
    share,
)
from medeval.analysis.uncertainty import UNDEFINED, Rate, mean_rate

BOOTSTRAP = ClusterBootstrap(resamples=400, seed=0)


def test_separate_0_1_values_have_the_binomial_interval() -> None:
    found = share(Observed.of([1.0] * 30 + [0.0] * 20, range(50)))
    assert (found.value, found.n) == (0.6, 50)
    assert (found.low, found.high) == pytest.approx(binomial_interval(0.6, 50))


def test_clusters_widen_the_interval_as_in_the_closing_table() -> None:
    values, clusters = [1.0, 1.0, 0.0, 0.0] * 20, [at // 2 for at in range(80)]
    found, known = share(Observed.of(values, clusters)), mean_rate(values, clusters)
    assert (found.low, found.high) == pytest.approx((known.low, known.high))
    alone = share(Observed.of(values, range(80)))
    assert alone.low is not None
    assert found.low is not None
    assert alone.low > found.low


def test_values_that_are_all_alike_still_have_an_interval() -> None:
    found = share(Observed.of([1.0] * 10, range(10)))
    assert (found.value, found.high) == (1.0, 1.0)
    assert found.low == pytest.approx(0.025 ** (1 / 10))


def test_rounding_is_no_spread() -> None:
    found = share(Observed.of([0.1 + 0.2, 0.3, 0.3, 0.3], range(4)))
    assert found.low is not None
    assert found.low < 0.1


def test_no_weight_is_undefined() -> None:
    assert share(Observed.of([1.0], "a", [0.0])) == UNDEFINED
    assert BOOTSTRAP.mean({"": Observed.of([1.0], "a", [0.0])}) == UNDEFINED


def test_rows_of_weight_0_count_for_nothing() -> None:
    kept = share(Observed.of([1.0, 0.0, 0.5], "abc"))
    assert share(Observed.of([1.0, 0.0, 0.5, 1.0], "abcd", [1, 1, 1, 0])) == kept


@given(st.lists(st.tuples(st.floats(0, 1), st.integers(0, 5)), min_size=1, max_size=30))
def test_the_interval_holds_the_mean_and_stays_within_0_and_1(
    rows: list[tuple[float, int]],
) -> None:
    values, clusters = zip(*rows, strict=True)
    found = share(Observed.of(values, clusters))
    assert found.low is not None
    assert found.high is not None
    assert found.value is not None
    assert -1e-9 <= found.low <= found.value + 1e-9
    assert found.value - 1e-9 <= found.high <= 1.0 + 1e-9


def test_a_difference_is_newcombes() -> None:
    # his example: 56/70 - 48/80
    first = Rate(value=56 / 70, low=0.6920, high=0.8772, n=70)
    second = Rate(value=48 / 80, low=0.4906, high=0.7004, n=80)
    found = difference(first, second)
    assert (found.value, found.n) == pytest.approx((0.2, 70))
    assert (found.low, found.high) == pytest.approx((0.0524, 0.3339), abs=2e-4)
    assert difference(first, UNDEFINED) == UNDEFINED


def test_the_bootstrap_is_near_the_normal_interval_and_repeats_itself() -> None:
    values = np.random.default_rng(1).poisson(3.0, 200).astype(float)
    observed = Observed.of(values.tolist(), range(200))
    bootstrap = ClusterBootstrap(resamples=4000, seed=3)
    found = bootstrap.mean({"calls": observed})
    reach = 1.96 * values.std() / np.sqrt(200)
    assert (found.value, found.n) == pytest.approx((values.mean(), 200))
    assert (found.low, found.high) == pytest.approx(
        (values.mean() - reach, values.mean() + reach), abs=0.03
    )
    assert bootstrap.mean({"calls": observed}) == found


def test_the_bootstrap_draws_clusters_and_not_rows() -> None:
    values, clusters = [1.0] * 40 + [3.0] * 40, [at // 20 for at in range(80)]
    found = BOOTSTRAP.mean({"few": Observed.of(values, clusters)})
    assert (found.low, found.high) == (1.0, 3.0)


def test_a_resample_without_weight_is_left_out() -> None:
    found = BOOTSTRAP.mean({"one": Observed.of([2.0, 5.0], "ab", [1.0, 0.0])})
    assert (found.value, found.low, found.high) == (2.0, 2.0, 2.0)


def test_a_geometric_mean_by_hand() -> None:
    found = geometric_mean(Observed.of([np.log(1.0), np.log(4.0)], "ab"))
    # mean log 2, spread log 2 / sqrt(2) * sqrt(2): Student's with one degree of freedom, 12.706
    assert found.value == pytest.approx(2.0)
    assert (found.low, found.high) == pytest.approx(
        (2 ** (1 - 12.706), 2 ** (1 + 12.706)), rel=1e-3
    )


def test_a_geometric_mean_of_one_cluster_has_no_bounds() -> None:
    found = geometric_mean(Observed.of([0.0, 1.0], "aa"))
    assert (found.low, found.high) == (0.0, np.inf)
    assert geometric_mean(Observed.of([0.0], "a", [0.0])) == UNDEFINED
