"""A cell while it is worked on: what is asked of it, and what is missing."""

from collections import Counter
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from medeval.data.dataset import BenchmarkSamples
from medeval.evaluation.plan import PlannedBenchmark
from medeval.evaluation.progress import Progress
from medeval.models.checkpoints import Checkpoint
from medeval.rollout.protocol import EvalProtocol
from medeval.store.cell_folder import CellFolder, CellWriter
from medeval.store.packed import SampleKey, SampleKeys
from medeval.types.definition import Loaded


@dataclass(slots=True, kw_only=True)
class Cell:
    """A cell while it is worked on; `stopped` says why it cannot go on, None while it can."""

    checkpoint: Checkpoint
    planned: PlannedBenchmark
    samples: BenchmarkSamples
    protocol: Loaded[EvalProtocol]
    folder: CellFolder
    repeats: int
    done: AbstractSet[SampleKey] = field(default_factory=SampleKeys)
    tries: Counter[SampleKey] = field(default_factory=Counter)
    writer: CellWriter | None = None
    stopped: str | None = None

    @property
    def name(self) -> str:
        """The cell as people call it."""
        key = self.folder.key
        return f"{key.checkpoint} x {key.benchmark} x {key.protocol}"

    def stop(self, reason: str, progress: Progress) -> None:
        """Begin nothing more in this cell; the first reason is shown."""
        if self.stopped is None:
            self.stopped = reason
            progress.tell(f"{self.name} stopped: {reason}")


def wanted(cell: Cell) -> Iterator[SampleKey]:
    """The trajectories that are asked of a cell."""
    return ((sample_id, n) for sample_id in cell.samples.ids for n in range(cell.repeats))


def n_missing(cell: Cell, *beside: AbstractSet[SampleKey]) -> int:
    """How many of them are neither done yet nor in what is named beside."""
    known = [keys for keys in (cell.done, *beside) if keys]
    if not known:
        return len(cell.samples.ids) * cell.repeats
    return sum(not any(key in keys for keys in known) for key in wanted(cell))


def is_complete(cell: Cell) -> bool:
    """Whether none of them is missing."""
    return all(key in cell.done for key in wanted(cell))
