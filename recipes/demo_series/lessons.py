"""What the demo's model is taught to say, in the very conversations that the evaluation holds.

The prompts come from the protocol and the benchmark, through the checkpoint's own chat template
and tokenizer. A lesson is one such conversation as a template: only colour and box vary.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
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
from medeval.models.processor import ChatProcessor, Prompt
from medeval.rollout.observation import CallResult
from medeval.rollout.protocol import EvalProtocol, Pair
from medeval.tools.crop import DEFAULT_BUDGET
from medeval.types.geometry import Size
from medeval.types.sample import Sample
from medeval.types.trajectory import Message, Text
from recipes.demo_series.batched import Rotation, text_rotation
from recipes.demo_series.views import SPANS, Views

# What decides whether a sample comes out right weighs more than the words around it.
DECISIVE_WEIGHT: Final = 5.0


@dataclass(frozen=True, slots=True, eq=False)
class Lesson:
    """A conversation in which colour and box are left open, and what is learned of it.

    `ids` are all tokens; `colour_place` is where the colour stands, `box_places` where the box
    (x1, y1, x2, y2), empty without a call. `image_places` are those of the image tokens.
    `learned` are the positions of tokens that the model writes, with `weights`; `n_shared` tokens
    come before the first image. `turn` holds the rotary positions.
    """

    ids: Tensor
    colour_place: int
    box_places: tuple[int, ...]
    image_places: Tensor
    learned: Tensor
    weights: Tensor
    n_shared: int
    turn: Rotation

    @property
    def calls(self) -> bool:
        """Whether the model cuts out a crop before it answers."""
        return bool(self.box_places)


@dataclass(frozen=True, slots=True, eq=False)
class WordIds:
    """The tokens of what varies: `colours` (colours,), `spans` (cells, 2)."""

    colours: Tensor
    spans: Tensor

    def fill(self, lesson: Lesson, views: Views) -> Tensor:
        """The tokens of one conversation a row."""
        ids = lesson.ids.repeat(len(views.colour), 1)
        ids[:, lesson.colour_place] = self.colours[views.colour]
        if lesson.box_places:
            columns, rows = self.spans[views.column], self.spans[views.row]
            box = torch.stack((columns[:, 0], rows[:, 0], columns[:, 1], rows[:, 1]), 1)
            ids[:, list(lesson.box_places)] = box
        return ids


def pair(native: bool) -> Pair:
    """The pair whose prompts are learned: calls in the text, or in the server's own field."""
    return load("crop_zoom_native" if native else "crop_zoom", Pair).value


@cache
def sample() -> Sample:
    """A sample of the benchmark: its question is the same in all."""
    benchmark = load("markers", Benchmark).value
    return benchmark.to_sample(next(iter(open_rows(benchmark.rows, None))))


def answer_text(colour: str) -> str:
    """The reply that answers."""
    return f"<answer>{colour}</answer>"


def call_text(column: int, row: int) -> str:
    """The reply that calls the tool on the box around a cell, as the chat template writes calls."""
    arguments = {"bbox_2d": [SPANS[column][0], SPANS[row][0], SPANS[column][1], SPANS[row][1]]}
    call = json.dumps({"name": "crop_and_zoom", "arguments": arguments})
    return f"<tool_call>\n{call}\n</tool_call>"


def training_texts() -> list[str]:
    """What the tokenizer is trained on: all prompts and replies."""
    arms = [arm for native in (False, True) for arm in pair(native).arms]
    prompts = [message.text for arm in arms for message in arm.opening(sample())]
    shown = [
        message.text
        for arm in arms
        for message in arm.observe([CallResult(native_id=_call_id(arm), image=1)])
    ]
    answers = [answer_text(colour) for colour in COLOURS]
    return [*prompts, *shown, call_text(0, 0), *answers * 4]


def coordinates() -> list[str]:
    """The numbers of all boxes, one token each."""
    return [str(number) for number in sorted({edge for span in SPANS for edge in span})]


def word_ids(processor: ChatProcessor) -> WordIds:
    """The tokens of colours and coordinates; each is one token."""

    def single(word: str) -> int:
        (token,) = processor.encode(word)
        return token

    return WordIds(
        torch.tensor([single(colour) for colour in COLOURS]),
        torch.tensor([[single(str(edge)) for edge in span] for span in SPANS]),
    )


def make_lesson(
    processor: ChatProcessor, model: Any, protocol: EvalProtocol, *, calls: bool
) -> Lesson:
    """The conversation in which the model answers at once, or after one call."""
    prompt, learned = _conversation(processor, protocol, calls)
    ids = torch.tensor(prompt.ids)
    words = word_ids(processor)
    is_image = ids == processor.image_id
    # the coordinates and the colour of the template are those of the first cell and colour
    said = torch.zeros(len(ids), dtype=torch.bool)
    said[learned] = True
    box = (said & torch.isin(ids, words.spans[0])).nonzero().flatten().tolist()
    (colour,) = (said & (ids == words.colours[0])).nonzero().flatten().tolist()
    weights = torch.ones(len(ids))
    weights[[*box, colour]] = DECISIVE_WEIGHT
    positions, _ = model.model.get_rope_index(
        ids[None],
        mm_token_type_ids=is_image[None].int(),
        image_grid_thw=torch.tensor([image.grid for image in prompt.images]),
    )
    return Lesson(
        ids=ids,
        colour_place=colour,
        box_places=tuple(box),
        image_places=is_image.nonzero().flatten(),
        learned=said.nonzero().flatten(),
        weights=weights[said],
        n_shared=int(is_image.nonzero()[0]),
        turn=text_rotation(model.model.language_model, positions[:, 0]),
    )


def _conversation(
    processor: ChatProcessor, protocol: EvalProtocol, calls: bool
) -> tuple[Prompt, list[int]]:
    """The whole conversation about the first cell and colour, and the places of the replies."""
    native = protocol.call_syntax == "openai"
    tools = [tool.schema for tool in protocol.tools] if native else []
    shown = smart_resize(Size(70, 70), DEFAULT_BUDGET)
    images = [
        made_picture(Image.new("RGB", size), budget=None).encoded
        for size in ((EDGE_PX, EDGE_PX), (shown.width_px, shown.height_px))
    ]
    messages: list[Message] = list(protocol.opening(sample()))
    prompt = processor.opening(messages, images, tools)
    learned: list[int] = []
    if calls:
        ids = [*prompt.ids, *processor.encode(call_text(0, 0))]
        # the token that ends the turn is learned as well; it comes with the next prompt
        learned.extend(range(len(prompt.ids), len(ids) + 1))
        n_said = len(messages) + 1
        messages.extend(_call_and_crop(protocol))
        prompt = processor.extension(ids, n_said, messages, images, tools)
    reply = processor.encode(answer_text(next(iter(COLOURS))))
    learned.extend(range(len(prompt.ids), len(prompt.ids) + len(reply) + 1))
    return Prompt((*prompt.ids, *reply, int(processor.end_id or 0)), prompt.images), learned


def _call_and_crop(protocol: EvalProtocol) -> Sequence[Message]:
    observed = CallResult(native_id=_call_id(protocol), image=1)
    said = Message(role="assistant", content=(Text(call_text(0, 0)),))
    return (said, *protocol.observe([observed]))


def _call_id(protocol: EvalProtocol) -> str | None:
    return "call_0" if protocol.call_syntax == "openai" else None
