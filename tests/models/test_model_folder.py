"""Where the model is in a step's folder, whether it is complete, and what is to be done if not."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from medeval.errors import UsageError
from medeval.models.model_folder import UnfinishedError, model_directory
from medeval.models.weights import tensor_names, weight_files
from tests.model_folders import (
    write_adapter,
    write_files,
    write_model,
    write_sharded,
    write_shards,
)

INSIDE = ["", "actor/huggingface", "huggingface", "merged", "actor"]


@pytest.mark.parametrize("inside", INSIDE)
@pytest.mark.parametrize("write", [write_model, write_sharded])
def test_weights_are_found_where_training_frameworks_leave_them(
    tmp_path: Path, inside: str, write: Callable[[Path], Path]
) -> None:
    folder = write(tmp_path / inside)
    assert model_directory(tmp_path) == folder


def test_merged_shards_are_a_model(tmp_path: Path) -> None:
    step = write_shards(tmp_path / "global_step_20")
    write_model(step / "actor" / "huggingface")
    assert model_directory(step) == step / "actor" / "huggingface"


@pytest.mark.parametrize("inside", ["", "actor/lora_adapter", "lora_adapter"])
def test_an_adapter_is_found_with_a_stray_config_beside_it(tmp_path: Path, inside: str) -> None:
    adapter = write_adapter(tmp_path / inside)
    assert model_directory(tmp_path) == adapter
    (adapter / "config.json").write_text("{}")
    assert model_directory(tmp_path) == adapter


def test_an_adapter_and_a_whole_model_in_one_folder_are_not_told_apart(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds a whole model and an adapter"):
        model_directory(write_adapter(write_model(tmp_path)))


def lose(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def cut(name: str, n_bytes: int) -> Callable[[Path], None]:
    def shorten(folder: Path) -> None:
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data[:n_bytes])

    return shorten


def zero(folder: Path) -> None:
    (folder / "model-00002-of-00002.safetensors").write_bytes(bytes(200))


SECOND = "model-00002-of-00002.safetensors"
INDEX = "model.safetensors.index.json"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lose("config.json"), "it has no config.json"),
        (cut("config.json", 5), "cannot read"),
        (lose(SECOND), f"lacks 1 of 2 weight files, first '{SECOND}'"),
        (lose(INDEX), f"it has no {INDEX}, which says how many shards there are"),
        (cut(INDEX, 20), "cannot read"),
        (cut(SECOND, 0), f"{SECOND} lacks"),
        (cut(SECOND, 30), f"{SECOND} lacks"),
        (cut(SECOND, -7), f"{SECOND} lacks 7 bytes"),
        (zero, "is not a safetensors file"),
    ],
)
def test_a_model_that_is_still_written_is_unfinished(
    tmp_path: Path, damage: Callable[[Path], None], message: str
) -> None:
    folder = write_sharded(tmp_path)
    assert model_directory(folder) == folder
    damage(folder)
    with pytest.raises(UnfinishedError) as told:
        model_directory(folder)
    assert message in told.value.message
    assert told.value.hint == "wait until training has written it, or copy it again"


def test_a_file_that_cannot_be_read_leaves_a_model_unfinished(tmp_path: Path) -> None:
    weights = write_model(tmp_path) / "model.safetensors"
    weights.unlink()
    weights.symlink_to(tmp_path / "gone")
    with pytest.raises(UnfinishedError, match=rf"cannot be read: No such file .*: {weights}"):
        model_directory(tmp_path)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lose("adapter_model.safetensors"), "it has no adapter_model.safetensors"),
        (cut("adapter_model.safetensors", -1), "adapter_model.safetensors lacks 1 bytes"),
        (cut("adapter_config.json", 9), "cannot read"),
    ],
)
def test_an_adapter_that_is_still_written_is_unfinished(
    tmp_path: Path, damage: Callable[[Path], None], message: str
) -> None:
    damage(write_adapter(tmp_path))
    with pytest.raises(UnfinishedError, match=message):
        model_directory(tmp_path)


@pytest.mark.parametrize("files", [[], ["config.json"], ["optimizer.pt", "rng_state.pth"]])
def test_a_step_without_weights_is_unfinished(tmp_path: Path, files: list[str]) -> None:
    with pytest.raises(UnfinishedError, match=r"holds no model: no config\.json with"):
        model_directory(write_files(tmp_path, *files))


def test_only_lora_adapters_are_taken(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is an adapter of type 'IA3'") as refused:
        model_directory(write_adapter(tmp_path, peft_type="IA3"))
    assert not isinstance(refused.value, UnfinishedError)


def test_an_adapters_pickled_weights_are_named_with_their_conversion(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    adapter = write_adapter(tmp_path)
    (adapter / "adapter_model.safetensors").unlink()
    torch.save({"lora_A.weight": torch.zeros(2)}, adapter / "adapter_model.bin")
    with pytest.raises(UsageError, match=r"in adapter_model\.bin, not in") as refused:
        model_directory(adapter)
    assert refused.value.hint is not None
    exec(refused.value.hint.removeprefix('python -c "').removesuffix('"'), {})
    assert model_directory(adapter) == adapter


FORMATS = [
    ("global_step_20", "actor/model_world_size_1_rank_0.pt", "holds FSDP shards (1 file)",
     "python -m verl.model_merger merge --backend fsdp --local_dir {step}/actor "
     "--target_dir {step}/actor/huggingface"),
    ("global_step_5", "actor/dist_ckpt/__0_0.distcp", "holds a Megatron checkpoint",
     "python -m verl.model_merger merge --backend megatron --local_dir {step}/actor "
     "--target_dir {step}/actor/huggingface"),
    ("checkpoint-5", "pytorch_model_fsdp_0/__0_0.distcp", "holds FSDP shards (DCP)",
     "accelerate merge-weights {step}/pytorch_model_fsdp_0 {step} ; then copy"),
    ("step_5", "model/__0_0.distcp", "holds shards of torch's DCP",
     "torch.distributed.checkpoint.format_utils dcp_to_torch {step}/model {step}/weights.pt"),
    ("iter_0000005", "__0_0.distcp", "holds a Megatron checkpoint",
     "convert_checkpoints.py export --hf-model BASE --megatron-path {step} --hf-path"),
    ("iter_0000005", "mp_rank_00/model_optim_rng.pt", "holds a Megatron checkpoint",
     "swift export --mcore_model {root} --to_hf true --torch_dtype bfloat16 --output_dir {step}"),
    ("checkpoint-20", "global_step20/zero_pp_rank_0_mp_rank_00_model_states.pt",
     "holds DeepSpeed ZeRO states",
     "python {step}/zero_to_fp32.py {step} {step} --tag global_step20 --safe_serialization"),
    ("global_step20", "mp_rank_00_model_states.pt", "holds DeepSpeed ZeRO states",
     "python {root}/zero_to_fp32.py {root} {step} --tag global_step20 --safe_serialization"),
    ("checkpoint-30", "pytorch_model-00001-of-00002.bin", "holds pickled weights",
     "M.from_pretrained('{step}').save_pretrained('{step}')"),
    ("step_1", "consolidated.00.pth", "holds weights in the original form", "convert_*_to_hf.py"),
    ("qwen", "model.gguf", "holds GGUF weights", "llama-server -m {step}/model.gguf --mmproj"),
]  # fmt: skip


@pytest.mark.parametrize(("folder", "file", "message", "command"), FORMATS)
def test_a_training_format_is_named_with_the_command_that_converts_it(
    tmp_path: Path, folder: str, file: str, message: str, command: str
) -> None:
    step = write_files(tmp_path / folder, "config.json", "rng_state.pth", file)
    with pytest.raises(UsageError) as refused:
        model_directory(step)
    assert message in refused.value.message
    assert refused.value.hint is not None
    assert command.format(step=step, root=tmp_path) in refused.value.hint
    assert not isinstance(refused.value, UnfinishedError)


@pytest.mark.parametrize(
    ("name", "wrapper"),
    [
        ("_orig_mod.model.embed.weight", "_orig_mod."),
        ("module.model.embed.weight", "module."),
        ("model._fsdp_wrapped_module.embed.weight", "_fsdp_wrapped_module."),
    ],
)
def test_weights_of_a_wrapped_model_are_named(tmp_path: Path, name: str, wrapper: str) -> None:
    with pytest.raises(UsageError, match=f"with '{wrapper}' in their names"):
        model_directory(write_model(tmp_path, b"0", "fine.module.weight", name))


@pytest.mark.parametrize("wrapper", ["_orig_mod.", "module."])
def test_the_command_for_wrapped_names_makes_a_model(tmp_path: Path, wrapper: str) -> None:
    pytest.importorskip("torch")
    folder = write_sharded(tmp_path / "model", names=(f"{wrapper}a", f"{wrapper}b.module.c"))
    with pytest.raises(UsageError) as refused:
        model_directory(folder)
    assert refused.value.hint is not None
    command = refused.value.hint.replace("python ", f"{sys.executable} ", 1)
    subprocess.run(command, shell=True, check=True)
    assert model_directory(folder) == folder
    names = ["a", "b.module.c"]
    assert [name for path in weight_files(folder) for name in tensor_names(path)] == names
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    assert list(index["weight_map"]) == names


@pytest.mark.parametrize(
    ("model", "adapter"),
    [
        ("actor/huggingface", "actor/huggingface/lora_adapter"),
        ("actor/huggingface", "actor/lora_adapter"),
    ],
)
def test_verls_adapter_beside_the_base_that_its_merger_writes_is_not_passed_over(
    model: str, adapter: str, tmp_path: Path
) -> None:
    whole = write_model(tmp_path / model)
    write_adapter(tmp_path / adapter)
    with pytest.raises(UsageError, match=r"a whole model in .* and a LoRA adapter") as refused:
        model_directory(tmp_path)
    assert refused.value.hint is not None and f"--base {whole}" in refused.value.hint


def test_weights_trained_beside_an_adapter_are_not_left_out(tmp_path: Path) -> None:
    adapter = write_adapter(tmp_path)
    (adapter / "non_lora_trainables.bin").write_bytes(b"x")
    with pytest.raises(UsageError, match=r"beside the adapter, in non_lora_trainables\.bin"):
        model_directory(adapter)
