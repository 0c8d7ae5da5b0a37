import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import betaincinv

from medeval.analysis.statistics.rate import UNDEFINED, mean_rate

Z = 1.959963984540054


def wilson(successes: float, n: float) -> tuple[float, float]:
    """Wilson, 1927, as in every textbook: written out here, apart from any library."""
    share = successes / n
    centre = (share + Z**2 / (2 * n)) / (1 + Z**2 / n)
    half = Z / (1 + Z**2 / n) * math.sqrt(share * (1 - share) / n + Z**2 / (4 * n**2))
    return centre - half, centre + half


def exact(successes: float, n: float) -> tuple[float, float]:
    """Clopper and Pearson, 1934, by quantiles of the beta distribution."""
    low = betaincinv(successes, n - successes + 1, 0.025) if successes else 0.0
    high = betaincinv(successes + 1, n - successes, 0.975) if successes < n else 1.0
    return float(low), float(high)


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    # Newcombe, Statistics in Medicine 17 (1998), table I, method 3, and 5 for few events
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0, 0.1684),
        (1, 29, 0.0009, 0.1776),
    ],
)
def test_separate_samples_have_the_published_intervals(
    successes: int, n: int, low: float, high: float
) -> None:
    scores = [1.0] * successes + [0.0] * (n - successes)
    rate = mean_rate(scores, range(n))
    assert rate.n == n
    assert rate.value == pytest.approx(successes / n)
    assert rate.low == pytest.approx(low, abs=5e-5)
    assert rate.high == pytest.approx(high, abs=5e-5)


@given(st.lists(st.booleans(), min_size=1, max_size=60))
def test_the_interval_is_wilsons_or_with_few_events_the_exact_one(scores: list[bool]) -> None:
    rate = mean_rate([float(score) for score in scores], range(len(scores)))
    successes, n = sum(scores), len(scores)
    low, high = (exact if min(successes, n - successes) < 10 else wilson)(successes, n)
    assert rate.low == pytest.approx(low, abs=1e-9)
    assert rate.high == pytest.approx(high, abs=1e-9)


def test_copies_of_a_sample_in_one_cluster_add_nothing() -> None:
    single = mean_rate([1, 1, 0, 1, 0], "abcde")
    copied = mean_rate([1, 1, 0, 1, 0] * 4, "abcde" * 4)
    assert copied.n == 20
    assert (copied.value, copied.low, copied.high) == pytest.approx(
        (single.value, single.low, single.high)
    )


def test_clusters_are_counted_where_all_scores_agree() -> None:
    rate = mean_rate([1.0] * 12, "aaabbbcccddd")
    assert (rate.low, rate.high) == pytest.approx(exact(4, 4))


def test_a_cluster_adjusted_interval_as_computed_by_hand() -> None:
    # cluster means 1, 1/2, 0 of two each: m = 1/2, V = (1 + 0 + 1) / 36, so m (1 - m) / V = 4.5
    rate = mean_rate([1, 1, 1, 0, 0, 0], "aabbcc")
    assert (rate.low, rate.high) == pytest.approx(exact(2.25, 4.5))
    # ten times as many clusters of each kind
    rate = mean_rate([1, 1, 1, 0, 0, 0] * 10, [at // 2 for at in range(60)])
    assert (rate.low, rate.high) == pytest.approx(wilson(22.5, 45))


def test_nothing_has_no_rate() -> None:
    assert mean_rate([], []) == UNDEFINED
    assert (UNDEFINED.value, UNDEFINED.low, UNDEFINED.high, UNDEFINED.n) == (None, None, None, 0)


@given(
    st.lists(
        st.tuples(st.floats(0, 1), st.integers(0, 5)),
        min_size=1,
        max_size=40,
    )
)
def test_the_interval_holds_the_mean_and_stays_in_0_to_1(
    scored: list[tuple[float, int]],
) -> None:
    rate = mean_rate([score for score, _ in scored], [cluster for _, cluster in scored])
    assert rate.value is not None
    assert rate.low is not None
    assert rate.high is not None
    assert -1e-12 <= rate.low <= rate.value + 1e-9
    assert rate.value - 1e-9 <= rate.high <= 1 + 1e-12


def test_clusters_of_one_hash_are_told_apart() -> None:
    assert hash(-1) == hash(-2)
    assert mean_rate([1, 0, 1, 0], [-1, -2, -3, -4]) == mean_rate([1, 0, 1, 0], "abcd")
