"""LoRA adapters, compared with the checkpoints that peft merges from them."""

import asyncio
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageTextToText

from medeval import load
from medeval.errors import FatalModelError
from medeval.models.base import Reply
from medeval.models.transformers.kept_base import KeptBase
from medeval.models.transformers.model import TransformersModel
from medeval.rollout.protocol import Pair
from tests.tiny_checkpoints import marker_request, request

AVAILABLE = load("crop_zoom", Pair).value.available
LANGUAGE = ["q_proj", "v_proj", "o_proj", "up_proj"]


def make_adapter(
    base: Path, folder: Path, seed: int, modules: list[str], **more: Any
) -> tuple[Path, Path]:
    """A LoRA adapter of random values, and the checkpoint merged from it."""
    model: Any = AutoModelForImageTextToText.from_pretrained(base, dtype=torch.float32)
    settings = LoraConfig(r=8, lora_alpha=16, target_modules=modules, task_type="CAUSAL_LM", **more)
    adapted: Any = get_peft_model(model, settings)
    generator = torch.Generator().manual_seed(seed)
    for name, weights in adapted.named_parameters():
        if "lora_" in name:
            weights.data = torch.randn(weights.shape, generator=generator) * 0.15
    adapter, merged = folder / f"adapter{seed}", folder / f"merged{seed}"
    adapted.save_pretrained(adapter)
    shutil.copytree(base, merged, ignore=shutil.ignore_patterns("*.safetensors"))
    adapted.merge_and_unload().save_pretrained(merged)
    return adapter, merged


async def said(model: TransformersModel) -> list[tuple[str, int | None]]:
    """Greedy replies about images, and their lengths."""
    asked = [
        *(request("What is it? " * (1 + n), n_images=n % 3, seed=n) for n in range(6)),
        *(marker_request(n, AVAILABLE) for n in range(3)),
    ]
    replies: list[Reply] = await asyncio.gather(*map(model.generate, asked))
    return [(reply.text, reply.usage.completion_tokens) for reply in replies]


async def replies_of(path: Path, **options: Any) -> list[tuple[str, int | None]]:
    model = TransformersModel(path, **options)
    try:
        await model.start()
        return await said(model)
    finally:
        await model.close()


@pytest.fixture(scope="module")
def adapters(trained_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("adapters")
    # the second changes the vision tower as well, whose modules have other names
    modules = (LANGUAGE, [*LANGUAGE, "qkv"])
    return [make_adapter(trained_checkpoint, folder, *one) for one in enumerate(modules)]


def test_adapters_on_one_base_write_what_the_merged_checkpoints_write(
    adapters: Any, trained_checkpoint: Path
) -> None:
    async def use() -> None:
        kept = KeptBase()
        on_base = {"base": trained_checkpoint, "kept_base": kept}
        plain = await replies_of(trained_checkpoint)
        seen = []
        for adapter, merged in [*adapters, adapters[0]]:
            replies = await replies_of(adapter, **on_base)
            assert replies == await replies_of(merged)
            seen.append(replies)
        assert seen[0] == seen[2] != seen[1]
        assert plain not in seen

    asyncio.run(use())


def test_the_base_is_loaded_once_for_a_series_of_adapters(
    adapters: Any, trained_checkpoint: Path
) -> None:
    loads: list[object] = []

    class Counting(KeptBase):
        def take(self, path: Path, load: Callable[[], Any]) -> Any:
            return super().take(path, lambda: loads.append(path) or load())  # type: ignore[func-returns-value]

    async def use() -> None:
        kept = Counting()
        for adapter, _ in adapters:
            await replies_of(adapter, base=trained_checkpoint, kept_base=kept)

    asyncio.run(use())
    assert loads == [trained_checkpoint]


def test_identity_tells_adapter_and_base_apart(adapters: Any, trained_checkpoint: Path) -> None:
    async def use() -> list[Any]:
        weights = []
        for path, base in ((adapters[0][0], trained_checkpoint), (trained_checkpoint, None)):
            model = TransformersModel(path, base=base)
            await model.start()
            weights.append(model.identity()["weights"])
            await model.close()
        return weights

    adapted, plain = asyncio.run(use())
    assert adapted != plain


def test_an_adapter_that_fits_the_base_in_part_is_refused(
    adapters: Any, trained_checkpoint: Path, tmp_path: Path
) -> None:
    path = shutil.copytree(adapters[0][0], tmp_path / "adapter")
    weights = load_file(path / "adapter_model.safetensors")
    first = sorted(weights)[0]
    weights[first.replace("layers.0", "layers.77")] = weights.pop(first)
    save_file(weights, path / "adapter_model.safetensors", metadata={"format": "pt"})
    with pytest.raises(FatalModelError, match="differ in") as refused:
        asyncio.run(replies_of(path, base=trained_checkpoint))
    assert refused.value.hint is not None and "merge" in refused.value.hint


@pytest.mark.parametrize(
    "more", [{"bias": "all"}, {"init_lora_weights": "pissa"}, {"modules_to_save": ["lm_head"]}]
)
def test_an_adapter_that_changes_its_base_leaves_the_next_one_as_it_is(
    more: dict[str, Any], adapters: Any, trained_checkpoint: Path, tmp_path: Path
) -> None:
    changing, _ = make_adapter(trained_checkpoint, tmp_path, 7, LANGUAGE, **more)

    async def use() -> None:
        on_base = {"base": trained_checkpoint, "kept_base": KeptBase()}
        first = await replies_of(changing, **on_base)
        assert await replies_of(adapters[0][0], **on_base) == await replies_of(adapters[0][1])
        assert await replies_of(changing, **on_base) == first

    asyncio.run(use())


def test_an_adapter_without_effect_is_refused(
    adapters: Any, trained_checkpoint: Path, tmp_path: Path
) -> None:
    path = shutil.copytree(adapters[0][0], tmp_path / "adapter")
    settings = json.loads((path / "adapter_config.json").read_text())
    (path / "adapter_config.json").write_text(json.dumps(settings | {"lora_alpha": 0}))
    with pytest.raises(FatalModelError, match="lora_alpha 0"):
        asyncio.run(replies_of(path, base=trained_checkpoint))
