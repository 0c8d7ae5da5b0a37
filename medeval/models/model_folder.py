"""Finds the model or the LoRA adapter in a step's folder, or says why there is none to load."""

import re
from collections.abc import Sequence
from pathlib import Path

from medeval.errors import FatalModelError, UsageError
from medeval.models.training_formats import refuse_training_format
from medeval.models.weights import (
    ADAPTER_CONFIGURATION,
    ADAPTER_WEIGHTS,
    INDEX,
    missing_bytes,
    read_adapter_configuration,
    read_configuration,
    tensor_names,
    weight_files,
)

# Where training frameworks put a whole Hugging Face model inside a step's folder.
MODEL_FOLDERS = (".", "actor/huggingface", "huggingface", "merged", "actor")
# Where they put a LoRA adapter; verl does so in a folder of this name.
VERL_ADAPTER = "lora_adapter"
ADAPTER_FOLDERS = (".", "actor/lora_adapter", "lora_adapter", "actor")
NUMBERED_SHARD = re.compile(r"-\d+-of-\d+\.safetensors$")
# What wrappers of a training framework put before the names of weights.
WRAPPERS = ("_orig_mod.", "_fsdp_wrapped_module.")


class UnfinishedError(UsageError):
    """A model whose files are not all there yet, as while training still writes them."""


def model_directory(directory: Path) -> Path:
    """The folder of the whole model, or else of the LoRA adapter, in a step's folder.

    Raises UnfinishedError where files are missing, cut off or cannot be read, and UsageError where
    the weights are in a form that no engine loads; its hint says how to convert them.
    """
    try:
        return _model_or_adapter(directory)
    except OSError as error:
        raise UnfinishedError(
            f"{str(directory)!r} cannot be read: {error.strerror}: {error.filename}",
            hint="wait until training has written it, or copy it again",
        ) from error


def _model_or_adapter(directory: Path) -> Path:
    found = [(directory / inner).resolve() for inner in MODEL_FOLDERS]
    whole = next((folder for folder in found if _has_weights(folder)), None)
    adapters = [(directory / inner).resolve() for inner in ADAPTER_FOLDERS]
    adapter = next((folder for folder in adapters if is_adapter(folder)), None)
    if whole is not None and is_adapter(whole):
        raise UsageError(
            f"{str(whole)!r} holds a whole model and an adapter",
            hint=f"move {ADAPTER_CONFIGURATION} away to evaluate the whole model",
        )
    if whole is not None and any(
        is_adapter(folder) and folder.name == VERL_ADAPTER
        for folder in (whole / VERL_ADAPTER, *adapters)
    ):
        raise UsageError(
            f"{str(directory)!r} holds a whole model in {str(whole)!r} and a LoRA adapter",
            hint="verl's merger writes the base's weights beside the adapter: give the adapter's "
            f"folder and --base {whole}, or move {VERL_ADAPTER} away if the model is merged",
        )
    if whole is not None:
        _check(whole, _missing_of_model(whole))
        _refuse_wrapped_names(whole, weight_files(whole))
        return whole
    if adapter is not None:
        _check(adapter, _missing_of_adapter(adapter))
        _refuse_wrapped_names(adapter, [adapter / ADAPTER_WEIGHTS])
        return adapter
    refuse_training_format(directory)
    raise UnfinishedError(
        f"{str(directory)!r} holds no model: no config.json with *.safetensors next to it",
        hint="a model's folder has both; a LoRA adapter has "
        f"{ADAPTER_CONFIGURATION} and {ADAPTER_WEIGHTS}",
    )


def is_adapter(directory: Path) -> bool:
    """Whether a folder is that of a PEFT adapter."""
    return (directory / ADAPTER_CONFIGURATION).is_file()


def _has_weights(directory: Path) -> bool:
    """Whether a folder holds weights of a whole model; they may be incomplete."""
    return (directory / INDEX).is_file() or any(
        path.name != ADAPTER_WEIGHTS for path in directory.glob("*.safetensors")
    )


def _check(directory: Path, missing: str | None) -> None:
    if missing is not None:
        raise UnfinishedError(
            f"{str(directory)!r} is not complete: {missing}",
            hint="wait until training has written it, or copy it again",
        )


def _missing_of_model(directory: Path) -> str | None:
    """What a model's folder lacks; None if it is complete."""
    if not (directory / "config.json").is_file():
        return "it has no config.json"
    try:
        read_configuration(directory)
        files = weight_files(directory)
    except FatalModelError as error:
        return error.message.replace(repr(str(directory)), "it")
    if not (directory / INDEX).is_file() and any(map(_is_shard, files)):
        return f"it has no {INDEX}, which says how many shards there are"
    return next(filter(None, map(_missing_of_file, files)), None)


def _missing_of_adapter(directory: Path) -> str | None:
    """What an adapter's folder lacks; None if it is complete.

    Raises UsageError if it is no LoRA adapter, or if its weights are pickled.
    """
    try:
        configuration = read_adapter_configuration(directory)
    except FatalModelError as error:
        return error.message
    kind = configuration.get("peft_type")
    if kind != "LORA":
        raise UsageError(
            f"{str(directory)!r} is an adapter of type {kind!r}; of adapters, medeval runs LORA",
            hint="merge it into its base: PEFT's merge_and_unload(), then save_pretrained(DIR)",
        )
    others = sorted(path.name for path in directory.glob("non_lora_*"))
    if others:
        raise UsageError(
            f"{str(directory)!r} has trained weights beside the adapter, in {others[0]}, which no "
            "engine loads with it",
            hint="merge both into the base with the code that trained them",
        )
    weights = directory / ADAPTER_WEIGHTS
    if weights.is_file():
        return _missing_of_file(weights)
    if (pickled := weights.with_suffix(".bin")).is_file():
        raise UsageError(
            f"{str(directory)!r} has its weights in {pickled.name}, not in {ADAPTER_WEIGHTS}",
            hint='python -c "import torch; from safetensors.torch import save_file; '
            f"save_file(torch.load('{pickled}', weights_only=True), '{weights}', "
            "{'format': 'pt'})\"",
        )
    return f"it has no {ADAPTER_WEIGHTS}"


def _is_shard(path: Path) -> bool:
    return NUMBERED_SHARD.search(path.name) is not None


def _missing_of_file(path: Path) -> str | None:
    try:
        lacks = missing_bytes(path)
    except FatalModelError as error:
        return error.message
    return f"{path.name} lacks {lacks:,} bytes" if lacks else None


def _refuse_wrapped_names(directory: Path, files: Sequence[Path]) -> None:
    """Refuse weights that were saved from a wrapped model, under names that no model has."""
    for path in files:
        for name in tensor_names(path):
            wrapper = next((part for part in WRAPPERS if part in name), None)
            if wrapper is None and name.startswith("module."):
                wrapper = "module."
            if wrapper is not None:
                raise UsageError(
                    f"{str(directory)!r} names its weights {name!r}: they were saved from a "
                    f"wrapped model, with {wrapper!r} in their names",
                    hint=_renaming(directory, wrapper),
                )


def _renaming(directory: Path, wrapper: str) -> str:
    """The command that takes a wrapper's part out of the names of weights."""
    is_prefix = wrapper not in WRAPPERS
    renamed = f"removeprefix('{wrapper}')" if is_prefix else f"replace('{wrapper}', '')"
    command = (
        'python -c "from pathlib import Path; from safetensors.torch import load_file, save_file; '
        f"[save_file({{name.{renamed}: value.clone() for name, value in "
        "load_file(path).items()}, path, {'format': 'pt'}) for path in "
        f"Path('{directory}').glob('*.safetensors')]\""
    )
    if not (directory / INDEX).is_file():
        return command
    quote = '"' if is_prefix else ""
    return f"{command} && sed -i 's/{quote}{re.escape(wrapper)}/{quote}/g' {directory / INDEX}"


def base_named_by(adapter: Path) -> tuple[str | None, str | None]:
    """The base that an adapter's configuration names, a folder or a hub id, and its revision."""
    configuration = read_adapter_configuration(adapter)
    base, revision = (configuration.get(name) for name in ("base_model_name_or_path", "revision"))
    return (str(base) if base else None, str(revision) if revision else None)
