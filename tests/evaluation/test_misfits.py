"""Checkpoints that cannot run a plan are refused before any engine starts."""

import importlib.util
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

from medeval.errors import FatalModelError
from medeval.evaluation.misfits import MisfitError
from medeval.evaluation.plan import Plan, resolve
from medeval.evaluation.plan_file import read_options
from medeval.evaluation.run import preview
from medeval.models.transformers.loading import load_config
from medeval.models.transformers.processor import ChatProcessor
from medeval.types.trajectory import ImageRef, Message, Text
from tests.evaluation.test_run import carried_out, small
from tests.evaluation.test_watch import Evaluations, watched
from tests.families.checkpoint import Family, build
from tests.families.every import FAMILIES, LACKING
from tests.medeval_processes import MedevalMain
from tests.model_folders import safetensors
from tests.small_benchmark import write_benchmark, write_pair
from tests.tiny_checkpoints import drawn_image

BASE = "give the folder of the base model, which has one, with --processor"
VLM = "use a vision-language model, or a benchmark without images"
REFUSED = {
    "a chat template": ("crop_zoom", 2, "has no chat template", BASE),
    "images in the model": (
        "crop_zoom", 2, "the model takes no images, and samples of 'small' have 1", VLM,
    ),
    "images in the template": (
        "crop_zoom", 2, "the checkpoint's chat template leaves images out",
        "give a folder whose template renders them with --processor",
    ),
    "a second image": (
        "crop_zoom", 1,
        "the model takes one image a conversation, and the tools of 'tool_available' make more",
        "use --protocols without tools, and benchmarks of one image a sample",
    ),
    "tools in the template": (
        "crop_zoom_native", 1, "does not render the tools of a native protocol",
        "use the pair crop_zoom",
    ),
}  # fmt: skip


def without_weights(family: Family, folder: Path) -> Path:
    """A complete checkpoint whose only tensor is none of the model's."""
    build(family, folder)
    (folder / "model.safetensors").write_bytes(safetensors())
    return folder


def flags(folder: Path, *models: Path, pairs: str = "crop_zoom") -> list[object]:
    named = [part for model in models for part in ("--model", model)]
    benchmark = write_benchmark(folder, 2)
    return ["run", *named, "--benchmarks", benchmark, "--pairs", pairs,
            "--output-dir", folder / "run"]  # fmt: skip


def planned(folder: Path, **options: Any) -> Plan:
    values = {"benchmarks": (str(write_benchmark(folder, 2)),), "output_dir": str(folder / "run")}
    return resolve(read_options(None, values | options))


@pytest.mark.parametrize("lacking", REFUSED)
def test_a_dry_run_says_what_a_checkpoint_lacks(
    lacking: str, tmp_path: Path, medeval_main: MedevalMain, capsys: pytest.CaptureFixture[str]
) -> None:
    pair, n_cells, reason, hint = REFUSED[lacking]
    model = without_weights(LACKING[lacking], tmp_path / "model")
    assert medeval_main(*flags(tmp_path, model, pairs=pair), "--dry-run") == 2
    seen = capsys.readouterr()
    assert seen.out.count("refused") == n_cells
    assert "error: the plan cannot be run:\n  model: " in seen.err
    assert reason in seen.err
    assert f"\n\nhint: {hint}" in seen.err


@pytest.mark.parametrize("lacking", ["a second image", "tools in the template"])
def test_what_a_checkpoint_lacks_is_no_matter_to_other_protocols(
    lacking: str, tmp_path: Path, medeval_main: MedevalMain
) -> None:
    model = without_weights(LACKING[lacking], tmp_path / "model")
    pair = write_pair(tmp_path)
    free = pair.with_name("free.py")
    free.write_text(pair.read_text().split("AVAILABLE = ")[0])
    arguments = flags(tmp_path, model)
    at = arguments.index("--pairs")
    arguments[at : at + 2] = ["--protocols", free]
    assert medeval_main(*arguments, "--dry-run") == 0


@pytest.mark.parametrize(
    ("family", "package"),
    [
        (FAMILIES["llama4"], "torchvision"),
        (FAMILIES["qwen2_5_omni"], "torchvision"),
        (FAMILIES["qwen3_omni_moe"], "torchvision"),
        (FAMILIES["smolvlm"], "num2words"),
    ],
)
def test_a_missing_package_is_named_with_its_command(
    family: Family, package: str, tmp_path: Path
) -> None:
    if importlib.util.find_spec(package) is not None:
        pytest.skip(f"{package} is installed")
    folder = build(family, tmp_path / "model")
    with pytest.raises(FatalModelError, match=f"needs {package}") as caught:
        ChatProcessor(folder, load_config(folder))
    assert caught.value.hint == f"pip install {package}"


def test_a_run_is_refused_before_anything_is_written(
    tmp_path: Path, medeval_main: MedevalMain, capsys: pytest.CaptureFixture[str]
) -> None:
    good = without_weights(FAMILIES["qwen2_5_vl"], tmp_path / "good")
    text = without_weights(LACKING["images in the model"], tmp_path / "text")
    bare = without_weights(LACKING["a chat template"], tmp_path / "bare")
    assert medeval_main(*flags(tmp_path, good, text, bare)) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert lines == [
        "error: the plan cannot be run:",
        "  text: the model takes no images, and samples of 'small' have 1",
        f"  bare: '{bare}' has no chat template",
        "",
        f"hint: {VLM}",
        f"      {BASE}",
    ]
    assert not [path for path in (tmp_path / "run").rglob("*") if path.name != ".run.lock"]


def test_steps_that_differ_in_their_weights_are_looked_at_once(tmp_path: Path) -> None:
    first = without_weights(LACKING["a chat template"], tmp_path / "rl" / "checkpoint-1")
    for step in range(2, 31):
        shutil.copytree(first, first.with_name(f"checkpoint-{step}"))
    template = LACKING["images in the template"].template
    assert template is not None
    (first.with_name("checkpoint-30") / "chat_template.jinja").write_text(template)
    cells = preview(planned(tmp_path, checkpoints=(str(tmp_path / "rl"),)))
    misfits = {cell.key.step: cell.misfit for cell in cells}
    assert all(misfits[step] is misfits[1] for step in range(1, 30)), "one load, one reason"
    assert misfits[30] is not misfits[1]


def test_another_processor_is_looked_at_in_the_checkpoints_place(tmp_path: Path) -> None:
    model = without_weights(LACKING["images in the template"], tmp_path / "model")
    processor = build(FAMILIES["qwen2_5_vl"], tmp_path / "processor")
    plan = planned(tmp_path, model=(str(model),), processor=str(processor))
    assert [cell.misfit for cell in preview(plan)] == [None, None]


@pytest.mark.parametrize(
    ("lacking", "pair", "in_process", "on_server"),
    [
        ("images in the model", "crop_zoom", 2, 2),
        ("images in the template", "crop_zoom", 2, 0),
        ("tools in the template", "crop_zoom_native", 1, 1),
        ("a chat template", "crop_zoom", 2, 0),
        ("torchvision", "crop_zoom", 0, 0),
    ],
)
def test_vllm_needs_the_template_alone_and_its_server_may_bring_one(
    lacking: str, pair: str, in_process: int, on_server: int, tmp_path: Path
) -> None:
    model = without_weights(LACKING[lacking], tmp_path / "model")
    n_refused = {
        backend: sum(
            cell.misfit is not None
            for cell in preview(
                planned(tmp_path, model=(str(model),), backend=backend, pairs=(pair,))
            )
        )
        for backend in ("vllm", "vllm-server")
    }
    assert n_refused == {"vllm": in_process, "vllm-server": on_server}


def test_a_finished_run_needs_no_model(tmp_path: Path) -> None:
    bare = without_weights(LACKING["a chat template"], tmp_path / "bare")
    plan = small(tmp_path, model=(f"m={bare}",))
    opening = replace(plan, opens_folders=True)
    assert {cell.misfit is not None for cell in preview(opening)} == {True}
    carried_out(plan)
    assert {cell.misfit for cell in preview(opening)} == {None}


def test_a_step_that_cannot_run_is_left_out_while_others_are_awaited(tmp_path: Path) -> None:
    rl = tmp_path / "rl"
    good = without_weights(FAMILIES["qwen2_5_vl"], rl / "checkpoint-1")

    def train(*_: object) -> None:
        if not (rl / "checkpoint-2").exists():
            bare = shutil.copytree(good, tmp_path / "bare" / "checkpoint-2")
            (bare / "chat_template.jinja").unlink()
            bare.rename(rl / "checkpoint-2")
            shutil.copytree(good, rl / "checkpoint-3")

    plan = small(tmp_path, model=None, checkpoints=(str(rl),), watch=True, steps=(1, 2, 3))
    evaluate = Evaluations(train)
    report, messages = watched(replace(plan, opens_folders=True), evaluate)
    assert [summary.checkpoint for summary in report.summaries[::2]] == ["rl/1", "rl/3"]
    assert sum("  rl/2: " in message for message in messages) == 1


def test_a_watch_whose_first_step_cannot_run_is_refused(tmp_path: Path) -> None:
    without_weights(LACKING["a chat template"], tmp_path / "rl" / "checkpoint-1")
    plan = small(tmp_path, model=None, checkpoints=(str(tmp_path / "rl"),), watch=True)
    with pytest.raises(MisfitError, match=r"rl/1: .* has no chat template"):
        watched(replace(plan, opens_folders=True), Evaluations())


@pytest.mark.parametrize(
    ("lacking", "n_images", "expected"),
    [
        ("images in the model", 1, "the model takes no images, and this one shows 1"),
        ("a second image", 2, "the model takes one image a conversation, and this one shows 2"),
    ],
)
def test_a_request_with_more_images_than_the_model_takes_is_refused(
    lacking: str, n_images: int, expected: str, tmp_path: Path
) -> None:
    folder = build(LACKING[lacking], tmp_path / "model")
    processor = ChatProcessor(folder, load_config(folder))
    turns = (
        Message(role="user", content=(ImageRef(0), Text("Where?"))),
        Message(role="assistant", content=(Text("There."),)),
    )
    with pytest.raises(FatalModelError, match=expected):
        processor.opening((turns * n_images)[:-1], [drawn_image(0)])
