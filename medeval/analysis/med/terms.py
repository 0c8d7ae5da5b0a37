"""The four terms of Explain, and their factors, which Diagnose shows.

Write D for a domain: the samples failed (gain terms) or solved (harm terms) without tools. A
term is the share of samples in D that acted (called, or not) and whose answer flipped:

    term = mass x policy x quality,    mass = |D| / n,
    policy = |D and acted| / |D|,      quality = |D and acted and flipped| / |D and acted|.

With repeats, arms are independent draws, so a sample contributes the product of its shares, e.g.
call gain = mean of (1 - free) x (right and called). Source: MED, arXiv 2602.01334, section 3.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from medeval.analysis.med.curves import Floats, Shares

Term = Literal["call_gain", "schema_gain", "call_harm", "schema_harm"]
Partition = Literal["current", "fixed", "persistent"]

TERMS: tuple[Term, ...] = get_args(Term)
PARTITIONS: tuple[Partition, ...] = get_args(Partition)
SIGNS: Mapping[Term, int] = {
    "call_gain": 1,
    "schema_gain": 1,
    "call_harm": -1,
    "schema_harm": -1,
}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Domain:
    """Each sample's share in the failed and in the solved domain; shape (n_samples,).

    On the persistent partition the two sum to less than 1 where a sample changed sides.
    """

    failed: Floats
    solved: Floats


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TermParts:
    """Each sample's contribution to a term and to its factors; shape (n_samples,).

    `domain` is its share in D, `acted` the share in D that acted, `flipped` the share in D that
    acted and flipped; the mean of `flipped` is the term.
    """

    domain: Floats
    acted: Floats
    flipped: Floats


def domain(partition: Partition, now: Shares, baseline: Shares) -> Domain:
    """The domains of a partition.

    `current` splits by the free arm now, `fixed` by the free arm at the baseline, `persistent`
    keeps samples that failed (or were solved) at both. At the baseline itself, where `now` is
    `baseline`, all three are one.
    """
    if partition == "current" or now is baseline:
        return Domain(failed=1.0 - now.free, solved=now.free)
    if partition == "fixed":
        return Domain(failed=1.0 - baseline.free, solved=baseline.free)
    return Domain(failed=(1.0 - baseline.free) * (1.0 - now.free), solved=baseline.free * now.free)


def term_parts(domains: Domain, now: Shares) -> dict[Term, TermParts]:
    """The parts of each term on the given domains.

    On the current partition the flipped shares of the gains less those of the harms average to
    the gap between the arms; on the fixed one to Acc_available(now) - Acc_free(baseline).
    """
    failed, solved = domains.failed, domains.solved
    return {
        "call_gain": TermParts(
            domain=failed, acted=failed * now.called, flipped=failed * now.right_called
        ),
        "schema_gain": TermParts(
            domain=failed, acted=failed * now.uncalled, flipped=failed * now.right_uncalled
        ),
        "call_harm": TermParts(
            domain=solved, acted=solved * now.called, flipped=solved * now.wrong_called
        ),
        "schema_harm": TermParts(
            domain=solved, acted=solved * now.uncalled, flipped=solved * now.wrong_uncalled
        ),
    }


def ratio(numerator: Floats, denominator: Floats) -> Floats:
    """Element by element, NaN where the denominator is 0: an undefined factor is not 0."""
    defined = denominator > 0
    found: Floats = np.divide(
        numerator, denominator, out=np.full(np.shape(numerator), np.nan), where=defined
    )
    return found
