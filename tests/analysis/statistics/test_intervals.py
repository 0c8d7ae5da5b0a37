"""Intervals, tests and resamples against textbook formulas and brute force."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.proportion import proportion_confint

from medeval.analysis.med.changes import BOOTSTRAPPED, ChangeMaker
from medeval.analysis.med.contribution import areas
from medeval.analysis.med.curves import Curve, Floats, Population
from medeval.analysis.statistics.bootstrap import Bootstrap, percentile_interval, swapped
from medeval.analysis.statistics.intervals import (
    Stratum,
    difference,
    minimum_detectable_effect,
    moments,
    share,
    tango,
)
from medeval.analysis.statistics.rate import binomial_interval, mean_rate
from medeval.analysis.statistics.significance import (
    benjamini_hochberg,
    exact_test,
    mean_test,
    sign_flip_test,
)


def curve(n: int, clusters: list[int] | None = None) -> Curve:
    return Curve(
        benchmark="drawn",
        group=None,
        metric="share correct",
        steps=(0,),
        repeats=(1,),
        ids=tuple(map(str, range(n))),
        groups=({},) * n,
        clusters=np.array(range(n) if clusters is None else clusters, dtype=np.int32),
        counts=np.zeros((1, 7, n), dtype=np.int32),
    )


def strata(*values: list[float]) -> list[Stratum]:
    return [Stratum(curve=curve(len(each)), values=np.array(each, dtype=float)) for each in values]


def test_separate_samples_get_wilsons_interval() -> None:
    found = share(strata([1.0] * 60 + [0.0] * 40))

    assert (found.low, found.high) == pytest.approx(proportion_confint(60, 100, method="wilson"))


def test_few_events_get_the_exact_interval() -> None:
    found = share(strata([1.0] * 9 + [0.0] * 91))

    assert (found.low, found.high) == pytest.approx(proportion_confint(9, 100, method="beta"))


@pytest.mark.parametrize(("p", "end"), [(0.0, 0), (1.0, 1)])
def test_an_interval_ends_at_what_cannot_be_passed(p: float, end: int) -> None:
    assert binomial_interval(p, 20)[end] == p


def test_clusters_are_counted_as_the_summary_counts_them() -> None:
    generator = np.random.default_rng(0)
    clusters = np.repeat(np.arange(50), 4)
    values = (generator.random(50)[clusters] < 0.5).astype(float)
    found = share([Stratum(curve=curve(200, clusters.tolist()), values=values)])
    expected = mean_rate(values.tolist(), clusters.tolist())

    assert (found.value, found.low, found.high) == pytest.approx(
        (expected.value, expected.low, expected.high)
    )


def test_a_mean_of_benchmarks_is_unweighted() -> None:
    assert share(strata([1.0] * 10, [0.0] * 90)).value == 0.5


def test_a_ratio_without_weight_is_undefined() -> None:
    stratum = Stratum(curve=curve(3), values=np.zeros(3), weights=np.zeros(3))

    assert share([stratum]).value is None
    assert difference([stratum]).value is None


def test_a_ratio_of_counts_has_the_interval_of_the_smaller_sample() -> None:
    domain = np.array([1.0] * 40 + [0.0] * 60)
    acted = np.array([1.0] * 15 + [0.0] * 85)
    found = share([Stratum(curve=curve(100), values=acted, weights=domain)])

    assert found.n == 40
    assert (found.low, found.high) == pytest.approx(proportion_confint(15, 40, method="wilson"))


def test_the_variance_of_a_stratified_ratio_is_that_of_the_bootstrap() -> None:
    generator = np.random.default_rng(1)
    parts, replicates = [], []
    for n in (300, 500):
        weights = generator.random(n) < 0.4
        values = weights & (generator.random(n) < 0.3)
        each = Stratum(
            curve=curve(n), values=values.astype(np.float64), weights=weights.astype(np.float64)
        )
        parts.append(each)
        drawn = generator.integers(0, n, (4000, n))
        replicates.append((values[drawn].mean(axis=1), weights[drawn].mean(axis=1)))
    found = moments(parts)
    ratio = sum(top for top, _ in replicates) / sum(bottom for _, bottom in replicates)

    assert found is not None
    assert found.variance == pytest.approx(float(np.var(ratio)), rel=0.1)


@pytest.mark.parametrize(("b", "c", "n"), [(1, 0, 44), (1, 1, 44), (12, 5, 60), (9, 40, 191)])
def test_paired_intervals_solve_the_score_equation(b: int, c: int, n: int) -> None:
    low, high = tango(b / n, c / n, n)

    for end in (low, high):
        # the profile likelihood of q, maximised by brute force
        q = np.linspace(max(0.0, -end) + 1e-9, (1 - end) / 2 - 1e-9, 200_001)
        likelihood = _log(b, q + end) + _log(c, q) + _log(n - b - c, 1 - 2 * q - end)
        best = q[np.argmax(likelihood)]
        score = (b - c - n * end) / np.sqrt(n * (2 * best + end * (1 - end)))
        assert abs(score) == pytest.approx(1.959964, abs=2e-3)


def _log(count: int, chance: Floats) -> Floats:
    found: Floats = count * np.log(np.maximum(chance, 1e-300))
    return found


def test_a_paired_interval_reaches_its_ends() -> None:
    assert tango(1.0, 0.0, 10)[1] == 1.0
    assert tango(0.0, 1.0, 10)[0] == -1.0
    low, high = tango(0.0, 0.0, 100)
    assert (low, high) == pytest.approx((-high, high))
    assert 0.03 < high < 0.05


def test_identical_arms_have_an_interval_of_the_size_of_their_clusters() -> None:
    separate = difference(strata([0.0] * 40))
    clustered = difference(
        [Stratum(curve=curve(40, [code // 4 for code in range(40)]), values=np.zeros(40))]
    )

    assert separate.high is not None
    assert clustered.high is not None
    assert separate.high < clustered.high


@given(st.integers(0, 30), st.integers(0, 30))
@settings(max_examples=60)
def test_the_exact_test_is_mcnemars(gains: int, losses: int) -> None:
    found = sign_flip_test([1] * gains + [-1] * losses + [0] * 5)
    expected = 1.0
    if gains + losses:
        expected = binomtest(gains, gains + losses).pvalue
        table = [[5, gains], [losses, 5]]
        assert min(1.0, mcnemar(table, exact=True).pvalue) == pytest.approx(expected)

    assert found == pytest.approx(expected)


@given(st.lists(st.integers(-4, 4), min_size=1, max_size=10))
def test_the_clustered_test_counts_every_choice_of_signs(differences: list[int]) -> None:
    totals = [
        sum(sign * size for sign, size in zip(signs, differences, strict=True))
        for signs in product((1, -1), repeat=len(differences))
    ]
    expected = np.mean([abs(total) >= abs(sum(differences)) for total in totals])

    assert sign_flip_test(differences) == pytest.approx(float(expected))


def test_clusters_change_sign_as_a_whole() -> None:
    values = np.array([1.0, 1.0, 1.0, 1.0])

    assert exact_test(curve(4), values) == pytest.approx(2 / 16)
    assert exact_test(curve(4, [0, 0, 1, 1]), values) == pytest.approx(2 / 4)


def test_huge_tests_come_near_the_exact_ones() -> None:
    small = [1] * 60_000 + [-1] * 59_300
    huge = [1, 2] * 50_000 + [-1, -2] * 49_700 + [1] * 300

    assert sign_flip_test(small) == pytest.approx(binomtest(60_000, 119_300).pvalue)
    z = abs(sum(huge)) / np.sqrt(sum(size**2 for size in huge))
    assert sign_flip_test(huge) == pytest.approx(2 * (1 - _normal(z)), rel=0.02)


def _normal(z: float) -> float:
    from statistics import NormalDist

    return NormalDist().cdf(z)


def test_the_test_of_a_mean_comes_near_the_exact_one() -> None:
    values = [1.0] * 60 + [-1.0] * 35 + [0.0] * 100

    assert mean_test(strata(values)) == pytest.approx(sign_flip_test(values), abs=0.006)
    assert mean_test(strata([0.0, 0.0])) == 1.0


def test_no_test_is_no_p_value() -> None:
    assert np.isnan(benjamini_hochberg([float("nan")])).all()


def test_the_detectable_effect_is_found_with_the_power_asked_for() -> None:
    n, discordant = 400, 0.2
    effect = minimum_detectable_effect(discordant, n)
    assert effect is not None
    generator = np.random.default_rng(0)
    chances = [(discordant + effect) / 2, (discordant - effect) / 2, 1 - discordant]
    b, c, _ = generator.multinomial(n, chances, size=20_000).T

    assert ((b - c) / np.sqrt(b + c) > 1.96).mean() == pytest.approx(0.8, abs=0.02)
    assert minimum_detectable_effect(0.0, 2) is None


def test_resampled_means_have_the_spread_of_the_mean() -> None:
    values = (np.random.default_rng(0).random((400, 1)) < 0.3).astype(float)
    means = Bootstrap(resamples=4000, seed=0).means(curve(400), values)

    assert means.mean() == pytest.approx(values.mean(), abs=0.002)
    assert means.std() == pytest.approx(values.std() / 20, rel=0.05)


@pytest.mark.parametrize("n_patterns", [8, 4000])
def test_large_benchmarks_resample_to_the_same_spread(n_patterns: int) -> None:
    values = (np.arange(4000) % n_patterns / n_patterns)[:, None]
    means = Bootstrap(resamples=2000, seed=0).means(curve(4000), values)

    assert means.mean() == pytest.approx(values.mean(), abs=0.002)
    assert means.std() == pytest.approx(values.std() / np.sqrt(4000), rel=0.07)


def test_changes_of_large_benchmarks_have_the_intervals_of_kept_draws(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    generator = np.random.default_rng(0)
    drawn = replace(
        curve(2000),
        steps=(0, 10),
        repeats=(1, 1),
        counts=np.where(generator.random((2, 7, 2000)) < 0.2, 1, 0).astype(np.int32),
    )
    population = Population(benchmark="drawn", group=None, curves=(drawn,))

    def intervals() -> Floats:
        maker = ChangeMaker(Bootstrap(resamples=4000, seed=0))
        changes = {each.quantity: each.change for each in maker.changes(population, 0, 10)}
        ends = [(changes[name].low, changes[name].high) for name in BOOTSTRAPPED]
        return np.array(ends, dtype=np.float64)

    kept = intervals()
    monkeypatch.setattr("medeval.analysis.statistics.bootstrap.MOST_KEPT_CLUSTERS", 1000)

    np.testing.assert_allclose(intervals(), kept, atol=0.01)


def test_clusters_are_drawn_whole() -> None:
    clusters = [code // 4 for code in range(400)]
    values = (np.array(clusters) % 2.0)[:, None]
    means = Bootstrap(resamples=4000, seed=0).means(curve(400, clusters), values)

    assert means.std() == pytest.approx(0.5 / np.sqrt(100), rel=0.05)


def test_percentiles_are_of_what_is_defined() -> None:
    values = np.random.default_rng(0).random(999)
    with_gaps = np.concatenate([values, np.full(50, np.nan)])

    assert percentile_interval(with_gaps) == pytest.approx(
        tuple(np.quantile(values, [0.025, 0.975]))
    )
    assert np.isnan(percentile_interval(np.full(3, np.nan))).all()


def test_swaps_exchange_whole_curves_of_whole_clusters() -> None:
    free = np.array([[0.0, 1.0, 2.0], [0.0, 3.0, 5.0]])
    available = np.array([[0.0, 10.0, 20.0], [0.0, 30.0, 50.0]])
    (moved,) = swapped(curve(2), free, available, swaps=200, seed=0)
    expected = set()
    for swaps in product((False, True), repeat=2):
        rows = [(available if swap else free)[i] for i, swap in enumerate(swaps)]
        expected.add(tuple(np.mean(rows, axis=0)))

    assert {tuple(row) for row in moved[0]} == expected
    np.testing.assert_allclose(moved[0] + moved[1], [(free + available).mean(axis=0)] * 200)


@given(
    st.lists(st.floats(-1, 1), min_size=5, max_size=5),
    st.lists(st.floats(-1, 1), min_size=5, max_size=5),
)
def test_areas_are_those_of_a_fine_grid(free: list[float], available: list[float]) -> None:
    steps = [0, 10, 15, 40, 50]
    found = areas("s_tool", steps, np.array([free]), np.array([available]))
    grid = np.linspace(0, 50, 50_001)
    base = np.interp(grid, steps, np.array(free) - free[0])
    tool = np.interp(grid, steps, np.array(available) - available[0]) - base

    assert found.intrinsic == pytest.approx(np.trapezoid(np.abs(base), grid), abs=1e-3)
    assert found.positive == pytest.approx(np.trapezoid(np.maximum(tool, 0), grid), abs=1e-3)
    assert found.negative == pytest.approx(np.trapezoid(np.maximum(-tool, 0), grid), abs=1e-3)


@pytest.mark.parametrize("form", ["s_tool", "s_tool_med"])
def test_a_contribution_without_drift_is_undefined(form: str) -> None:
    flat = np.full((2, 3), 0.5)

    assert np.isnan(areas(form, [0, 1, 2], flat, flat).contribution)  # type: ignore[arg-type]
