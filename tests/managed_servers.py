"""Stand-ins for the servers that a run starts: their orders, their lives and their checkpoints."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.vllm_stand_in import install

Orders = Callable[..., Path]


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Orders:
    """Has a stand-in take vLLM's place under orders; gives the folder in which it keeps count."""
    folder = tmp_path / "lives"
    folder.mkdir()
    monkeypatch.setenv("PYTHONPATH", install(tmp_path / "package"))
    monkeypatch.delenv("MEDEVAL_VLLM_PYTHON", raising=False)

    def give(**orders: Any) -> Path:
        monkeypatch.setenv("STAND_IN", json.dumps({"folder": str(folder), **orders}))
        return folder

    give()
    return give


def write_checkpoint(folder: Path, *, shape: int = 1, value: int = 0) -> Path:
    """A folder that looks like a checkpoint's to those who read its headers alone."""
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "qwen2_5_vl"}')
    _write_weights(folder / "model.safetensors", "weight", shape, value)
    return folder


def write_adapter(folder: Path, *, value: int = 0, rank: int = 8, part: str = "layers.0") -> Path:
    """A folder that looks like a LoRA adapter's, on some `part` of a model."""
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": rank}))
    name = f"base_model.model.model.{part}.q_proj.lora_A.weight"
    _write_weights(folder / "adapter_model.safetensors", name, 1, value)
    return folder


def _write_weights(file: Path, name: str, shape: int, value: int) -> None:
    header = json.dumps({name: {"dtype": "U8", "shape": [shape], "data_offsets": [0, shape]}})
    length = len(header).to_bytes(8, "little")
    file.write_bytes(length + header.encode() + bytes([value] * shape))


def lives(folder: Path) -> int:
    """How many servers have started."""
    return len(list(folder.glob("life-*")))


def command(folder: Path, life: int) -> list[str]:
    """The command line of one of them, from 0."""
    written: list[str] = json.loads((folder / f"life-{life}").read_text())
    return written


def flag(folder: Path, life: int, name: str) -> str:
    """The value of a flag of one of them."""
    written = command(folder, life)
    return written[written.index(name) + 1]


def server_pid(folder: Path, *, guard: bool = False) -> int:
    """The process of the last of them, or of its guard."""
    wanted = f"--port\0{flag(folder, lives(folder) - 1, '--port')}\0"
    for place in Path("/proc").glob("[0-9]*/cmdline"):
        text = place.read_bytes().decode(errors="replace")
        if wanted in text and ("guard.py" in text) == guard:
            return int(place.parent.name)
    raise AssertionError("no server runs")
