"""Builds a tiny checkpoint with random weights, as its family's files on the hub are laid out."""

import copy
import functools
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
import transformers
from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    trainers,
)
from tokenizers.processors import TemplateProcessing

from medeval.evaluation.loader import load
from medeval.models.chat_template import TemplateForm
from medeval.models.transformers.loading import quiet
from medeval.rollout.protocol import Pair
from recipes.demo_series.tokenizer import DEFAULT_TEXTS, END_OF_TEXT, train_tokenizer

CONTEXT_TOKENS = 8192
STRINGS = TemplateForm(as_parts=False, merges_system=False, image_place="in place")


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The tokenizer of a family, as its configuration refers to it."""

    tokenizer: Any

    @property
    def size(self) -> int:
        """The rows of the embedding table: a multiple of 64."""
        return (len(self.tokenizer) + 63) // 64 * 64

    def id(self, token: str) -> int:
        """The id of a special token."""
        number = self.tokenizer.get_vocab()[token]
        assert isinstance(number, int)
        return number

    def language(self, **changes: Any) -> dict[str, Any]:
        """The settings of a language model with two layers of four heads."""
        return {
            "vocab_size": self.size,
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 16,
            "max_position_embeddings": CONTEXT_TOKENS,
            "bos_token_id": self.tokenizer.bos_token_id,
            "eos_token_id": self.tokenizer.eos_token_id,
            "pad_token_id": self.tokenizer.pad_token_id,
            **changes,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """A model type, and what the files of a tiny checkpoint of it hold.

    `tokenizer` is whose it is made like: Qwen's reads bytes; those of Llama 2 and Gemma are
    SentencePiece's, and Llama 2's puts a space before each text. `names` are the special tokens
    that the tokenizer knows by name, `tokens` all others; `begin` stands before every text.
    `image`, `video`, `audio` and `processor` are the settings of the processors. `form` is the one
    that the chat template wants. `needs` are the packages that the stock processor needs beside
    those of medeval.
    """

    model_type: str
    configuration: Callable[[Vocabulary], dict[str, Any]]
    template: str | None
    tokenizer: Literal["qwen", "llama2", "gemma"] = "qwen"
    names: Mapping[str, str] = field(default_factory=dict)
    tokens: tuple[str, ...] = ()
    begin: str | None = None
    end: str = "<|im_end|>"
    image: Mapping[str, Any] | None = None
    video: Mapping[str, Any] | None = None
    audio: Mapping[str, Any] | None = None
    processor: Mapping[str, Any] = field(default_factory=dict)
    form: TemplateForm = STRINGS
    needs: tuple[str, ...] = ()
    remark: str = ""


def build(family: Family, directory: Path) -> Path:
    """Write the checkpoint in float32 and return its directory. Equal arguments, equal files."""
    directory.mkdir(parents=True, exist_ok=True)
    with quiet():
        _write_model(family, directory)
    files = {
        "preprocessor_config.json": {**(family.audio or {}), **(family.image or {})},
        "video_preprocessor_config.json": family.video,
        "processor_config.json": family.processor,
    }
    for name, settings in files.items():
        if settings:
            _update(directory / name, settings)
    if family.template is not None:
        (directory / "chat_template.jinja").write_text(family.template, encoding="utf-8")
    return directory


def _write_model(family: Family, directory: Path) -> None:
    tokenizer = _tokenizer(family)
    configuration = transformers.AutoConfig.for_model(
        family.model_type, **family.configuration(Vocabulary(tokenizer))
    )
    model = _random_model(configuration)
    model.generation_config = transformers.GenerationConfig(
        pad_token_id=tokenizer.pad_token_id, eos_token_id=[tokenizer.eos_token_id]
    )
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    _update(
        directory / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "extra_special_tokens": dict(family.names),
            "processor_class": family.processor.get("processor_class"),
        },
    )


def stock_model(directory: Path) -> Any:
    """The checkpoint as transformers loads it; of one that also speaks, the part that writes."""
    configuration = transformers.AutoConfig.from_pretrained(directory)
    configuration = getattr(configuration, "thinker_config", configuration)
    with quiet():
        return _class_for(configuration).from_pretrained(directory, config=configuration).eval()


def _class_for(configuration: Any) -> Any:
    if type(configuration) in transformers.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING:
        return transformers.AutoModelForImageTextToText
    if type(configuration) in transformers.MODEL_FOR_MULTIMODAL_LM_MAPPING:
        return transformers.AutoModelForMultimodalLM
    return transformers.AutoModelForCausalLM


def _texts() -> list[str]:
    """The prompts of both arms, so that they become few tokens."""
    pair = load("crop_zoom", Pair).value
    texts = [text for arm in (pair.free, pair.available) for text in (arm.system, arm.user)]
    return [*DEFAULT_TEXTS, *texts, pair.available.tools_text]


@functools.cache
def _byte_level() -> Any:
    return train_tokenizer(_texts(), vocabulary=1200, context_tokens=CONTEXT_TOKENS)


@functools.cache
def _sentence_piece(*, prepends: bool) -> Any:
    """Pieces of texts whose spaces are letters; other letters are spelt as bytes."""
    pieces = Tokenizer(models.BPE(byte_fallback=True))
    letters = [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(
        vocab_size=1200, special_tokens=[END_OF_TEXT, *letters], show_progress=False
    )
    pieces.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    pieces.train_from_iterator(_texts(), trainer)
    pieces.pre_tokenizer = None
    spaces = [normalizers.Prepend("▁")] if prepends else []
    pieces.normalizer = normalizers.Sequence([*spaces, normalizers.Replace(" ", "▁")])
    decoded = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    pieces.decoder = decoders.Sequence([*decoded, *([decoders.Strip(" ", 1)] if prepends else [])])
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=pieces,
        pad_token=END_OF_TEXT,
        padding_side="left",
        model_max_length=CONTEXT_TOKENS,
    )


def _tokenizer(family: Family) -> Any:
    is_bytes = family.tokenizer == "qwen"
    trained = _byte_level() if is_bytes else _sentence_piece(prepends=family.tokenizer == "llama2")
    tokenizer = copy.deepcopy(trained)
    begin = [family.begin] if family.begin else []
    added = [*begin, family.end, *family.names.values(), *family.tokens]
    tokenizer.add_tokens(
        [AddedToken(token, special=True, normalized=False) for token in dict.fromkeys(added)],
        special_tokens=True,
    )
    tokenizer.eos_token, tokenizer.chat_template = family.end, None
    if family.begin:
        tokenizer.bos_token = family.begin
        tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
            single=f"{family.begin} $A", special_tokens=[(family.begin, tokenizer.bos_token_id)]
        )
    return tokenizer


def _random_model(configuration: Any) -> Any:
    """A model whose weights are so spread that its tokens differ, and depend on the images."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = _class_for(configuration).from_config(configuration, dtype=torch.float32)
        for name, weight in model.named_parameters():
            if weight.ndim >= 2:
                is_convolution = weight.ndim >= 4
                inputs = weight[0].numel() if is_convolution else weight.shape[-1]
                spread = 0.25 if "embed_tokens" in name else 1.5
                torch.nn.init.normal_(weight, std=spread * inputs**-0.5)
            elif "gate" in name:
                torch.nn.init.constant_(weight, 0.5)
            elif "q_norm" in name or "q_layernorm" in name:  # attends to few tokens
                torch.nn.init.constant_(weight, 4.0)
            elif name.endswith("A_log"):  # how fast linear attention forgets
                torch.nn.init.constant_(weight, -5.0)
    return model


def _update(path: Path, values: Mapping[str, Any]) -> None:
    held = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    path.write_text(json.dumps(held | dict(values), indent=2) + "\n", encoding="utf-8")
