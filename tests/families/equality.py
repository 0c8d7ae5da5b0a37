"""Both arms of crop_zoom with a checkpoint, and each reply against stock transformers alone.

A random model calls no tool, so some replies are forced to end in a call. All tokens before it are
the model's own: each reply must begin with the tokens that `generate` gives for its one prompt, as
the stock processor makes it.
"""

import asyncio
import importlib
import io
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers
from PIL import Image
from pydantic import TypeAdapter

from medeval import load
from medeval.images.picture import prepare
from medeval.models.base import Reply, Request
from medeval.models.chat_template import TemplateForm
from medeval.models.transformers.model import Row, TransformersModel
from medeval.models.transformers.processor import load_processor, shown
from medeval.models.transformers.sampling import RowEnd
from medeval.rollout.conversation import roll_out
from medeval.rollout.protocol import EvalProtocol, Pair
from medeval.types.sample import ImageSource, JsonValue, Sample
from medeval.types.trajectory import ImageRef, Message, Text
from tests.families.checkpoint import Family, stock_model

# The tokens of a model's own before a call.
N_BEFORE_CALL = 6
# The calls of each sample in the arm with tools, each as the image it crops.
CALLS: Mapping[int, tuple[int, ...]] = {0: (), 1: (0,), 2: (0, 1), 3: (1,)}
SIZES_PX = {0: [(90, 60)], 1: [(64, 120)], 2: [(480, 160)], 3: [(80, 80), (60, 100)]}
CALL = (
    '<tool_call>\n{{"name": "crop_and_zoom", "arguments": '
    '{{"bbox_2d": [100, 200, {}, 800], "image_index": {}}}}}\n</tool_call>'
)


@dataclass(frozen=True, slots=True, eq=False)
class Turn:
    """One reply: the ids of its prompt, and its own up to a call or the end."""

    request: Request
    prompt: tuple[int, ...]
    reply: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What a checkpoint's conversations came to.

    `sees_images` says whether other images change a reply, `renders_tools` whether the chat
    template shows tools that are offered natively.
    """

    n_replies: int
    n_equal: int
    most_turns: int
    most_images: int
    sees_images: bool
    renders_tools: bool
    identity: Mapping[str, JsonValue]
    notes: tuple[str, ...]

    @property
    def form(self) -> TemplateForm:
        """The form in which the backend found that the template wants its messages."""
        return TypeAdapter(TemplateForm).validate_python(self.identity["chat_template_form"])

    @property
    def is_rendered_anew(self) -> bool:
        """Whether later turns did not keep the ids of earlier ones."""
        return any("tokenized anew" in note for note in self.notes)


def why_not_here(family: Family) -> str | None:
    """Why the stock processor does not load here, None where it does."""
    for package in family.needs:
        try:
            importlib.import_module(package)
        except (ImportError, RuntimeError) as error:
            return f"the stock processor needs {package}: {error}"
    return None


def compare(family: Family, directory: Path) -> Result:
    """Put the samples to the checkpoint in both arms, and each prompt to stock transformers."""
    model = WatchedModel(directory)
    identity, notes = asyncio.run(_put_samples(family, model))
    reference = Reference(family, directory)
    return Result(
        n_replies=len(model.turns),
        n_equal=sum(
            reference.reply(reference.inputs(turn), turn) == turn.reply for turn in model.turns
        ),
        most_turns=max(_n_replies_before(turn.request) for turn in model.turns) + 1,
        most_images=max(len(turn.request.images) for turn in model.turns),
        sees_images=reference.sees_images(model.turns[0]),
        renders_tools=reference.renders_tools(),
        identity=identity,
        notes=notes,
    )


class WatchedModel(TransformersModel):
    """The backend, with replies forced and noted."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.turns: list[Turn] = []

    def _logits_processors(self, rows: Sequence[Row], width: int) -> list[Any]:
        own = [_n_own(row.request) for row in rows]
        calls = [self._call_ids(row) for row in rows]
        force = partial(self._force, calls=calls, n_own=own, width=width)
        return [*super()._logits_processors(rows, width), force]

    def _force(
        self,
        input_ids: torch.Tensor,
        scores: torch.Tensor,
        *,
        calls: Sequence[list[int]],
        n_own: list[int],
        width: int,
    ) -> torch.Tensor:
        """Have each row write its call and its end after its own tokens, or instead of an end."""
        step, end = input_ids.shape[1] - width, self._started().processor.template.end_id
        for row, call in enumerate(calls):
            if scores[row].argmax() == end:
                n_own[row] = min(step, n_own[row])
            if step >= n_own[row]:
                scores[row] = -torch.inf
                scores[row, [*call, end][min(step - n_own[row], len(call))]] = 0.0
        return scores

    def _reply(self, row: Row, written: list[int], end: RowEnd) -> Reply:
        said = written[:-1] if end.reason == "end" else written
        call = self._call_ids(row)
        own = said[: -len(call)] if call and said[-len(call) :] == call else said
        self.turns.append(Turn(row.request, tuple(row.prompt.ids), tuple(own)))
        return super()._reply(row, written, end)

    def _call_ids(self, row: Row) -> list[int]:
        tokenizer = self._started().processor.template.tokenizer
        ids = tokenizer(_call(row.request), add_special_tokens=False)["input_ids"]
        return [int(one) for one in ids]


class Reference:
    """Stock transformers with one conversation at a time."""

    def __init__(self, family: Family, directory: Path) -> None:
        configuration = transformers.AutoConfig.from_pretrained(directory)
        self._family = family
        self._processor = load_processor(directory, configuration, trust_remote_code=False)
        self._tokenizer = getattr(self._processor, "tokenizer", self._processor)
        self._model = stock_model(directory)
        self._kinds: dict[tuple[int, ...], dict[str, list[int]]] = {}

    def inputs(self, turn: Turn) -> dict[str, torch.Tensor]:
        """What the stock processor makes of the conversation, with the replies as written.

        A reply seldom has the ids that its text is read as, so a later turn's ids are compared
        before the last reply with the earlier turn, and after it with the processor's.
        """
        messages = turn.request.messages
        inputs = self.read(messages, shown(messages, turn.request.images))
        read, prompt = inputs["input_ids"][0].tolist(), list(turn.prompt)
        kinds = {n: v[0].tolist() for n, v in inputs.items() if n.endswith("token_type_ids")}
        if read != prompt:
            assert turn.request.history is not None, "a first turn is not the stock processor's"
            past = turn.request.history.ids
            new = len(past) - len(prompt)
            assert tuple(prompt[:new]) == past
            assert prompt[new:] == read[new:], "what follows a reply is not the stock processor's"
            earlier = self._earlier(past)
            for name, values in kinds.items():
                before = self._kinds[earlier][name]
                kinds[name] = [*before, *[0] * (len(past) - len(before)), *values[new:]]
            inputs |= {name: torch.tensor([values]) for name, values in kinds.items()}
            inputs["input_ids"] = torch.tensor([prompt])
            inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
        self._kinds[turn.prompt] = kinds
        return inputs

    def read(
        self, messages: Sequence[Message], images: Sequence[Image.Image]
    ) -> dict[str, torch.Tensor]:
        """The stock processor's tensors for a conversation whose images are in order."""
        text = self._tokenizer.apply_chat_template(
            [_as_template_message(message, self._family) for message in self._merged(messages)],
            chat_template=self._family.template,
            add_generation_prompt=True,
            tokenize=False,
        )
        begins = self._family.begin is not None and text.startswith(self._family.begin)
        made = self._processor(
            text=[text],
            **({"images": [[*images]]} if images else {}),
            add_special_tokens=not begins,
            return_tensors="pt",
        )
        tensors = {
            name: torch.as_tensor(value) for name, value in made.items() if value is not None
        }
        return {
            name: value.float() if value.is_floating_point() else value
            for name, value in tensors.items()
        }

    def reply(self, inputs: Mapping[str, torch.Tensor], turn: Turn) -> tuple[int, ...]:
        """What `generate` writes of a turn's reply, without the end."""
        n_tokens = _n_own(turn.request)
        with torch.inference_mode():
            output = self._model.generate(
                **inputs,
                max_new_tokens=n_tokens,
                do_sample=False,
                stop_strings=[*turn.request.stop],
                tokenizer=self._tokenizer,
            )
        ids = output[0, inputs["input_ids"].shape[1] :].tolist()
        return tuple(one for one in ids if one != self._tokenizer.eos_token_id)

    def sees_images(self, turn: Turn) -> bool:
        """Whether the reply is another one with other images of the same size."""
        messages = turn.request.messages
        images = shown(messages, turn.request.images)
        other = [one.transpose(Image.Transpose.ROTATE_180) for one in images]
        inputs = self.read(messages, other)
        return self.reply(inputs, turn) != turn.reply

    def renders_tools(self) -> bool:
        """Whether the chat template shows tools that are offered natively."""
        question: dict[str, Any] = {"role": "user", "content": [{"type": "text", "text": "a"}]}
        tool = {"type": "function", "function": {"name": "crop", "parameters": {}}}
        bare, offered = (
            self._tokenizer.apply_chat_template(
                [question], tools=tools, chat_template=self._family.template, tokenize=False
            )
            for tools in (None, [tool])
        )
        return bool(bare != offered)

    def _earlier(self, past: tuple[int, ...]) -> tuple[int, ...]:
        """The longest earlier prompt that the ids begin with."""
        found = [prompt for prompt in self._kinds if past[: len(prompt)] == prompt]
        return max(found, key=len)

    def _merged(self, messages: Sequence[Message]) -> Sequence[Message]:
        if not self._family.form.merges_system:
            return messages
        system, first, *rest = messages
        content = (*system.content, Text("\n\n"), *first.content)
        return (replace(first, content=content), *rest)


async def _put_samples(
    family: Family, model: WatchedModel
) -> tuple[Mapping[str, JsonValue], tuple[str, ...]]:
    """Roll all samples out in both arms at once; the model's identity and notes."""
    pair = load("crop_zoom", Pair).value
    await model.start()
    try:
        rollouts = [
            _rolled_out(number, arm, model, sees_images=family.image is not None)
            for number in CALLS
            for arm in (pair.free, pair.available)
        ]
        await asyncio.gather(*rollouts)
        return model.identity(), model.notes()
    finally:
        await model.close()


async def _rolled_out(
    number: int, arm: EvalProtocol, model: WatchedModel, *, sees_images: bool
) -> None:
    sizes = SIZES_PX[number] if sees_images else []
    files = [_noise(10 * number + at, *size) for at, size in enumerate(sizes)]
    sample = Sample(
        id=f"s{number}",
        question=f"Question {number}?",
        targets=("A",),
        images=tuple(ImageSource(name="noise", read=partial(bytes, file)) for file in files),
    )
    pictures = [prepare(file, name="noise") for file in files]
    await roll_out(sample, pictures, arm, model)


def _noise(seed: int, width_px: int, height_px: int) -> bytes:
    pixels = random.Random(seed).randbytes(3 * width_px * height_px)
    buffer = io.BytesIO()
    Image.frombytes("RGB", (width_px, height_px), pixels).save(buffer, "PNG")
    return buffer.getvalue()


def _sample_number(request: Request) -> int:
    text = " ".join(message.text for message in request.messages)
    return int(text.split("Question ")[1].split("?")[0])


def _n_replies_before(request: Request) -> int:
    return sum(message.role == "assistant" for message in request.messages)


def _call(request: Request) -> str:
    """The call that the reply is forced to end in; empty where it is the model's own."""
    calls = CALLS[_sample_number(request)] if "<tools>" in request.messages[0].text else ()
    made = _n_replies_before(request)
    return CALL.format(400 + 100 * made, calls[made]) if made < len(calls) else ""


def _n_own(request: Request) -> int:
    """How many tokens of the reply are the model's own."""
    return N_BEFORE_CALL if _call(request) else 8 + 3 * _sample_number(request)


def _as_template_message(message: Message, family: Family) -> dict[str, Any]:
    parts = [
        {"type": "image"} if isinstance(part, ImageRef) else {"type": "text", "text": part.text}
        for part in message.content
    ]
    is_text = all(part["type"] == "text" for part in parts)
    content = message.text if is_text and not family.form.as_parts else parts
    return {"role": message.role, "content": content}
