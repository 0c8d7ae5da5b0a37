"""The tokenizer and chat template of the tiny checkpoints, in the form of the Qwen-VL families."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

END_OF_TEXT = "<|endoftext|>"
END_OF_TURN = "<|im_end|>"
IMAGE = "<|image_pad|>"
VIDEO = "<|video_pad|>"
VISION_START = "<|vision_start|>"
VISION_END = "<|vision_end|>"

# Tokens that are left out of decoded text.
SPECIAL_TOKENS = (
    END_OF_TEXT,
    "<|im_start|>",
    END_OF_TURN,
    VISION_START,
    VISION_END,
    "<|vision_pad|>",
    IMAGE,
    VIDEO,
)
# One token each, but kept in decoded text, because calls and answers are read from them.
MARKUP_TOKENS = (
    "<tool_call>",
    "</tool_call>",
    "<tool_response>",
    "</tool_response>",
    "<tools>",
    "</tools>",
    "<answer>",
    "</answer>",
    "<think>",
    "</think>",
)

DEFAULT_TEXTS = (
    "You are a helpful assistant. system user assistant tool",
    "Which colour is the small square in the image? Answer with the letter of the right option.",
    "What is the value of the highest bar in the chart, and in which year was it the lowest?",
    '{"type": "function", "function": {"name": "crop_and_zoom", "description": "", '
    '"parameters": {"type": "object", "properties": {"bbox_2d": {"type": "array", '
    '"items": {"type": "number"}}}, "required": ["bbox_2d"]}}}',
    '{"name": "crop_and_zoom", "arguments": {"bbox_2d": [100, 200, 500, 750]}}',
    "To call a tool, write its name and arguments as JSON. You may call a tool before you answer.",
    "Think step by step. Then write the final answer, and nothing else.",
    "red green blue yellow A B C D yes no 0 1 2 3 4 5 6 7 8 9",
)

CHAT_TEMPLATE = r"""
{%- macro body(content) -%}
  {%- if content is string -%}
    {{- content -}}
  {%- elif content is iterable -%}
    {%- for part in content -%}
      {%- if part.type == 'text' -%}
        {{- part.text -}}
      {%- elif part.type in ('image', 'image_url') -%}
        {{- '<|vision_start|><|image_pad|><|vision_end|>' -}}
      {%- elif part.type == 'video' -%}
        {{- '<|vision_start|><|video_pad|><|vision_end|>' -}}
      {%- endif -%}
    {%- endfor -%}
  {%- endif -%}
{%- endmacro -%}
{%- set given = messages and messages[0].role == 'system' -%}
{{- '<|im_start|>system\n' -}}
{{- body(messages[0].content) if given else 'You are a helpful assistant.' -}}
{%- if tools -%}
  {{- '\n\n# Tools\n\nThe functions you may call, one JSON schema a line:\n<tools>' -}}
  {%- for tool in tools -%}
    {{- '\n' + (tool | tojson) -}}
  {%- endfor -%}
  {{- '\n</tools>\n\nWrite each call as a JSON object with its name and arguments:' -}}
  {{- '\n<tool_call>\n{"name": <name>, "arguments": <arguments>}\n</tool_call>' -}}
{%- endif -%}
{{- '<|im_end|>\n' -}}
{%- for message in messages -%}
  {%- if message.role == 'system' and loop.first -%}
  {%- elif message.role == 'tool' -%}
    {%- if loop.first or loop.previtem.role != 'tool' -%}
      {{- '<|im_start|>user' -}}
    {%- endif -%}
    {{- '\n<tool_response>\n' + body(message.content) + '\n</tool_response>' -}}
    {%- if loop.last or loop.nextitem.role != 'tool' -%}
      {{- '<|im_end|>\n' -}}
    {%- endif -%}
  {%- else -%}
    {{- '<|im_start|>' + message.role + '\n' + body(message.content) -}}
    {%- for call in message.tool_calls or [] -%}
      {%- set function = call.function or call -%}
      {%- if not loop.first or message.content -%}
        {{- '\n' -}}
      {%- endif -%}
      {{- '<tool_call>\n{"name": "' + function.name + '", "arguments": ' -}}
      {%- if function.arguments is string -%}
        {{- function.arguments -}}
      {%- else -%}
        {{- function.arguments | tojson -}}
      {%- endif -%}
      {{- '}\n</tool_call>' -}}
    {%- endfor -%}
    {{- '<|im_end|>\n' -}}
  {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
  {{- '<|im_start|>assistant\n' -}}
{%- endif -%}
""".strip()


def train_tokenizer(
    texts: Sequence[str], *, vocabulary: int, context_tokens: int, words: Sequence[str] = ()
) -> "PreTrainedTokenizerFast":
    """A byte-level tokenizer trained on `texts`; any text in NFC decodes to itself.

    `vocabulary` is the number of learned tokens, without the special and markup tokens. `words`,
    for example numbers of several digits, are one token each where they are not part of a word.
    """
    from tokenizers import AddedToken
    from transformers import Qwen2Tokenizer

    untrained: Any = Qwen2Tokenizer()
    trained: PreTrainedTokenizerFast = untrained.train_new_from_iterator(
        [_without_markup(text) for text in texts], vocabulary, show_progress=False, min_frequency=1
    )
    trained.add_tokens(
        [AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS],
        special_tokens=True,
    )
    trained.add_tokens(
        [AddedToken(token, special=False, normalized=False) for token in MARKUP_TOKENS]
    )
    trained.add_tokens(
        [AddedToken(word, special=False, normalized=False, single_word=True) for word in words]
    )
    trained.eos_token = END_OF_TURN
    trained.pad_token = END_OF_TEXT
    trained.padding_side = "left"
    trained.model_max_length = context_tokens
    trained.chat_template = CHAT_TEMPLATE
    return trained


def _without_markup(text: str) -> str:
    for token in (*SPECIAL_TOKENS, *MARKUP_TOKENS):
        text = text.replace(token, "\n")
    return text
