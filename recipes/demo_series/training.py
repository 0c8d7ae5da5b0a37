"""The demo's training run: a tiny Qwen2.5-VL learns to read a colour, then to zoom in for it.

Three stages, of fixed numbers of steps, on one core:

1. Sight: only the vision tower, with temporary heads for the colour in the whole view, the colour
   in the crop, and the grid cell of the marker. Without this stage nothing visual is learned.
2. Answers: direct answers without the tool prompt. Up to here the model has seen no tool schema;
   this is the baseline, `global_step_0`.
3. Tools: calls on small markers, direct answers under the tool prompt on big ones, and tool-free
   answers on both. Checkpoints are numbered by the steps of this stage.
"""

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from medeval.data.scenes import BIG, COLOURS, SMALL
from medeval.models.transformers.loading import load_config, load_model, quiet
from medeval.models.transformers.processor import ChatProcessor
from recipes.demo_series.batched import image_features, last_states
from recipes.demo_series.checkpoints import (
    PATCH_EDGE_PX,
    PIXEL_MEAN,
    PIXEL_SPREAD,
    Architecture,
    build_checkpoint,
)
from recipes.demo_series.lessons import (
    Lesson,
    WordIds,
    coordinates,
    make_lesson,
    pair,
    training_texts,
    word_ids,
)
from recipes.demo_series.views import CELLS, VIEW_PX, Views, draw_views

# Differs from the seeds of the benchmark's scenes.
SCENE_SEED: Final = "markers training"
IMAGE_TOKENS: Final = 4
# With the usual rotary base, and half of the rotary embedding for time, the language model can
# hardly tell the four image tokens apart and does not learn where the marker is.
ARCHITECTURE: Final = Architecture(
    depth=3,
    vision_width=96,
    vision_depth=3,
    context_tokens=2048,
    rotary_base=4.0,
    rotary_sections=(2, 7, 7),
    image_tokens=(IMAGE_TOKENS, IMAGE_TOKENS),
)


@dataclass(frozen=True, slots=True)
class Task:
    """The task of a step: a kind of conversation, and the size of the markers in its images."""

    protocol: str
    calls: bool
    big: bool


FREE_SMALL = Task("tool_free", calls=False, big=False)
FREE_BIG = Task("tool_free", calls=False, big=True)
CALL_SMALL = Task("tool_available", calls=True, big=False)
DIRECT_BIG = Task("tool_available", calls=False, big=True)
NATIVE_CALL_SMALL = Task("tool_available_native", calls=True, big=False)
NATIVE_DIRECT_BIG = Task("tool_available_native", calls=False, big=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """The settings of a series; equal recipes make equal weights on one machine.

    `answers` and `tools` are the tasks' shares of the steps in the second and third stage.
    `snapshots` are the steps of the third stage that are saved besides the last.
    """

    seed: int = 0
    n_small: int = 24_000
    n_big: int = 8_000
    sight_steps: int = 550
    sight_batch: int = 192
    answers_steps: int = 240
    tools_steps: int = 760
    batch: int = 64
    rate: float = 2e-3
    vision_share_of_rate: float = 0.3
    snapshots: tuple[int, ...] = (20, 40, 160, 280, 400)
    answers: Mapping[Task, float] = field(
        default_factory=lambda: {FREE_SMALL: 0.85, FREE_BIG: 0.15}
    )
    tools: Mapping[Task, float] = field(
        default_factory=lambda: {
            FREE_SMALL: 0.26,
            FREE_BIG: 0.05,
            CALL_SMALL: 0.46,
            DIRECT_BIG: 0.15,
            NATIVE_CALL_SMALL: 0.05,
            NATIVE_DIRECT_BIG: 0.03,
        }
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """A finished step of a stage, with its loss."""

    stage: str
    step: int
    steps: int
    task: str
    loss: float


Report = Callable[[Progress], None]


@dataclass(frozen=True, slots=True, eq=False)
class Scenes:
    """The training scenes of both sizes."""

    small: Views
    big: Views

    def of(self, task: Task) -> Views:
        """The scenes of a task."""
        return self.big if task.big else self.small


def draw_scenes(recipe: Recipe) -> Scenes:
    """The scenes of a recipe; they depend only on its `n_small` and `n_big`."""
    return Scenes(
        draw_views(f"{SCENE_SEED} small", recipe.n_small, SMALL),
        draw_views(f"{SCENE_SEED} big", recipe.n_big, BIG),
    )


def train_series(
    directory: Path, recipe: Recipe, report: Report, scenes: Scenes | None = None
) -> list[Path]:
    """Train a series from random weights; return its checkpoints, `global_step_0` first."""
    start = directory / "global_step_0"
    with _one_thread(), quiet(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        build_checkpoint(
            start,
            family="qwen2_5_vl",
            seed=recipe.seed,
            texts=training_texts(),
            words=coordinates(),
            architecture=ARCHITECTURE,
        )
        config = load_config(start)
        processor = ChatProcessor(start, config)
        model = load_model(start, config, device="cpu", pad_id=processor.template.pad_id).model
        # without it, a checkpoint's own `generate` would not end with the reply
        model.generation_config.eos_token_id = processor.template.end_id
        _initialise(model)
        return _Trainer(model, processor, scenes or draw_scenes(recipe), recipe, report).run(start)


class _Trainer:
    """Trains one model through the three stages."""

    def __init__(
        self,
        model: Any,
        processor: ChatProcessor,
        scenes: Scenes,
        recipe: Recipe,
        report: Report,
    ) -> None:
        self._model, self._scenes, self._recipe, self._report = model, scenes, recipe, report
        # one per stage, so that the length of a stage does not change the next
        self._generators = {
            stage: np.random.default_rng(recipe.seed + 1000 * index)
            for index, stage in enumerate(("sight", "answers", "tools"))
        }
        self._words = word_ids(processor)
        tasks = {*recipe.answers, *recipe.tools}
        self._lessons = {task: _lesson(processor, model, task) for task in tasks}

    def run(self, start: Path) -> list[Path]:
        recipe = self._recipe
        self._train_sight()
        language = [one for one in self._model.parameters() if not _is_in(self._visual, one)]
        optimiser = torch.optim.AdamW(
            [
                {"params": language, "share": 1.0},
                {"params": list(self._visual.parameters()), "share": recipe.vision_share_of_rate},
            ],
            betas=(0.9, 0.98),
            weight_decay=0.02,
        )
        self._train_replies(optimiser, "answers", recipe.answers, 0, recipe.answers_steps)
        _save(self._model, start)
        saved, done = [start], 0
        for step in sorted({*recipe.snapshots, recipe.tools_steps}):
            self._train_replies(optimiser, "tools", recipe.tools, done, step)
            directory = start.parent / f"global_step_{step}"
            shutil.copytree(start, directory)
            _save(self._model, directory)
            saved.append(directory)
            done = step
        return saved

    @property
    def _visual(self) -> Any:
        return self._model.model.visual

    def _train_sight(self) -> None:
        """Train only the vision tower."""
        recipe, scenes = self._recipe, self._scenes.small
        width = self._model.config.text_config.hidden_size * IMAGE_TOKENS
        heads = nn.ModuleList(_head(width, n) for n in (len(COLOURS), len(COLOURS), CELLS, CELLS))
        weights = [*self._visual.parameters(), *heads.parameters()]
        optimiser = torch.optim.AdamW(weights, betas=(0.9, 0.98), weight_decay=0.02)
        optimiser.param_groups[0]["share"] = 1.0
        for step in range(1, recipe.sight_steps + 1):
            views = self._views("sight", scenes, recipe.sight_batch)
            n_crops = recipe.sight_batch // 2
            images = np.concatenate((views.whole, views.crop[:n_crops]))
            features = image_features(self._visual, as_patches(images)).flatten(1)
            whole, crop = features[: len(views)], features[len(views) :]
            inputs = zip(heads, (whole, crop, whole, whole), strict=True)
            targets = (views.colour, views.colour[:n_crops], views.column, views.row)
            losses = [
                functional.cross_entropy(head(part), torch.from_numpy(labels))
                for (head, part), labels in zip(inputs, targets, strict=True)
            ]
            loss = torch.stack(losses).sum()
            _descend(optimiser, loss, recipe.rate * _schedule(step, recipe.sight_steps))
            self._report_step("sight", step, recipe.sight_steps, "all", loss)

    def _train_replies(
        self,
        optimiser: torch.optim.Optimizer,
        stage: str,
        shares: Mapping[Task, float],
        done: int,
        until: int,
    ) -> None:
        """Train the steps `done` + 1 to `until` of a stage."""
        recipe, tasks = self._recipe, list(shares)
        steps = recipe.answers_steps + recipe.tools_steps
        before = recipe.answers_steps if stage == "tools" else 0
        for step in range(done + 1, until + 1):
            task = tasks[self._generators[stage].choice(len(tasks), p=list(shares.values()))]
            loss = self._loss(stage, task)
            _descend(optimiser, loss, recipe.rate * _schedule(before + step, steps))
            stage_steps = recipe.tools_steps if stage == "tools" else recipe.answers_steps
            self._report_step(stage, step, stage_steps, _name(task), loss)

    def _loss(self, stage: str, task: Task) -> Tensor:
        lesson = self._lessons[task]
        return lesson_loss(
            self._model,
            self._words,
            lesson,
            self._views(stage, self._scenes.of(task), self._recipe.batch),
        )

    def _views(self, stage: str, scenes: Views, n: int) -> Views:
        generator = self._generators[stage]
        rows = generator.choice(len(scenes), n, replace=False)
        across, down = generator.integers(2, size=2)
        return scenes.some(rows, across=bool(across), down=bool(down))

    def _report_step(self, stage: str, step: int, steps: int, task: str, loss: Tensor) -> None:
        self._report(
            Progress(stage=stage, step=step, steps=steps, task=task, loss=float(loss.detach()))
        )


def lesson_loss(model: Any, words: WordIds, lesson: Lesson, views: Views) -> Tensor:
    """The weighted mean loss of a lesson's learned tokens over a batch of scenes."""
    ids = words.fill(lesson, views)
    logits = lesson_logits(model, lesson, ids, views)
    losses = functional.cross_entropy(
        logits.flatten(0, 1), ids[:, lesson.learned].flatten(), reduction="none"
    )
    weights = lesson.weights.repeat(len(ids))
    return (losses * weights).sum() / weights.sum()


def lesson_logits(model: Any, lesson: Lesson, ids: Tensor, views: Views) -> Tensor:
    """The logits before each learned token: (rows, learned, vocabulary)."""
    language = model.model.language_model
    shots = [views.whole, views.crop] if lesson.calls else [views.whole]
    images = np.stack(shots, 1).reshape(-1, VIEW_PX, VIEW_PX, 3)
    features = image_features(model.model.visual, as_patches(images))
    embedded = language.embed_tokens(ids)
    features = features.reshape(len(ids), -1, embedded.shape[-1])
    embedded = embedded.index_copy(1, lesson.image_positions, features)
    shared = lesson.n_shared
    states = last_states(
        language,
        embedded[:1, :shared],
        embedded[:, shared:],
        lesson.turn,
        lesson.learned - 1 - shared,
    )
    logits: Tensor = model.lm_head(states)
    return logits


def as_patches(images: NDArray[np.uint8]) -> Tensor:
    """Square images, (images, edge, edge, 3), as patches in the image processor's order."""
    patch = PATCH_EDGE_PX["qwen2_5_vl"]
    n_images, edge, merged = len(images), images.shape[1], images.shape[1] // patch // 2
    mean, spread = (torch.tensor(of["qwen2_5_vl"]) for of in (PIXEL_MEAN, PIXEL_SPREAD))
    values = (torch.from_numpy(np.ascontiguousarray(images)).float() / 255 - mean) / spread
    values = values.permute(0, 3, 1, 2)
    values = values.reshape(n_images, 3, merged, 2, patch, merged, 2, patch)
    values = values.permute(0, 2, 5, 3, 6, 1, 4, 7)
    return values.reshape(n_images, (edge // patch) ** 2, -1)


def _lesson(processor: ChatProcessor, model: Any, task: Task) -> Lesson:
    arms = {arm.name: arm for native in (False, True) for arm in pair(native).arms}
    return make_lesson(processor, model, arms[task.protocol], calls=task.calls)


def _name(task: Task) -> str:
    size = "big" if task.big else "small"
    return f"{task.protocol} {'call' if task.calls else 'direct'} {size}"


def _head(width: int, n_classes: int) -> nn.Module:
    return nn.Sequential(
        nn.LayerNorm(width), nn.Linear(width, 128), nn.GELU(), nn.Linear(128, n_classes)
    )


def _initialise(model: Any) -> None:
    """Scale weights by fan-in: transformers' default is too small for such narrow layers."""
    for name, weight in model.named_parameters():
        if weight.ndim < 2 or "lm_head" in name:
            continue
        scale = weight[0].numel() ** -0.5
        if name.endswith(("o_proj.weight", "down_proj.weight", "attn.proj.weight")):
            scale /= (2 * ARCHITECTURE.depth) ** 0.5
        nn.init.normal_(weight, 0.0, scale)


def _schedule(step: int, steps: int) -> float:
    """The share of the full learning rate: warms up over 100 steps, then falls to a twelfth."""
    return min(1.0, step / 100) * max(1 / 12, 1 - step / steps)


def _descend(optimiser: torch.optim.Optimizer, loss: Tensor, rate: float) -> None:
    for group in optimiser.param_groups:
        group["lr"] = rate * group["share"]
    optimiser.zero_grad()
    torch.autograd.backward(loss)
    weights = [weight for group in optimiser.param_groups for weight in group["params"]]
    nn.utils.clip_grad_norm_(weights, 1.0)
    optimiser.step()


def _is_in(module: nn.Module, weight: Tensor) -> bool:
    return any(weight is one for one in module.parameters())


def _save(model: Any, directory: Path) -> None:
    """Write the weights in bf16; the model itself does not change."""
    rounded = {name: value.to(torch.bfloat16) for name, value in model.state_dict().items()}
    # tied to the embeddings
    del rounded["lm_head.weight"]
    model.save_pretrained(directory, state_dict=rounded)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Compute with one thread inside the block: on a busy machine, two are several times slower."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
