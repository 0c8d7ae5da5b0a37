"""LLaVA's families and their like: an image encoder before a language model of another family."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from tests.families.checkpoint import STRINGS, Family
from tests.families.templates import DEEPSEEK, LLAVA, ONEVISION, PALIGEMMA, chatml, idefics

VISION = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 56,
    "patch_size": 14,
}
CLIP = {**VISION, "model_type": "clip_vision_model"}
SIGLIP = {**VISION, "model_type": "siglip_vision_model", "vision_use_head": False}
SQUARE = {"height": 56, "width": 56}
# The sizes that LLaVA-NeXT fits an image to, height and width.
GRIDS = [[56, 112], [112, 56], [112, 112]]
PARTS = replace(STRINGS, as_parts=True, image_place="first")


def internvl() -> Family:
    return Family(
        model_type="internvl",
        configuration=lambda vocabulary: {
            "text_config": vocabulary.language(model_type="qwen2"),
            "vision_config": {**VISION, "image_size": [56, 56], "patch_size": [14, 14]},
            "image_token_id": vocabulary.id("<IMG_CONTEXT>"),
            "downsample_ratio": 0.5,
        },
        template=chatml("<IMG_CONTEXT>\n", tools=False),
        names={
            "start_image_token": "<img>",
            "end_image_token": "</img>",
            "context_image_token": "<IMG_CONTEXT>",
            "video_token": "<video>",
        },
        image={
            "image_processor_type": "GotOcr2ImageProcessor",
            "size": SQUARE,
            "crop_to_patches": True,
            "max_patches": 4,
        },
        video={"video_processor_type": "InternVLVideoProcessor"},
        processor={"processor_class": "InternVLProcessor", "image_seq_length": 4},
    )


def llava() -> Family:
    return _llava("llava", "Llava", {"image_processor_type": "CLIPImageProcessor"})


def llava_next() -> Family:
    image = {"image_processor_type": "LlavaNextImageProcessor", "image_grid_pinpoints": GRIDS}
    return _llava("llava_next", "LlavaNext", image, image_grid_pinpoints=GRIDS)


def llava_onevision() -> Family:
    return Family(
        model_type="llava_onevision",
        configuration=lambda vocabulary: {
            "text_config": vocabulary.language(model_type="qwen2"),
            "vision_config": SIGLIP,
            "image_token_index": vocabulary.id("<image>"),
            "video_token_index": vocabulary.id("<video>"),
            "image_grid_pinpoints": GRIDS,
        },
        template=ONEVISION,
        names={"image_token": "<image>", "video_token": "<video>"},
        image={
            "image_processor_type": "LlavaOnevisionImageProcessor",
            "size": SQUARE,
            "image_grid_pinpoints": GRIDS,
        },
        video={"video_processor_type": "LlavaOnevisionVideoProcessor", "size": SQUARE},
        processor={
            "processor_class": "LlavaOnevisionProcessor",
            "num_image_tokens": 16,
            "vision_feature_select_strategy": "full",
        },
        form=PARTS,
    )


def idefics3() -> Family:
    return _idefics("idefics3", "Idefics3", "<|begin_of_text|>")


def smolvlm() -> Family:
    return _idefics("smolvlm", "SmolVLM", "<|im_start|>")


def paligemma() -> Family:
    return Family(
        model_type="paligemma",
        configuration=lambda vocabulary: {
            "text_config": vocabulary.language(model_type="gemma"),
            "vision_config": SIGLIP,
            "image_token_index": vocabulary.id("<image>"),
            "projection_dim": 64,
        },
        template=PALIGEMMA,
        tokenizer="gemma",
        names={"image_token": "<image>"},
        begin="<s>",
        end="</s>",
        image={
            "image_processor_type": "SiglipImageProcessor",
            "size": SQUARE,
            "image_seq_length": 16,
        },
        processor={"processor_class": "PaliGemmaProcessor"},
        remark="published ones have no chat template, and are refused",
    )


def ovis2() -> Family:
    marks = ("<IMG_START>", "<IMG_GRID>", "<IMG_COL>", "<IMG_ROW>", "<IMG_END>")
    return Family(
        model_type="ovis2",
        configuration=lambda vocabulary: {
            "text_config": vocabulary.language(model_type="qwen2"),
            "vision_config": {**VISION, "vocab_size": 128, "hidden_stride": 2},
            "image_token_id": vocabulary.id("<IMG_ATOM>"),
            "visual_indicator_token_ids": [vocabulary.id(mark) for mark in marks],
            "vocab_size": vocabulary.size,
            "hidden_size": 64,
        },
        template=chatml("<image>\n", tools=False),
        names={"image_token": "<image>"},
        tokens=("<IMG_ATOM>", *marks),
        image={
            "image_processor_type": "Ovis2ImageProcessor",
            "size": SQUARE,
            "crop_to_patches": True,
            "max_patches": 4,
        },
        processor={"processor_class": "Ovis2Processor", "image_seq_length": 4},
    )


def deepseek_vl() -> Family:
    return Family(
        model_type="deepseek_vl",
        configuration=lambda vocabulary: {
            "text_config": vocabulary.language(model_type="llama"),
            "vision_config": SIGLIP,
            "image_token_id": vocabulary.id("<image_placeholder>"),
        },
        template=DEEPSEEK,
        names={"image_token": "<image_placeholder>"},
        begin="<|begin_of_sentence|>",
        end="<|end_of_sentence|>",
        image={"image_processor_type": "DeepseekVLImageProcessor", "size": SQUARE},
        processor={"processor_class": "DeepseekVLProcessor", "num_image_tokens": 16},
    )


def _llava(model_type: str, classes: str, image: Mapping[str, Any], **configuration: Any) -> Family:
    return Family(
        model_type=model_type,
        configuration=lambda vocabulary: {
            "text_config": vocabulary.language(model_type="llama"),
            "vision_config": CLIP,
            "image_token_index": vocabulary.id("<image>"),
            **configuration,
        },
        template=LLAVA,
        tokenizer="llama2",
        names={"image_token": "<image>"},
        begin="<s>",
        end="</s>",
        image={"size": {"shortest_edge": 56}, "crop_size": SQUARE, **image},
        processor={
            "processor_class": f"{classes}Processor",
            "patch_size": 14,
            "vision_feature_select_strategy": "default",
            "num_additional_image_tokens": 1,
        },
        form=PARTS,
    )


def _idefics(model_type: str, classes: str, opens: str) -> Family:
    size = {"size": {"longest_edge": 112}, "max_image_size": {"longest_edge": 56}}
    places = tuple(f"<row_{row}_col_{col}>" for row in range(1, 7) for col in range(1, 7))
    is_smol = model_type == "smolvlm"
    return Family(
        model_type=model_type,
        configuration=lambda vocabulary: {
            "text_config": vocabulary.language(model_type="llama"),
            "vision_config": VISION,
            "image_token_id": vocabulary.id("<image>"),
            "scale_factor": 2,
            "tie_word_embeddings": False,
            "pad_token_id": vocabulary.tokenizer.pad_token_id,
        },
        template=idefics(opens),
        names={
            "image_token": "<image>",
            "fake_image_token": "<fake_token_around_image>",
            "global_image_token": "<global-img>",
            "end_of_utterance_token": "<end_of_utterance>",
            **({"video_token": "<video>"} if is_smol else {}),
        },
        tokens=places,
        begin=opens,
        end="<end_of_utterance>",
        image={"image_processor_type": f"{classes}ImageProcessor", **size},
        video={"video_processor_type": "SmolVLMVideoProcessor", **size} if is_smol else None,
        processor={"processor_class": f"{classes}Processor", "image_seq_len": 4},
        form=replace(STRINGS, as_parts=True),
        needs=("num2words",) if is_smol else (),
    )
