"""The paired bootstrap: resamples of each benchmark's clusters, with all steps and arms of each.

A resample of m clusters is a vector of counts, how often each was drawn. Where clusters share
their values (without repeats a checkpoint has 8 outcome patterns, a pair of them 64), counts are
drawn for the distinct patterns at once, multinomially, so that the cost does not grow with m.
Source: Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapters 8 and 14.
"""

import zlib
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from medeval.analysis.med.curves import Curve, Floats
from medeval.analysis.statistics.rate import LEVEL

# The draws of a benchmark with at most so many clusters are kept for all later calls.
MOST_KEPT_CLUSTERS = 3000
CHUNK_ELEMENTS = 4_000_000


class Bootstrap:
    """Resamples of curves. The draws for a curve depend on its name and the seed alone."""

    def __init__(self, *, resamples: int, seed: int) -> None:
        self.resamples = resamples
        self.seed = seed
        self._kept: dict[Curve, NDArray[np.float32]] = {}

    def _generator(self, curve: Curve) -> np.random.Generator:
        name = f"{curve.benchmark}\n{curve.group or ''}"
        return np.random.default_rng([self.seed, zlib.crc32(name.encode())])

    def keeps(self, curve: Curve) -> bool:
        """Whether the draws for a curve are kept, so that every call uses the same ones."""
        return curve.n_clusters <= MOST_KEPT_CLUSTERS

    def means(self, curve: Curve, values: Floats) -> Floats:
        """The mean of each column in each resample.

        `values` has shape (n_samples, d); returns (resamples, d). A mean is over the samples
        that were drawn, however large their clusters.
        """
        sums = curve.cluster_sums(np.column_stack([values, np.ones(curve.n)]))
        if not self.keeps(curve):
            totals = self._totals(curve, sums)
        else:
            if curve not in self._kept:
                self._kept[curve] = np.concatenate(list(self._drawn(curve)))
            # single precision is far finer than the spread of resamples
            totals = (self._kept[curve] @ sums.astype(np.float32)).astype(np.float64)
        means: Floats = totals[:, :-1] / totals[:, -1:]
        return means

    def _drawn(self, curve: Curve) -> Iterator[NDArray[np.float32]]:
        """Counts of each cluster, shape (chunk, n_clusters), until all resamples are drawn."""
        generator, m = self._generator(curve), curve.n_clusters
        chunk = max(1, CHUNK_ELEMENTS // m)
        for start in range(0, self.resamples, chunk):
            rows = min(chunk, self.resamples - start)
            drawn = generator.integers(0, m, size=(rows, m), dtype=np.int32)
            drawn += (np.arange(rows, dtype=np.int32) * m)[:, None]
            counts = np.bincount(drawn.ravel(), minlength=rows * m)
            yield counts.reshape(rows, m).astype(np.float32)

    def _totals(self, curve: Curve, sums: Floats) -> Floats:
        patterns, numbers = np.unique(sums, axis=0, return_counts=True)
        m, n_patterns = curve.n_clusters, len(patterns)
        if n_patterns > m // 8:
            return np.concatenate([counts @ sums for counts in self._drawn(curve)])
        generator = self._generator(curve)
        chunk = max(1, CHUNK_ELEMENTS // n_patterns)
        return np.concatenate(
            [
                generator.multinomial(m, numbers / m, size=min(chunk, self.resamples - start))
                @ patterns
                for start in range(0, self.resamples, chunk)
            ]
        )


def percentile_interval(replicates: Floats) -> tuple[float, float]:
    """The 95% percentile interval of replicates, shape (resamples,); NaN replicates are left out.

    (NaN, NaN) where all are NaN.
    """
    lows, highs = percentile_intervals(replicates[:, None])
    return float(lows[0]), float(highs[0])


def percentile_intervals(replicates: Floats) -> tuple[Floats, Floats]:
    """The 95% percentile interval of each column of replicates, shape (resamples, d)."""
    ordered = np.sort(np.ascontiguousarray(replicates.T), axis=1)
    defined = (~np.isnan(ordered)).sum(axis=1)
    tail = (1.0 - LEVEL) / 2.0
    return _quantile(ordered, defined, tail), _quantile(ordered, defined, 1.0 - tail)


def _quantile(ordered: Floats, defined: NDArray[np.intp], share: float) -> Floats:
    """Numpy's linear quantile of the first `defined` entries of each row."""
    places = np.maximum(defined - 1, 0) * share
    below = np.floor(places).astype(np.intp)
    above = np.minimum(below + 1, np.maximum(defined - 1, 0))
    rows = np.arange(len(ordered))
    weight = places - below
    found: Floats = ordered[rows, below] * (1 - weight) + ordered[rows, above] * weight
    return found


def swapped(
    curve: Curve, free: Floats, available: Floats, *, swaps: int, seed: int
) -> Iterator[tuple[Floats, Floats]]:
    """Both arms' mean drifts with the arms' drifts swapped at random, cluster by cluster.

    `free` and `available` are each sample's drifts, shape (n_samples, n_steps); a cluster's
    whole curves are swapped together. Yields chunks of shape (chunk, n_steps), `swaps` in all.
    """
    name = f"swaps\n{curve.benchmark}\n{curve.group or ''}"
    generator = np.random.default_rng([seed, zlib.crc32(name.encode())])
    both = (free + available).mean(axis=0)
    halves = (curve.cluster_sums(available - free) / (2.0 * curve.n)).astype(np.float32)
    m = curve.n_clusters
    chunk = max(1, CHUNK_ELEMENTS // m)
    for start in range(0, swaps, chunk):
        rows = min(chunk, swaps - start)
        signs = generator.integers(0, 2, size=(rows, m), dtype=np.int8).astype(np.float32)
        moved = ((2.0 * signs - 1.0) @ halves).astype(np.float64)
        yield both / 2.0 - moved, both / 2.0 + moved
