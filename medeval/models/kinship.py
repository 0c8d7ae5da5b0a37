"""Whether an engine that runs one checkpoint can take another's weights in their place."""

import hashlib
import json
from pathlib import Path

from medeval.errors import FatalModelError
from medeval.models.weights import read_configuration, weight_files
from medeval.types.sample import JsonValue

# What an engine read of the first checkpoint beside its weights, and goes on with.
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
# What else some models are read from: tokenizers of other forms, and a model's own code.
OTHER_FORMS = ("*.model", "*.tiktoken", "*.py", "added_tokens.json", "params.json", "tekken.json")
# What a training run changes in config.json without meaning anything by it.
IDLE_NAMES = ("_name_or_path", "transformers_version")


def kinship(directory: Path) -> str:
    """A hash that two checkpoints share where only the values of their weights differ.

    Covers config.json, the names, shapes and types of all tensors, and the files of tokenizer,
    template, processor and the model's own code. Raises FatalModelError where the directory is no
    checkpoint.
    """
    configuration = read_configuration(directory)
    for name in IDLE_NAMES:
        configuration.pop(name, None)
    tensors: dict[str, object] = {}
    for path in weight_files(directory):
        tensors |= _tensors(path)
    read = kept_file_hashes(directory) | _other_hashes(directory)
    described = json.dumps([configuration, tensors, read], sort_keys=True)
    return hashlib.sha256(described.encode()).hexdigest()


def kept_file_hashes(directory: Path) -> dict[str, JsonValue]:
    """The sha256 of each file of tokenizer, template and processor that is there."""
    return {name: _sha256(directory / name) for name in KEPT_FILES if (directory / name).is_file()}


def _other_hashes(directory: Path) -> dict[str, JsonValue]:
    found = [path for pattern in OTHER_FORMS for path in directory.glob(pattern)]
    return {path.name: _sha256(path) for path in found if path.is_file()}


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def with_processor(checkpoint: Path, processor: Path, place: Path) -> Path:
    """A folder of links: a checkpoint's weights with the processor files of another folder.

    Raises FatalModelError where that folder holds none.
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
    place.mkdir(parents=True, exist_ok=True)
    for name, path in files.items():
        (place / name).unlink(missing_ok=True)
        (place / name).symlink_to(path.resolve())
    return place


def _tensors(path: Path) -> dict[str, object]:
    """Type and shape of each tensor of a safetensors file, by name."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        try:
            header = json.loads(file.read(length))
            return {
                name: [entry["dtype"], entry["shape"]]
                for name, entry in header.items()
                if name != "__metadata__"
            }
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise FatalModelError(
                f"{str(path)!r} is not a safetensors file: {error!r}",
                hint="copy the checkpoint again; the file is damaged",
            ) from error
