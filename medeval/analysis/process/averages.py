"""Averages with intervals over values that may share a cluster, and differences of averages."""

import zlib
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from math import exp, inf, sqrt

import numpy as np

from medeval.analysis.med.curves import Floats
from medeval.analysis.statistics.bootstrap import percentile_interval
from medeval.analysis.statistics.rate import (
    LEVEL,
    UNDEFINED,
    Rate,
    share_rate,
    square_and_add,
)

CHUNK_ELEMENTS = 4_000_000


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class WeightedValues:
    """Values with their weights and clusters, each of shape (n_values,).

    A value of weight 0 does not count. Where values are averaged by outcome, a weight is the share
    of the free arm's repeats that give the sample that outcome.
    """

    values: Floats
    weights: Floats
    clusters: Sequence[Hashable]

    @classmethod
    def of(
        cls,
        values: Sequence[float],
        clusters: Sequence[Hashable],
        weights: Sequence[float] | None = None,
    ) -> "WeightedValues":
        """Values of weight 1, unless weights are given."""
        given = np.ones(len(values)) if weights is None else np.asarray(weights, dtype=float)
        return cls(values=np.asarray(values, dtype=float), weights=given, clusters=clusters)

    @property
    def total(self) -> float:
        """The sum of the weights."""
        return float(self.weights.sum())

    @property
    def mean(self) -> float:
        """The weighted mean; undefined where all weights are 0."""
        return float(np.dot(self.values, self.weights)) / self.total

    def sums(self, columns: Sequence[Floats]) -> Floats:
        """Columns summed over each cluster, shape (n_clusters, n_columns)."""
        codes = self.codes()
        return np.stack([np.bincount(codes, weights=column) for column in columns], axis=1)

    def residuals(self) -> Floats:
        """Weighted distances from the mean, summed over each cluster, shape (n_clusters, 1)."""
        return self.sums([(self.values - self.mean) * self.weights])

    def codes(self) -> list[int]:
        """The clusters as numbers from 0, in the order of their first value."""
        known = {cluster: code for code, cluster in enumerate(dict.fromkeys(self.clusters))}
        return [known[cluster] for cluster in self.clusters]


def share(*strata: WeightedValues) -> Rate:
    """A weighted mean of values in [0, 1] with the score interval of the other tables.

    Of several strata, one a benchmark, it is the unweighted mean of their means. `n` is the sum of
    the weights, rounded. Undefined where the weights of a stratum are all 0.
    """
    if not _all_weigh(strata):
        return UNDEFINED
    variance = squares = 0.0
    for stratum in strata:
        scale = stratum.total * len(strata)
        variance += float((stratum.residuals() ** 2).sum()) / scale**2
        squares += float((stratum.sums([stratum.weights]) ** 2).sum()) / scale**2
    return share_rate(
        _mean_of_means(strata), variance=variance, n_clusters=1.0 / squares, n=_size(strata)
    )


def geometric_mean(*strata: WeightedValues) -> Rate:
    """The geometric mean of positive values, given by their natural logarithms.

    Of several strata, one a benchmark, it is the geometric mean of their geometric means. The
    interval is Student's about the mean logarithm, with the cluster-robust variance and one degree
    of freedom less than there are clusters (of several strata, Satterthwaite's). Where a stratum is
    a single cluster, the interval is 0 to infinity. Undefined where the weights of a stratum are
    all 0.
    """
    if not _all_weigh(strata):
        return UNDEFINED
    from scipy.special import stdtrit

    mean = _mean_of_means(strata)
    variances, freedoms = [], []
    for stratum in strata:
        n_clusters = int((stratum.sums([stratum.weights]) > 0.0).sum())
        if n_clusters < 2:
            return Rate(value=exp(mean), low=0.0, high=inf, n=_size(strata))
        correction = n_clusters / (n_clusters - 1)
        squares = float((stratum.residuals() ** 2).sum()) * correction
        variances.append(squares / stratum.total**2)
        freedoms.append(n_clusters - 1)
    variance = sum(variances)
    parts = sum(each**2 / freedom for each, freedom in zip(variances, freedoms, strict=True))
    freedom = variance**2 / parts if parts > 0.0 else min(freedoms)
    reach = float(stdtrit(freedom, (1.0 + LEVEL) / 2.0)) * sqrt(variance) / len(strata)
    return Rate(value=exp(mean), low=exp(mean - reach), high=exp(mean + reach), n=_size(strata))


def _all_weigh(strata: Sequence[WeightedValues]) -> bool:
    """Whether there is a stratum, and none whose weights are all 0."""
    return bool(strata) and all(stratum.total > 0.0 for stratum in strata)


def _mean_of_means(strata: Sequence[WeightedValues]) -> float:
    return sum(stratum.mean for stratum in strata) / len(strata)


def _size(strata: Sequence[WeightedValues]) -> int:
    return round(sum(stratum.total for stratum in strata))


def unpaired_difference(first: Rate, second: Rate) -> Rate:
    """The difference of two shares of separate trajectories, first less second, in [-1, 1].

    The interval is that of `square_and_add`. `n` is the smaller of the two. Undefined where one of
    the shares is.
    """
    if first.value is None or second.value is None:
        return UNDEFINED
    low, high = square_and_add(before=second, now=first)
    return Rate(value=first.value - second.value, low=low, high=high, n=min(first.n, second.n))


class ClusterBootstrap:
    """Resamples whole clusters; equal seeds and names give equal draws."""

    def __init__(self, *, resamples: int, seed: int) -> None:
        self.resamples = resamples
        self.seed = seed

    def mean(self, strata: Mapping[str, WeightedValues]) -> Rate:
        """A weighted mean with its percentile interval; of several strata, the mean of means.

        Each stratum, under its name, is resampled by itself. Clusters with equal sums are drawn
        together, multinomially, so that the time depends on the number of distinct sums.
        """
        observed = tuple(strata.values())
        if not _all_weigh(observed):
            return UNDEFINED
        drawn: Floats = np.mean([self._means(each, name) for name, each in strata.items()], axis=0)
        low, high = percentile_interval(drawn)
        return Rate(value=_mean_of_means(observed), low=low, high=high, n=_size(observed))

    def _means(self, observed: WeightedValues, name: str) -> Floats:
        columns = [observed.values * observed.weights, observed.weights]
        totals = self._totals(observed, columns, name)
        return _ratio(totals[:, 0], totals[:, 1])

    def _totals(self, observed: WeightedValues, columns: Sequence[Floats], name: str) -> Floats:
        """The columns' sums in each resample, shape (resamples, n_columns)."""
        sums, numbers = np.unique(observed.sums(columns), axis=0, return_counts=True)
        generator = np.random.default_rng([self.seed, zlib.crc32(name.encode())])
        chunk = max(1, CHUNK_ELEMENTS // len(sums))
        shares = numbers / numbers.sum()
        drawn = [
            generator.multinomial(numbers.sum(), shares, size=min(chunk, self.resamples - start))
            @ sums
            for start in range(0, self.resamples, chunk)
        ]
        totals: Floats = np.concatenate(drawn)
        return totals


def _ratio(numerator: Floats, denominator: Floats) -> Floats:
    """Element by element; NaN, which no interval counts, where a resample drew no weight."""
    found: Floats = np.divide(
        numerator, denominator, out=np.full(len(numerator), np.nan), where=denominator > 0.0
    )
    return found
