"""Writes tiny Qwen-VL checkpoints with random weights from a seed, without a download.

A checkpoint is an ordinary Hugging Face directory of one or two megabytes, which transformers and
vLLM load like any other. Until it is trained, the model writes noise.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from recipes.demo_series.tokenizer import (
    CHAT_TEMPLATE,
    DEFAULT_TEXTS,
    IMAGE,
    VIDEO,
    VISION_END,
    VISION_START,
    train_tokenizer,
)

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedTokenizerFast

Family = Literal["qwen2_5_vl", "qwen3_vl"]

HEAD_WIDTH = 32
PATCH_EDGE_PX: dict[Family, int] = {"qwen2_5_vl": 14, "qwen3_vl": 16}
# Means and standard deviations that normalise pixels (0 to 1), as in the published checkpoints.
PIXEL_MEAN: dict[Family, tuple[float, float, float]] = {
    "qwen2_5_vl": (0.48145466, 0.4578275, 0.40821073),
    "qwen3_vl": (0.5, 0.5, 0.5),
}
PIXEL_SPREAD: dict[Family, tuple[float, float, float]] = {
    "qwen2_5_vl": (0.26862954, 0.26130258, 0.27577711),
    "qwen3_vl": (0.5, 0.5, 0.5),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """The size of a tiny checkpoint; widths are multiples of 64.

    `image_tokens` are the least and the most tokens per image. `rotary_sections` are the parts of
    a rotary embedding for time, height and width; they sum to half a head's width.
    """

    vocabulary: int = 1536
    width: int = 128
    depth: int = 2
    vision_width: int = 64
    vision_depth: int = 2
    context_tokens: int = 4096
    rotary_base: float = 10_000.0
    rotary_sections: tuple[int, int, int] = (4, 6, 6)
    image_tokens: tuple[int, int] = (4, 16)


def build_checkpoint(
    directory: Path,
    *,
    family: Family,
    seed: int,
    texts: Sequence[str] = (),
    words: Sequence[str] = (),
    architecture: Architecture | None = None,
) -> Path:
    """Write a checkpoint with random weights in bf16 and return its directory.

    The tokenizer is trained on `texts` and DEFAULT_TEXTS: pass the prompts as `texts`, so that they
    become few tokens. `words` become one token each. Equal arguments write equal files.
    """
    from medeval.models.transformers.loading import quiet

    architecture = architecture or Architecture()
    directory.mkdir(parents=True, exist_ok=True)
    with quiet():
        tokenizer = train_tokenizer(
            (*DEFAULT_TEXTS, *texts),
            vocabulary=architecture.vocabulary,
            context_tokens=architecture.context_tokens,
            words=words,
        )
        model = _random_model(_configuration(family, tokenizer, architecture), seed)
        _set_generation(model, tokenizer)
        model.save_pretrained(directory)
        tokenizer.save_pretrained(directory)
    (directory / "chat_template.jinja").write_text(CHAT_TEMPLATE, encoding="utf-8")
    _write_processors(directory, family, architecture)
    return directory


def _configuration(
    family: Family, tokenizer: "PreTrainedTokenizerFast", architecture: Architecture
) -> "PretrainedConfig":
    from transformers import Qwen2_5_VLConfig, Qwen3VLConfig

    text = _text_settings(tokenizer, architecture)
    vision = _vision_settings(family, architecture)
    if family == "qwen3_vl":
        text["head_dim"] = HEAD_WIDTH
        text["rope_parameters"]["mrope_interleaved"] = True
    kind = Qwen2_5_VLConfig if family == "qwen2_5_vl" else Qwen3VLConfig
    numbers: dict[str, Any] = {
        "image_token_id": tokenizer.convert_tokens_to_ids(IMAGE),
        "video_token_id": tokenizer.convert_tokens_to_ids(VIDEO),
        "vision_start_token_id": tokenizer.convert_tokens_to_ids(VISION_START),
        "vision_end_token_id": tokenizer.convert_tokens_to_ids(VISION_END),
    }
    return kind(
        text_config=text,
        vision_config=vision,
        tie_word_embeddings=True,
        **numbers,
    )


def _text_settings(
    tokenizer: "PreTrainedTokenizerFast", architecture: Architecture
) -> dict[str, Any]:
    return {
        "vocab_size": (len(tokenizer) + 63) // 64 * 64,
        "hidden_size": architecture.width,
        "intermediate_size": 2 * architecture.width,
        "num_hidden_layers": architecture.depth,
        "num_attention_heads": architecture.width // HEAD_WIDTH,
        "num_key_value_heads": architecture.width // (2 * HEAD_WIDTH),
        "max_position_embeddings": architecture.context_tokens,
        "bos_token_id": tokenizer.pad_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "tie_word_embeddings": True,
        "initializer_range": architecture.width**-0.5,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": architecture.rotary_base,
            "mrope_section": list(architecture.rotary_sections),
        },
    }


def _vision_settings(family: Family, architecture: Architecture) -> dict[str, Any]:
    settings: dict[str, Any] = {
        "depth": architecture.vision_depth,
        "hidden_size": architecture.vision_width,
        "intermediate_size": 2 * architecture.vision_width,
        "num_heads": architecture.vision_width // HEAD_WIDTH,
        "patch_size": PATCH_EDGE_PX[family],
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
        "out_hidden_size": architecture.width,
        "initializer_range": architecture.vision_width**-0.5,
    }
    if family == "qwen2_5_vl":
        last = architecture.vision_depth - 1
        return settings | {"window_size": 112, "fullatt_block_indexes": [last]}
    return settings | {"num_position_embeddings": 256, "deepstack_visual_indexes": [0]}


def _random_model(configuration: "PretrainedConfig", seed: int) -> Any:
    """A model with weights from the seed; the global generator does not change."""
    import torch
    from transformers import AutoModelForImageTextToText

    auto: Any = AutoModelForImageTextToText
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return auto.from_config(configuration, dtype=torch.bfloat16)


def _set_generation(model: Any, tokenizer: "PreTrainedTokenizerFast") -> None:
    model.generation_config = type(model.generation_config)(
        bos_token_id=tokenizer.pad_token_id,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=[tokenizer.eos_token_id, tokenizer.pad_token_id],
        do_sample=False,
    )


def _write_processors(directory: Path, family: Family, architecture: Architecture) -> None:
    """Write the image and video settings, with the stock classes' names as in hub checkpoints."""
    processor = "Qwen2_5_VLProcessor" if family == "qwen2_5_vl" else "Qwen3VLProcessor"
    patch = PATCH_EDGE_PX[family]
    least, most = (tokens * (2 * patch) ** 2 for tokens in architecture.image_tokens)
    shared = {
        "processor_class": processor,
        "patch_size": patch,
        "temporal_patch_size": 2,
        "merge_size": 2,
        "image_mean": list(PIXEL_MEAN[family]),
        "image_std": list(PIXEL_SPREAD[family]),
        "size": {"shortest_edge": least, "longest_edge": most},
    }
    image = shared | {
        "image_processor_type": "Qwen2VLImageProcessor",
        "do_resize": True,
        "do_rescale": True,
        "do_normalize": True,
        "do_convert_rgb": True,
        "rescale_factor": 1 / 255,
        "resample": 3,
        "min_pixels": least,
        "max_pixels": most,
    }
    video = "Qwen2VLVideoProcessor" if family == "qwen2_5_vl" else "Qwen3VLVideoProcessor"
    _write_json(directory / "preprocessor_config.json", image)
    _write_json(
        directory / "video_preprocessor_config.json", shared | {"video_processor_type": video}
    )
    tokenizer_path = directory / "tokenizer_config.json"
    tokenizer = json.loads(tokenizer_path.read_text(encoding="utf-8"))
    _write_json(tokenizer_path, tokenizer | {"processor_class": processor})


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
