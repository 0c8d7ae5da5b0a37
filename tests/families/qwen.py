"""The Qwen families, and those that are built like them."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from tests.families.checkpoint import Family, Vocabulary
from tests.families.templates import ERNIE, GLM, chatml

MOE = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 64}
# Rotary sections for time, height and width; they sum to half a head's width.
ROTARY = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 3, 3]}
INTERLEAVED = {**ROTARY, "mrope_interleaved": True}
VISION_2 = {
    "depth": 2,
    "embed_dim": 64,
    "hidden_size": 64,
    "mlp_ratio": 2,
    "num_heads": 2,
    "patch_size": 14,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
}
VISION_2_5 = {
    "depth": 2,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_heads": 2,
    "patch_size": 14,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
    "out_hidden_size": 64,
    "window_size": 112,
    "fullatt_block_indexes": [1],
}
VISION_3_5 = {
    "depth": 2,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_heads": 2,
    "patch_size": 16,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
    "out_hidden_size": 64,
    "num_position_embeddings": 256,
}
VISION_3 = {**VISION_3_5, "deepstack_visual_indexes": [0]}
MEDIA = ("image", "video", "audio")
OMNI_SOUND = {
    "d_model": 64,
    "encoder_layers": 1,
    "encoder_attention_heads": 2,
    "encoder_ffn_dim": 64,
    "num_mel_bins": 16,
    "output_dim": 64,
}
OMNI_NAMES = {
    "image_token": "<|IMAGE|>",
    "audio_token": "<|AUDIO|>",
    "video_token": "<|VIDEO|>",
    "vision_bos_token": "<|vision_bos|>",
    "vision_eos_token": "<|vision_eos|>",
    "audio_bos_token": "<|audio_bos|>",
    "audio_eos_token": "<|audio_eos|>",
}


def qwen2_vl() -> Family:
    return _qwen("qwen2_vl", "Qwen2VLProcessor", VISION_2, {"rope_parameters": ROTARY})


def qwen2_5_vl() -> Family:
    return _qwen("qwen2_5_vl", "Qwen2_5_VLProcessor", VISION_2_5, {"rope_parameters": ROTARY})


def qwen3_vl() -> Family:
    return _qwen("qwen3_vl", "Qwen3VLProcessor", VISION_3, {"rope_parameters": INTERLEAVED})


def qwen3_vl_moe() -> Family:
    text = {"rope_parameters": INTERLEAVED, "decoder_sparse_step": 1, **MOE}
    return _qwen("qwen3_vl_moe", "Qwen3VLProcessor", VISION_3, text)


def qwen3_5() -> Family:
    return _qwen("qwen3_5", "Qwen3VLProcessor", VISION_3_5, _linear_attention())


def qwen3_5_moe() -> Family:
    text = {**_linear_attention(), **MOE, "shared_expert_intermediate_size": 64}
    return _qwen("qwen3_5_moe", "Qwen3VLProcessor", VISION_3_5, text)


def qwen2_5_omni_thinker() -> Family:
    def configuration(vocabulary: Vocabulary) -> dict[str, Any]:
        ids = _omni_ids(vocabulary)
        return {
            "text_config": vocabulary.language(rope_parameters=ROTARY),
            "vision_config": VISION_2_5 | {"embed_dim": 64},
            "audio_config": OMNI_SOUND,
            **{f"{kind}_token_index": ids.pop(f"{kind}_token_id") for kind in MEDIA},
            **ids,
        }

    return _omni("qwen2_5_omni_thinker", "Qwen2_5Omni", configuration, 14)


def qwen3_omni_moe_thinker() -> Family:
    def configuration(vocabulary: Vocabulary) -> dict[str, Any]:
        text = {"rope_parameters": INTERLEAVED, "decoder_sparse_step": 1, **MOE}
        return {
            "text_config": vocabulary.language(**text),
            "vision_config": VISION_3,
            "audio_config": OMNI_SOUND | {"downsample_hidden_size": 8},
            **_omni_ids(vocabulary),
        }

    return _omni("qwen3_omni_moe_thinker", "Qwen3OmniMoe", configuration, 16)


def qwen2_5_omni() -> Family:
    return _whole(qwen2_5_omni_thinker(), "qwen2_5_omni")


def qwen3_omni_moe() -> Family:
    return _whole(qwen3_omni_moe_thinker(), "qwen3_omni_moe")


def glm4v() -> Family:
    return _glm("glm4v", "Glm4v", {})


def glm46v() -> Family:
    return _glm("glm46v", "Glm46V", {"model_type": "glm4v_text"}, {"model_type": "glm4v_vision"})


def glm4v_moe() -> Family:
    experts = {
        "n_routed_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 64,
        "n_shared_experts": 1,
        "n_group": 1,
        "topk_group": 1,
        "first_k_dense_replace": 1,
    }
    return _glm("glm4v_moe", "Glm4v", experts)


def ernie4_5_vl_moe() -> Family:
    def configuration(vocabulary: Vocabulary) -> dict[str, Any]:
        text = {
            "moe_num_experts": 4,
            "moe_k": 2,
            "moe_num_shared_experts": 1,
            "moe_intermediate_size": [64, 32],
            "rope_parameters": {**ROTARY, "mrope_section": [3, 3, 2]},
        }
        return {
            "text_config": vocabulary.language(**text),
            "vision_config": {
                "depth": 2,
                "hidden_size": 64,
                "intermediate_size": 128,
                "num_heads": 4,
                "patch_size": 14,
                "spatial_merge_size": 2,
            },
            "image_token_id": vocabulary.id("<|IMAGE_PLACEHOLDER|>"),
            "image_start_token_id": vocabulary.id("<|IMAGE_START|>"),
            "image_end_token_id": vocabulary.id("<|IMAGE_END|>"),
            "video_token_id": vocabulary.id("<|VIDEO_PLACEHOLDER|>"),
            "video_start_token_id": vocabulary.id("<|VIDEO_START|>"),
            "video_end_token_id": vocabulary.id("<|VIDEO_END|>"),
        }

    return Family(
        model_type="ernie4_5_vl_moe",
        configuration=configuration,
        template=ERNIE,
        names={
            "image_token": "<|IMAGE_PLACEHOLDER|>",
            "image_start_token": "<|IMAGE_START|>",
            "image_end_token": "<|IMAGE_END|>",
            "video_token": "<|VIDEO_PLACEHOLDER|>",
            "video_start_token": "<|VIDEO_START|>",
            "video_end_token": "<|VIDEO_END|>",
        },
        tokens=("<|begin_of_sentence|>",),
        end="<|end_of_sentence|>",
        image=_pixels("Ernie4_5_VLMoeImageProcessor", 14) | {"temporal_patch_size": 1},
        video=_video("Ernie4_5_VLMoeVideoProcessor", 14) | {"draw_on_frames": False},
        processor={"processor_class": "Ernie4_5_VLMoeProcessor"},
    )


def _qwen(
    model_type: str, processor: str, vision: Mapping[str, Any], text: Mapping[str, Any]
) -> Family:
    patch = vision["patch_size"]
    generation = 3 if patch == 16 else 2

    def configuration(vocabulary: Vocabulary) -> dict[str, Any]:
        return {
            "text_config": vocabulary.language(**text),
            "vision_config": dict(vision),
            "tie_word_embeddings": True,
            **_qwen_ids(vocabulary),
        }

    return Family(
        model_type=model_type,
        configuration=configuration,
        template=chatml("<|vision_start|><|image_pad|><|vision_end|>", tools=generation == 3),
        names={"image_token": "<|image_pad|>", "video_token": "<|video_pad|>"},
        image=_pixels("Qwen2VLImageProcessor", patch),
        video=_video(f"Qwen{generation}VLVideoProcessor", patch),
        processor={"processor_class": processor},
    )


def _qwen_ids(vocabulary: Vocabulary) -> dict[str, int]:
    return {
        "image_token_id": vocabulary.id("<|image_pad|>"),
        "video_token_id": vocabulary.id("<|video_pad|>"),
        "vision_start_token_id": vocabulary.id("<|vision_start|>"),
        "vision_end_token_id": vocabulary.id("<|vision_end|>"),
    }


def _linear_attention() -> dict[str, Any]:
    return {
        "num_hidden_layers": 4,
        "layer_types": [*["linear_attention"] * 3, "full_attention"],
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 4,
        "linear_key_head_dim": 16,
        "linear_value_head_dim": 16,
        "linear_conv_kernel_dim": 4,
        "rope_parameters": {**INTERLEAVED, "partial_rotary_factor": 1.0},
    }


def _omni(
    model_type: str,
    classes: str,
    configuration: Callable[[Vocabulary], dict[str, Any]],
    patch: int,
) -> Family:
    return Family(
        model_type=model_type,
        configuration=configuration,
        template=chatml("<|vision_bos|><|IMAGE|><|vision_eos|>", tools=False),
        names=OMNI_NAMES,
        image=_pixels("Qwen2VLImageProcessor", patch),
        video=_video("Qwen2VLVideoProcessor", patch),
        audio={"feature_extractor_type": "WhisperFeatureExtractor", "feature_size": 16},
        processor={"processor_class": f"{classes}Processor"},
        needs=("torchvision",),
    )


def _whole(thinker: Family, model_type: str) -> Family:
    """The published form, with the thinker inside; without the parts that speak."""
    return replace(
        thinker,
        model_type=model_type,
        configuration=lambda vocabulary: {
            "thinker_config": thinker.configuration(vocabulary),
            "enable_audio_output": False,
        },
    )


def _omni_ids(vocabulary: Vocabulary) -> dict[str, int]:
    ids = {name: vocabulary.id(token) for name, token in OMNI_NAMES.items()}
    return {
        **{f"{kind}_token_id": ids[f"{kind}_token"] for kind in MEDIA},
        "vision_start_token_id": ids["vision_bos_token"],
        "vision_end_token_id": ids["vision_eos_token"],
        "audio_start_token_id": ids["audio_bos_token"],
        "audio_end_token_id": ids["audio_eos_token"],
    }


def _glm(
    model_type: str,
    classes: str,
    text: Mapping[str, Any],
    vision: Mapping[str, Any] | None = None,
) -> Family:
    def configuration(vocabulary: Vocabulary) -> dict[str, Any]:
        rotary = {**ROTARY, "partial_rotary_factor": 1.0}
        return {
            "text_config": vocabulary.language(rope_parameters=rotary, **text),
            "vision_config": {
                "depth": 2,
                "hidden_size": 64,
                "intermediate_size": 128,
                "num_heads": 4,
                "patch_size": 14,
                "spatial_merge_size": 2,
                "temporal_patch_size": 2,
                "out_hidden_size": 64,
                "image_size": 56,
                **(vision or {}),
            },
            "image_token_id": vocabulary.id("<|image|>"),
            "video_token_id": vocabulary.id("<|video|>"),
            "image_start_token_id": vocabulary.id("<|begin_of_image|>"),
            "image_end_token_id": vocabulary.id("<|end_of_image|>"),
            "video_start_token_id": vocabulary.id("<|begin_of_video|>"),
            "video_end_token_id": vocabulary.id("<|end_of_video|>"),
        }

    images = ("begin_of_image", "end_of_image", "begin_of_video", "end_of_video", "assistant")
    roles = ("system", "user", "observation")
    size = {"shortest_edge": 112 * 112, "longest_edge": 28 * 28 * 32}
    return Family(
        model_type=model_type,
        configuration=configuration,
        template=GLM if model_type == "glm4v_moe" else GLM.replace("if tools", "if false"),
        names={"image_token": "<|image|>", "video_token": "<|video|>"},
        tokens=("[gMASK]", "<sop>", *(f"<|{name}|>" for name in (*images, *roles))),
        end="<|user|>",
        image=_pixels(f"{classes}ImageProcessor", 14) | {"size": size},
        video=_video(f"{classes}VideoProcessor", 14),
        processor={"processor_class": f"{classes}Processor"},
    )


def _pixels(name: str, patch: int) -> dict[str, Any]:
    edge = 2 * patch
    return {
        "image_processor_type": name,
        "patch_size": patch,
        "temporal_patch_size": 2,
        "merge_size": 2,
        "size": {"shortest_edge": 4 * edge**2, "longest_edge": 16 * edge**2},
    }


def _video(name: str, patch: int) -> dict[str, Any]:
    return {"video_processor_type": name, "patch_size": patch}
