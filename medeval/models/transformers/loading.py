"""Loads a checkpoint's weights with transformers, and records exactly what was loaded."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError

from medeval.errors import FatalModelError
from medeval.models.hardware import THREADS, usable_cpus
from medeval.models.transformers.kv_cache import register_grouped_attention
from medeval.types.sample import JsonValue

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model in evaluation mode on its device, with its part of the engine's identity."""

    model: Any
    device: torch.device
    identity: dict[str, JsonValue]


def load_model(
    directory: Path,
    *,
    dtype: str,
    device: str | None,
    attention: str | None,
    trust_remote_code: bool,
) -> LoadedModel:
    """The model of a checkpoint directory, ready to generate.

    Raises FatalModelError where it cannot be loaded, or where its files lack a weight.
    """
    _use_own_cpus()
    place = _device(device)
    kind = DTYPES[_dtype_name(dtype, place)]
    model = _read(directory, kind, attention, trust_remote_code)
    if model.config._attn_implementation == "sdpa":
        model.set_attn_implementation(register_grouped_attention())
    try:
        model = model.to(place).eval()
    except torch.OutOfMemoryError as error:
        raise FatalModelError(
            f"{str(directory)!r} does not fit on {place}: {error}",
            hint="use a smaller dtype or a larger device",
        ) from error
    # each request sets its sampling and its end; the saved settings must not interfere
    pad = model.generation_config.pad_token_id
    model.generation_config = type(model.generation_config)(pad_token_id=0 if pad is None else pad)
    identity: dict[str, JsonValue] = {
        "engine": "transformers",
        "engine_version": transformers.__version__,
        "torch_version": torch.__version__,
        "dtype": str(kind).removeprefix("torch."),
        "device": place.type,
        "attention": model.config._attn_implementation,
    }
    return LoadedModel(model, place, identity)


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
    directory: Path, kind: torch.dtype, attention: str | None, trust_remote_code: bool
) -> Any:
    loader: Any = transformers.AutoModelForImageTextToText
    try:
        model, report = loader.from_pretrained(
            directory,
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
