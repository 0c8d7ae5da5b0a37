"""How each quantity changed between two steps, sample by sample."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medeval.analysis.med.curves import Curve, Floats, Population, Shares
from medeval.analysis.med.outcomes import Step
from medeval.analysis.med.quantities import SHARES, current_parts, factors, gap, share_change
from medeval.analysis.med.terms import TERMS, ratio
from medeval.analysis.statistics.bootstrap import Bootstrap, percentile_intervals
from medeval.analysis.statistics.rate import FEW, Rate, square_and_add

GAP = "gap"
FACTORS = tuple(f"{term}_{factor}" for term in TERMS for factor in ("policy", "quality"))
BOOTSTRAPPED = (GAP, *FACTORS)
TINY = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """The change of a quantity from the step `since` to `step`."""

    since: Step
    step: Step
    quantity: str
    change: Rate


class ChangeMaker:
    """Computes changes between steps, all of them from the same resamples."""

    def __init__(self, bootstrap: Bootstrap) -> None:
        self.bootstrap = bootstrap
        self._kept: dict[tuple[Curve, Step], NDArray[np.float32]] = {}
        self._kept_rates: dict[tuple[Population, Step], dict[str, Rate]] = {}

    def changes(self, population: Population, since: Step, step: Step) -> Iterator[Change]:
        """The change of every share, of the gap and of each factor on the current partition.

        Shares have a paired score interval. The gap, whose change is a difference of differences,
        and the factors, which are ratios, have one from the paired bootstrap, or with fewer than
        FEW events, which hardly vary between resamples, from `square_and_add`.
        """
        for name in SHARES:
            change = share_change(population, since, step, name)
            yield Change(since=since, step=step, quantity=name, change=change)
        for name, change in self._bootstrapped(population, since, step):
            yield Change(since=since, step=step, quantity=name, change=change)

    def _bootstrapped(
        self, population: Population, since: Step, step: Step
    ) -> Iterator[tuple[str, Rate]]:
        curves = population.curves
        observed = _changes_of_means(
            [_columns(curve.at(since)).mean(axis=0) for curve in curves],
            [_columns(curve.at(step)).mean(axis=0) for curve in curves],
        )
        resampled = [self._resampled(curve, since, step) for curve in curves]
        lows, highs = percentile_intervals(
            _changes_of_means([before for before, _ in resampled], [now for _, now in resampled])
        )
        before, now = self._rates(population, since), self._rates(population, step)
        few_differ = _n_that_differ(population, since, step) < FEW
        for name, value, low, high in zip(
            BOOTSTRAPPED, observed.tolist(), lows.tolist(), highs.tolist(), strict=True
        ):
            if np.isnan(value):
                yield name, Rate(value=None, low=None, high=None, n=population.n)
                continue
            few = few_differ if name == GAP else _has_few(before[name]) or _has_few(now[name])
            ends = square_and_add(before[name], now[name]) if few else (low, high)
            yield name, Rate(value=value, low=ends[0], high=ends[1], n=population.n)

    def _rates(self, population: Population, step: Step) -> dict[str, Rate]:
        """Gap and factors at a step."""
        if (population, step) not in self._kept_rates:
            rates = {GAP: gap(population, step)}
            for term, found in factors(population, step, step, "current").items():
                rates |= {f"{term}_{name}": found[name] for name in ("policy", "quality")}
            self._kept_rates[population, step] = rates
        return self._kept_rates[population, step]

    def _resampled(self, curve: Curve, since: Step, step: Step) -> tuple[Floats, Floats]:
        """The means of both steps' columns in the same resamples; shape (resamples, 7) each."""
        if self.bootstrap.keeps(curve):
            return self._means(curve, since), self._means(curve, step)
        both = [_columns(curve.at(each)) for each in (since, step)]
        before, now = np.split(self.bootstrap.means(curve, np.concatenate(both, axis=1)), 2, axis=1)
        return before, now

    def _means(self, curve: Curve, step: Step) -> Floats:
        if (curve, step) not in self._kept:
            means = self.bootstrap.means(curve, _columns(curve.at(step)))
            self._kept[curve, step] = means.astype(np.float32)
        return self._kept[curve, step].astype(np.float64)


def _has_few(rate: Rate) -> bool:
    """Whether a ratio has fewer than FEW events, or fewer than FEW draws without the event."""
    return rate.value is not None and rate.n * min(rate.value, 1.0 - rate.value) < FEW


def _n_that_differ(population: Population, since: Step, step: Step) -> int:
    """How many samples have another gap at one step than at the other."""
    found = 0
    for curve in population.curves:
        (free_before, free), (before, now) = (arm.T for arm in curve.arms((since, step)))
        found += int(np.count_nonzero(np.abs((now - free) - (before - free_before)) > TINY))
    return found


def _columns(shares: Shares) -> Floats:
    """The columns whose means give the gap and the factors; shape (n_samples, 7)."""
    parts = current_parts(shares)
    acted = [parts["call_gain"].acted, parts["call_harm"].acted]
    flipped = [parts[term].flipped for term in TERMS]
    return np.stack([shares.free, *acted, *flipped], axis=1)


def _changes_of_means(before: list[Floats], now: list[Floats]) -> Floats:
    """The change of each of BOOTSTRAPPED, from the columns' means of each curve; (..., 9)."""
    found: Floats = _statistics(np.mean(now, axis=0)) - _statistics(np.mean(before, axis=0))
    return found


def _statistics(means: Floats) -> Floats:
    """Gap, then policy and quality of each term, from the means of `_columns`."""
    solved, called_failed, called_solved, *flipped = np.moveaxis(means, -1, 0)
    failed = 1.0 - solved
    domains = (failed, failed, solved, solved)
    acted = (called_failed, failed - called_failed, called_solved, solved - called_solved)
    call_gain, schema_gain, call_harm, schema_harm = flipped
    found = [call_gain + schema_gain - call_harm - schema_harm]
    for domain, part, flip in zip(domains, acted, flipped, strict=True):
        # below this, a difference of rounded means counts as 0
        part = np.where(part > TINY, part, 0.0)
        found += [ratio(part, np.where(domain > TINY, domain, 0.0)), ratio(flip, part)]
    return np.stack(found, axis=-1)
