import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from medeval import load
from medeval.definitions import Pair
from medeval.models.base import Reply, Request
from medeval.models.conversation_states import KeptStates
from medeval.models.transformers import TransformersModel
from medeval.rollout import Rollout, roll_out
from medeval.types import ImageRef, Message, Text
from tests.tiny_checkpoints import drawn_image, marker, request

PAIR = load("crop_zoom", Pair).value


class Seen:
    """What a model was given to compute, and the logits that each first token came from."""

    def __init__(self) -> None:
        self.widths: list[int] = []
        self.n_images: list[int] = []
        self.logits: list[torch.Tensor] = []

    def watch(self, model: Any) -> None:
        """Note each image that is encoded, and each pass over more than a token a row."""
        model.register_forward_hook(self._note_pass, with_kwargs=True)
        model.model.visual.register_forward_pre_hook(self._note_images, with_kwargs=True)

    def _note_pass(self, _: Any, __: Any, given: dict[str, Any], output: Any) -> None:
        if given["input_ids"].shape[1] > 1:
            self.widths.append(given["input_ids"].shape[1])
            self.logits.append(output.logits[0, -1])

    def _note_images(self, _: Any, __: Any, given: dict[str, Any]) -> None:
        self.n_images.append(len(given["grid_thw"]))


def with_model(
    path: Path, use: Callable[[TransformersModel, Seen], Awaitable[Any]], **options: Any
) -> Any:
    async def run() -> Any:
        model, seen = TransformersModel(path, **options), Seen()
        try:
            await model.start()
            seen.watch(inner(model))
            return await use(model, seen)
        finally:
            await model.close()

    return asyncio.run(run())


def inner(model: TransformersModel) -> Any:
    assert model._engine is not None
    return model._engine.model


def kept_bytes(model: TransformersModel) -> int:
    assert model._engine is not None
    return model._engine.conversations.n_bytes


async def are_gone(model: TransformersModel) -> bool:
    """Whether nothing is kept, once the batch's thread has let go of its results."""
    async with asyncio.timeout(10):
        while kept_bytes(model):
            await asyncio.sleep(0.01)
    return True


def after(asked: Request, reply: Reply, *, image: int | None, text: str = "Look.") -> Request:
    """The request after a reply, with a text and maybe one more image put before the model."""
    said = Message(role="assistant", content=(Text(reply.text),))
    place = () if image is None else (ImageRef(len(asked.images)),)
    drawn = () if image is None else (drawn_image(image, 50 + 40 * (image % 3)),)
    return replace(
        asked,
        messages=(*asked.messages, said, Message(role="user", content=(*place, Text(text)))),
        images=(*asked.images, *drawn),
        history=reply.history,
    )


async def conversation(
    model: TransformersModel, number: int, n_turns: int, **sampling: Any
) -> list[Reply]:
    """Turns of different lengths, with an image more in all but every third."""
    asked = request(
        "What is it? " * (1 + number),
        n_images=number % 3,
        seed=number,
        max_tokens=5 + 2 * number,
        **sampling,
    )
    replies = [await model.generate(asked)]
    for turn in range(1, n_turns):
        image = None if turn % 3 == 0 else 10 * number + turn
        asked = after(asked, replies[-1], image=image, text="And this? " * turn)
        replies.append(await model.generate(asked))
    return replies


def test_a_later_turn_computes_only_what_is_new(tiny_checkpoint: Path) -> None:
    async def use(model: TransformersModel, seen: Seen) -> tuple[list[Reply], Seen]:
        return await conversation(model, 2, 4), seen

    kept, with_states = with_model(tiny_checkpoint, use)
    anew, without = with_model(tiny_checkpoint, use, kept_bytes=0)
    assert [reply.text for reply in kept] == [reply.text for reply in anew]
    assert [reply.history for reply in kept] == [reply.history for reply in anew]
    assert [reply.usage for reply in kept] == [reply.usage for reply in anew]
    assert [reply.model_sizes for reply in kept] == [reply.model_sizes for reply in anew]
    for got, expected in zip(with_states.logits, without.logits, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)

    sizes = [reply.usage.prompt_tokens for reply in kept]
    assert (without.widths, without.n_images) == (sizes, [2, 3, 4, 4])
    # the last token that was written is computed with what follows it
    new = [
        later - (earlier.usage.prompt_tokens or 0) - (earlier.usage.completion_tokens or 0) + 1
        for later, earlier in zip(sizes[1:], kept, strict=False)
    ]
    assert (with_states.widths, with_states.n_images) == ([sizes[0], *new], [2, 1, 1])


@pytest.mark.parametrize("sampling", [{}, {"temperature": 1.0, "repetition_penalty": 1.3}])
def test_turns_of_different_conversations_go_together(
    tiny_checkpoint: Path, sampling: dict[str, float]
) -> None:
    async def at_once(model: TransformersModel, _: Seen) -> list[list[Reply]]:
        # from one to four turns: first turns are asked for beside later ones
        staggered = [conversation(model, number, 1 + number % 4, **sampling) for number in range(6)]
        first = asyncio.gather(*staggered[:3])
        await asyncio.sleep(0.05)
        return [*(await asyncio.gather(*staggered[3:])), *(await first)]

    async def in_turn(model: TransformersModel, _: Seen) -> list[list[Reply]]:
        order = (3, 4, 5, 0, 1, 2)
        return [await conversation(model, one, 1 + one % 4, **sampling) for one in order]

    together = with_model(tiny_checkpoint, at_once)
    alone = with_model(tiny_checkpoint, in_turn, kept_bytes=0)
    assert [[reply.text for reply in one] for one in together] == [
        [reply.text for reply in one] for one in alone
    ]


def test_equal_words_over_other_pictures_are_another_conversation(tiny_checkpoint: Path) -> None:
    asked = [replace(request("Why?", max_tokens=1), images=(drawn_image(one),)) for one in (1, 2)]

    async def use(model: TransformersModel, _: Seen) -> list[str]:
        first = await asyncio.gather(*map(model.generate, asked))
        histories = [reply.history for reply in first if reply.history is not None]
        # as though both had been given the same word
        same = [replace(histories[0], states=history.states) for history in histories]
        assert same[0] == same[1]
        later = [
            replace(after(one, first[0], image=5), history=history)
            for one, history in zip(asked, same, strict=True)
        ]
        longer = [replace(one, sampling=replace(one.sampling, max_tokens=9)) for one in later]
        return [reply.text for reply in await asyncio.gather(*map(model.generate, longer))]

    assert with_model(tiny_checkpoint, use) == with_model(tiny_checkpoint, use, kept_bytes=0)


def test_a_conversation_whose_states_made_room_computes_anew(tiny_checkpoint: Path) -> None:
    async def one_token(model: TransformersModel, _: Seen) -> tuple[int, int]:
        reply = await model.generate(request("Why?", max_tokens=2))
        assert reply.history is not None
        return kept_bytes(model), len(reply.history.ids) - 1

    n_bytes, n_tokens = with_model(tiny_checkpoint, one_token)
    room = n_bytes // n_tokens * 150

    async def use(model: TransformersModel, _: Seen) -> tuple[list[list[str]], int]:
        made = await asyncio.gather(*(conversation(model, number, 3) for number in range(5)))
        return [[reply.text for reply in one] for one in made], kept_bytes(model)

    tight, held = with_model(tiny_checkpoint, use, kept_bytes=room)
    assert 0 <= held <= room
    assert tight == with_model(tiny_checkpoint, use, kept_bytes=0)[0]


def runs_out_once(model: Any) -> None:
    def run_out(*_: Any) -> None:
        handle.remove()
        raise torch.OutOfMemoryError("no memory")

    handle = model.register_forward_pre_hook(run_out)


def test_memory_that_runs_out_is_made_by_dropping_what_others_keep(tiny_checkpoint: Path) -> None:
    async def use(model: TransformersModel, _: Seen) -> list[str]:
        first = [await model.generate(request("Why?", n_images=n)) for n in (1, 2)]
        asked = [after(request("Why?", n_images=n), first[n - 1], image=n) for n in (1, 2)]
        held = kept_bytes(model)
        if held:
            runs_out_once(inner(model))
        texts = [(await model.generate(asked[0])).text]
        assert (kept_bytes(model) == 0) == (held == 0)
        assert first[1].history is not None
        other = first[1].history.states
        assert other is None or (isinstance(other, KeptStates) and other.n_tokens == 0)
        return [*texts, (await model.generate(asked[1])).text]

    assert with_model(tiny_checkpoint, use) == with_model(tiny_checkpoint, use, kept_bytes=0)


def test_a_last_turn_keeps_nothing(tiny_checkpoint: Path) -> None:
    async def use(model: TransformersModel, _: Seen) -> tuple[int, int]:
        final = await model.generate(request("Why?", is_last=True))
        held = kept_bytes(model)
        going_on = await model.generate(request("Why?"))
        assert final.history == going_on.history
        return held, kept_bytes(model)

    held, more = with_model(tiny_checkpoint, use)
    assert held == 0 < more


def test_crop_conversations_are_what_they_are_without_kept_states(
    trained_checkpoint: Path,
) -> None:
    async def use(model: TransformersModel, seen: Seen) -> tuple[list[Rollout], bool, int]:
        samples = [marker(index) for index in range(20)]
        rolled = await asyncio.gather(
            *(
                roll_out(sample, [picture], arm, model)
                for arm in PAIR.arms
                for sample, picture in samples
            )
        )
        return rolled, await are_gone(model), sum(seen.n_images)

    kept, ended, n_images = with_model(trained_checkpoint, use)
    anew, _, n_images_anew = with_model(trained_checkpoint, use, kept_bytes=0)
    turns = [[turn.text for turn in one.trajectory.turns] for one in kept]
    assert turns == [[turn.text for turn in one.trajectory.turns] for one in anew]
    n_later = sum(len(one) - 1 for one in turns)
    assert n_later >= 5
    assert n_images == n_images_anew - n_later == sum(map(len, turns))
    assert ended
