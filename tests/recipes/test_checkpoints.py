import json
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoConfig, AutoTokenizer

from recipes.demo_series.checkpoints import Family
from recipes.demo_series.tokenizer import MARKUP_TOKENS, SPECIAL_TOKENS, train_tokenizer
from tests.tiny_checkpoints import random_checkpoint

TOKENIZER: Any = train_tokenizer(
    ("You are a helpful assistant.",), vocabulary=400, context_tokens=512
)
TOOL = {"type": "function", "function": {"name": "crop_and_zoom", "parameters": {}}}
CALL = {"function": {"name": "crop_and_zoom", "arguments": {"bbox_2d": [1, 2, 3, 4]}}}


def written(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(directory.iterdir())}


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl"])
def test_equal_arguments_write_equal_files_and_another_seed_other_weights(
    family: Family, tmp_path: Path
) -> None:
    first = written(random_checkpoint(tmp_path / "first", family))
    again = written(random_checkpoint(tmp_path / "again", family))
    other = written(random_checkpoint(tmp_path / "other", family, seed=1))
    assert first == again
    assert {name for name in first if first[name] != other[name]} == {"model.safetensors"}


def test_checkpoint_is_an_ordinary_directory_of_two_megabytes(tiny_checkpoint: Path) -> None:
    assert sum(len(content) for content in written(tiny_checkpoint).values()) < 2_500_000
    family = AutoConfig.from_pretrained(tiny_checkpoint).model_type
    settings = json.loads((tiny_checkpoint / "preprocessor_config.json").read_text())
    named = {"qwen2_5_vl": "Qwen2_5_VLProcessor", "qwen3_vl": "Qwen3VLProcessor"}
    assert settings["processor_class"] == named[family]
    assert settings["image_processor_type"] == "Qwen2VLImageProcessor"


def test_saved_tokenizer_reads_text_as_the_trained_one(tiny_checkpoint: Path) -> None:
    saved = AutoTokenizer.from_pretrained(tiny_checkpoint)
    text = "<|im_start|>user\nWhat? <tool_call>{1234}</tool_call> café 你好 🙂<|im_end|>"
    tokenizer_file = json.loads((tiny_checkpoint / "tokenizer.json").read_text())
    assert tokenizer_file["model"]["type"] == "BPE"
    assert saved.decode(saved(text)["input_ids"], skip_special_tokens=False) == text
    assert type(saved).__name__ == "Qwen2Tokenizer"


@given(st.text())
def test_any_text_comes_back_from_the_tokenizer(text: str) -> None:
    ids = TOKENIZER(text)["input_ids"]
    assert TOKENIZER.decode(ids, skip_special_tokens=False) == unicodedata.normalize("NFC", text)


@pytest.mark.parametrize("token", MARKUP_TOKENS)
def test_markup_is_one_token_and_part_of_the_text(token: str) -> None:
    ids = TOKENIZER(f"a{token}b")["input_ids"]
    assert len(ids) == 3
    assert TOKENIZER.decode(ids, skip_special_tokens=True) == f"a{token}b"


@pytest.mark.parametrize("token", SPECIAL_TOKENS)
def test_special_tokens_are_left_out_of_the_text(token: str) -> None:
    ids = TOKENIZER(f"a{token}b")["input_ids"]
    assert len(ids) == 3
    assert TOKENIZER.decode(ids, skip_special_tokens=True) == "ab"


def render(messages: list[Any], **options: Any) -> str:
    text = TOKENIZER.apply_chat_template(messages, tokenize=False, **options)
    assert isinstance(text, str)
    return text


def test_template_puts_images_where_they_are_and_opens_a_reply() -> None:
    content = [{"type": "image"}, {"type": "text", "text": "What?"}]
    assert render([{"role": "user", "content": content}], add_generation_prompt=True) == (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
        "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>What?<|im_end|>\n"
        "<|im_start|>assistant\n"
    )


def test_template_shows_tools_calls_and_tool_messages_in_the_hermes_form() -> None:
    text = render(
        [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "What?"},
            {"role": "assistant", "content": "", "tool_calls": [CALL, CALL]},
            {"role": "tool", "content": "one"},
            {"role": "tool", "content": [{"type": "image"}]},
        ],
        tools=[TOOL],
    )
    system, rest = text.split("<|im_end|>\n", 1)
    assert system.startswith("<|im_start|>system\nBe brief.\n\n# Tools\n\n")
    assert f"<tools>\n{json.dumps(TOOL)}\n</tools>" in system
    call = (
        '<tool_call>\n{"name": "crop_and_zoom", "arguments": {"bbox_2d": [1, 2, 3, 4]}}\n'
        "</tool_call>"
    )
    assert rest == (
        "<|im_start|>user\nWhat?<|im_end|>\n"
        f"<|im_start|>assistant\n{call}\n{call}<|im_end|>\n"
        "<|im_start|>user\n<tool_response>\none\n</tool_response>\n"
        "<tool_response>\n<|vision_start|><|image_pad|><|vision_end|>\n</tool_response><|im_end|>\n"
    )


def test_words_are_one_token_where_they_stand_alone() -> None:
    tokenizer: Any = train_tokenizer(("[1]",), vocabulary=300, context_tokens=64, words=("220",))
    tokens = {text: len(tokenizer(text)["input_ids"]) for text in ("[220]", "[2201]", "[330]")}
    assert tokens == {"[220]": 3, "[2201]": 6, "[330]": 5}
