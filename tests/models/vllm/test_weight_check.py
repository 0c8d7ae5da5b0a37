"""What vLLM's workers compare after a reload, on modules of torch and real safetensors files."""

import importlib.util
import os
import select
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from medeval.errors import FatalModelError
from medeval.models.vllm import reload
from medeval.models.vllm.supervisor import read_ahead
from medeval.models.weights import architecture_hash, with_processor
from tests.engine_stand_in import Orders, install

torch = pytest.importorskip("torch")
save_file = pytest.importorskip("safetensors.torch").save_file

WORKER = reload.WORKER_FOLDER / "medeval_vllm_worker.py"
HIDDEN = 16


def weights(seed: int) -> dict[str, Any]:
    """A checkpoint's tensors, by the names that transformers gives them."""
    chance = torch.Generator().manual_seed(seed)

    def drawn(*shape: int) -> Any:
        return torch.randn(*shape, generator=chance)

    layer = "model.language_model.layers.0"
    return {
        "model.language_model.embed_tokens.weight": drawn(30, HIDDEN),
        f"{layer}.self_attn.q_proj.weight": drawn(HIDDEN, HIDDEN),
        f"{layer}.self_attn.k_proj.weight": drawn(4, HIDDEN),
        f"{layer}.self_attn.o_proj.weight": drawn(HIDDEN, HIDDEN),
        f"{layer}.input_layernorm.weight": drawn(HIDDEN),
        f"{layer}.mlp.down_proj.weight": drawn(HIDDEN, 2 * HIDDEN),
        "model.visual.blocks.0.attn.proj.weight": drawn(HIDDEN, HIDDEN),
        "lm_head.weight": drawn(30, HIDDEN),
    }


def write(folder: Path, seed: int) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "qwen2_5_vl"}')
    save_file(weights(seed), folder / "model.safetensors")
    return folder


def in_memory(seed: int, *, rank: int = 0, workers: int = 1) -> dict[str, Any]:
    """The same weights as vLLM holds them on one of its workers: joined, padded, divided."""
    of = {name.partition("model.")[2]: value for name, value in weights(seed).items()}
    layer = "language_model.layers.0"
    width, own = 2 * HIDDEN // workers, "language_model.model.layers.0"
    columns = slice(rank * width, (rank + 1) * width)
    joined = [of[f"{layer}.self_attn.{part}_proj.weight"] for part in "qk"]
    return {
        "language_model.model.embed_tokens.weight": torch.cat(
            [of["language_model.embed_tokens.weight"], torch.zeros(2, HIDDEN)]
        ),
        f"{own}.self_attn.qkv_proj.weight": torch.cat(joined),
        f"{own}.self_attn.o_proj.weight": of[f"{layer}.self_attn.o_proj.weight"],
        f"{own}.input_layernorm.weight": of[f"{layer}.input_layernorm.weight"],
        f"{own}.mlp.down_proj.weight": of[f"{layer}.mlp.down_proj.weight"][:, columns],
        "visual.blocks.0.attn.proj.weight": of["visual.blocks.0.attn.proj.weight"],
    }


def worker_with(
    monkeypatch: pytest.MonkeyPatch,
    held: dict[str, Any],
    layers: dict[str, Any] | None = None,
    rank: int = 0,
    *,
    enforce_eager: bool = True,
) -> Any:
    install(monkeypatch, Orders(say=lambda _: ([], None)))
    monkeypatch.setattr(
        sys.modules["vllm.distributed"], "get_tensor_model_parallel_rank", lambda: rank
    )
    spec = importlib.util.spec_from_file_location("medeval_vllm_worker", WORKER)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    worker = module.WeightCheck()
    there = layers or {}
    network = SimpleNamespace(
        named_parameters=held.items, named_modules=there.items, modules=there.values
    )
    worker.model_runner = SimpleNamespace(get_model=lambda: network)
    worker.model_config = SimpleNamespace(enforce_eager=enforce_eager)
    return worker


def compared(
    monkeypatch: pytest.MonkeyPatch, held: dict[str, Any], new: Path, old: Path, rank: int = 0
) -> dict[str, int]:
    worker = worker_with(monkeypatch, held, rank=rank)
    found: dict[str, int] = worker.medeval_compare_weights(str(new), str(old))
    return found


def test_layers_of_the_part_that_sees_are_not_taken_for_the_language_models(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = write(tmp_path / "old", 1), write(tmp_path / "new", 2)
    tower = {"vision_tower.layers.0.self_attn.o_proj.weight": torch.ones(HIDDEN, HIDDEN)}
    save_file(weights(2) | tower, new / "model.safetensors")
    save_file(weights(1) | tower, old / "model.safetensors")
    assert compared(monkeypatch, in_memory(2) | tower, new, old)["telling"] > 0


def test_adapter_weights_that_no_module_uses_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    loras = {name: object() for name in ("layers.0.qkv_proj", "experts.base_layer", "visual.qkv")}
    # a newer vLLM also looks for a name without the language model's prefix
    names = {"language_model.layers.0.qkv_proj": "layers.0.qkv_proj"}
    adapters = SimpleNamespace(
        modules=dict.fromkeys([*names, "experts"]),
        get_adapter=lambda number: SimpleNamespace(loras=loras),
        _get_lora_layer_weights=lambda adapter, name: adapter.loras.get(names.get(name, name)),
    )
    worker = worker_with(monkeypatch, {})
    worker.model_runner.lora_manager = SimpleNamespace(_adapter_manager=adapters)
    assert worker.medeval_unused_adapter_weights(3) == ["visual.qkv"]


class PackedLayer:
    """A layer as vLLM has it on a CPU: it computes with a copy, and may have dropped the rest."""

    def __init__(self, weight: Any, *, keeps: bool = False) -> None:
        self.quant_method = self
        self.input_size_per_partition = weight.shape[1]
        self.weight = weight
        self.cpu_linear: Any = None
        self.process_weights_after_loading(self)
        if not keeps:
            self.weight = torch.empty(0)

    def process_weights_after_loading(self, layer: "PackedLayer") -> None:
        packed = layer.weight.clone()
        layer.cpu_linear = lambda x, *_: x @ packed.T


def packed_layers(seed: int) -> tuple[dict[str, Any], dict[str, PackedLayer]]:
    """The parameters and layers of a model whose linear layers are packed."""
    held = in_memory(seed)
    layers = {}
    for name, value in held.items():
        if value.dim() == 2:
            keeps = "embed_tokens" in name
            layers[name.removesuffix(".weight")] = PackedLayer(value, keeps=keeps)
            held[name] = value if keeps else torch.empty(0)
    return held, layers


@pytest.fixture
def old(tmp_path: Path) -> Path:
    return write(tmp_path / "old", 1)


@pytest.fixture
def new(tmp_path: Path) -> Path:
    return write(tmp_path / "new", 2)


@pytest.mark.parametrize(("rank", "workers"), [(0, 1), (0, 2), (1, 2)])
def test_the_new_weights_are_known_from_the_old(
    rank: int, workers: int, new: Path, old: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = in_memory(2, rank=rank, workers=workers)
    found = compared(monkeypatch, held, new, old, rank)
    # joined and padded tensors begin with the file's rows on the first worker alone
    n = 6 if rank == 0 else 4
    assert found == {"compared": n, "telling": n}


def test_weights_that_stayed_are_found(
    new: Path, old: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match="differs from the checkpoint's file"):
        compared(monkeypatch, in_memory(1), new, old)


@pytest.mark.parametrize("name", sorted(in_memory(0)))
def test_one_tensor_that_stayed_is_found(
    name: str, new: Path, old: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = in_memory(2) | {name: in_memory(1)[name]}
    with pytest.raises(ValueError, match="differs from") as caught:
        compared(monkeypatch, held, new, old)
    wrong = str(caught.value).split("'")[1]
    assert wrong.split(".")[-2] == name.split(".")[-2].replace("qkv", "q")


def test_equal_checkpoints_tell_nothing_and_other_forms_are_left_out(
    new: Path, old: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert compared(monkeypatch, in_memory(1), old, old)["telling"] == 0
    packed = {name: torch.empty(0) for name in in_memory(2)}
    assert compared(monkeypatch, packed, new, old)["compared"] == 0


def test_packed_weights_are_known_by_what_the_layers_make(
    new: Path, old: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = worker_with(monkeypatch, *packed_layers(2))
    assert worker.medeval_compare_weights(str(new), str(old)) == {"compared": 6, "telling": 6}


@pytest.mark.parametrize("name", ["qkv_proj", "o_proj", "down_proj", "blocks.0.attn.proj"])
def test_one_packed_layer_that_stayed_is_found(
    name: str, new: Path, old: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (held, layers), (_, stale) = packed_layers(2), packed_layers(1)
    layers |= {key: layer for key, layer in stale.items() if key.endswith(name)}
    with pytest.raises(ValueError, match="differs from the checkpoint's file"):
        worker_with(monkeypatch, held, layers).medeval_compare_weights(str(new), str(old))


def test_an_output_layer_that_shares_the_embeddings_weights_is_packed_anew(
    new: Path, old: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held, layers = packed_layers(2)
    (embedding,) = (value for name, value in held.items() if "embed_tokens" in name)
    head = layers["lm_head"] = PackedLayer(in_memory(1)[next(iter(held))], keeps=True)
    head.weight = embedding
    worker = worker_with(monkeypatch, held, layers)
    with pytest.raises(ValueError, match="packed weights differ from its own"):
        worker.medeval_compare_weights(str(new), str(old))
    worker.medeval_pack_weights()
    assert worker.medeval_compare_weights(str(new), str(old))["telling"] == 6


def test_packed_weights_in_compiled_graphs_are_not_packed_anew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    worker = worker_with(monkeypatch, *packed_layers(2), enforce_eager=False)
    with pytest.raises(ValueError, match="compiled graphs"):
        worker.medeval_pack_weights()
    worker_with(monkeypatch, in_memory(2), enforce_eager=False).medeval_pack_weights()


def test_a_packed_layer_of_another_width_is_left_out(
    new: Path, old: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held, layers = packed_layers(2)
    for layer in layers.values():
        layer.input_size_per_partition += 1
    worker = worker_with(monkeypatch, held, layers)
    assert worker.medeval_compare_weights(str(new), str(old))["compared"] == 2


def test_a_cast_to_the_engines_type_is_no_difference(
    new: Path, old: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = {name: value.bfloat16() for name, value in in_memory(2).items()}
    assert compared(monkeypatch, held, new, old)["compared"] == len(held)


ORPHAN = """
import os, subprocess, sys, time
sys.path.append({folder!r})
from medeval_vllm_worker import WeightCheck
if len(sys.argv) == 1:
    child = subprocess.Popen([sys.executable, __file__, str(os.getpid())])
    print(child.pid, flush=True)
else:
    WeightCheck().medeval_end_with(int(sys.argv[1]))
time.sleep(60)
"""


def test_a_worker_ends_with_the_run_that_owns_it(tmp_path: Path) -> None:
    program = tmp_path / "owner.py"
    program.write_text(ORPHAN.format(folder=str(reload.WORKER_FOLDER)))
    with subprocess.Popen(
        [sys.executable, str(program)], stdout=subprocess.PIPE, text=True
    ) as owner:
        assert owner.stdout is not None
        worker = int(owner.stdout.readline())
        descriptor = os.pidfd_open(worker)
        owner.kill()
    try:
        assert select.select([descriptor], [], [], 20)[0], "the worker lives on"
    finally:
        os.close(descriptor)


def test_kin_differ_in_the_values_of_weights_alone(new: Path, old: Path) -> None:
    assert architecture_hash(new) == architecture_hash(old)
    (new / "config.json").write_text('{"model_type": "qwen2_5_vl", "_name_or_path": "x"}')
    assert architecture_hash(new) == architecture_hash(old)
    (new / "chat_template.jinja").write_text("{{ messages }}")
    assert architecture_hash(new) != architecture_hash(old)


def test_other_shapes_are_another_kind(new: Path, old: Path) -> None:
    save_file({"weight": torch.zeros(3)}, new / "model.safetensors")
    assert architecture_hash(new) != architecture_hash(old)


def test_a_damaged_file_is_named(new: Path) -> None:
    (new / "model.safetensors").write_bytes(b"\x08" + bytes(7) + b"not json")
    with pytest.raises(FatalModelError, match="is not a safetensors file"):
        architecture_hash(new)


def test_a_folder_without_a_processor_is_refused(new: Path, old: Path, tmp_path: Path) -> None:
    with pytest.raises(FatalModelError, match="no tokenizer and no processor"):
        with_processor(new, old, tmp_path / "links")


def test_files_are_read_ahead_and_those_that_cannot_be_do_not_matter(
    new: Path, tmp_path: Path
) -> None:
    (new / "another.safetensors").mkdir()
    for folder in (new, tmp_path / "nowhere"):
        thread = read_ahead(folder)
        thread.join(10)
        assert not thread.is_alive()
