"""Score intervals for shares, ratios and paired differences, from clusters and strata."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import copysign, inf, sqrt

import numpy as np

from medeval.analysis.med.curves import Curve, Floats
from medeval.analysis.statistics.rate import (
    UNDEFINED,
    Rate,
    critical_value,
    effective_size,
    share_rate,
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Stratum:
    """One benchmark's values; `values` and `weights` have shape (n_samples,)."""

    curve: Curve
    values: Floats
    weights: Floats | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Moments:
    """An estimate with its cluster-robust variance.

    `effective_clusters` is Kish's effective number of clusters, (sum of weights)^2 / (sum of
    squared weights).
    """

    value: float
    variance: float
    effective_clusters: float
    n: int


def moments(strata: Sequence[Stratum]) -> Moments | None:
    """The ratio of the strata's unweighted means of `values` to those of `weights`.

    Weights of None are 1: the mean of means. The variance is that of the linearised ratio,
    summed over clusters within strata. `n` counts the samples, or for ratios the weights.
    None where all weights are 0.
    """
    weights = [np.ones(s.curve.n) if s.weights is None else s.weights for s in strata]
    total = sum(float(weight.mean()) for weight in weights)
    if total <= 0:
        return None
    value = sum(float(s.values.mean()) for s in strata) / total
    variance = squares = 0.0
    for stratum, weight in zip(strata, weights, strict=True):
        scale = stratum.curve.n * total
        residuals = stratum.values - value * weight
        residuals -= residuals.mean()
        variance += _sum_of_squares(stratum.curve, residuals) / scale**2
        squares += _sum_of_squares(stratum.curve, weight) / scale**2
    n = round(sum(float(weight.sum()) for weight in weights))
    return Moments(value=value, variance=variance, effective_clusters=1.0 / squares, n=n)


def _sum_of_squares(curve: Curve, values: Floats) -> float:
    """The sum over clusters of squared sums."""
    if curve.n_clusters == curve.n:
        return float(np.dot(values, values))
    sums = np.bincount(curve.clusters, weights=values, minlength=curve.n_clusters)
    return float(np.dot(sums, sums))


def share(strata: Sequence[Stratum]) -> Rate:
    """A mean of values in [0, 1], or a ratio of such means, with its score interval.

    Undefined where the weights are all 0, for 0/0 is not 0.
    """
    found = moments(strata)
    if found is None:
        return UNDEFINED
    return share_rate(
        found.value, variance=found.variance, n_clusters=found.effective_clusters, n=found.n
    )


def difference(strata: Sequence[Stratum]) -> Rate:
    """A mean of paired differences in [-1, 1] with Tango's score interval.

    With b the mean of the positive and c of the negative parts, the estimate is b - c; for 0-1
    outcomes b and c are the discordant shares. The spread is b + c - (b - c)^2. Source: Tango,
    Statistics in Medicine 17(8), 1998, 891-908.
    """
    found = moments(strata)
    if found is None:
        return UNDEFINED
    gains, losses = discordance(strata)
    spread = gains + losses - (gains - losses) ** 2
    low, high = tango(
        gains, losses, effective_size(spread, found.variance, found.effective_clusters)
    )
    return Rate(value=found.value, low=low, high=high, n=found.n)


def discordance(strata: Sequence[Stratum]) -> tuple[float, float]:
    """The mean of the positive and of the negative parts, unweighted over the strata."""
    gains = np.mean([np.maximum(s.values, 0.0).mean() for s in strata])
    losses = np.mean([np.maximum(-s.values, 0.0).mean() for s in strata])
    return float(gains), float(losses)


def tango(gains: float, losses: float, size: float) -> tuple[float, float]:
    """The interval of all differences d that the score test does not reject.

    The statistic is (b - c - d) / sqrt((2 q + d (1 - d)) / m), where q, the share of losses
    that is most likely at a difference of d, is the larger root of
    2 q^2 + (-(b + c) + (2 - b + c) d) q - c d (1 - d) = 0.
    """
    z = critical_value()
    estimate = gains - losses

    def statistic(d: float) -> float:
        linear = -(gains + losses) + (2.0 - estimate) * d
        root = max(linear**2 + 8.0 * losses * d * (1.0 - d), 0.0)
        q = (sqrt(root) - linear) / 4.0
        variance = (2.0 * q + d * (1.0 - d)) / size
        if variance <= 0.0:
            return 0.0 if d == estimate else copysign(inf, estimate - d)
        return (estimate - d) / sqrt(variance)

    low = _root(lambda d: statistic(d) - z, -1.0, estimate)
    high = _root(lambda d: statistic(d) + z, estimate, 1.0)
    return low, high


def _root(falling: Callable[[float], float], low: float, high: float) -> float:
    """Where a falling function changes its sign, or the end that it does not reach."""
    from scipy.optimize import brentq

    if falling(low) <= 0.0:
        return low
    if falling(high) >= 0.0:
        return high
    return float(brentq(falling, low, high, xtol=1e-14))


def minimum_detectable_effect(
    discordant: float, size: float, *, power: float = 0.8
) -> float | None:
    """The smallest gap that McNemar's test at 5% would find with the given power.

    `discordant` is the share of samples on which the arms differ, `size` how many independent
    samples there are. The gap d solves sqrt(m) d = z_a sqrt(f) + z_b sqrt(f - d^2) with f the
    discordant share, or d itself where d is more than that. Source: Connor, Biometrics 43(1),
    1987, 207-211. None where even a gap of 1 would not be found.

    >>> round(minimum_detectable_effect(0.2, 191), 3)
    0.09
    """
    z_alpha, z_beta = critical_value(), critical_value(power)

    def shortfall(gap: float) -> float:
        differing = max(discordant, gap)
        needed = z_alpha * sqrt(differing) + z_beta * sqrt(max(differing - gap**2, 0.0))
        return needed - sqrt(size) * gap

    if shortfall(1.0) > 0.0:
        return None
    return _root(shortfall, 0.0, 1.0)
