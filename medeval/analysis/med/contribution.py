"""How much of a series' drift the tool accounts for: `s_tool` and `s_tool_med`.

Both are T / (B + T), with T the area under |D| and B the area under |f| over the steps, f the
free arm's drift since the baseline and D the available arm's drift less f. They differ in what
is averaged over benchmarks and in how an area is taken:

`s_tool`      drifts in accuracy points, averaged over benchmarks unweighted; areas of the
              piecewise linear curves, split where they cross zero.
`s_tool_med`  each benchmark's drifts divided by the largest |drift| of its two arms, then
              averaged; areas by the trapezoid rule on |D| and |f| at the steps.

0 means that the arms drift together, 1 that only the available arm drifts; undefined where
neither drifts. Source: MED, arXiv 2602.01334, section 3, whose own code computes `s_tool_med`.
Noise makes |D| larger on average, never smaller. So each is reported next to its expectation if
the tool had no effect on drift: the mean over random swaps of the arms' drifts, cluster by cluster.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from medeval.analysis.med.curves import Floats, Population
from medeval.analysis.med.terms import ratio
from medeval.analysis.statistics.bootstrap import Bootstrap, percentile_interval, swapped
from medeval.analysis.statistics.rate import LEVEL

Form = Literal["s_tool", "s_tool_med"]
# The rounding error of sums over swaps, which are in single precision.
ROUNDING = 1e-5
FORMS: tuple[Form, ...] = get_args(Form)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Areas:
    """The areas behind a contribution, in units of drift x steps; arrays of any shape."""

    intrinsic: Floats
    positive: Floats
    negative: Floats

    @property
    def contribution(self) -> Floats:
        """T / (B + T), NaN where there is no drift at all."""
        tool = self.positive + self.negative
        return ratio(tool, self.intrinsic + tool)


@dataclass(frozen=True, slots=True, kw_only=True)
class Contribution:
    """A tool contribution with its interval, its expectation without an effect, and its areas.

    `value` is None where nothing drifts. `expected` is the mean over random swaps of the arms'
    drifts, `p_value` the share of swaps that reach the value (counting the observed one). `low`
    and `high` are the bootstrap's 95% percentile interval, with `low` at 0 where the swaps do
    not reject, at 5%, that the tool has no effect.
    """

    form: Form
    value: float | None
    low: float | None
    high: float | None
    expected: float | None
    p_value: float | None
    intrinsic: float
    positive: float
    negative: float


def areas(form: Form, steps: Sequence[int], free: Floats, available: Floats) -> Areas:
    """The areas under mean drift curves.

    `free` and `available` are accuracies or drifts of shape (n_benchmarks, ..., n_steps). Their
    values at the first step are subtracted.
    """
    base = free - free[..., :1]
    moved = available - available[..., :1]
    if form == "s_tool_med":
        largest = np.maximum(np.abs(base).max(axis=-1), np.abs(moved).max(axis=-1))
        scale = np.where(largest > 0, largest, 1.0)[..., None]
        base, moved = base / scale, moved / scale
    base, moved = base.mean(axis=0), moved.mean(axis=0)
    widths, area = np.diff(np.asarray(steps, dtype=float)), _AREAS[form]
    tool = moved - base
    return Areas(
        intrinsic=area(base, widths) + area(-base, widths),
        positive=area(tool, widths),
        negative=area(-tool, widths),
    )


def _exact_area(curve: Floats, widths: Floats) -> Floats:
    """The area of a piecewise linear curve's part above zero.

    Where a segment crosses zero, that part is a triangle with the share top / (top + depth) of
    the width.
    """
    left, right = curve[..., :-1], curve[..., 1:]
    top = np.maximum(left, right)
    crosses = (left * right) < 0
    reach = np.where(crosses, np.abs(left - right), 1.0)
    heights = np.where(crosses, top**2 / reach, np.maximum(left, 0.0) + np.maximum(right, 0.0))
    found: Floats = (heights / 2.0) @ widths
    return found


def _node_area(curve: Floats, widths: Floats) -> Floats:
    """The trapezoid rule on the curve's part above zero at the steps."""
    above = np.maximum(curve, 0.0)
    found: Floats = ((above[..., :-1] + above[..., 1:]) / 2.0) @ widths
    return found


_AREAS = {"s_tool": _exact_area, "s_tool_med": _node_area}


def contributions(
    population: Population, bootstrap: Bootstrap, *, swaps: int
) -> list[Contribution]:
    """Both forms for a population, over the steps that all its curves have."""
    steps = [step for step in population.steps if step is not None]
    arms = [curve.arms(steps) for curve in population.curves]
    observed = [np.stack([each[arm].mean(axis=0) for each in arms]) for arm in range(2)]
    resampled = _resampled(population, arms, bootstrap)
    without = _swapped(population, arms, swaps, bootstrap.seed)
    return [
        _contribution(
            form,
            areas(form, steps, *observed),
            areas(form, steps, *resampled).contribution,
            areas(form, steps, *without).contribution,
        )
        for form in FORMS
    ]


def _resampled(
    population: Population, arms: Sequence[tuple[Floats, Floats]], bootstrap: Bootstrap
) -> list[Floats]:
    """Both arms' accuracies in each resample; shape (n_benchmarks, resamples, n_steps)."""
    means = [
        bootstrap.means(curve, np.concatenate(both, axis=1))
        for curve, both in zip(population.curves, arms, strict=True)
    ]
    return np.split(np.stack(means), 2, axis=-1)


def _swapped(
    population: Population, arms: Sequence[tuple[Floats, Floats]], swaps: int, seed: int
) -> list[Floats]:
    """Both arms' drifts under each swap; shape (n_benchmarks, swaps, n_steps)."""
    found = []
    for curve, (free, available) in zip(population.curves, arms, strict=True):
        drifts = (free - free[:, :1], available - available[:, :1])
        chunks = list(swapped(curve, *drifts, swaps=swaps, seed=seed))
        found.append([np.concatenate([chunk[arm] for chunk in chunks]) for arm in range(2)])
    return [np.stack([each[arm] for each in found]) for arm in range(2)]


def _contribution(form: Form, found: Areas, resampled: Floats, without: Floats) -> Contribution:
    value = float(found.contribution)
    defined = without[~np.isnan(without)]
    low, high = percentile_interval(resampled)
    known = not np.isnan(value)
    # a swap that reproduces the observed value may differ from it by rounding
    reached = int((defined >= value - ROUNDING).sum())
    p_value = (reached + 1) / (len(defined) + 1)
    if p_value > 1.0 - LEVEL:
        # areas of |D| are never 0 in a resample, even without an effect, so the test decides
        low = 0.0
    return Contribution(
        form=form,
        value=value if known else None,
        low=low if known else None,
        high=high if known else None,
        expected=float(defined.mean()) if known and len(defined) else None,
        p_value=p_value if known else None,
        intrinsic=float(found.intrinsic),
        positive=float(found.positive),
        negative=float(found.negative),
    )
