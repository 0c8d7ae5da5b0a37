"""Reads a checkpoint directory without torch: configuration, weight files and their hashes."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from medeval.errors import FatalModelError
from medeval.types.sample import JsonValue

INDEX = "model.safetensors.index.json"
ADAPTER_CONFIGURATION = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
# Entries of adapter_config.json that say where the base is, not which one; its weights count.
BASE_ENTRIES = ("base_model_name_or_path", "revision")
# Where tools that quantize a checkpoint record it.
QUANTIZATION_NAMES = ("quantization_config", "compression_config")
QUANTIZATION_FILE = "hf_quant_config.json"
# Checkpoints of one training run differ only in the values of their weights. Instead of a whole
# file, this many blocks are read, spread evenly over it.
SAMPLED_BLOCKS = 64
BLOCK_BYTES = 4096


def read_configuration(directory: Path) -> dict[str, Any]:
    """The checkpoint's config.json.

    Raises FatalModelError where the directory is not a loadable checkpoint.
    """
    if not directory.is_dir():
        raise FatalModelError(
            f"no checkpoint directory {str(directory)!r}",
            hint="give the folder that holds config.json and *.safetensors",
        )
    path = directory / "config.json"
    try:
        configuration = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FatalModelError(
            f"{str(directory)!r} has no config.json, so it is not a checkpoint",
            hint="give the folder that save_pretrained wrote",
        ) from None
    except (OSError, ValueError) as error:
        raise FatalModelError(f"cannot read {str(path)!r}: {error}") from error
    if not isinstance(configuration, dict):
        raise FatalModelError(f"{str(path)!r} holds {type(configuration).__name__}, not an object")
    return configuration


def is_quantized(directory: Path) -> bool:
    """Whether a checkpoint's weights are stored quantized, by any of its files."""
    configuration = read_configuration(directory)
    text = configuration.get("text_config")
    sections = [configuration, text if isinstance(text, dict) else {}]
    return (directory / QUANTIZATION_FILE).is_file() or any(
        section.get(name) for section in sections for name in QUANTIZATION_NAMES
    )


def weight_files(directory: Path) -> tuple[Path, ...]:
    """The safetensors files of a checkpoint, sorted by name.

    Raises FatalModelError where there are none, or where one that the index names is missing.
    """
    index = directory / INDEX
    if index.is_file():
        return _indexed_files(directory, index)
    files = sorted(path for path in directory.glob("*.safetensors") if path.name != ADAPTER_WEIGHTS)
    if not files:
        raise FatalModelError(
            f"{str(directory)!r} holds no weights: no *.safetensors file",
            hint="copy the weights there, or save them as safetensors",
        )
    return tuple(files)


def weight_fingerprint(directory: Path, base: Path | None = None) -> str:
    """The sha256, in hex, that identifies this checkpoint's weights.

    Covers config.json, the index, and each safetensors file's header, size and `SAMPLED_BLOCKS`
    blocks of values; a large checkpoint takes well under a second. With a `base`, `directory` is
    the folder of a LoRA adapter: then covers the base's weights, and the adapter's configuration
    and weights. Raises FatalModelError where either is not complete.
    """
    if base is not None:
        return _adapter_fingerprint(directory, base)
    read_configuration(directory)
    digest = hashlib.sha256()
    for name in ("config.json", INDEX):
        path = directory / name
        content = path.read_bytes() if path.is_file() else b""
        digest.update(f"{name} {len(content)}\n".encode() + content)
    for path in weight_files(directory):
        _add_weights(digest, path)
    return digest.hexdigest()


def read_adapter_configuration(directory: Path) -> dict[str, Any]:
    """The adapter_config.json of a LoRA adapter. Raises FatalModelError where it is not one."""
    path = directory / ADAPTER_CONFIGURATION
    try:
        configuration = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise FatalModelError(f"cannot read {str(path)!r}: {error}") from error
    if not isinstance(configuration, dict):
        raise FatalModelError(f"{str(path)!r} holds {type(configuration).__name__}, not an object")
    return configuration


def _adapter_fingerprint(directory: Path, base: Path) -> str:
    configuration = read_adapter_configuration(directory)
    for name in BASE_ENTRIES:
        configuration.pop(name, None)
    described = json.dumps(configuration, sort_keys=True)
    digest = hashlib.sha256(f"{weight_fingerprint(base)}\n{described}\n".encode())
    weights = directory / ADAPTER_WEIGHTS
    if not weights.is_file():
        raise FatalModelError(
            f"{str(directory)!r} has no {ADAPTER_WEIGHTS}",
            hint="save the adapter again with safe_serialization=True, PEFT's default",
        )
    _add_weights(digest, weights)
    return digest.hexdigest()


def _indexed_files(directory: Path, index: Path) -> tuple[Path, ...]:
    try:
        names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise FatalModelError(f"cannot read {str(index)!r}: {error!r}") from error
    missing = sorted(name for name in names if not (directory / name).is_file())
    if missing:
        raise FatalModelError(
            f"{str(directory)!r} lacks {len(missing)} of {len(names)} weight files, "
            f"first {missing[0]!r}",
            hint="copy the checkpoint again; it is incomplete",
        )
    return tuple(directory / name for name in sorted(names))


def _add_weights(digest: "hashlib._Hash", path: Path) -> None:
    size = path.stat().st_size
    digest.update(f"{path.name} {size}\n".encode())
    with path.open("rb") as file:
        header = 8 + int.from_bytes(file.read(8), "little")
        if not 8 < header <= size:
            raise _not_safetensors(path, f"its header would end at byte {header}")
        file.seek(0)
        digest.update(file.read(header))
        for block in range(SAMPLED_BLOCKS):
            file.seek(header + (size - header) * block // SAMPLED_BLOCKS)
            digest.update(file.read(BLOCK_BYTES))


def tensor_names(path: Path) -> tuple[str, ...]:
    """The names of the tensors in a safetensors file. Raises FatalModelError if it is not one."""
    return tuple(_tensors(path))


def missing_bytes(path: Path) -> int:
    """How many bytes a safetensors file lacks by its header; at least 1 if the header is cut off.

    0 for a whole file. Raises FatalModelError where the header is not one.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        start = 8 + int.from_bytes(file.read(8), "little")
    if size <= 8 or start > size:
        return max(1, start - size)
    ends = [entry["data_offsets"][1] for entry in _header(path).values()]
    return max(0, start + max(ends, default=0) - size)


def _header(path: Path) -> dict[str, Any]:
    """The entry of each tensor in the header of a safetensors file, by name."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        try:
            header: dict[str, Any] = json.loads(file.read(length))
            header.pop("__metadata__", None)
            for entry in header.values():
                entry["dtype"], entry["shape"], entry["data_offsets"][1]
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise _not_safetensors(path, repr(error)) from error
    return header


def _tensors(path: Path) -> dict[str, object]:
    """The type and shape of each tensor in a safetensors file, by name."""
    return {name: [entry["dtype"], entry["shape"]] for name, entry in _header(path).items()}


def _not_safetensors(path: Path, reason: str) -> FatalModelError:
    return FatalModelError(
        f"{str(path)!r} is not a safetensors file: {reason}",
        hint="copy the checkpoint again; the file is damaged",
    )


# Files that a running engine reads once, from its first checkpoint.
GENERATION = "generation_config.json"
KEPT_FILES = (
    GENERATION,
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
    "merges.txt",
    "special_tokens_map.json",
    "chat_template.jinja",
    "chat_template.json",
    "preprocessor_config.json",
    "processor_config.json",
    "video_preprocessor_config.json",
)
# Files that only some models have: tokenizers in other formats, and a model's own code.
OTHER_FILES = ("*.model", "*.tiktoken", "*.py", "added_tokens.json", "params.json", "tekken.json")
# Entries of config.json that differ between checkpoints without any effect.
IGNORED_ENTRIES = ("_name_or_path", "transformers_version")


def architecture_hash(directory: Path) -> str:
    """A hash that is equal for checkpoints that differ only in the values of their weights.

    Covers config.json, the names, shapes and types of all tensors, and the files of the tokenizer,
    template, processor and the model's own code. Raises FatalModelError where the directory is not
    a checkpoint.
    """
    tensors: dict[str, object] = {}
    for path in weight_files(directory):
        tensors |= _tensors(path)
    described = json.dumps([prompt_hash(directory, directory), tensors], sort_keys=True)
    return hashlib.sha256(described.encode()).hexdigest()


def prompt_hash(directory: Path, processor: Path) -> str:
    """A hash that is equal for checkpoints with the same configuration, template and processor.

    `processor` is the folder of the tokenizer, template, processor and the model's own code; no
    weights are read. Raises FatalModelError where `directory` has no config.json.
    """
    configuration = read_configuration(directory)
    for name in IGNORED_ENTRIES:
        configuration.pop(name, None)
    hashes = kept_file_hashes(processor) | _other_hashes(processor)
    described = json.dumps([configuration, hashes], sort_keys=True)
    return hashlib.sha256(described.encode()).hexdigest()


def kept_file_hashes(directory: Path, names: Sequence[str] = KEPT_FILES) -> dict[str, JsonValue]:
    """The sha256 of each named file that exists: tokenizer, template and processor."""
    return {name: _sha256(directory / name) for name in names if (directory / name).is_file()}


def _other_hashes(directory: Path) -> dict[str, JsonValue]:
    paths = [path for pattern in OTHER_FILES for path in directory.glob(pattern)]
    return {path.name: _sha256(path) for path in paths if path.is_file()}


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def with_processor(checkpoint: Path, processor: Path, folder: Path) -> Path:
    """Fill `folder` with links to a checkpoint's weights and the processor files of `processor`.

    Returns `folder`. Raises FatalModelError where `processor` holds no such file.
    """
    names = [name for name in KEPT_FILES if name != GENERATION and (processor / name).is_file()]
    if not names:
        raise FatalModelError(
            f"{str(processor)!r} holds no tokenizer and no processor",
            hint="give the folder of the base model, which has them, with --processor",
        )
    files = {path.name: path for path in checkpoint.iterdir() if path.is_file()}
    for name in KEPT_FILES:
        if name != GENERATION:
            files.pop(name, None)
    files |= {name: processor / name for name in names}
    folder.mkdir(parents=True, exist_ok=True)
    for name, path in files.items():
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(path.resolve())
    return folder
