"""Intervals for what a run reports."""

import math
from array import array
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """A mean over samples with its 95% interval; `value` is None where there is no sample."""

    value: float | None
    low: float | None
    high: float | None
    n: int


UNDEFINED = Rate(value=None, low=None, high=None, n=0)


def mean_rate(
    scores: Sequence[float], clusters: Sequence[Hashable], *, level: float = 0.95
) -> Rate:
    """Mean of scores in [0, 1] with a Wilson interval, adjusted for clusters.

    Parameters
    ----------
    scores : sequence of float, shape (n_scores,)
        Each in [0, 1]; 1.0 is best.
    clusters : sequence of hashable, shape (n_scores,)
        Scores of one cluster (repeats of a sample, rotations of a question) are not independent.
        An array of numbers takes the least memory.
    level : float, default 0.95
        Coverage asked for.

    Returns
    -------
    Rate
        `n` is the number of scores. The interval is Wilson's at the effective sample size
        m (1 - m) / V, with V the cluster-robust variance of the mean m; for 0-1 scores of
        separate samples that is exactly Wilson's. Where V is 0 the clusters are counted.

    References
    ----------
    Wilson, 1927; effective sample size as in Dean and Pagano, Statistical Science 30(3), 2015,
    doi:10.1214/14-STS509.

    Examples
    --------
    >>> rate = mean_rate([1, 1, 0, 1], "abcd")
    >>> rate.value, round(rate.low, 3), round(rate.high, 3)
    (0.75, 0.301, 0.954)
    """
    if len(scores) == 0:
        return UNDEFINED
    values = np.asarray(scores, dtype=float)
    mean = float(np.clip(values.mean(), 0.0, 1.0))
    deviations = np.bincount(_codes(clusters), weights=values - values.mean())
    variance = float((deviations**2).sum()) / len(values) ** 2
    bernoulli = mean * (1.0 - mean)
    effective = bernoulli / variance if variance > 0 and bernoulli > 0 else float(len(deviations))
    low, high = wilson_interval(mean, effective, level)
    # rounding must not put a bound on the wrong side of a rate of 0 or 1
    low, high = (0.0 if mean == 0 else low), (1.0 if mean == 1 else high)
    return Rate(value=mean, low=low, high=high, n=len(values))


def _codes(clusters: Sequence[Hashable]) -> NDArray[np.intp]:
    """Clusters as numbers from 0, in the order in which they first come."""
    if isinstance(clusters, array):
        _, first, codes = np.unique(np.asarray(clusters), return_index=True, return_inverse=True)
        return np.argsort(np.argsort(first))[codes]
    known = {cluster: code for code, cluster in enumerate(dict.fromkeys(clusters))}
    return np.array([known[cluster] for cluster in clusters], dtype=np.intp)


def wilson_interval(share: float, n: float, level: float) -> tuple[float, float]:
    """Wilson's score interval of a share of `n` trials, which need not be a whole number.

    That of statsmodels, whose import takes seconds and a hundred megabytes at the end of every run.

    >>> [round(bound, 4) for bound in wilson_interval(0.25, 8, 0.95)]
    [0.0715, 0.5907]
    """
    z = NormalDist().inv_cdf((1 + level) / 2)
    scale = 1 + z * z / n
    middle = (share + z * z / (2 * n)) / scale
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / scale
    return middle - half, middle + half
