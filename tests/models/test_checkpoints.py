"""Which checkpoints a folder holds, by step, and the base of an adapter."""

from pathlib import Path

import pytest

from medeval.errors import UsageError
from medeval.models.checkpoints import Checkpoint, discover, located, model_beside_steps, series_of
from tests.model_folders import write_adapter, write_files, write_model, write_shards


@pytest.mark.parametrize(
    ("folders", "steps"),
    [
        (["global_step_100", "global_step_20", "global_step_0"], [0, 20, 100]),
        (["checkpoint-500", "checkpoint-1000"], [500, 1000]),
        (["global_step_0020", "global_step_0100"], [20, 100]),
        (["checkpoint-5", "global_step_10"], [5, 10]),
        (["global_step20", "global_steps_30", "checkpoint_40", "step_50", "step-60"],
         [20, 30, 40, 50, 60]),
        (["iter_0000010", "epoch_20", "Step_30"], [10, 20, 30]),
        (["global_step10_hf", "checkpoint-20-merged"], [10, 20]),
        (["global_step_7", "global_step_x", "checkpoint-", "my_global_step_9", "logs", "step_1.x"],
         [7]),
    ],
)  # fmt: skip
def test_steps_are_found_by_the_names_of_their_folders(
    tmp_path: Path, folders: list[str], steps: list[int]
) -> None:
    for folder in folders:
        write_model(tmp_path / "rl" / folder)
    (tmp_path / "rl" / "global_step_99").write_text("a file")
    found = discover(str(tmp_path / "rl"))
    assert [checkpoint.step for checkpoint in found] == steps
    assert {checkpoint.series for checkpoint in found} == {"rl"}
    assert [checkpoint.id for checkpoint in found] == [f"rl/{step}" for step in steps]


def test_a_converted_step_wins_over_the_folder_it_was_made_from(tmp_path: Path) -> None:
    for name in ("checkpoint-20-merged", "global_step10_hf"):
        write_model(tmp_path / name)
    write_adapter(tmp_path / "checkpoint-20")
    write_files(tmp_path / "global_step10", "mp_rank_00_model_states.pt")
    assert [Path(found.location).name for found in discover(str(tmp_path))] == [
        "global_step10_hf", "checkpoint-20-merged",
    ]  # fmt: skip


def test_one_step_may_be_named_alone(tmp_path: Path) -> None:
    write_model(tmp_path / "rl" / "global_step_20" / "actor" / "huggingface")
    (checkpoint,) = discover(str(tmp_path / "rl" / "global_step_20"))
    assert checkpoint.id == "rl/20"
    assert located(checkpoint).location.endswith("global_step_20/actor/huggingface")


def test_the_states_of_deepspeed_inside_a_step_are_no_steps(tmp_path: Path) -> None:
    step = write_model(tmp_path / "rl" / "checkpoint-20")
    write_files(step / "global_step20", "zero_pp_rank_0_mp_rank_00_model_states.pt")
    (alone,) = discover(str(step))
    assert (alone.id, alone.location) == ("rl/20", str(step))
    assert [found.id for found in discover(str(tmp_path / "rl"))] == ["rl/20"]


def test_a_plain_model_directory_is_a_single_model(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "qwen")
    assert discover(str(folder)) == (Checkpoint(series="qwen", step=None, location=str(folder)),)
    assert discover(str(folder))[0].id == "qwen"


def test_steps_may_be_one_folder_further_down(tmp_path: Path) -> None:
    write_model(tmp_path / "sft" / "v0-20260101-000000" / "checkpoint-10")
    (tmp_path / "sft" / "logs").mkdir()
    assert [found.id for found in discover(str(tmp_path / "sft"))] == ["sft/10"]
    write_model(tmp_path / "sft" / "v1-20260102-000000" / "checkpoint-10")
    with pytest.raises(UsageError, match=r"2 folders with steps: v0-20260101-000000, v1-") as told:
        discover(str(tmp_path / "sft"))
    assert told.value.hint == "name one, or several as NAME=DIR each"


def test_a_model_beside_its_steps_is_known(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "rl")
    assert model_beside_steps(str(folder)) is None
    step = write_model(folder / "checkpoint-10")
    assert [found.id for found in discover(f"a={folder}")] == ["a/10"]
    assert model_beside_steps(f"a={folder}") == folder
    assert model_beside_steps(str(step)) is None


@pytest.mark.parametrize("inside", ["", "global_step_3"])
def test_a_name_before_the_folder_names_the_series(tmp_path: Path, inside: str) -> None:
    write_model(tmp_path / "rl" / inside)
    assert discover(f"mine={tmp_path / 'rl'}")[0].series == "mine"
    assert series_of(f"mine={tmp_path / 'rl'}") == "mine"


def test_a_step_named_alone_takes_the_name_too(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "rl" / "checkpoint-3")
    assert discover(f"mine={folder}")[0].id == "mine/3"


def test_an_equals_sign_may_be_part_of_the_path(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "lr=0.1")
    assert discover(str(folder))[0].series == series_of(str(folder)) == "lr=0.1"


def test_a_relative_folder_is_named_by_what_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_model(tmp_path / "rl" / "global_step_1")
    monkeypatch.chdir(tmp_path / "rl")
    (checkpoint,) = discover(".")
    assert checkpoint.id == "rl/1"
    assert Path(checkpoint.location).is_absolute()


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no checkpoint directory") as refused:
        discover(str(tmp_path / "absent"), may_be_empty=True)
    assert refused.value.hint is not None
    assert "--model" in refused.value.hint


def test_a_folder_without_a_checkpoint_is_refused_unless_one_may_come(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no checkpoint: no step, such as global_step_N"):
        discover(str(tmp_path))
    assert discover(str(tmp_path), may_be_empty=True) == ()


def test_a_folder_without_steps_may_hold_a_model_further_inside(tmp_path: Path) -> None:
    write_model(tmp_path / "best" / "actor" / "huggingface")
    assert [found.id for found in discover(str(tmp_path / "best"))] == ["best"]
    write_files(tmp_path / "weights", "model.gguf")
    with pytest.raises(UsageError, match="holds GGUF weights"):
        discover(str(tmp_path / "weights"))


def test_one_step_in_two_folders_is_refused(tmp_path: Path) -> None:
    write_model(tmp_path / "rl" / "global_step_20")
    write_model(tmp_path / "rl" / "checkpoint-20")
    with pytest.raises(UsageError) as refused:
        discover(str(tmp_path / "rl"))
    assert refused.value.message == (
        "series 'rl' has step 20 twice: 'checkpoint-20' and 'global_step_20'"
    )


def adapter_in(folder: Path, **named: object) -> Checkpoint:
    write_adapter(folder, **named)  # type: ignore[arg-type]
    return Checkpoint(series="rl", step=20, location=str(folder))


def test_an_adapters_base_is_the_one_it_names(tmp_path: Path) -> None:
    base = write_model(tmp_path / "base" / "actor" / "huggingface")
    found = located(adapter_in(tmp_path / "checkpoint-20", base=base.parents[1]))
    assert (found.location, found.base) == (str(tmp_path / "checkpoint-20"), str(base))


def test_a_base_of_the_command_line_wins_over_the_named_one(tmp_path: Path) -> None:
    named, given = write_model(tmp_path / "named"), write_model(tmp_path / "given")
    assert located(adapter_in(tmp_path / "a", base=named), base=str(given)).base == str(given)
    assert located(adapter_in(tmp_path / "b", base="/gone"), base=str(given)).base == str(given)


def test_verls_adapter_is_found_beside_its_shards(tmp_path: Path) -> None:
    step = write_shards(tmp_path / "global_step_40")
    base = write_model(tmp_path / "base")
    adapter = write_adapter(step / "actor" / "lora_adapter", base=base)
    assert located(discover(str(tmp_path))[0]).location == str(adapter)


def test_a_whole_model_has_no_base(tmp_path: Path) -> None:
    step = write_adapter(write_model(tmp_path / "checkpoint-20" / "merged").parent)
    found = located(discover(str(step))[0], base=str(tmp_path))
    assert (found.location, found.base) == (str(step / "merged"), None)


@pytest.mark.parametrize(
    ("base", "message", "hint"),
    [
        (None, "names no base model", "--base DIR, or --base ORGANISATION/MODEL[@REVISION]"),
        ("/train/models/qwen", "the base '/train/models/qwen' of the LoRA adapter", "--base DIR"),
        ("{tmp}/empty", "cannot be loaded: '{tmp}/empty' holds no model", "--base DIR"),
        ("{tmp}/adapter", "is an adapter itself", "merge that one"),
    ],
)
def test_an_adapter_without_a_loadable_base_is_refused(
    tmp_path: Path, base: str | None, message: str, hint: str
) -> None:
    (tmp_path / "empty").mkdir()
    write_adapter(tmp_path / "adapter")
    named = base and base.format(tmp=tmp_path)
    with pytest.raises(UsageError) as refused:
        located(adapter_in(tmp_path / "checkpoint-20", base=named))
    assert message.format(tmp=tmp_path) in refused.value.message
    assert refused.value.hint is not None
    assert refused.value.hint.startswith(hint)


def test_a_name_that_is_neither_a_folder_nor_of_the_hub_is_refused() -> None:
    with pytest.raises(UsageError, match="no model folder 'qwen', and no name of a model on"):
        located(Checkpoint(series="qwen", step=None, location="qwen"))
