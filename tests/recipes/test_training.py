import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from safetensors.torch import load_file

from medeval.data.scenes import BIG, EDGE_PX, SMALL, MarkerSize, paint_scene
from medeval.evaluation.loader import load
from medeval.images.picture import made_picture
from medeval.models.transformers.loading import load_config, load_model
from medeval.models.transformers.processor import ChatProcessor
from medeval.rollout.protocol import Pair
from medeval.tools.base import ToolContext
from medeval.tools.calls.find import find_calls
from medeval.types.geometry import PERMILLE, Box
from medeval.types.trajectory import ImageRef, Message
from recipes.demo_series.__main__ import train
from recipes.demo_series.checkpoints import PATCH_EDGE_PX
from recipes.demo_series.lessons import call_text, make_lesson, word_ids
from recipes.demo_series.training import (
    CALL_SMALL,
    FREE_SMALL,
    Progress,
    Recipe,
    as_patches,
    lesson_logits,
    train_series,
)
from recipes.demo_series.views import CELLS, SPANS, cell_of, crop_view, draw_views, whole_view

SHORT = Recipe(
    n_small=64,
    n_big=32,
    sight_steps=12,
    sight_batch=32,
    answers_steps=6,
    tools_steps=6,
    batch=8,
    snapshots=(3,),
    answers={FREE_SMALL: 1.0},
    tools={CALL_SMALL: 1.0},
)


def as_seen(processor: ChatProcessor, picture: Any) -> torch.Tensor:
    """The patches of a picture's first frame, on the real way into the model."""
    shown = (Message(role="user", content=(ImageRef(0),)),)
    patches = processor.opening(shown, (picture.sent_image,)).images["pixel_values"]
    n_patches, patch = len(patches), PATCH_EDGE_PX["qwen2_5_vl"]
    return patches.view(n_patches, 3, 2, patch**2)[:, :, 0].reshape(n_patches, -1)


@pytest.fixture(scope="module")
def processor(trained_checkpoint: Path) -> ChatProcessor:
    return ChatProcessor(trained_checkpoint, load_config(trained_checkpoint))


@pytest.mark.parametrize("size", [SMALL, BIG])
def test_views_are_what_tool_and_processor_make(processor: ChatProcessor, size: MarkerSize) -> None:
    tool = load("crop_zoom", Pair).value.available.tools[0]
    for index in range(8):
        canvas, _, box = paint_scene(f"views {index}", size)
        whole = made_picture(Image.fromarray(canvas), budget=None)
        column, row = cell_of(box)
        [call] = find_calls(call_text(column, row), (), "hermes")
        context = ToolContext(pictures=(whole,), frame="permille")
        crop = tool.run(call.arguments or {}, context).picture
        for picture, view in ((whole, whole_view(canvas)), (crop, crop_view(canvas, column, row))):
            made = as_patches(view[None])[0]
            difference = (as_seen(processor, picture) - made).abs() * 255 * 0.27
            assert float(difference.max()) < 16
            assert float(difference.mean()) < 1


def test_the_box_around_a_cell_holds_a_small_markers_patch() -> None:
    for index in range(50):
        _, _, box = paint_scene(f"boxes {index}", SMALL)
        column, row = cell_of(box)
        (left, right), (top, bottom) = SPANS[column], SPANS[row]
        around = Box(left, top, right, bottom, PERMILLE).to(box.frame)
        centre = ((box.left + box.right) / 2, (box.top + box.bottom) / 2)
        reach = SMALL.patch_px / 2
        assert around.left <= centre[0] - reach < centre[0] + reach <= around.right
        assert around.top <= centre[1] - reach < centre[1] + reach <= around.bottom


def test_mirrored_views_are_those_of_the_mirrored_scene() -> None:
    canvas, _, box = paint_scene("mirrored", SMALL)
    column, row = cell_of(box)
    views = draw_views("unused", 1, SMALL)
    views.whole[0], views.crop[0] = whole_view(canvas), crop_view(canvas, column, row)
    views.column[0], views.row[0] = column, row
    mirrored = views.some(np.array([0]), across=True)
    flipped = np.ascontiguousarray(canvas[:, ::-1])
    assert mirrored.column[0] == CELLS - 1 - column
    assert np.abs(mirrored.whole[0].astype(int) - whole_view(flipped)).max() <= 1
    crop = crop_view(flipped, int(mirrored.column[0]), row)
    assert np.abs(mirrored.crop[0].astype(int) - crop).max() <= 1
    assert canvas.shape[0] == EDGE_PX


@pytest.mark.parametrize("calls", [False, True])
def test_forward_pass_is_that_of_transformers(trained_checkpoint: Path, calls: bool) -> None:
    config = load_config(trained_checkpoint)
    model = load_model(trained_checkpoint, config, device="cpu", pad_id=0).model
    processor = ChatProcessor(trained_checkpoint, config)
    protocol = load("crop_zoom", Pair).value.available
    lesson = make_lesson(processor, model, protocol, calls=calls)
    views = draw_views("forward", 3, SMALL)
    ids = word_ids(processor).fill(lesson, views)
    shown = np.stack((views.whole, views.crop)[: 1 + calls], 1)
    patches = as_patches(shown.reshape(-1, *shown.shape[2:])).flatten(0, 1)
    twice = patches.view(len(patches), 3, 1, -1).expand(-1, -1, 2, -1).flatten(1)
    n_images = 3 * (1 + calls)
    with torch.inference_mode():
        mine = lesson_logits(model, lesson, ids, views)
        theirs = model(
            input_ids=ids,
            mm_token_type_ids=(ids == config.image_token_id).int(),
            pixel_values=twice,
            image_grid_thw=torch.tensor([[1, 4, 4]] * n_images),
        ).logits
    assert torch.allclose(mine, theirs[:, lesson.learned - 1], atol=1e-3)


def test_losses_fall_and_equal_seeds_make_equal_weights(tmp_path: Path) -> None:
    losses: dict[str, list[float]] = {}

    def report(progress: Progress) -> None:
        losses.setdefault(progress.stage, []).append(progress.loss)

    state = random.getstate(), torch.get_rng_state()
    made = train_series(tmp_path / "first", SHORT, report)
    assert [path.name for path in made] == ["global_step_0", "global_step_3", "global_step_6"]
    assert {stage: len(values) for stage, values in losses.items()} == {
        "sight": 12,
        "answers": 6,
        "tools": 6,
    }
    for stage in ("answers", "tools"):
        assert losses[stage][-1] < losses[stage][0]
    again = train_series(tmp_path / "again", SHORT, lambda progress: None)
    other = train_series(tmp_path / "other", replace(SHORT, seed=1), lambda progress: None)
    for one, same, another in zip(made, again, other, strict=True):
        weights = [load_file(path / "model.safetensors") for path in (one, same, another)]
        assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
        assert any(not torch.equal(weights[0][name], weights[2][name]) for name in weights[0])
    assert torch.equal(state[1], torch.get_rng_state())


def test_training_is_refused_beside_other_checkpoints(tmp_path: Path) -> None:
    (tmp_path / "global_step_7").mkdir()
    result = CliRunner().invoke(train, [str(tmp_path)])
    assert result.exit_code == 2
    assert "holds checkpoints" in result.stderr
