"""Loads a checkpoint's weights with transformers, and records exactly what was loaded."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError

from medeval.errors import FatalModelError
from medeval.models.hardware import THREADS, usable_cpus
from medeval.types.sample import JsonValue

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model in evaluation mode on its device, with its part of the engine's identity."""

    model: Any
    device: torch.device
    dtype: torch.dtype
    identity: dict[str, JsonValue]

    def inputs(self, batch: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The batch on the model's device, its pixels in the model's dtype."""
        return {
            name: value.to(self.device, self.dtype if value.is_floating_point() else None)
            for name, value in batch.items()
        }


def load_config(directory: Path, *, trust_remote_code: bool = False) -> Any:
    """The checkpoint's configuration; raises FatalModelError where transformers knows none such."""
    try:
        return transformers.AutoConfig.from_pretrained(
            directory, local_files_only=True, trust_remote_code=trust_remote_code
        )
    except (OSError, ValueError, KeyError, ImportError, AttributeError) as error:
        raise FatalModelError(
            f"transformers {transformers.__version__} cannot read the configuration of "
            f"{str(directory)!r}: {error}",
            hint="a model with code of its own needs --model-args trust_remote_code=true; a newer "
            "transformers, or --backend vllm, may know the model",
        ) from error


def auto_class(config: Any) -> Any:
    """The class that loads the model: one for images and text if possible, otherwise for text.

    Raises FatalModelError where transformers generates text with no model of that configuration.
    """
    names = ("ImageTextToText", "MultimodalLM", "CausalLM")
    remote = getattr(config, "auto_map", None) or {}
    for name in names:
        auto = getattr(transformers, f"AutoModelFor{name}", None)
        if auto is not None and (
            type(config) in auto._model_mapping or f"AutoModelFor{name}" in remote
        ):
            return auto
    raise FatalModelError(
        f"transformers {transformers.__version__} generates no text with a {config.model_type!r}",
        hint="use a vision-language model, or serve this one and use --base-url",
    )


def load_model(
    directory: Path,
    config: Any,
    *,
    pad_id: int,
    dtype: str = "auto",
    device: str | None = None,
    attention: str | None = None,
    trust_remote_code: bool = False,
) -> LoadedModel:
    """The model of a checkpoint directory, ready to generate.

    Raises FatalModelError where it cannot be loaded, or where its files lack a weight.
    """
    _use_own_cpus()
    place = _device(device)
    kind = DTYPES[_dtype_name(dtype, place)]
    # of a model that also speaks, the part that writes
    config = getattr(config, "thinker_config", config)
    model = _read(directory, config, kind, attention, trust_remote_code)
    try:
        model = model.to(place).eval()
    except torch.OutOfMemoryError as error:
        raise FatalModelError(
            f"{str(directory)!r} does not fit on {place}: {error}",
            hint="use a smaller dtype or a larger device",
        ) from error
    # each request sets its sampling and its end; the saved settings must not interfere
    model.generation_config = type(model.generation_config)(pad_token_id=pad_id)
    identity: dict[str, JsonValue] = {
        "engine": "transformers",
        "engine_version": transformers.__version__,
        "model_class": type(model).__name__,
        "torch_version": torch.__version__,
        "dtype": str(kind).removeprefix("torch."),
        "device": place.type,
        "attention": model.config._attn_implementation,
    }
    return LoadedModel(model, place, kind, identity)


def _use_own_cpus() -> None:
    """Limit torch's threads to the usable CPUs, unless the user set the number of threads.

    By itself torch counts the machine's CPUs, even where the container may use fewer.
    """
    if not os.environ.get(THREADS) and torch.get_num_threads() > usable_cpus():
        torch.set_num_threads(usable_cpus())


def _device(asked: str | None) -> torch.device:
    try:
        place = torch.device(asked or ("cuda" if torch.cuda.is_available() else "cpu"))
    except RuntimeError as error:
        raise FatalModelError(
            f"no device named {asked!r}", hint="use cpu, cuda or cuda:1"
        ) from error
    if place.type == "cuda" and not torch.cuda.is_available():
        raise FatalModelError(
            f"device {asked!r} is requested, but torch finds no GPU",
            hint="install a CUDA build of torch, or use device=cpu",
        )
    return place


def _dtype_name(asked: str, place: torch.device) -> str:
    if asked == "auto":
        return "float32" if place.type == "cpu" else "bfloat16"
    if asked not in DTYPES:
        raise FatalModelError(f"no dtype named {asked!r}; known: auto, {', '.join(DTYPES)}")
    return asked


def _read(
    directory: Path, config: Any, kind: torch.dtype, attention: str | None, trust_remote_code: bool
) -> Any:
    try:
        model, report = auto_class(config).from_pretrained(
            directory,
            config=config,
            dtype=kind,
            attn_implementation=attention,
            trust_remote_code=trust_remote_code,
            local_files_only=True,
            output_loading_info=True,
        )
    except (OSError, ValueError, RuntimeError, KeyError, ImportError, SafetensorError) as error:
        raise FatalModelError(
            f"transformers cannot load {str(directory)!r}: {error}",
            hint="check that the checkpoint was copied whole and suits this version",
        ) from error
    missing = sorted(report["missing_keys"])
    if missing:
        raise FatalModelError(
            f"the files of {str(directory)!r} lack {len(missing)} weights, first {missing[0]!r}",
            hint="copy or merge the checkpoint again; it is incomplete",
        )
    return model


@contextmanager
def quiet() -> Iterator[None]:
    """Show only errors of transformers inside the block; restore its settings afterwards."""
    import transformers

    logging: Any = transformers.utils.logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
