"""A share with its 95% interval, by the one rule that all tables follow.

The interval is the score interval of a simple random sample, at the effective sample size that
gives it the cluster-robust variance of the share (Dean and Pagano, Statistical Science 30(3),
2015, doi:10.1214/14-STS509). For 0-1 values of separate samples of one benchmark that size is
the number of samples, and the interval is the textbook's to the last digit.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import cache
from math import hypot, sqrt
from statistics import NormalDist
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

TableRow: TypeAlias = dict[str, Any]

LEVEL: Final = 0.95
# With fewer events, Wilson's interval can hold the truth as rarely as 84% of the time.
FEW: Final = 10
# A variance up to this is a rounding error on values that are all alike.
ROUNDING: Final = 1e-20


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """An estimate from `n` samples with its 95% interval; all None where it is undefined."""

    value: float | None
    low: float | None
    high: float | None
    n: int

    def columns(self, name: str) -> TableRow:
        """The value under `name`, and the ends of its interval."""
        return {name: self.value, f"{name}_low": self.low, f"{name}_high": self.high}


UNDEFINED: Final = Rate(value=None, low=None, high=None, n=0)


def share_rate(share: float, *, variance: float, n_clusters: float, n: int) -> Rate:
    """A share in [0, 1] with its 95% interval; rounding may have put it just outside.

    `variance` is the cluster-robust variance of the share, `n_clusters` the effective number of
    clusters.
    """
    share = min(1.0, max(0.0, share))
    size = effective_size(share * (1.0 - share), variance, n_clusters)
    low, high = binomial_interval(share, size)
    return Rate(value=share, low=low, high=high, n=n)


def effective_size(spread: float, variance: float, n_clusters: float) -> float:
    """The size at which the mean of a simple random sample has the given variance.

    `spread` is the variance of one value. Where one of the two is 0, it is `n_clusters`.
    """
    return spread / variance if variance > ROUNDING and spread > 0.0 else n_clusters


def binomial_interval(share: float, size: float) -> tuple[float, float]:
    """The 95% interval of a share of `size` draws, which need not be a whole number.

    Wilson's (1927). With fewer than FEW events, or fewer than FEW draws without the event, Clopper
    and Pearson's (1934). Both are equal to those of statsmodels, which is not used here because its
    import takes a second and 100 MB at the end of every run.

    >>> [round(end, 3) for end in binomial_interval(0.0, 191)]
    [0.0, 0.019]
    """
    events, z = share * size, critical_value()
    if min(events, size - events) < FEW:
        from scipy.special import betaincinv

        tail = (1.0 - LEVEL) / 2.0
        low = betaincinv(events, size - events + 1.0, tail) if events > 0 else 0.0
        high = betaincinv(events + 1.0, size - events, 1.0 - tail) if events < size else 1.0
        return float(low), float(high)
    centre = (share + z * z / (2.0 * size)) / (1.0 + z * z / size)
    reach = sqrt(share * (1.0 - share) / size + (z / (2.0 * size)) ** 2) * z / (1.0 + z * z / size)
    return centre - reach, centre + reach


@cache
def critical_value(share: float = (1.0 + LEVEL) / 2.0) -> float:
    """The standard normal quantile of a share."""
    return NormalDist().inv_cdf(share)


def square_and_add(before: Rate, now: Rate) -> tuple[float, float]:
    """The interval of a difference, `now` less `before`, from the intervals of the two rates.

    It takes the rates as independent. Two points of one curve are mostly positively correlated, for
    which it is too wide.
    Source: Newcombe, Statistics in Medicine 17(8), 1998, 873-890, method 10.

    >>> unchanged = Rate(value=0.0, low=0.0, high=0.03, n=100)
    >>> square_and_add(unchanged, unchanged)
    (-0.03, 0.03)
    """
    value, low, high = _known(now)
    then, then_low, then_high = _known(before)
    change = value - then
    return (
        change - hypot(value - low, then_high - then),
        change + hypot(high - value, then - then_low),
    )


def _known(rate: Rate) -> tuple[float, float, float]:
    assert rate.value is not None
    assert rate.low is not None
    assert rate.high is not None
    return rate.value, rate.low, rate.high


def mean_rate(scores: Sequence[float], clusters: Sequence[Hashable]) -> Rate:
    """Mean of scores in [0, 1] with its 95% interval, adjusted for clusters.

    Parameters
    ----------
    scores : sequence of float, shape (n_scores,)
        Each in [0, 1]; 1.0 is best.
    clusters : sequence of hashable, shape (n_scores,)
        Scores of one cluster (repeats of a sample, rotations of a question) are not independent.

    Returns
    -------
    Rate
        `n` is the number of scores; undefined where it is 0.

    Examples
    --------
    >>> rate = mean_rate([1, 1, 0, 1], "abcd")
    >>> rate.value, round(rate.low, 3), round(rate.high, 3)
    (0.75, 0.194, 0.994)
    """
    if len(scores) == 0:
        return UNDEFINED
    values = np.asarray(scores, dtype=float)
    mean = float(values.mean())
    deviations = np.bincount(_codes(clusters), weights=values - mean)
    variance = float((deviations**2).sum()) / len(values) ** 2
    return share_rate(mean, variance=variance, n_clusters=len(deviations), n=len(values))


def _codes(clusters: Sequence[Hashable]) -> NDArray[np.intp]:
    """Clusters as numbers from 0, in the order in which they first come."""
    codes: dict[Hashable, int] = {}
    numbers = (codes.setdefault(cluster, len(codes)) for cluster in clusters)
    return np.fromiter(numbers, dtype=np.intp, count=len(clusters))
