"""The families that are built neither like Qwen's nor like LLaVA's."""

from dataclasses import replace
from typing import Any

from tests.families.checkpoint import STRINGS, Family, Vocabulary
from tests.families.llava import SIGLIP, SQUARE, VISION
from tests.families.templates import KIMI, LLAMA, MISTRAL, MLLAMA, PHI, chatml, gemma

HEADERS = ("<|start_header_id|>", "<|end_header_id|>")


def gemma3() -> Family:
    return Family(
        model_type="gemma3",
        configuration=lambda vocabulary: {
            "text_config": vocabulary.language(
                num_hidden_layers=6, sliding_window=64, query_pre_attn_scalar=16
            ),
            "vision_config": SIGLIP,
            "image_token_index": vocabulary.id("<image_soft_token>"),
            "boi_token_index": vocabulary.id("<start_of_image>"),
            "eoi_token_index": vocabulary.id("<end_of_image>"),
            "mm_tokens_per_image": 4,
        },
        template=gemma("<start_of_turn>", "<end_of_turn>\n", "<start_of_image>"),
        tokenizer="gemma",
        names={
            "image_token": "<image_soft_token>",
            "boi_token": "<start_of_image>",
            "eoi_token": "<end_of_image>",
        },
        tokens=("<start_of_turn>",),
        begin="<bos>",
        end="<end_of_turn>",
        image={"image_processor_type": "Gemma3ImageProcessor", "size": SQUARE},
        processor={"processor_class": "Gemma3Processor", "image_seq_length": 4},
    )


def gemma4() -> Family:
    def configuration(vocabulary: Vocabulary) -> dict[str, Any]:
        return {
            "text_config": vocabulary.language(
                num_hidden_layers=6,
                sliding_window=64,
                global_head_dim=16,
                hidden_size_per_layer_input=0,
                vocab_size_per_layer_input=vocabulary.size,
                num_kv_shared_layers=0,
            ),
            "vision_config": {
                **VISION,
                "head_dim": 16,
                "num_key_value_heads": 4,
                "patch_size": 16,
                "pooling_kernel_size": 3,
                "position_embedding_size": 64,
            },
            "audio_config": None,
            "image_token_id": vocabulary.id("<|image|>"),
            "boi_token_id": vocabulary.id("<|image>"),
            "eoi_token_id": vocabulary.id("<image|>"),
            "video_token_id": vocabulary.id("<|video|>"),
            "audio_token_id": vocabulary.id("<|audio|>"),
        }

    return Family(
        model_type="gemma4",
        configuration=configuration,
        template=gemma("<|turn>", "<turn|>\n", "<|image|>"),
        tokenizer="gemma",
        names={
            "image_token": "<|image|>",
            "boi_token": "<|image>",
            "eoi_token": "<image|>",
            "audio_token": "<|audio|>",
            "boa_token": "<|audio>",
            "eoa_token": "<audio|>",
            "video_token": "<|video|>",
        },
        tokens=("<|turn>",),
        begin="<bos>",
        end="<turn|>",
        image={
            "image_processor_type": "Gemma4ImageProcessor",
            "max_soft_tokens": 70,
            "patch_size": 16,
            "pooling_kernel_size": 3,
        },
        video={"video_processor_type": "Gemma4VideoProcessor"},
        audio={"feature_extractor_type": "Gemma4AudioFeatureExtractor"},
        processor={"processor_class": "Gemma4Processor"},
        needs=("torchvision",),
    )


def mistral3() -> Family:
    return Family(
        model_type="mistral3",
        configuration=lambda vocabulary: {
            "text_config": vocabulary.language(model_type="mistral"),
            "vision_config": {**VISION, "model_type": "pixtral", "image_size": 112, "head_dim": 16},
            "image_token_index": vocabulary.id("[IMG]"),
            "spatial_merge_size": 2,
        },
        template=MISTRAL,
        names={"image_token": "[IMG]"},
        tokens=(
            *("[IMG_BREAK]", "[IMG_END]", "[INST]", "[/INST]"),
            *("[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]"),
        ),
        begin="<s>",
        end="</s>",
        image={
            "image_processor_type": "PixtralImageProcessor",
            "size": {"longest_edge": 112},
            "patch_size": 14,
        },
        processor={
            "processor_class": "PixtralProcessor",
            "patch_size": 14,
            "spatial_merge_size": 2,
        },
        needs=("torchvision",),
    )


def llama4() -> Family:
    return Family(
        model_type="llama4",
        configuration=lambda vocabulary: {
            "text_config": vocabulary.language(
                intermediate_size_mlp=128,
                num_local_experts=2,
                num_experts_per_tok=1,
                moe_layers=[1],
                interleave_moe_layer_step=2,
                attention_chunk_size=64,
                no_rope_layers=[1, 0],
            ),
            "vision_config": {
                **VISION,
                "intermediate_size": 256,
                "pixel_shuffle_ratio": 0.5,
                "vision_output_dim": 64,
                "projector_input_dim": 64,
                "projector_output_dim": 64,
            },
            "image_token_index": vocabulary.id("<|patch|>"),
            "boi_token_index": vocabulary.id("<|image_start|>"),
            "eoi_token_index": vocabulary.id("<|image_end|>"),
        },
        template=LLAMA,
        names={"image_token": "<|image|>"},
        tokens=(
            *("<|image_start|>", "<|image_end|>", "<|patch|>"),
            *("<|tile_x_separator|>", "<|tile_y_separator|>", *HEADERS),
        ),
        begin="<|begin_of_text|>",
        end="<|eot_id|>",
        image={"image_processor_type": "Llama4ImageProcessor", "size": SQUARE, "max_patches": 4},
        processor={
            "processor_class": "Llama4Processor",
            "patch_size": 14,
            "pixel_shuffle_ratio": 0.5,
        },
        needs=("torchvision",),
    )


def mllama() -> Family:
    return Family(
        model_type="mllama",
        configuration=lambda vocabulary: {
            "text_config": vocabulary.language(num_hidden_layers=4, cross_attention_layers=[1, 3]),
            "vision_config": {
                **VISION,
                "num_global_layers": 1,
                "attention_heads": 4,
                "vision_output_dim": 128,
                "intermediate_layers_indices": [0],
                "max_num_tiles": 4,
            },
            "image_token_index": vocabulary.id("<|image|>"),
        },
        template=MLLAMA,
        names={"image_token": "<|image|>"},
        tokens=("<|python_tag|>", *HEADERS),
        begin="<|begin_of_text|>",
        end="<|eot_id|>",
        image={
            "image_processor_type": "MllamaImageProcessor",
            "size": SQUARE,
            "max_image_tiles": 4,
        },
        processor={"processor_class": "MllamaProcessor"},
        form=replace(STRINGS, merges_system=True),
    )


def lfm2_vl() -> Family:
    places = tuple(f"<|img_row_{row}_col_{col}|>" for row in range(1, 5) for col in range(1, 5))
    return Family(
        model_type="lfm2_vl",
        configuration=lambda vocabulary: {
            "text_config": vocabulary.language(
                model_type="lfm2",
                num_hidden_layers=3,
                layer_types=["conv", "full_attention", "full_attention"],
                block_ff_dim=128,
                block_auto_adjust_ff_dim=False,
            ),
            "vision_config": {
                **VISION,
                "model_type": "siglip2_vision_model",
                "patch_size": 16,
                "num_patches": 16,
                "vision_use_head": False,
            },
            "image_token_id": vocabulary.id("<image>"),
            "projector_hidden_size": 64,
            "downsample_factor": 2,
        },
        template=chatml("<image>", tools=False),
        names={
            "image_token": "<image>",
            "image_start_token": "<|image_start|>",
            "image_end_token": "<|image_end|>",
            "image_thumbnail_token": "<|img_thumbnail|>",
        },
        tokens=places,
        image={
            "image_processor_type": "Lfm2VlImageProcessor",
            "min_image_tokens": 4,
            "max_image_tokens": 16,
            "tile_size": 64,
            "max_tiles": 4,
            "max_num_patches": 64,
            "encoder_patch_size": 16,
            "downsample_factor": 2,
        },
        processor={"processor_class": "Lfm2VlProcessor"},
        needs=("torchvision",),
    )


def kimi_k25() -> Family:
    return Family(
        model_type="kimi_k25",
        configuration=lambda vocabulary: {
            "text_config": vocabulary.language(
                model_type="deepseek_v3",
                num_key_value_heads=4,
                head_dim=8,
                q_lora_rank=32,
                kv_lora_rank=16,
                qk_nope_head_dim=16,
                qk_rope_head_dim=8,
                v_head_dim=16,
                n_routed_experts=4,
                num_experts_per_tok=2,
                moe_intermediate_size=64,
                n_shared_experts=1,
                n_group=1,
                topk_group=1,
                first_k_dense_replace=1,
            ),
            "vision_config": {**VISION, "pos_emb_height": 8, "pos_emb_width": 8},
            "projection_hidden_size": 64,
            "image_token_id": vocabulary.id("<|media_pad|>"),
            "video_token_id": vocabulary.id("<|kimi_k25_video_placeholder|>"),
            "vision_start_token_id": vocabulary.id("<|media_begin|>"),
            "vision_end_token_id": vocabulary.id("<|media_end|>"),
        },
        template=KIMI,
        names={
            "image_token": "<|media_pad|>",
            "video_token": "<|kimi_k25_video_placeholder|>",
        },
        tokens=(
            *("<|media_begin|>", "<|media_content|>", "<|media_end|>", "<|im_middle|>"),
            *("<|im_system|>", "<|im_user|>", "<|im_assistant|>"),
        ),
        image={
            "image_processor_type": "Kimi_K25ImageProcessor",
            "max_patches": 64,
            "patch_size": 14,
            "merge_size": 2,
        },
        video={"video_processor_type": "Kimi_K25VideoProcessor"},
        processor={"processor_class": "Kimi_K25Processor"},
        needs=("torchvision",),
    )


def minicpmv4_6() -> Family:
    slices = {"max_slice_nums": 4, "scale_resolution": 112, "patch_size": 14}
    return Family(
        model_type="minicpmv4_6",
        configuration=lambda vocabulary: {
            "text_config": vocabulary.language(
                model_type="qwen3_5_text",
                num_hidden_layers=4,
                layer_types=[*["linear_attention"] * 3, "full_attention"],
                linear_num_key_heads=2,
                linear_num_value_heads=4,
                linear_key_head_dim=16,
                linear_value_head_dim=16,
                linear_conv_kernel_dim=4,
            ),
            "vision_config": {**VISION, "image_size": 112, "num_hidden_layers": 3},
            "insert_layer_id": 1,
            "image_size": 112,
            "image_token_id": vocabulary.id("<|image_pad|>"),
            "video_token_id": vocabulary.id("<|video_pad|>"),
        },
        template=chatml("<|image_pad|>\n", tools=False),
        names={
            "image_token": "<|image_pad|>",
            "video_token": "<|video_pad|>",
            "image_start_token": "<image>",
            "image_end_token": "</image>",
            "slice_start_token": "<slice>",
            "slice_end_token": "</slice>",
            "image_id_start_token": "<image_id>",
            "image_id_end_token": "</image_id>",
        },
        image={"image_processor_type": "MiniCPMV4_6ImageProcessor", **slices},
        video={"video_processor_type": "MiniCPMV4_6VideoProcessor", **slices},
        processor={"processor_class": "MiniCPMV4_6Processor"},
        needs=("torchvision",),
    )


def phi4_multimodal() -> Family:
    return Family(
        model_type="phi4_multimodal",
        configuration=lambda vocabulary: {
            **{k: v for k, v in vocabulary.language().items() if k != "head_dim"},
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 1e4,
                "partial_rotary_factor": 1.0,
            },
            "vision_config": {
                **VISION,
                "image_size": 448,
                "crop_size": 448,
                "image_token_id": vocabulary.id("<|image|>"),
            },
            "audio_config": {
                "hidden_size": 64,
                "intermediate_size": 64,
                "num_blocks": 2,
                "num_attention_heads": 4,
                "ext_pw_out_channel": 64,
                "depthwise_separable_out_channel": 64,
                "nemo_conv_channels": 64,
                "audio_token_id": vocabulary.id("<|audio|>"),
            },
        },
        template=PHI,
        names={"image_token": "<|image|>", "audio_token": "<|audio|>"},
        tokens=("<|system|>", "<|user|>", "<|assistant|>"),
        end="<|end|>",
        image={
            "image_processor_type": "Phi4MultimodalImageProcessor",
            "size": {"height": 448, "width": 448},  # its count of tokens holds for this size alone
            "dynamic_hd": 4,
        },
        audio={"feature_extractor_type": "Phi4MultimodalFeatureExtractor"},
        processor={"processor_class": "Phi4MultimodalProcessor"},
        needs=("torchvision",),
    )


def qwen2() -> Family:
    """A model of text alone."""
    return Family(
        model_type="qwen2",
        configuration=lambda vocabulary: vocabulary.language(),
        template=chatml(""),
        form=replace(STRINGS, image_place=None),
    )
