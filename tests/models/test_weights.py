import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medeval.errors import FatalModelError
from medeval.models.weights import INDEX, read_configuration, weight_files, weight_fingerprint


def safetensors(values: bytes, name: str = "weight") -> bytes:
    header = json.dumps(
        {name: {"dtype": "U8", "shape": [len(values)], "data_offsets": [0, len(values)]}}
    ).encode()
    return len(header).to_bytes(8, "little") + header + values


def checkpoint(folder: Path, values: bytes = bytes(100)) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text('{"model_type": "qwen2_5_vl"}')
    (folder / "model.safetensors").write_bytes(safetensors(values))
    return folder


@given(place=st.integers(0, 99))
def test_any_value_of_a_small_file_counts(
    place: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("weights")
    changed = bytearray(100)
    changed[place] = 1
    assert weight_fingerprint(checkpoint(folder / "a")) != weight_fingerprint(
        checkpoint(folder / "b", bytes(changed))
    )


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: (folder / "config.json").write_text('{"model_type": "qwen3_vl"}'),
        lambda folder: (folder / "model.safetensors").write_bytes(safetensors(bytes(100), "other")),
        lambda folder: (folder / "more.safetensors").write_bytes(safetensors(b"1")),
    ],
)
def test_configuration_header_and_files_count(
    change: Callable[[Path], object], tmp_path: Path
) -> None:
    before = weight_fingerprint(checkpoint(tmp_path))
    change(tmp_path)
    assert weight_fingerprint(tmp_path) != before


def test_the_place_does_not_count(tmp_path: Path) -> None:
    assert weight_fingerprint(checkpoint(tmp_path / "a")) == weight_fingerprint(
        checkpoint(tmp_path / "b")
    )


def test_an_index_names_the_files(tmp_path: Path) -> None:
    checkpoint(tmp_path)
    (tmp_path / "stray.safetensors").write_bytes(safetensors(b"1"))
    (tmp_path / INDEX).write_text('{"weight_map": {"weight": "model.safetensors"}}')
    assert weight_files(tmp_path) == (tmp_path / "model.safetensors",)


def adapter(folder: Path, values: bytes = bytes(10), rank: int = 8, base: str = "x") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    configuration = {"peft_type": "LORA", "r": rank, "base_model_name_or_path": base}
    (folder / "adapter_config.json").write_text(json.dumps(configuration))
    (folder / "adapter_model.safetensors").write_bytes(safetensors(values))
    return folder


def test_an_adapter_is_known_by_its_base_its_configuration_and_its_weights(tmp_path: Path) -> None:
    base, other = checkpoint(tmp_path / "base"), checkpoint(tmp_path / "other", b"1" * 100)
    fingerprints = [
        weight_fingerprint(adapter(tmp_path / "a"), base),
        weight_fingerprint(adapter(tmp_path / "a"), other),
        weight_fingerprint(adapter(tmp_path / "b", b"1" * 10), base),
        weight_fingerprint(adapter(tmp_path / "c", rank=16), base),
        weight_fingerprint(base),
    ]
    assert len(set(fingerprints)) == len(fingerprints)
    elsewhere = adapter(tmp_path / "d", base="/another/place")
    assert weight_fingerprint(elsewhere, base) == fingerprints[0]


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors"])
def test_an_incomplete_adapter_has_no_fingerprint(tmp_path: Path, name: str) -> None:
    base = checkpoint(tmp_path / "base")
    (adapter(tmp_path / "a") / name).unlink()
    with pytest.raises(FatalModelError, match=name):
        weight_fingerprint(tmp_path / "a", base)


def without_shard(folder: Path) -> None:
    (folder / INDEX).write_text('{"weight_map": {"a": "model.safetensors", "b": "gone"}}')


def with_fsdp_shards(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "model_world_size_2_rank_0.pt").write_bytes(b"")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (without_shard, "lacks 1 of 2 weight files, first 'gone'"),
        (with_fsdp_shards, "verl.model_merger merge"),
        (lambda folder: (folder / INDEX).write_text("[]"), "cannot read"),
        (lambda folder: (folder / "config.json").write_text("[]"), "holds list, not an object"),
        (lambda folder: (folder / "config.json").write_text("{"), "cannot read"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"x" * 40), "not a safetensors"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b""), "not a safetensors"),
    ],
)
def test_an_incomplete_checkpoint_is_told(
    damage: Callable[[Path], object], message: str, tmp_path: Path
) -> None:
    checkpoint(tmp_path)
    damage(tmp_path)
    with pytest.raises(FatalModelError, match=message):
        weight_fingerprint(tmp_path)


def test_configuration_is_read(tmp_path: Path) -> None:
    assert read_configuration(checkpoint(tmp_path)) == {"model_type": "qwen2_5_vl"}
