"""Which checkpoints a folder holds, by step, and where the weights of each are."""

from pathlib import Path

import pytest

from medeval.errors import UsageError
from medeval.models.checkpoints import Checkpoint, discover, located, model_directory


def model(folder: Path, weights: str = "model.safetensors") -> Path:
    """A folder that looks like a Hugging Face model."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / weights).write_bytes(b"")
    return folder


def shards(step: Path, ranks: int = 2) -> Path:
    """What a training framework saves before the merge: shards, and a config without weights."""
    actor = step / "actor"
    (actor / "huggingface").mkdir(parents=True)
    (actor / "huggingface" / "config.json").write_text("{}")
    for rank in range(ranks):
        (actor / f"model_world_size_{ranks}_rank_{rank}.pt").write_bytes(b"")
    return step


@pytest.mark.parametrize(
    ("folders", "steps"),
    [
        (["global_step_100", "global_step_20", "global_step_0"], [0, 20, 100]),
        (["checkpoint-500", "checkpoint-1000"], [500, 1000]),
        (["global_step_0020", "global_step_0100"], [20, 100]),
        (["checkpoint-5", "global_step_10"], [5, 10]),
        (["global_step_7", "global_step_x", "checkpoint-", "my_global_step_9", "logs"], [7]),
    ],
)
def test_steps_are_found_by_the_names_of_their_folders(
    tmp_path: Path, folders: list[str], steps: list[int]
) -> None:
    for folder in folders:
        model(tmp_path / "rl" / folder)
    (tmp_path / "rl" / "global_step_99").write_text("a file")
    found = discover(str(tmp_path / "rl"))
    assert [checkpoint.step for checkpoint in found] == steps
    assert {checkpoint.series for checkpoint in found} == {"rl"}
    assert [checkpoint.id for checkpoint in found] == [f"rl/{step}" for step in steps]


@pytest.mark.parametrize("inside", ["", "actor/huggingface", "huggingface"])
@pytest.mark.parametrize("weights", ["model-00001-of-00002.safetensors", "pytorch_model.bin"])
def test_weights_are_found_where_training_frameworks_leave_them(
    tmp_path: Path, inside: str, weights: str
) -> None:
    model(tmp_path / "rl" / "global_step_20" / inside, weights)
    (checkpoint,) = map(located, discover(str(tmp_path / "rl")))
    assert checkpoint.location == str(tmp_path / "rl" / "global_step_20" / inside).rstrip("/")


def test_one_step_may_be_named_alone(tmp_path: Path) -> None:
    model(tmp_path / "rl" / "global_step_20" / "actor" / "huggingface")
    (checkpoint,) = discover(str(tmp_path / "rl" / "global_step_20"))
    assert checkpoint.id == "rl/20"
    assert located(checkpoint).location.endswith("global_step_20/actor/huggingface")


def test_a_plain_model_directory_is_a_single_model(tmp_path: Path) -> None:
    folder = model(tmp_path / "qwen")
    assert discover(str(folder)) == (Checkpoint(series="qwen", step=None, location=str(folder)),)
    assert discover(str(folder))[0].id == "qwen"


@pytest.mark.parametrize("inside", ["", "global_step_3"])
def test_a_name_before_the_folder_names_the_series(tmp_path: Path, inside: str) -> None:
    model(tmp_path / "rl" / inside)
    assert discover(f"mine={tmp_path / 'rl'}")[0].series == "mine"


def test_a_step_named_alone_takes_the_name_too(tmp_path: Path) -> None:
    folder = model(tmp_path / "rl" / "checkpoint-3")
    assert discover(f"mine={folder}")[0].id == "mine/3"


def test_an_equals_sign_may_be_part_of_the_path(tmp_path: Path) -> None:
    folder = model(tmp_path / "lr=0.1")
    assert discover(str(folder))[0].series == "lr=0.1"


def test_a_relative_folder_is_named_by_what_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model(tmp_path / "rl" / "global_step_1")
    monkeypatch.chdir(tmp_path / "rl")
    (checkpoint,) = discover(".")
    assert checkpoint.id == "rl/1"
    assert Path(checkpoint.location).is_absolute()


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no checkpoint directory") as refused:
        discover(str(tmp_path / "absent"))
    assert refused.value.hint is not None
    assert "--model" in refused.value.hint


def test_a_folder_without_a_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no checkpoint: no global_step_N"):
        discover(str(tmp_path))


def test_one_step_in_two_folders_is_refused(tmp_path: Path) -> None:
    model(tmp_path / "rl" / "global_step_20")
    model(tmp_path / "rl" / "checkpoint-20")
    with pytest.raises(UsageError) as refused:
        discover(str(tmp_path / "rl"))
    assert refused.value.message == (
        "series 'rl' has step 20 twice: 'checkpoint-20' and 'global_step_20'"
    )


def test_shards_without_a_merged_model_name_the_merge_command(tmp_path: Path) -> None:
    step = shards(tmp_path / "rl" / "global_step_20")
    (checkpoint,) = discover(str(tmp_path / "rl"))
    with pytest.raises(UsageError) as refused:
        located(checkpoint)
    assert refused.value.message == (
        f"{str(step)!r} holds FSDP shards (2 files) and no merged model"
    )
    assert refused.value.hint == (
        f"python -m verl.model_merger merge --backend fsdp --local_dir {step}/actor "
        f"--target_dir {step}/actor/huggingface"
    )


def test_merged_shards_are_a_model(tmp_path: Path) -> None:
    step = shards(tmp_path / "rl" / "global_step_20")
    (step / "actor" / "huggingface" / "model.safetensors").write_bytes(b"")
    assert model_directory(step) == step / "actor" / "huggingface"


def test_a_step_without_weights_is_refused(tmp_path: Path) -> None:
    step = tmp_path / "rl" / "global_step_20"
    step.mkdir(parents=True)
    (step / "config.json").write_text("{}")
    with pytest.raises(UsageError, match="holds no model"):
        model_directory(step)
