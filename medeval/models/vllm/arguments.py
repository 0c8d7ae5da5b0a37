"""The arguments of a vLLM engine, in this process or as a server."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from medeval.types.sample import JsonValue

# vLLM's names for our arguments, where they differ.
LONG_NAMES = {
    "tensor_parallel": "tensor_parallel_size",
    "data_parallel": "data_parallel_size",
}
# Arguments of a server only: in this process, medeval parses calls and renders messages itself.
SERVER_ALONE = frozenset({"tool_call_parser", "reasoning_parser", "chat_template_content_format"})

QUANTIZED = "quantized weights are not reloaded"
CONNECTED = "a connector may keep what the old weights computed"
# Arguments that rule out replacing an engine's weights. Most connectors cannot be emptied, though
# vLLM reports success; only that of `kv_offloading_size` can, unless LMCache's is named.
HINDRANCES = {
    "quantization": QUANTIZED,
    "quantization_config": QUANTIZED,
    "kv_transfer_config": CONNECTED,
    "kv_offloading_backend": CONNECTED,
}

# Arguments of placement and load, which do not change replies.
HARMLESS = frozenset(
    {
        "tensor_parallel",
        "data_parallel",
        "gpu_memory_utilization",
        "max_num_seqs",
        "limit_mm_per_prompt",
        "trust_remote_code",
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineArguments:
    """Arguments of vLLM under short names; None leaves one to vLLM.

    `limit_mm_per_prompt` is the most images per conversation, or an object by modality.
    `min_pixels` and `max_pixels` bound the area of an image in the engine's own processor.
    `tool_call_parser` is vLLM's name of the syntax in which the model writes native calls, ""
    for none. `chat_template_content_format` is the form in which a server passes messages to the
    chat template: "openai" passes lists of parts, which every processor's template accepts.
    `engine_args` are all other arguments, by vLLM's own names.
    """

    dtype: str | None = None
    tensor_parallel: int | None = None
    data_parallel: int | None = None
    gpu_memory_utilization: float | None = None
    max_model_len: int | None = None
    max_num_seqs: int | None = None
    limit_mm_per_prompt: int | Mapping[str, JsonValue] | None = None
    min_pixels: int | None = None
    max_pixels: int | None = None
    seed: int | None = None
    enforce_eager: bool | None = None
    quantization: str | None = None
    trust_remote_code: bool | None = None
    tool_call_parser: str = "hermes"
    reasoning_parser: str | None = None
    chat_template_content_format: str | None = None
    engine_args: Mapping[str, JsonValue] = field(default_factory=dict)

    @classmethod
    def names(cls) -> list[str]:
        """The names that `--model-args` may hold."""
        return [one.name for one in fields(cls)]

    def keywords(self) -> dict[str, Any]:
        """The arguments of vLLM's own engine, for an engine in this process."""
        own = {one.name: getattr(self, one.name) for one in fields(self)}
        pixels = {name: own.pop(name) for name in ("min_pixels", "max_pixels")}
        others = own.pop("engine_args")
        made = {
            LONG_NAMES.get(name, name): value
            for name, value in own.items()
            if value is not None and name not in SERVER_ALONE
        }
        if isinstance(self.limit_mm_per_prompt, int):
            made["limit_mm_per_prompt"] = {"image": self.limit_mm_per_prompt}
        if bounds := {name: value for name, value in pixels.items() if value is not None}:
            made["mm_processor_kwargs"] = bounds
        return made | {name.replace("-", "_"): value for name, value in others.items()}

    def hindrance(self) -> str | None:
        """Why an engine with these arguments cannot take other weights; None where it can."""
        keywords = self.keywords()
        if keywords.get("kv_offloading_backend") == "native":
            del keywords["kv_offloading_backend"]
        # vLLM names the parts of an object with dots
        given = {name.partition(".")[0] for name, value in keywords.items() if value}
        return next((told for name, told in HINDRANCES.items() if name in given), None)

    def shaping(self) -> dict[str, JsonValue]:
        """The arguments that can change a reply: all but placement and load."""
        own = {one.name: getattr(self, one.name) for one in fields(self)}
        return {
            name: dict(value) if isinstance(value, Mapping) else value
            for name, value in own.items()
            if name not in HARMLESS and value not in (None, {})
        }

    def flags(self) -> list[str]:
        """The command line of vLLM's server."""
        made = [flag for name, value in self.keywords().items() for flag in _flag(name, value)]
        if self.tool_call_parser:
            made += ["--enable-auto-tool-choice", "--tool-call-parser", self.tool_call_parser]
        if self.reasoning_parser:
            made += ["--reasoning-parser", self.reasoning_parser]
        if self.chat_template_content_format:
            made += ["--chat-template-content-format", self.chat_template_content_format]
        return made


def _flag(name: str, value: object) -> list[str]:
    long_name = name.replace("_", "-")
    if isinstance(value, bool):
        return [f"--{long_name}" if value else f"--no-{long_name}"]
    return [f"--{long_name}", json.dumps(value) if isinstance(value, dict | list) else str(value)]
