"""A run folder as pandas frames."""

from collections.abc import Iterator
from dataclasses import asdict, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from medeval.analysis.results import summarize_cells
from medeval.analysis.summary import summary_rows
from medeval.store.run_folder import CellKey, RunFolder
from medeval.types.outcome import OutcomeRecord
from medeval.types.run import RunRecord
from medeval.types.sample import SampleRecord
from medeval.types.verdict import Verdict

# The columns that name a cell, and those of a trajectory in it.
CELL = ("checkpoint", "series", "step", "benchmark", "protocol")
TRAJECTORY = (
    "sample_id",
    "repeat",
    "stop",
    "answer",
    "called",
    "attempted",
    "executed",
    "observed",
    "n_turns",
    "n_images",
    "prompt_tokens",
    "completion_tokens",
    "seconds",
)


class Run:
    """A run folder as frames. Each frame is read when it is first used, and kept.

    Frames have the columns `checkpoint`, `series`, `step` and `benchmark` where they apply, so that
    they can be joined on these, `sample_id` and `repeat`.
    """

    def __init__(self, path: str | Path) -> None:
        self.folder = RunFolder.open(Path(path))

    def __repr__(self) -> str:
        return f"Run({str(self.folder.path)!r})"

    @property
    def record(self) -> RunRecord:
        """run.json."""
        return self.folder.record()

    @cached_property
    def samples(self) -> pd.DataFrame:
        """One row a sample."""
        rows = (
            {"benchmark": benchmark, **asdict(sample)}
            for benchmark in self.folder.benchmarks()
            for sample in self.folder.samples(benchmark)
        )
        frame = pd.DataFrame(rows, columns=["benchmark", *_names_of(SampleRecord)])
        return frame.rename(columns={"id": "sample_id"})

    @cached_property
    def trajectories(self) -> pd.DataFrame:
        """One row a trajectory, without its conversation; `folder.cell(key)` has those."""
        return pd.DataFrame(self._trajectory_rows(), columns=[*CELL, *TRAJECTORY])

    def _trajectory_rows(self) -> Iterator[dict[str, Any]]:
        for key in self.folder.cells():
            for trajectory in self.folder.cell(key).trajectories():
                usage = trajectory.usage
                yield {
                    **_names(key),
                    "sample_id": trajectory.sample_id,
                    "repeat": trajectory.repeat,
                    "stop": trajectory.stop,
                    "answer": None if trajectory.answer is None else trajectory.answer.text,
                    "called": trajectory.called,
                    "attempted": trajectory.attempted,
                    "executed": trajectory.executed,
                    "observed": trajectory.observed,
                    "n_turns": len(trajectory.turns),
                    "n_images": len(trajectory.images),
                    "prompt_tokens": usage.prompt_tokens,
                    "completion_tokens": usage.completion_tokens,
                    "seconds": trajectory.seconds,
                }

    @cached_property
    def verdicts(self) -> pd.DataFrame:
        """One row a verdict: the last by each judge on each trajectory."""
        rows = (
            {**_names(key), **asdict(verdict)}
            for key in self.folder.cells()
            for verdict in self.folder.cell(key).verdicts()
        )
        return pd.DataFrame(rows, columns=[*CELL, *_names_of(Verdict)])

    @cached_property
    def outcomes(self) -> pd.DataFrame:
        """One row an outcome, by the primary judges: the paired log that MED reads."""
        rows = (
            asdict(outcome)
            for key in self.folder.outcome_keys()
            if key.judge is None
            for outcome in self.folder.outcomes(key.series, key.step, key.benchmark, key.pair)
        )
        return pd.DataFrame(rows, columns=_names_of(OutcomeRecord))

    @cached_property
    def summary(self) -> pd.DataFrame:
        """One row a cell: the table that a run ends with, each rate with its interval."""
        return pd.DataFrame(summary_rows(summarize_cells(self.folder, self.folder.cells())))


def _names(key: CellKey) -> dict[str, Any]:
    return {name: getattr(key, name) for name in CELL}


def _names_of(record: type[SampleRecord | Verdict | OutcomeRecord]) -> list[str]:
    return [field.name for field in fields(record)]
