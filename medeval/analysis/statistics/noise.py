"""The A/A noise floor: what the free arm gains and loses against itself."""

from medeval.analysis.med.curves import Population
from medeval.analysis.med.outcomes import Step
from medeval.analysis.statistics.intervals import Stratum, share
from medeval.analysis.statistics.rate import Rate
from medeval.errors import UsageError


def noise_floor(population: Population, step: Step) -> Rate:
    """The share of samples that one repeat of the free arm solves and another fails.

    Its expectation is that of the gross gain, and of the gross harm, between two runs of the free
    arm: a gain or harm below it is no evidence of an effect of the tool. Each sample contributes
    f (1 - f) k / (k - 1), with f its share correct over k repeats, which is the unbiased estimate
    of the chance that one repeat is correct and another is not. Raises UsageError with fewer than
    two repeats.
    """
    strata = []
    for curve in population.curves:
        k = curve.repeats[curve.steps.index(step)]
        if k < 2:
            raise UsageError(
                f"the noise floor needs two repeats of the free arm, benchmark "
                f"{curve.benchmark!r} has {k}",
                hint="run again with --repeats 2; the free arm's repeats are compared",
            )
        free = curve.at(step).free
        strata.append(Stratum(curve=curve, values=free * (1.0 - free) * k / (k - 1)))
    return share(strata)
