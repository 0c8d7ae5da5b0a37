"""Tests of the difference between the arms, and the correction for many tests."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from medeval.analysis.med.curves import Curve, Floats
from medeval.analysis.statistics.intervals import Stratum

# Above so many points, rounding errors make the exact distribution no better than the normal one.
MOST_POINTS = 200_000


def exact_test(curve: Curve, differences: Floats) -> float:
    """The exact two-sided p-value of McNemar's test, with clusters kept whole.

    `differences`, shape (n_samples,), are whole numbers: a sample's correct repeats in the
    available arm less those in the free arm. Under the null the arms are exchangeable within a
    cluster, so each cluster's difference keeps its size and takes either sign with equal chance;
    the p-value is the chance of a total at least as far from 0. For 0-1 outcomes of separate
    samples that is the exact binomial McNemar test (McNemar, Psychometrika 12, 1947).
    """
    return sign_flip_test(curve.cluster_sums(np.rint(differences)[:, None])[:, 0])


def sign_flip_test(differences: Sequence[float] | Floats) -> float:
    """The chance that the differences' total, with random signs, is at least as far from 0.

    `differences` are whole numbers. Exact: the total is a sum of scaled binomials, whose
    distribution is their convolution; by the normal approximation, continuity-corrected, above
    MOST_POINTS possible totals.

    >>> round(sign_flip_test([1, 1, 1, 1, 1, -1]), 4)  # McNemar with 5 against 1
    0.2188
    """
    sizes = np.abs(np.asarray(differences, dtype=np.int64))
    total, reach = abs(int(np.sum(differences))), int(sizes.sum())
    if total == 0:
        return 1.0
    if reach > MOST_POINTS and len(np.unique(sizes[sizes > 0])) > 1:
        spread = float(np.sqrt((sizes.astype(float) ** 2).sum()))
        return two_sided((total - 0.5) / spread)
    values, chances = _sign_flip_distribution(sizes)
    return min(1.0, float(chances[np.abs(values) >= total].sum()))


def _sign_flip_distribution(sizes: NDArray[np.int64]) -> tuple[NDArray[np.int64], Floats]:
    """Every total that random signs can give, and its chance."""
    from scipy.signal import convolve
    from scipy.stats import binom

    kinds, numbers = np.unique(sizes[sizes > 0], return_counts=True)
    if len(kinds) == 1:
        heads = np.arange(numbers[0] + 1)
        return kinds[0] * (2 * heads - numbers[0]), binom.pmf(heads, numbers[0], 0.5)
    chances = np.ones(1)
    for kind, number in zip(kinds.tolist(), numbers.tolist(), strict=True):
        # heads add 2 x kind to the lowest total, in steps of 1 from there
        spaced = np.zeros(kind * number + 1)
        spaced[::kind] = binom.pmf(np.arange(number + 1), number, 0.5)
        chances = np.maximum(convolve(chances, spaced), 0.0)
    reach = int((kinds * numbers).sum())
    return 2 * np.arange(reach + 1) - reach, chances


def mean_test(strata: Sequence[Stratum]) -> float:
    """The two-sided p-value of a mean over benchmarks of paired differences.

    The normal approximation to the sign-flip test: under the null each cluster's part in the
    mean keeps its size and takes either sign with equal chance. 1.0 where no cluster differs.
    """
    parts = [
        s.curve.cluster_sums(s.values[:, None])[:, 0] / (s.curve.n * len(strata)) for s in strata
    ]
    total = sum(float(part.sum()) for part in parts)
    spread = np.sqrt(sum(float((part**2).sum()) for part in parts))
    return 1.0 if spread == 0 else two_sided(abs(total) / float(spread))


def two_sided(z: float) -> float:
    """The chance that a standard normal variable is at least `z` away from 0, for z >= 0."""
    from math import erfc, sqrt

    return erfc(max(z, 0.0) / sqrt(2.0))


def benjamini_hochberg(p_values: Sequence[float]) -> list[float]:
    """P-values adjusted so that rejecting at q keeps the false discovery rate at q.

    NaN marks a test that was not made: it stays NaN and does not count. Source: Benjamini and
    Hochberg, Journal of the Royal Statistical Society B 57(1), 1995.

    >>> [round(q, 3) for q in benjamini_hochberg([0.01, 0.04, 0.03, float("nan")])]
    [0.03, 0.04, 0.04, nan]
    """
    from statsmodels.stats.multitest import multipletests

    values = np.array(p_values, dtype=float)
    made = ~np.isnan(values)
    adjusted = np.full(len(values), np.nan)
    if made.any():
        adjusted[made] = multipletests(values[made], method="fdr_bh")[1]
    return [float(value) for value in adjusted]
