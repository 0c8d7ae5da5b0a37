"""What a figure shows: one benchmark (or their mean) of one pair along one series."""

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from medeval.analysis.figures.style import LOOKS, Line
from medeval.analysis.med.curves import Floats, Population
from medeval.analysis.med.tabulation import Tabulation
from medeval.analysis.statistics.rate import LEVEL

if TYPE_CHECKING:
    import pandas as pd

    from medeval.analysis.report import Analysis

PERCENT = 100.0


@dataclass(frozen=True, kw_only=True, eq=False)
class View:
    """The part of an analysis that a figure shows.

    `smooth` is the window of the moving mean in steps, None without smoothing.
    """

    analysis: "Analysis"
    tabulation: Tabulation
    population: Population
    smooth: int | None = None

    @property
    def steps(self) -> Floats:
        """The steps of the series; one 0 for a model without a step."""
        steps = self.tabulation.found.outcomes.steps
        return np.array([0 if step is None else step for step in steps], dtype=float)

    @property
    def has_steps(self) -> bool:
        """Whether there is more than one step to draw a line through."""
        return self.tabulation.has_drift

    @cached_property
    def measure(self) -> "pd.DataFrame":
        """The rows of the table `measure`, one a step."""
        return self._own(self.analysis.measure)

    @cached_property
    def explain(self) -> "pd.DataFrame":
        """The rows of the table `explain`, one a step."""
        return self._own(self.analysis.explain)

    @cached_property
    def diagnose(self) -> "pd.DataFrame":
        """The rows of the table `diagnose` on the current partition, one a step and term."""
        frame = self._own(self.analysis.diagnose)
        return frame[frame["partition"] == "current"]

    def contribution(self) -> dict[str, Any] | None:
        """The row of the table `contribution` for `s_tool`, None where it is undefined."""
        if not self.has_steps:
            return None
        frame = self._own(self.analysis.contribution)
        if "form" not in frame.columns:
            return None
        for row in frame[frame["form"] == "s_tool"].to_dict(orient="records"):
            if row["value"] == row["value"]:
                return {str(name): value for name, value in row.items()}
        return None

    def _own(self, frame: "pd.DataFrame") -> "pd.DataFrame":
        outcomes = self.tabulation.found.outcomes
        chosen = (
            (frame["series"] == outcomes.series)
            & (frame["pair"] == outcomes.pair)
            & (frame["benchmark"] == self.population.benchmark)
        )
        return frame[chosen]

    def line(self, frame: "pd.DataFrame", name: str, label: str, *, scale: float = PERCENT) -> Line:
        """A column of a frame along the steps, with its interval; `name` also chooses its look."""
        value, low, high = (
            scale * column(frame, each) for each in (name, f"{name}_low", f"{name}_high")
        )
        return Line(
            label=label,
            look=LOOKS.get(name, LOOKS["gap"]),
            steps=self.steps,
            value=value,
            low=low,
            high=high,
        )

    def titles(self, kind: str) -> list[str]:
        """The title's lines: the kind of figure and the benchmark, then the series and the pair."""
        outcomes = self.tabulation.found.outcomes
        return [f"{kind}: {self.population.benchmark}", f"{outcomes.series}, {outcomes.pair}"]

    @property
    def note(self) -> str:
        """The caption: n, metric, intervals, smoothing, and what is missing."""
        row = self.measure.iloc[0]
        mean = f"unweighted mean of {len(self.population.curves)} benchmarks; "
        metrics = dict.fromkeys(curve.metric for curve in self.population.curves)
        parts = [
            f"{mean if self.population.is_mean else ''}n = {self.population.n:,}",
            "; ".join(metrics),
            f"{'bands' if self.has_steps else 'bars'}: {LEVEL:.0%} intervals",
        ]
        if self.smooth:
            parts.append(
                f"smoothed: lines are moving means over {self.smooth} steps, points, bands and "
                "areas are not"
            )
        if row["missing"] == "allowed":
            parts.append("missing: allowed")
        if row["pairing"] == "position":
            parts.append("pairing: position")
        if (self.measure["note"] != "").any():
            parts.append("steps without outcomes are gaps")
        return "; ".join(parts)


def column(frame: "pd.DataFrame", name: str) -> Floats:
    """A column as floats, NaN where it is undefined; all NaN where there is no such column."""
    if name not in frame.columns:
        return np.full(len(frame), np.nan)
    found: Floats = frame[name].to_numpy(dtype=float, na_value=np.nan)
    return found
