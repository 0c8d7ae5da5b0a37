"""Real calls in every syntax, and seeded mutations of them, for tests of the parsers."""

import json
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from medeval.tools.calls.find import CallRules, CallSyntax

TRACES: Final = Path(__file__).parents[4] / "shared/data/vstar/deepeyes_traces.jsonl"

WRITTEN: Final = (
    '<think>Closer.</think>\n<tool_call>\n{"name": "image_zoom_in_tool", "arguments": '
    '{"bbox_2d": [18, 902, 42, 982], "label": "man with cap"}}\n</tool_call>',
    "<tool_call>image_crop_and_zoom_in_tool\n<arg_key>bbox_2d</arg_key>\n<arg_value>[1, 2, 3, 4]"
    "</arg_value>\n<arg_key>label</arg_key>\n<arg_value>cap</arg_value>\n</tool_call>",
    '<think>a</think><grounding>{"bbox_2d": [0.1, 0.2, 0.3, 0.4], "source": \'observation_1\'}'
    "</grounding>",
    '{"thought": "zoom", "actions": [{"name": "ZoomInSubfigure", "arguments": {"image": "img_1", '
    '"param": "a"}}]}',
    "THOUGHT 0: look.\nACTION 0:\n```python\nimage_2 = focus_on_columns_with_highlight(image_1, "
    '["Year", "Total"], columns_bbox)\ndisplay(image_2)\n```',
    "<code>\n```python\nimport os\nos.system('touch executed')\n```\n</code>",
)

SYNTAXES: Final[tuple[tuple[CallSyntax, CallRules], ...]] = (
    ("hermes", CallRules()),
    ("hermes", CallRules(python_literals=True, in_reasoning=True, must_end_reply=True)),
    ("glm_xml", CallRules(in_reasoning=True)),
    ("tagged_json", CallRules(tag="grounding", python_literals=True)),
    ("actions_json", CallRules()),
    ("fenced_python", CallRules(dialect="vtool_v1")),
    ("fenced_python", CallRules(dialect="refocus")),
)

# What turns one token of a call into another, or into trouble.
BITS: Final = (
    "<tool_call>", "</tool_call>", "<think>", "</think>", "<grounding>", "</grounding>", "{", "}",
    "[", "]", '"', "'", "\\", ",", ":", "\n", "```", "```python", "<code>", "</code>", "\x00",
    "\ud800", "\u2028", "9" * 50, "1e999", "-", "NaN", "null", '"name"', '"arguments"', '"actions"',
    "<arg_key>", "</arg_value>", "__import__('os').system('touch executed')", "image_1", "(", ")",
    "lambda: 0", "'''", "[" * 40, "{" * 40, "(" * 40,
)  # fmt: skip


def real_calls() -> Sequence[str]:
    """Replies of the recorded DeepEyes conversations, where they are at hand, and written ones."""
    recorded: list[str] = []
    if TRACES.exists():
        for line in TRACES.read_text("utf-8").splitlines():
            recorded += [
                message["content"]
                for message in json.loads(line)["messages"]
                if message["role"] == "assistant" and "<tool_call>" in message["content"]
            ]
    return (*recorded, *WRITTEN * max(1, len(recorded) // len(WRITTEN)))


def mutated(count: int, seed: int) -> Iterator[str]:
    """That many texts, each a real call with one to six changes."""
    chance = random.Random(seed)
    calls = real_calls()
    for _ in range(count):
        text = chance.choice(calls)
        for _ in range(chance.randint(1, 6)):
            text = _changed(text, chance)
        yield text


def _changed(text: str, chance: random.Random) -> str:
    start = chance.randrange(len(text) + 1)
    end = min(len(text), start + chance.choice((0, 0, 1, 3, 20)))
    match chance.randrange(4):
        case 0:
            return text[:start] + text[end:]
        case 1:
            return text[:start] + chance.choice(BITS) + text[end:]
        case 2:
            return text[:start] + text[start:end] * chance.choice((2, 3)) + text[end:]
        case _:
            other = chance.randrange(len(text) + 1)
            return text[:start] + text[other : other + 30] + text[end:]
