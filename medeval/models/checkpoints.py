"""Finds checkpoints on disk: the steps in a training folder, and the folders of their models."""

import re
from dataclasses import dataclass, replace
from pathlib import Path

from medeval.errors import UsageError

STEP_FOLDER = re.compile(r"(?:global_step_|checkpoint-)(\d+)$")
WEIGHTS = ("*.safetensors", "pytorch_model*.bin")
# Where training frameworks put a merged Hugging Face model inside a step's folder.
MODEL_FOLDERS = (".", "actor/huggingface", "huggingface")


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """One model to evaluate: a step of a series, or a single model whose step is None.

    `location` is a directory, or the model's name on a server. `discover` returns the step's own
    folder; `located` replaces it by the folder of the model inside. `base` is the folder of the
    base model where `location` is the folder of a LoRA adapter, None for a whole model.
    """

    series: str
    step: int | None
    location: str
    base: str | None = None

    @property
    def id(self) -> str:
        """`<series>/<step>`, or the series alone for a single model."""
        return self.series if self.step is None else f"{self.series}/{self.step}"


def discover(argument: str) -> tuple[Checkpoint, ...]:
    """The checkpoints of `[NAME=]DIR`, by step.

    DIR holds `global_step_N` or `checkpoint-N` folders, or is one of them, or is a plain model
    directory. Raises UsageError where there is no checkpoint, or where a step occurs twice.
    """
    name, directory = _split_name(argument)
    if not directory.is_dir():
        raise UsageError(
            f"no checkpoint directory {str(directory)!r}",
            hint="--checkpoints takes [NAME=]DIR; a model on a hub or a server is given by --model",
        )
    directory = directory.resolve()
    steps = {child: _step(child) for child in sorted(directory.iterdir())}
    numbered = {child: step for child, step in steps.items() if step is not None}
    if numbered:
        return _series(name or directory.name, numbered)
    step = _step(directory)
    if step is not None:
        series = name or directory.parent.name
        return (Checkpoint(series=series, step=step, location=str(directory)),)
    if (directory / "config.json").is_file():
        series = name or directory.name
        return (Checkpoint(series=series, step=None, location=str(directory)),)
    raise UsageError(
        f"{str(directory)!r} holds no checkpoint: no global_step_N or checkpoint-N folder, "
        "and no config.json",
        hint="point --checkpoints at the folder that holds the steps",
    )


def located(checkpoint: Checkpoint) -> Checkpoint:
    """The checkpoint with its model's folder as location; raises as `model_directory` does."""
    return replace(checkpoint, location=str(model_directory(Path(checkpoint.location))))


def model_directory(directory: Path) -> Path:
    """The folder of the loadable model inside a step's folder: a config and its weights.

    Raises UsageError where there is none; for FSDP shards its hint is the merge command.
    """
    for inner in MODEL_FOLDERS:
        candidate = (directory / inner).resolve()
        if (candidate / "config.json").is_file() and _has_weights(candidate):
            return candidate
    shards = sorted(directory.glob("**/model_world_size_*_rank_*.pt"))
    if shards:
        actor = shards[0].parent
        raise UsageError(
            f"{str(directory)!r} holds FSDP shards ({len(shards)} files) and no merged model",
            hint=f"python -m verl.model_merger merge --backend fsdp --local_dir {actor} "
            f"--target_dir {actor / 'huggingface'}",
        )
    raise UsageError(
        f"{str(directory)!r} holds no model: no config.json with weights next to it",
        hint="a model directory has config.json and *.safetensors",
    )


def _split_name(argument: str) -> tuple[str | None, Path]:
    name, separator, directory = argument.partition("=")
    if separator and not Path(argument).exists():
        return name, Path(directory)
    return None, Path(argument)


def _step(directory: Path) -> int | None:
    match = STEP_FOLDER.match(directory.name)
    return int(match.group(1)) if match and directory.is_dir() else None


def _series(name: str, steps: dict[Path, int]) -> tuple[Checkpoint, ...]:
    by_step: dict[int, Path] = {}
    for directory, step in steps.items():
        first = by_step.setdefault(step, directory)
        if first != directory:
            raise UsageError(
                f"series {name!r} has step {step} twice: {first.name!r} and {directory.name!r}",
                hint="give the two kinds of folder as two series, NAME=DIR",
            )
    return tuple(
        Checkpoint(series=name, step=step, location=str(directory))
        for step, directory in sorted(by_step.items())
    )


def _has_weights(directory: Path) -> bool:
    return any(next(directory.glob(pattern), None) is not None for pattern in WEIGHTS)
