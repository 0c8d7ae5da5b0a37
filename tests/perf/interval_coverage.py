"""How often the intervals of `medeval analyze` hold the truth, in simulated runs.

usage: python tests/perf/interval_coverage.py [--replications 4000] [--resamples 0] [--seed 0]

With --resamples, the quantities that the bootstrap gives their intervals (changes of gap and
factors, the tool contribution) are simulated instead, on four steps; that takes longer.

Each design draws samples whose eight outcomes (free, available, called) have known chances, and
counts how often the interval of each quantity holds its true value. Rare terms are made by
scaling the chances. In the clustered design four samples share a question: with chance 0.4 a
sample copies the outcome of its cluster, so that outcomes within a cluster are correlated.
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medeval.analysis.med.changes import GAP, ChangeMaker
from medeval.analysis.med.contribution import FORMS, areas, contributions
from medeval.analysis.med.curves import Curve, Population
from medeval.analysis.med.quantities import factors, gap, mean_share, share_change
from medeval.analysis.statistics.bootstrap import Bootstrap
from medeval.analysis.statistics.rate import Rate

COPIES = 0.4
TERMS = ("call_gain", "schema_gain", "call_harm", "schema_harm")
# Chances of (free, available, called), in the order of the codes free * 4 + available * 2 + called.
USUAL = (0.12, 0.13, 0.05, 0.10, 0.06, 0.04, 0.30, 0.20)
RARE = (0.20, 0.18, 0.005, 0.015, 0.01, 0.002, 0.318, 0.27)
RAREST = (0.20, 0.20, 0.002, 0.008, 0.005, 0.001, 0.304, 0.28)
LATER = (0.08, 0.10, 0.05, 0.16, 0.04, 0.03, 0.29, 0.25)


@dataclass(frozen=True, slots=True, kw_only=True)
class Design:
    """A benchmark's size and the chances of its outcomes at one step or two."""

    name: str
    n_clusters: int
    size: int
    chances: tuple[tuple[float, ...], ...]


DESIGNS = tuple(
    Design(name=f"{name}, {kind}", n_clusters=m, size=size, chances=chances)
    for name, m, size in (("n = 191", 191, 1), ("800 in 200 clusters", 200, 4))
    for kind, chances in (("usual", (USUAL, LATER)), ("rare", (RARE,)), ("rarest", (RAREST,)))
)


def draw(design: Design, generator: np.random.Generator) -> Population:
    """A simulated benchmark; a sample's difficulty is shared by its steps."""
    clusters = np.repeat(np.arange(design.n_clusters), design.size)
    n = len(clusters)
    of_cluster, own = generator.random(design.n_clusters), generator.random(n)
    copies = generator.random(n) < (COPIES if design.size > 1 else 0.0)
    luck = np.where(copies, of_cluster[clusters], own)
    codes = [np.searchsorted(np.cumsum(chances)[:-1], luck) for chances in design.chances]
    return Population(
        benchmark="simulated", group=None, curves=(_curve(np.stack(codes), clusters),)
    )


def _curve(codes: NDArray[np.intp], clusters: NDArray[np.intp]) -> Curve:
    free, available, called = codes // 4, codes // 2 % 2, codes % 2
    happened = [free, available * called, available * (1 - called), (1 - available) * called]
    counts = np.stack([*happened, called, called, called], axis=1).astype(np.int32)
    n_steps, n = codes.shape
    return Curve(
        benchmark="simulated",
        group=None,
        metric="share correct",
        steps=tuple(range(n_steps)),
        repeats=(1,) * n_steps,
        ids=tuple(map(str, range(n))),
        groups=({},) * n,
        clusters=clusters.astype(np.int32),
        counts=counts,
    )


def truths(design: Design) -> dict[str, float]:
    """The true value of every quantity that is looked at."""
    chance = np.array(design.chances[0]).reshape(2, 2, 2)
    free, available = chance[1].sum(), chance[:, 1].sum()
    found = {
        "free": free,
        "available": available,
        "gap": available - free,
        "call_gain": chance[0, 1, 1],
        "schema_gain": chance[0, 1, 0],
        "call_harm": chance[1, 0, 1],
        "schema_harm": chance[1, 0, 0],
        "call_gain policy": chance[0, :, 1].sum() / chance[0].sum(),
        "call_gain quality": chance[0, 1, 1] / chance[0, :, 1].sum(),
    }
    if len(design.chances) > 1:
        later = np.array(design.chances[1]).reshape(2, 2, 2)
        found["free drift"] = later[1].sum() - free
        found["available drift"] = later[:, 1].sum() - available
    return {name: float(value) for name, value in found.items()}


def estimates(population: Population) -> Iterator[tuple[str, Rate]]:
    """Every quantity with its interval, as `medeval analyze` reports it."""
    for name in ("free", "available", *TERMS):
        yield name, mean_share(population, 0, name)
    yield "gap", gap(population, 0)
    of_term = factors(population, 0, 0, "current")["call_gain"]
    yield "call_gain policy", of_term["policy"]
    yield "call_gain quality", of_term["quality"]
    if len(population.steps) > 1:
        for name in ("free", "available"):
            yield f"{name} drift", share_change(population, 0, 1, name)


def coverage(design: Design, replications: int, seed: int) -> dict[str, tuple[float, float]]:
    """Coverage and mean width of each quantity's interval; undefined ones are left out."""
    generator, true = np.random.default_rng(seed), truths(design)
    held: dict[str, list[bool]] = {name: [] for name in true}
    widths: dict[str, list[float]] = {name: [] for name in true}
    for _ in range(replications):
        for name, rate in estimates(draw(design, generator)):
            if rate.low is not None and rate.high is not None:
                held[name].append(rate.low <= true[name] <= rate.high)
                widths[name].append(rate.high - rate.low)
    return {name: (float(np.mean(held[name])), float(np.mean(widths[name]))) for name in true}


# A tool without effect moves both arms alike; the effects are the available arm's extra drift.
EFFECTS = {"no effect": 0.0, "small effect": 0.04, "large effect": 0.15}
AGES = (0.0, 1 / 3, 2 / 3, 1.0)


def series(n_clusters: int, size: int, effect: float, generator: np.random.Generator) -> Population:
    """A simulated series: the free arm rises by 0.1, the available arm by `effect` more.

    A sample's free luck is half its own and half that of its difficulty, drawn anew each step
    and arm, so that arms and steps are correlated but not equal.
    """
    n = n_clusters * size
    clusters = np.repeat(np.arange(n_clusters), size)
    difficulty = generator.random(n_clusters)[clusters]
    codes = []
    for age in AGES:
        arms = []
        for accuracy in (0.5 + 0.1 * age, 0.55 + (0.1 + effect) * age):
            luck = np.where(generator.random(n) < 0.6, difficulty, generator.random(n))
            arms.append((luck < accuracy).astype(np.intp))
        called = (generator.random(n) < 0.5).astype(np.intp)
        codes.append(arms[0] * 4 + arms[1] * 2 + called)
    curve = _curve(np.stack(codes), clusters)
    return Population(benchmark="simulated", group=None, curves=(curve,))


def bootstrap_coverage(
    n_clusters: int, size: int, effect: float, *, replications: int, resamples: int, seed: int
) -> dict[str, float]:
    """Coverage of the change of the gap and of both forms of the tool contribution."""
    generator = np.random.default_rng(seed)
    free, available = (
        np.array([[accuracy + rise * age for age in AGES]])
        for accuracy, rise in ((0.5, 0.1), (0.55, 0.1 + effect))
    )
    steps = list(range(len(AGES)))
    true = {form: float(areas(form, steps, free, available).contribution) for form in FORMS}
    held: dict[str, list[bool]] = {name: [] for name in ("gap change", *FORMS)}
    for replication in range(replications):
        population = series(n_clusters, size, effect, generator)
        bootstrap = Bootstrap(resamples=resamples, seed=replication)
        for change in ChangeMaker(bootstrap).changes(population, steps[0], steps[-1]):
            if change.quantity == GAP:
                held["gap change"].append(_holds(change.change.low, effect, change.change.high))
        for found in contributions(population, bootstrap, swaps=resamples):
            held[found.form].append(_holds(found.low, true[found.form], found.high))
    return {name: float(np.mean(values)) for name, values in held.items()}


def _holds(low: float | None, truth: float, high: float | None) -> bool:
    return low is not None and high is not None and low - 1e-12 <= truth <= high + 1e-12


def main() -> None:
    """Print coverage by design and quantity."""
    parser = argparse.ArgumentParser(description="Coverage of the intervals in simulated runs.")
    parser.add_argument("--replications", type=int, default=4000)
    parser.add_argument("--resamples", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if options.resamples:
        print_bootstrap(options.replications, options.resamples, options.seed)
        return
    for design in DESIGNS:
        n, true = design.n_clusters * design.size, truths(design)
        print(design.name)
        for name, (held, width) in coverage(design, options.replications, options.seed).items():
            events = f"{true[name] * n:6.1f} events" if name in TERMS else " " * 13
            print(
                f"  {name:18} {true[name]:7.3f} {events}  {held:6.1%}  width {width:.3f}",
                flush=True,
            )


def print_bootstrap(replications: int, resamples: int, seed: int) -> None:
    """Print the coverage of the bootstrap's intervals."""
    for n_clusters, size in ((191, 1), (200, 4)):
        for name, effect in EFFECTS.items():
            found = bootstrap_coverage(
                n_clusters,
                size,
                effect,
                replications=replications,
                resamples=resamples,
                seed=seed,
            )
            shown = ", ".join(f"{quantity} {held:.1%}" for quantity, held in found.items())
            print(f"{n_clusters * size} rows in {n_clusters} clusters, {name}: {shown}", flush=True)


if __name__ == "__main__":
    main()
