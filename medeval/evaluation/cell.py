"""A cell while medeval works on it: its missing trajectories and its settings."""

from collections import Counter
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from pathlib import Path

from medeval.data.dataset import BenchmarkSamples
from medeval.errors import FatalModelError
from medeval.evaluation.plan import Plan, PlannedBenchmark
from medeval.evaluation.progress import Progress
from medeval.models.checkpoints import Checkpoint
from medeval.models.weights import weight_fingerprint
from medeval.rollout.protocol import EvalProtocol
from medeval.store.cell_folder import CellFolder, CellWriter
from medeval.store.fingerprints import differences
from medeval.store.keys import SampleKey
from medeval.types.definition import Loaded
from medeval.types.sample import JsonValue

# Engine arguments that cannot change what a reply says.
HARMLESS_ARGUMENTS = frozenset(
    {
        *("timeout_s", "max_retries", "retry_wait_s", "api_key_variable", "max_batch_size"),
        *("device", "python", "port", "start_timeout_s", "tensor_parallel", "data_parallel"),
        *("gpu_memory_utilization", "max_num_seqs", "limit_mm_per_prompt", "trust_remote_code"),
        "reload_weights",
    }
)


@dataclass(slots=True, kw_only=True)
class Cell:
    """A cell while medeval works on it; `stopped` is why it cannot continue, None while it can."""

    checkpoint: Checkpoint
    planned: PlannedBenchmark
    samples: BenchmarkSamples
    protocol: Loaded[EvalProtocol]
    folder: CellFolder
    repeats: int
    done: AbstractSet[SampleKey] = field(default_factory=set)
    tries: Counter[SampleKey] = field(default_factory=Counter)
    writer: CellWriter | None = None
    stopped: str | None = None

    @property
    def name(self) -> str:
        """The cell's name in messages."""
        key = self.folder.key
        return f"{key.checkpoint} x {key.benchmark} x {key.protocol}"

    def stop(self, reason: str, progress: Progress) -> None:
        """Start nothing more in this cell; only the first reason is shown."""
        if self.stopped is None:
            self.stopped = reason
            progress.tell(f"{self.name} stopped: {reason}")


def planned_keys(cell: Cell) -> Iterator[SampleKey]:
    """The key of each trajectory that the plan asks for in a cell."""
    return ((sample_id, n) for sample_id in cell.samples.ids for n in range(cell.repeats))


def n_missing(cell: Cell, *also_done: AbstractSet[SampleKey]) -> int:
    """The number of planned trajectories that are neither in `cell.done` nor in `also_done`."""
    done = [keys for keys in (cell.done, *also_done) if keys]
    if not done:
        return len(cell.samples.ids) * cell.repeats
    return sum(not any(key in keys for keys in done) for key in planned_keys(cell))


def is_complete(cell: Cell) -> bool:
    """Whether no planned trajectory is missing."""
    return all(key in cell.done for key in planned_keys(cell))


def cell_fields(plan: Plan, cell: Cell) -> dict[str, JsonValue]:
    """The part of a cell's fingerprint that is known before an engine starts."""
    return {
        "benchmark": {
            "name": cell.planned.name,
            "definition": cell.planned.loaded.source.sha256,
            "revision": cell.samples.origin.revision,
        },
        "protocol": {"definition": cell.protocol.source.sha256, **cell.protocol.value.describe()},
        "checkpoint": _checkpoint_fields(plan, cell.checkpoint),
        "seed": plan.options.seed,
    }


def _checkpoint_fields(plan: Plan, checkpoint: Checkpoint) -> dict[str, JsonValue]:
    """A checkpoint's weights if they are in a local folder, otherwise its name."""
    arguments = {
        name: value
        for name, value in plan.options.model_args.items()
        if name not in HARMLESS_ARGUMENTS
    }
    folder = Path(checkpoint.location)
    if plan.backend != "openai" and folder.is_dir():
        return {"weights": _weights(checkpoint), "arguments": arguments}
    return {"name": checkpoint.location, "arguments": arguments}


def _weights(checkpoint: Checkpoint) -> str | None:
    """The fingerprint of a local checkpoint's weights; None if they cannot be read."""
    base = None if checkpoint.base is None else Path(checkpoint.base)
    try:
        return weight_fingerprint(Path(checkpoint.location), base)
    except FatalModelError:
        return None


def refusal_of(plan: Plan, cell: Cell) -> str | None:
    """Why the plan cannot continue a cell of the run folder; None if it can, or if it is new."""
    if cell.folder.is_unclaimed:
        return (
            "it has trajectories, but no cell.json with their settings\n\nhint: restore "
            "cell.json, or start the cell anew with --fresh"
        )
    record = cell.folder.record()
    if record is None:
        return None
    before = {name: value for name, value in record.fields.items() if name != "model"}
    changed = differences(before, cell_fields(plan, cell))
    if not changed:
        return None
    names = ", ".join(line.partition(":")[0] for line in changed)
    lines = "".join(f"\n  {line}" for line in changed)
    return (
        f"it was begun with other settings of {names}:{lines}\n\nhint: --fresh starts it anew, "
        "--output-dir begins another run"
    )
