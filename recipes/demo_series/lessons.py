"""Lessons: the conversations that the demo's model learns, equal to those of the evaluation.

The prompts come from the protocol and the benchmark, through the checkpoint's own chat template
and tokenizer. A lesson is a template of one conversation, in which only colour and box vary.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Final

import torch
from PIL import Image
from torch import Tensor

from medeval.data.benchmark import Benchmark
from medeval.data.rows import open_rows
from medeval.data.scenes import COLOURS, EDGE_PX
from medeval.evaluation.loader import load
from medeval.images.picture import made_picture
from medeval.images.resize import smart_resize
from medeval.models.transformers.processor import ChatProcessor, Prompt
from medeval.rollout.observation import CallResult
from medeval.rollout.protocol import EvalProtocol, Pair
from medeval.tools.crop import DEFAULT_BUDGET
from medeval.types.geometry import Size
from medeval.types.sample import Sample
from medeval.types.trajectory import Message, Text
from recipes.demo_series.batched import Rotation, text_rotation
from recipes.demo_series.views import SPANS, Views

# Loss weight of colour and box, which decide whether a sample is correct; other tokens have 1.
DECISIVE_WEIGHT: Final = 5.0


@dataclass(frozen=True, slots=True, eq=False)
class Lesson:
    """A conversation with variable colour and box, and the positions that are learned.

    `ids` are all tokens. `colour_position` is the position of the colour, `box_positions` are those
    of the box (x1, y1, x2, y2), empty without a call, and `image_positions` those of the image
    tokens. `learned` are the positions of tokens that the model writes, `weights` their loss
    weights; `n_shared` tokens precede the first image. `turn` holds the rotary positions.
    """

    ids: Tensor
    colour_position: int
    box_positions: tuple[int, ...]
    image_positions: Tensor
    learned: Tensor
    weights: Tensor
    n_shared: int
    turn: Rotation

    @property
    def calls(self) -> bool:
        """Whether the model calls the crop tool before it answers."""
        return bool(self.box_positions)


@dataclass(frozen=True, slots=True, eq=False)
class WordIds:
    """The tokens of colours and boxes: `colours` has shape (colours,), `spans` (cells, 2)."""

    colours: Tensor
    spans: Tensor

    def fill(self, lesson: Lesson, views: Views) -> Tensor:
        """The tokens of one conversation per row of `views`, shape (rows, tokens)."""
        ids = lesson.ids.repeat(len(views.colour), 1)
        ids[:, lesson.colour_position] = self.colours[views.colour]
        if lesson.box_positions:
            columns, rows = self.spans[views.column], self.spans[views.row]
            box = torch.stack((columns[:, 0], rows[:, 0], columns[:, 1], rows[:, 1]), 1)
            ids[:, list(lesson.box_positions)] = box
        return ids


def pair(native: bool) -> Pair:
    """The pair whose prompts are learned; `native` calls are in the server's own field."""
    return load("crop_zoom_native" if native else "crop_zoom", Pair).value


@cache
def sample() -> Sample:
    """A sample of the benchmark, whose samples all have the same question."""
    benchmark = load("markers", Benchmark).value
    return benchmark.to_sample(next(iter(open_rows(benchmark.rows, None))))


def answer_text(colour: str) -> str:
    """The reply with the answer `colour`."""
    return f"<answer>{colour}</answer>"


def call_text(column: int, row: int) -> str:
    """The reply that calls the tool on the box around a cell, in the chat template's syntax."""
    arguments = {"bbox_2d": [SPANS[column][0], SPANS[row][0], SPANS[column][1], SPANS[row][1]]}
    call = json.dumps({"name": "crop_and_zoom", "arguments": arguments})
    return f"<tool_call>\n{call}\n</tool_call>"


def training_texts() -> list[str]:
    """What the tokenizer is trained on: all prompts and replies."""
    arms = [arm for native in (False, True) for arm in pair(native).arms]
    prompts = [message.text for arm in arms for message in arm.opening(sample())]
    observations = [
        message.text
        for arm in arms
        for message in arm.observe([CallResult(native_id=_call_id(arm), image=1)])
    ]
    answers = [answer_text(colour) for colour in COLOURS]
    return [*prompts, *observations, call_text(0, 0), *answers * 4]


def coordinates() -> list[str]:
    """The numbers of all boxes, which become one token each."""
    return [str(number) for number in sorted({edge for span in SPANS for edge in span})]


def word_ids(processor: ChatProcessor) -> WordIds:
    """The tokens of colours and coordinates, one token each."""

    def single(word: str) -> int:
        (token,) = processor.template.text_ids(word)
        return token

    return WordIds(
        torch.tensor([single(colour) for colour in COLOURS]),
        torch.tensor([[single(str(edge)) for edge in span] for span in SPANS]),
    )


def make_lesson(
    processor: ChatProcessor, model: Any, protocol: EvalProtocol, *, calls: bool
) -> Lesson:
    """The lesson in which the model answers at once, or after one call."""
    prompt, learned = _conversation(processor, protocol, calls)
    ids = torch.tensor(prompt.ids)
    words = word_ids(processor)
    is_image = ids == model.config.image_token_id
    # the conversation is about the first cell and the first colour
    is_learned = torch.zeros(len(ids), dtype=torch.bool)
    is_learned[learned] = True
    box = (is_learned & torch.isin(ids, words.spans[0])).nonzero().flatten().tolist()
    (colour,) = (is_learned & (ids == words.colours[0])).nonzero().flatten().tolist()
    weights = torch.ones(len(ids))
    weights[[*box, colour]] = DECISIVE_WEIGHT
    positions, _ = model.model.get_rope_index(
        ids[None],
        mm_token_type_ids=is_image[None].int(),
        image_grid_thw=prompt.images["image_grid_thw"],
    )
    return Lesson(
        ids=ids,
        colour_position=colour,
        box_positions=tuple(box),
        image_positions=is_image.nonzero().flatten(),
        learned=is_learned.nonzero().flatten(),
        weights=weights[is_learned],
        n_shared=int(is_image.nonzero()[0]),
        turn=text_rotation(model.model.language_model, positions[:, 0]),
    )


def _conversation(
    processor: ChatProcessor, protocol: EvalProtocol, calls: bool
) -> tuple[Prompt, list[int]]:
    """The conversation about the first cell and colour, and the positions of its replies."""
    native = protocol.call_syntax == "openai"
    tools = [tool.schema for tool in protocol.tools] if native else []
    crop = smart_resize(Size(70, 70), DEFAULT_BUDGET)
    images = [
        made_picture(Image.new("RGB", size), budget=None).sent_image
        for size in ((EDGE_PX, EDGE_PX), (crop.width_px, crop.height_px))
    ]
    messages: list[Message] = list(protocol.opening(sample()))
    prompt = processor.opening(messages, images, tools)
    learned: list[int] = []
    if calls:
        called = prompt.followed_by(processor.template.text_ids(call_text(0, 0)))
        # the token that ends the turn, part of the next prompt, is learned as well
        learned.extend(range(len(prompt.ids), len(called.ids) + 1))
        n_messages = len(messages) + 1
        messages.extend(_call_and_crop(protocol))
        prompt = processor.extension(called, n_messages, messages, images, tools)
    reply = processor.template.text_ids(answer_text(next(iter(COLOURS))))
    learned.extend(range(len(prompt.ids), len(prompt.ids) + len(reply) + 1))
    whole = prompt.followed_by([*reply, int(processor.template.end_id or 0)])
    return replace(whole, images=prompt.images), learned


def _call_and_crop(protocol: EvalProtocol) -> Sequence[Message]:
    result = CallResult(native_id=_call_id(protocol), image=1)
    call = Message(role="assistant", content=(Text(call_text(0, 0)),))
    return (call, *protocol.observe([result]))


def _call_id(protocol: EvalProtocol) -> str | None:
    return "call_0" if protocol.call_syntax == "openai" else None
