"""Means with intervals: those of the other tables where these have them, and sane elsewhere."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medeval.analysis.med.curves import Curve, Population
from medeval.analysis.med.quantities import mean_share
from medeval.analysis.process.averages import (
    ClusterBootstrap,
    WeightedValues,
    geometric_mean,
    share,
    unpaired_difference,
)
from medeval.analysis.statistics.rate import UNDEFINED, Rate, binomial_interval, mean_rate

BOOTSTRAP = ClusterBootstrap(resamples=400, seed=0)


def test_separate_0_1_values_have_the_binomial_interval() -> None:
    found = share(WeightedValues.of([1.0] * 30 + [0.0] * 20, range(50)))
    assert (found.value, found.n) == (0.6, 50)
    assert (found.low, found.high) == pytest.approx(binomial_interval(0.6, 50))


def test_clusters_widen_the_interval_as_in_the_closing_table() -> None:
    values, clusters = [1.0, 1.0, 0.0, 0.0] * 20, [at // 2 for at in range(80)]
    found, known = share(WeightedValues.of(values, clusters)), mean_rate(values, clusters)
    assert (found.low, found.high) == pytest.approx((known.low, known.high))
    alone = share(WeightedValues.of(values, range(80)))
    assert alone.low is not None
    assert found.low is not None
    assert alone.low > found.low


def test_values_that_are_all_alike_still_have_an_interval() -> None:
    found = share(WeightedValues.of([1.0] * 10, range(10)))
    assert (found.value, found.high) == (1.0, 1.0)
    assert found.low == pytest.approx(0.025 ** (1 / 10))


def test_rounding_is_no_spread() -> None:
    found = share(WeightedValues.of([0.1 + 0.2, 0.3, 0.3, 0.3], range(4)))
    assert found.low is not None
    assert found.low < 0.1


def test_no_weight_is_undefined() -> None:
    assert share(WeightedValues.of([1.0], "a", [0.0])) == UNDEFINED
    assert BOOTSTRAP.mean({"": WeightedValues.of([1.0], "a", [0.0])}) == UNDEFINED


def test_rows_of_weight_0_count_for_nothing() -> None:
    kept = share(WeightedValues.of([1.0, 0.0, 0.5], "abc"))
    assert share(WeightedValues.of([1.0, 0.0, 0.5, 1.0], "abcd", [1, 1, 1, 0])) == kept


@given(st.lists(st.tuples(st.floats(0, 1), st.integers(0, 5)), min_size=1, max_size=30))
def test_the_interval_holds_the_mean_and_stays_within_0_and_1(
    rows: list[tuple[float, int]],
) -> None:
    values, clusters = zip(*rows, strict=True)
    found = share(WeightedValues.of(values, clusters))
    assert found.low is not None
    assert found.high is not None
    assert found.value is not None
    assert -1e-9 <= found.low <= found.value + 1e-9
    assert found.value - 1e-9 <= found.high <= 1.0 + 1e-9


def test_a_difference_is_newcombes() -> None:
    # his example: 56/70 - 48/80
    first = Rate(value=56 / 70, low=0.6920, high=0.8772, n=70)
    second = Rate(value=48 / 80, low=0.4906, high=0.7004, n=80)
    found = unpaired_difference(first, second)
    assert (found.value, found.n) == pytest.approx((0.2, 70))
    assert (found.low, found.high) == pytest.approx((0.0524, 0.3339), abs=2e-4)
    assert unpaired_difference(first, UNDEFINED) == UNDEFINED


def test_the_bootstrap_is_near_the_normal_interval_and_repeats_itself() -> None:
    values = np.random.default_rng(1).poisson(3.0, 200).astype(float)
    observed = WeightedValues.of(values.tolist(), range(200))
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
    found = BOOTSTRAP.mean({"few": WeightedValues.of(values, clusters)})
    assert (found.low, found.high) == (1.0, 3.0)


def test_a_resample_without_weight_is_left_out() -> None:
    found = BOOTSTRAP.mean({"one": WeightedValues.of([2.0, 5.0], "ab", [1.0, 0.0])})
    assert (found.value, found.low, found.high) == (2.0, 2.0, 2.0)


def test_a_geometric_mean_by_hand() -> None:
    found = geometric_mean(WeightedValues.of([np.log(1.0), np.log(4.0)], "ab"))
    # mean log 2, spread log 2 / sqrt(2) * sqrt(2): Student's with one degree of freedom, 12.706
    assert found.value == pytest.approx(2.0)
    assert (found.low, found.high) == pytest.approx(
        (2 ** (1 - 12.706), 2 ** (1 + 12.706)), rel=1e-3
    )


def test_a_geometric_mean_of_one_cluster_has_no_bounds() -> None:
    found = geometric_mean(WeightedValues.of([0.0, 1.0], "aa"))
    assert (found.low, found.high) == (0.0, np.inf)
    assert geometric_mean(WeightedValues.of([0.0], "a", [0.0])) == UNDEFINED


def test_a_mean_of_benchmarks_is_unweighted_by_hand() -> None:
    first, second = (
        WeightedValues.of([1.0, 0.0], "ab"),
        WeightedValues.of([1.0, 1.0, 1.0, 0.0], "abcd"),
    )
    found = share(first, second)
    assert (found.value, found.n) == (0.625, 6)
    # variances of the two means: (2 x 1/4) / 4 and (3 x 1/16 + 9/16) / 16, over 2 squared
    variance = (0.125 + 0.046875) / 4
    expected = binomial_interval(0.625, 0.625 * 0.375 / variance)
    assert (found.low, found.high) == pytest.approx(expected)
    assert share(first, WeightedValues.of([], "")) == share() == UNDEFINED


@given(st.lists(st.lists(st.booleans(), min_size=1, max_size=9), min_size=1, max_size=3))
def test_a_mean_of_benchmarks_has_the_interval_of_the_measure_table(
    verdicts: list[list[bool]],
) -> None:
    found = share(
        *(WeightedValues.of([float(x) for x in each], range(len(each))) for each in verdicts)
    )
    curves = [curve_of(f"b{at}", each) for at, each in enumerate(verdicts)]
    known = mean_share(Population(benchmark="m", group=None, curves=tuple(curves)), 0, "available")
    assert found.value == pytest.approx(known.value)
    assert found.n == known.n
    assert (found.low, found.high) == pytest.approx((known.low, known.high), abs=1e-9)


def curve_of(name: str, right: list[bool]) -> Curve:
    counts = np.zeros((1, 7, len(right)), dtype=np.int32)
    counts[0, 2] = right
    return Curve(
        benchmark=name,
        group=None,
        metric="share correct",
        steps=(0,),
        repeats=(1,),
        ids=tuple(map(str, range(len(right)))),
        groups=tuple({} for _ in right),
        clusters=np.arange(len(right), dtype=np.int32),
        counts=counts,
    )


def test_a_geometric_mean_of_benchmarks_by_hand() -> None:
    first = WeightedValues.of([0.0, np.log(4.0)], "ab")
    second = WeightedValues.of([np.log(16.0), np.log(4.0)], "ab")
    found = geometric_mean(first, second)
    assert found.value == pytest.approx(4.0)
    # each mean logarithm has the spread log 2 and 1 degree of freedom: together
    # log 2 / sqrt(2) and 2 of them, at which Student's is 4.303
    reach = 4.303 / np.sqrt(2)
    assert (found.low, found.high) == pytest.approx((2 ** (2 - reach), 2 ** (2 + reach)), rel=1e-3)
    alone = geometric_mean(first, WeightedValues.of([0.0], "a"))
    assert alone.value == pytest.approx(2**0.5)
    assert (alone.low, alone.high) == (0.0, np.inf)
    alike = geometric_mean(WeightedValues.of([1.0, 1.0], "ab"), WeightedValues.of([1.0, 1.0], "ab"))
    assert alike.low == alike.value == alike.high == pytest.approx(np.e)


def test_a_mean_of_counts_over_benchmarks_draws_each_by_itself() -> None:
    alike = {"a": WeightedValues.of([1.0, 3.0], "ab"), "b": WeightedValues.of([1.0, 3.0], "ab")}
    found = BOOTSTRAP.mean(alike)
    assert (found.value, found.low, found.high, found.n) == (2.0, 1.0, 3.0, 4)
    wide = ClusterBootstrap(resamples=20_000, seed=0).mean(
        {name: WeightedValues.of(list(range(50)), range(50)) for name in "abcd"}
    )
    reach = 1.96 * np.sqrt((50**2 - 1) / 12 / 50 / 4)
    assert (wide.low, wide.high) == pytest.approx((24.5 - reach, 24.5 + reach), abs=0.15)
