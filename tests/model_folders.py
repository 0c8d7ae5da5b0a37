"""Folders that look like models and adapters to those who read their headers alone."""

import json
from pathlib import Path


def safetensors(values: bytes = b"\0", *names: str) -> bytes:
    """A safetensors file with `values` as the value of each of the named tensors."""
    size = len(values)
    header = json.dumps(
        {
            name: {
                "dtype": "U8",
                "shape": [size],
                "data_offsets": [index * size, (index + 1) * size],
            }
            for index, name in enumerate(names or ("weight",))
        }
    ).encode()
    return len(header).to_bytes(8, "little") + header + values * len(names or ("weight",))


def write_model(folder: Path, values: bytes = b"\0", *names: str) -> Path:
    """A whole model in one file of weights."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text('{"model_type": "qwen2_5_vl"}')
    (folder / "model.safetensors").write_bytes(safetensors(values, *names))
    return folder


def write_sharded(folder: Path, names: tuple[str, ...] = ("w1", "w2")) -> Path:
    """A whole model in several files, one for each tensor, and their index."""
    write_model(folder)
    (folder / "model.safetensors").unlink()
    index = {}
    for number, name in enumerate(names, 1):
        index[name] = f"model-{number:05d}-of-{len(names):05d}.safetensors"
        (folder / index[name]).write_bytes(safetensors(b"\0" * 50, name))
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    return folder


def write_adapter(
    folder: Path, values: bytes = b"\0", *, base: str | Path | None = "base", **entries: object
) -> Path:
    """A LoRA adapter that names its base."""
    folder.mkdir(parents=True, exist_ok=True)
    named = {} if base is None else {"base_model_name_or_path": str(base)}
    configuration = {"peft_type": "LORA", "r": 8, **named, **entries}
    (folder / "adapter_config.json").write_text(json.dumps(configuration))
    (folder / "adapter_model.safetensors").write_bytes(safetensors(values, "lora_A.weight"))
    return folder


def write_shards(step: Path, n_ranks: int = 2) -> Path:
    """What verl saves before the merge: FSDP shards, and a config without weights."""
    actor = step / "actor"
    (actor / "huggingface").mkdir(parents=True)
    (actor / "huggingface" / "config.json").write_text("{}")
    for rank in range(n_ranks):
        (actor / f"model_world_size_{n_ranks}_rank_{rank}.pt").write_bytes(b"")
    return step


def write_files(folder: Path, *names: str) -> Path:
    """A folder with these files, of a few bytes each."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")
    return folder


def write_cache(home: Path, name: str, folder: Path, commit: str, revision: str = "main") -> Path:
    """A hub's cache in `home` with the model `name` at one commit, moved there from `folder`."""
    cached = home / "hub" / f"models--{name.replace('/', '--')}"
    (cached / "refs").mkdir(parents=True)
    (cached / "refs" / revision).write_text(commit)
    (cached / "snapshots").mkdir()
    folder.rename(cached / "snapshots" / commit)
    return cached / "snapshots" / commit
