"""What a cell is evaluated with, and whether what its folder holds was made with the same."""

from pathlib import Path

from medeval.errors import FatalModelError
from medeval.evaluation.cell import Cell
from medeval.evaluation.plan import Plan
from medeval.models.checkpoints import Checkpoint
from medeval.models.weights import weight_fingerprint
from medeval.store.fingerprints import differences
from medeval.types.sample import JsonValue

# Engine arguments that change how a reply is had, but not what it says.
HARMLESS_ARGUMENTS = frozenset(
    {
        *("timeout_s", "max_retries", "retry_wait_s", "api_key_variable", "max_batch_size"),
        *("device", "python", "port", "start_timeout_s", "tensor_parallel", "data_parallel"),
        *("gpu_memory_utilization", "max_num_seqs", "limit_mm_per_prompt", "trust_remote_code"),
        "reload_weights",
    }
)


def cell_fields(plan: Plan, cell: Cell) -> dict[str, JsonValue]:
    """What a cell's fingerprint holds beside what its engine tells: known before one starts."""
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
    """A checkpoint by its weights where they are at hand, else by its name."""
    arguments = {
        name: value
        for name, value in plan.options.model_args.items()
        if name not in HARMLESS_ARGUMENTS
    }
    place = Path(checkpoint.location)
    if plan.backend != "openai" and place.is_dir():
        return {"weights": _weights(place), "arguments": arguments}
    return {"name": checkpoint.location, "arguments": arguments}


def _weights(place: Path) -> str | None:
    """The fingerprint of a folder's weights; None where they cannot be read, as an engine tells."""
    try:
        return weight_fingerprint(place)
    except FatalModelError:
        return None


def refusal_of(plan: Plan, cell: Cell) -> str | None:
    """Why a cell of the run folder is not the plan's, None where it is, or was not begun yet."""
    if cell.folder.is_unclaimed:
        return (
            "it has trajectories, but no cell.json says how they were made\n\nhint: restore "
            "cell.json, or start the cell anew with --fresh"
        )
    record = cell.folder.record()
    if record is None:
        return None
    before = {name: value for name, value in record.fields.items() if name != "model"}
    changed = differences(before, cell_fields(plan, cell))
    if not changed:
        return None
    lines = "".join(f"\n  {line}" for line in changed)
    return (
        f"it was begun with other settings:{lines}\n\nhint: --fresh starts it anew, "
        "--output-dir begins another run"
    )
