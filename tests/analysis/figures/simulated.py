"""A simulated training run with a known story, written as a run folder.

Intrinsic accuracy rises from 45% to 70%; harm falls from 30% of the solved and called samples
to 2%; gain stays at a quarter of the failed and called ones; the call rate grows from 50% to 95%.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from medeval.store.run_folder import RunFolder
from medeval.types.outcome import OutcomeRecord
from tests.analysis.outcome_lines import outcome, run_of

STEPS = tuple(range(0, 201, 20))
BENCHMARKS = {"vstar": 191, "hrbench_4k": 200}


def story(
    steps: Sequence[int] = STEPS, benchmarks: dict[str, int] | None = None, seed: int = 0
) -> Iterator[OutcomeRecord]:
    """The outcomes; a sample's luck is the same at every step, so that its curve is smooth."""
    generator = np.random.default_rng(seed)
    for benchmark, n in (benchmarks or BENCHMARKS).items():
        luck = generator.random((4, n))
        for step in steps:
            progress = step / max(steps[-1], 1)
            free = luck[0] < 0.45 + 0.25 * progress
            called = luck[1] < 0.5 + 0.45 * progress
            gained = luck[2] < np.where(called, 0.25, 0.05)
            lost = luck[3] < np.where(called, 0.02 + 0.28 * (1.0 - progress) ** 2, 0.03)
            available = np.where(free, ~lost, gained)
            for number in range(n):
                marks = "".join(str(int(each[number])) for each in (free, available, called))
                yield outcome(f"s{number:03}", marks, step=step, benchmark=benchmark)


def simulated_run(path: Path) -> RunFolder:
    """The run folder of the story."""
    return run_of(path, story())
