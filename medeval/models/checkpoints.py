"""Finds checkpoints: the steps in a training folder, a model's folder, a model on the hub."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from medeval.errors import UsageError
from medeval.models.hub import download_hint, fetch_model, is_hub_name
from medeval.models.model_folder import (
    ADAPTER_FOLDERS,
    UnfinishedError,
    base_named_by,
    is_adapter,
    model_directory,
)

# The number of a step, and what a conversion appends to the name of its folder.
STEP_FOLDER = re.compile(
    r"(?:global_steps?|checkpoint|step|iter|epoch)[_-]?(\d+)((?:_hf|-merged)?)", re.IGNORECASE
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """One model to evaluate: a step of a series, or a single model whose step is None.

    `location` is a directory, or the model's name on a server. `discover` returns the step's own
    folder; `located` replaces it by the folder of the model inside. `base` is the folder of the
    base model where `location` is the folder of a LoRA adapter, None for a whole model.
    `hub_commits` are the names and commits, `ID@COMMIT`, of what was taken from the hub.
    """

    series: str
    step: int | None
    location: str
    base: str | None = None
    hub_commits: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        """`<series>/<step>`, or the series alone for a single model."""
        return self.series if self.step is None else f"{self.series}/{self.step}"


def discover(argument: str, *, may_be_empty: bool = False) -> tuple[Checkpoint, ...]:
    """The checkpoints of `[NAME=]DIR`, by step.

    DIR holds folders of steps, or is one of them, or holds one folder that does, or is a plain
    model directory. Raises UsageError where a step occurs twice, or, unless it `may_be_empty`,
    where there is no checkpoint.
    """
    name, directory = _split_name(argument)
    if not directory.is_dir():
        raise UsageError(
            f"no checkpoint directory {str(directory)!r}",
            hint="--checkpoints takes [NAME=]DIR; a model on the hub or a server is for --model",
        )
    directory = directory.resolve()
    steps, step = step_folders(directory), _step(directory)
    if step is not None and (not steps or _is_model(directory)):
        series = name or directory.parent.name
        return (Checkpoint(series=series, step=step[0], location=str(directory)),)
    if not steps and _is_model(directory):
        series = name or directory.name
        return (Checkpoint(series=series, step=None, location=str(directory)),)
    series = name or directory.name
    found = tuple(
        Checkpoint(series=series, step=number, location=str(folder))
        for number, folder in sorted(_by_step(series, steps or _steps_below(directory)).items())
    )
    if not found and not may_be_empty:
        _check_model(directory)
        return (Checkpoint(series=series, step=None, location=str(directory)),)
    return found


def _check_model(directory: Path) -> None:
    """Raise UsageError if a folder without steps holds no model either, as in actor/huggingface."""
    try:
        model_directory(directory)
    except UnfinishedError:
        raise UsageError(
            f"{str(directory)!r} holds no checkpoint: no step, such as global_step_N or "
            "checkpoint-N, and no model",
            hint="point --checkpoints at the folder that holds the steps",
        ) from None


def series_of(argument: str) -> str:
    """The name that the series of `[NAME=]DIR` has, even before it has a step."""
    name, directory = _split_name(argument)
    return name or directory.resolve().name


def model_beside_steps(argument: str) -> Path | None:
    """The folder of `[NAME=]DIR` where it is a model itself, and holds steps as well."""
    directory = _split_name(argument)[1].resolve()
    is_series = _step(directory) is None and bool(step_folders(directory))
    return directory if is_series and _is_model(directory) else None


def step_folders(directory: Path) -> dict[Path, tuple[int, str]]:
    """The folders of steps in a folder, each with its number and what a conversion appended."""
    steps = {child: _step(child) for child in sorted(directory.iterdir()) if child.is_dir()}
    return {child: step for child, step in steps.items() if step is not None}


def located(
    checkpoint: Checkpoint, *, base: str | None = None, trusts_code: bool = False
) -> Checkpoint:
    """The checkpoint with its model's folder as location, and the base's folder of an adapter.

    The location is a folder, or a model on the hub if no folder has that name. `base` is the
    folder or hub name of an adapter's base, if not the one that the adapter names. Raises
    UsageError where there is no such model; see `model_directory` and `fetch_model`.
    """
    directory, commits = _model(checkpoint.location, trusts_code)
    found = replace(checkpoint, location=str(directory), hub_commits=commits)
    if not is_adapter(directory):
        return found
    base_folder, base_commits = _base(directory, base, trusts_code)
    return replace(found, base=str(base_folder), hub_commits=(*commits, *base_commits))


def _model(location: str, trusts_code: bool) -> tuple[Path, tuple[str, ...]]:
    """The folder of a local model or of one on the hub, and `ID@COMMIT` of the latter."""
    folder = Path(location)
    if folder.is_dir():
        return model_directory(folder.resolve()), ()
    if not is_hub_name(location):
        raise UsageError(
            f"no model folder {location!r}, and no name of a model on the hub",
            hint="a folder, or ORGANISATION/MODEL[@REVISION]; --base-url names a server",
        )
    fetched = fetch_model(location, trusts_code=trusts_code)
    try:
        directory = model_directory(fetched)
    except UnfinishedError as error:
        raise UsageError(
            f"model {location!r} is not whole in the hub's cache: {error.message}",
            hint=download_hint(location),
        ) from error
    return directory, (f"{location.partition('@')[0]}@{fetched.name}",)


def _base(adapter: Path, given: str | None, trusts_code: bool) -> tuple[Path, tuple[str, ...]]:
    """The folder of an adapter's base, and `ID@COMMIT` where it comes from the hub."""
    named, revision = base_named_by(adapter)
    wanted = given or named
    if wanted is None:
        raise UsageError(
            f"{str(adapter)!r} is a LoRA adapter that names no base model",
            hint="--base DIR, or --base ORGANISATION/MODEL[@REVISION]",
        )
    if given is None and revision is not None and not Path(wanted).is_dir():
        wanted = f"{wanted}@{revision}"
    try:
        directory, commits = _model(wanted, trusts_code)
    except UsageError as error:
        hint = "--base DIR, or --base ORGANISATION/MODEL[@REVISION]"
        raise UsageError(
            f"the base {wanted!r} of the LoRA adapter {str(adapter)!r} cannot be loaded: "
            f"{error.message}",
            hint=f"{hint}; or {error.hint}" if is_hub_name(wanted) else hint,
        ) from error
    if is_adapter(directory):
        raise UsageError(
            f"the base {wanted!r} of the LoRA adapter {str(adapter)!r} is an adapter itself",
            hint="merge that one into its own base first: PEFT's merge_and_unload()",
        )
    return directory, commits


def _split_name(argument: str) -> tuple[str | None, Path]:
    name, separator, directory = argument.partition("=")
    if separator and not Path(argument).exists():
        return name, Path(directory)
    return None, Path(argument)


def _step(directory: Path) -> tuple[int, str] | None:
    match = STEP_FOLDER.fullmatch(directory.name)
    return (int(match[1]), match[2]) if match else None


def _is_model(directory: Path) -> bool:
    """Whether a folder itself, not one inside, looks like a model or an adapter."""
    return (directory / "config.json").is_file() or any(
        is_adapter(directory / inner) for inner in ADAPTER_FOLDERS
    )


def _steps_below(directory: Path) -> dict[Path, tuple[int, str]]:
    """The steps one folder further down, as in swift's `v0-<date>/checkpoint-N`.

    Raises UsageError where several folders hold steps.
    """
    children = [child for child in sorted(directory.iterdir()) if child.is_dir()]
    runs = {child.name: steps for child in children if (steps := step_folders(child))}
    if len(runs) > 1:
        raise UsageError(
            f"{str(directory)!r} holds {len(runs)} folders with steps: {', '.join(runs)}",
            hint="name one, or several as NAME=DIR each",
        )
    return next(iter(runs.values()), {})


def _by_step(name: str, steps: Mapping[Path, tuple[int, str]]) -> dict[int, Path]:
    """The folder of each step; a converted folder wins over the one it was made from."""
    by_step: dict[int, Path] = {}
    for directory, (step, conversion) in steps.items():
        first = by_step.setdefault(step, directory)
        if conversion != steps[first][1]:
            by_step[step] = directory if conversion else first
        elif first != directory:
            raise UsageError(
                f"series {name!r} has step {step} twice: {first.name!r} and {directory.name!r}",
                hint="give the two kinds of folder as two series, NAME=DIR",
            )
    return by_step
