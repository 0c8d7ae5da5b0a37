"""The shares, gaps and factors of one checkpoint, as means over its samples.

A quantity is a share of samples (a mean of values in [0, 1]), a gap (a mean of paired
differences in [-1, 1]) or a factor (a ratio of two shares). Over several benchmarks shares and
gaps are unweighted means, and factors ratios of those means, so that mass x policy x quality is
the mean term exactly.
"""

from collections.abc import Callable, Mapping
from functools import partial

import numpy as np

from medeval.analysis.med.curves import Floats, Population, Shares
from medeval.analysis.med.outcomes import Step
from medeval.analysis.med.terms import TERMS, Partition, Term, TermParts, domain, term_parts
from medeval.analysis.statistics.intervals import Stratum, difference, share
from medeval.analysis.statistics.rate import Rate

PerSample = Callable[[Shares], Floats]


def current_term(term: Term, shares: Shares) -> Floats:
    """How much each sample contributes to a term on the current partition."""
    return current_parts(shares)[term].flipped


def current_parts(shares: Shares) -> Mapping[Term, TermParts]:
    """The parts of every term on the current partition."""
    return term_parts(domain("current", shares, shares), shares)


SHARES: Mapping[str, PerSample] = {
    "free": lambda shares: shares.free,
    "available": lambda shares: shares.available,
    "called": lambda shares: shares.called,
    "call_gain": partial(current_term, "call_gain"),
    "schema_gain": partial(current_term, "schema_gain"),
    "call_harm": partial(current_term, "call_harm"),
    "schema_harm": partial(current_term, "schema_harm"),
    "gross_gain": lambda shares: (1.0 - shares.free) * shares.available,
    "gross_harm": lambda shares: shares.free * (1.0 - shares.available),
}


def mean_share(population: Population, step: Step, name: str) -> Rate:
    """A share of SHARES at a step, with its binomial interval."""
    return share(
        [Stratum(curve=curve, values=SHARES[name](curve.at(step))) for curve in population.curves]
    )


def gap(population: Population, step: Step) -> Rate:
    """Available less free accuracy at a step, with its paired score interval."""
    return difference(gap_strata(population, step))


def gap_strata(population: Population, step: Step) -> list[Stratum]:
    """Each sample's available less its free share, by benchmark."""
    return [
        Stratum(curve=curve, values=curve.at(step).available - curve.at(step).free)
        for curve in population.curves
    ]


def share_change(population: Population, since: Step, step: Step, name: str) -> Rate:
    """The change of a share between two steps, with its paired score interval."""
    of = SHARES[name]
    return difference(
        [
            Stratum(curve=curve, values=of(curve.at(step)) - of(curve.at(since)))
            for curve in population.curves
        ]
    )


def factors(
    population: Population, step: Step, baseline: Step, partition: Partition
) -> dict[Term, dict[str, Rate]]:
    """`value`, `mass`, `policy` and `quality` of each term at a step, with their intervals.

    Policy is undefined where mass is 0, quality where policy is 0; the value is then 0.
    """
    parts = [
        _parts(population, position, step, baseline, partition) for position in _range(population)
    ]
    return {
        term: {
            "value": _ratio(population, [part[term].flipped for part in parts], None),
            "mass": _ratio(population, [part[term].domain for part in parts], None),
            "policy": _ratio(
                population,
                [part[term].acted for part in parts],
                [part[term].domain for part in parts],
            ),
            "quality": _ratio(
                population,
                [part[term].flipped for part in parts],
                [part[term].acted for part in parts],
            ),
        }
        for term in TERMS
    }


def _range(population: Population) -> range:
    return range(len(population.curves))


def _parts(
    population: Population, position: int, step: Step, baseline: Step, partition: Partition
) -> dict[Term, TermParts]:
    curve = population.curves[position]
    now = curve.at(step)
    then = now if partition == "current" or step == baseline else curve.at(baseline)
    return term_parts(domain(partition, now, then), now)


def _ratio(population: Population, values: list[Floats], weights: list[Floats] | None) -> Rate:
    given = [None] * len(values) if weights is None else weights
    return share(
        [
            Stratum(curve=curve, values=value, weights=weight)
            for curve, value, weight in zip(population.curves, values, given, strict=True)
        ]
    )


def within_variance(population: Population, step: Step, name: str) -> float | None:
    """The mean variance of a sample's 0-1 share over its repeats; None with one repeat.

    Unbiased: p (1 - p) k / (k - 1) averaged over samples, then over benchmarks.
    """
    found = []
    for curve in population.curves:
        k = curve.repeats[curve.steps.index(step)]
        if k < 2:
            return None
        values = SHARES[name](curve.at(step))
        found.append(float((values * (1.0 - values)).mean()) * k / (k - 1))
    return float(np.mean(found))
