"""Small logs of known content: what the golden values were computed on by the official code.

The numbers are drawn in the order in which the golden tree drew them, from numpy's default
generator: first the baseline, then five checkpoints, six benchmarks each, 40 samples each.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

BENCHMARKS = (
    "vstar",
    "hrbench4k",
    "hrbench8k",
    "visualprobeasy",
    "visualprobmedium",
    "visualprobhard",
)
STEPS = (0, 10, 20, 30, 40, 50)
N_SAMPLES = 40


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LoggedCell:
    """One checkpoint on one benchmark: verdicts of both arms and calls, sample by sample."""

    step: int
    benchmark: str
    free: NDArray[np.int64]
    available: NDArray[np.int64]
    calls: NDArray[np.int64]


def logged_cells(seed: int = 0) -> Iterator[LoggedCell]:
    """Every cell of the logs, in order."""
    generator = np.random.default_rng(seed)
    for age, step in enumerate(STEPS):
        for benchmark in BENCHMARKS:
            free = generator.random(N_SAMPLES) < 0.50 + 0.03 * age
            calls_tool = generator.random(N_SAMPLES) < 0.35 + 0.05 * age
            calls = np.where(calls_tool, generator.integers(1, 5, N_SAMPLES), 0)
            luck = generator.random(N_SAMPLES)
            available = np.where(free, luck > 0.20 - 0.02 * age, luck < 0.25)
            yield LoggedCell(
                step=step,
                benchmark=benchmark,
                free=free.astype(np.int64),
                available=available.astype(np.int64),
                calls=calls,
            )


def logged_outcomes(seed: int = 0) -> pd.DataFrame:
    """The logs as a frame of outcomes, paired by line."""
    return pd.concat(
        [
            pd.DataFrame(
                {
                    "series": "rl",
                    "step": cell.step,
                    "benchmark": cell.benchmark,
                    "pair": "crop_zoom",
                    "sample_id": [f"line-{number:06d}" for number in range(1, N_SAMPLES + 1)],
                    "free_correct": cell.free,
                    "available_correct": cell.available,
                    "called": cell.calls > 0,
                    "calls_attempted": cell.calls,
                }
            )
            for cell in logged_cells(seed)
        ],
        ignore_index=True,
    )
