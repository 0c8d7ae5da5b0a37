"""One benchmark's samples along the steps, and the shares of their repeats by what happened."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from medeval.analysis.med.outcomes import Step
from medeval.errors import UsageError

Floats: TypeAlias = NDArray[np.float64]

MEAN = "mean of benchmarks"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Shares:
    """The outcome of each sample at one checkpoint, as shares of its repeats; shape (n_samples,).

    With one repeat every share is 0 or 1. `right_called` is correct in the available arm with a
    tool called, and so on; the four available shares sum to 1.
    """

    free: Floats
    right_called: Floats
    right_uncalled: Floats
    wrong_called: Floats
    wrong_uncalled: Floats

    @property
    def available(self) -> Floats:
        """Correct in the available arm."""
        return self.right_called + self.right_uncalled

    @property
    def called(self) -> Floats:
        """Called a tool in the available arm."""
        return self.right_called + self.wrong_called

    @property
    def uncalled(self) -> Floats:
        """Called no tool in the available arm."""
        return self.right_uncalled + self.wrong_uncalled


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Curve:
    """A benchmark's analysis set (or one group of it) at each step that has outcomes.

    `counts` has shape (n_steps, 7, n_samples): how many of a sample's repeats were correct in
    the free arm; correct and called, correct and uncalled, wrong and called in the available
    arm; and the calls attempted, executed and observed. `clusters` are codes from 0.
    """

    benchmark: str
    group: str | None
    metric: str
    steps: tuple[Step, ...]
    repeats: tuple[int, ...]
    ids: tuple[str, ...]
    groups: tuple[Mapping[str, str], ...]
    clusters: NDArray[np.int32]
    counts: NDArray[np.int32]

    @property
    def n(self) -> int:
        """The number of samples, the same at every step."""
        return len(self.ids)

    @property
    def n_clusters(self) -> int:
        """The number of clusters."""
        return int(self.clusters.max()) + 1

    def at(self, step: Step) -> Shares:
        """The shares at a step that the curve has."""
        position = self.steps.index(step)
        repeats = self.repeats[position]
        free, right_called, right_uncalled, wrong_called = self.counts[position, :4] / repeats
        wrong_uncalled = (repeats - self.counts[position, 1:4].sum(axis=0)) / repeats
        return Shares(
            free=free,
            right_called=right_called,
            right_uncalled=right_uncalled,
            wrong_called=wrong_called,
            wrong_uncalled=wrong_uncalled,
        )

    def calls_at(self, step: Step) -> Floats:
        """Mean calls a trajectory attempted, executed and observed at a step; shape (3,)."""
        position = self.steps.index(step)
        calls: Floats = self.counts[position, 4:].mean(axis=1) / self.repeats[position]
        return calls

    def arms(self, steps: Iterable[Step]) -> tuple[Floats, Floats]:
        """Each sample's share correct in the free and the available arm; shape (n, n_steps)."""
        positions = [self.steps.index(step) for step in steps]
        repeats = np.array(self.repeats)[positions, None]
        free = self.counts[positions, 0] / repeats
        available = self.counts[positions, 1:3].sum(axis=1) / repeats
        return free.T, available.T

    def cluster_sums(self, values: Floats) -> Floats:
        """Values of shape (n_samples, d) summed over each cluster; shape (n_clusters, d)."""
        if self.n_clusters == self.n:
            # every sample is its own cluster: only put them in the order of the codes
            sums = np.empty_like(values)
            sums[self.clusters] = values
            return sums
        return np.stack(
            [
                np.bincount(self.clusters, weights=column, minlength=self.n_clusters)
                for column in values.T
            ],
            axis=1,
        )

    def by_group(self, name: str) -> list["Curve"]:
        """The curve of each value of a group, in the order of first appearance."""
        known = {key for groups in self.groups for key in groups}
        if name not in known:
            raise UsageError(
                f"benchmark {self.benchmark!r} has no group {name!r}; "
                f"it has: {', '.join(sorted(known)) or 'none'}"
            )
        values = [groups.get(name, "(none)") for groups in self.groups]
        return [self._only(value, np.array(values) == value) for value in dict.fromkeys(values)]

    def _only(self, group: str, mask: NDArray[np.bool_]) -> "Curve":
        chosen = np.flatnonzero(mask)
        _, clusters = np.unique(self.clusters[chosen], return_inverse=True)
        return replace(
            self,
            group=group,
            ids=tuple(self.ids[code] for code in chosen),
            groups=tuple(self.groups[code] for code in chosen),
            clusters=clusters.astype(np.int32),
            counts=self.counts[:, :, chosen],
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Population:
    """The samples that a table row is about: one curve, or the unweighted mean of several."""

    benchmark: str
    group: str | None
    curves: tuple[Curve, ...]

    @property
    def steps(self) -> tuple[Step, ...]:
        """The steps that every curve has."""
        first, *others = self.curves
        return tuple(step for step in first.steps if all(step in curve.steps for curve in others))

    @property
    def n(self) -> int:
        """The number of samples over all curves."""
        return sum(curve.n for curve in self.curves)

    @property
    def is_mean(self) -> bool:
        """Whether this is a mean over benchmarks."""
        return len(self.curves) > 1


def populations(curves: Iterable[Curve], *, by_group: str | None = None) -> list[Population]:
    """Each benchmark, then the mean of benchmarks where there are several; or each group."""
    listed = tuple(curves)
    if by_group is not None:
        listed = tuple(part for curve in listed for part in curve.by_group(by_group))
    found = [
        Population(benchmark=curve.benchmark, group=curve.group, curves=(curve,))
        for curve in listed
    ]
    if len(listed) > 1 and by_group is None:
        found.append(Population(benchmark=MEAN, group=None, curves=listed))
    return found
