import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

from medeval import load
from medeval.models.base import Reply, Request
from medeval.models.transformers.conversation_cache import KeptStates
from medeval.models.transformers.model import TransformersModel
from medeval.rollout.conversation import Rollout, roll_out
from medeval.rollout.protocol import Pair
from medeval.types.trajectory import ImageRef, Message, Text
from tests.tiny_checkpoints import drawn_image, marker, request

PAIR = load("crop_zoom", Pair).value


class Computed(NamedTuple):
    """A row of a batch when its reply begins."""

    n_known: int
    new_ids: tuple[int, ...]
    logits: torch.Tensor


class Seen:
    """What a model was given to compute, and the logits that each first token came from."""

    def __init__(self) -> None:
        self.widths: list[int] = []
        self.n_images: list[int] = []
        self.logits: list[torch.Tensor] = []
        self.batches: list[list[Computed]] = []

    def watch(self, model: Any) -> None:
        """Note each image that is encoded, and each pass over more than a token a row."""
        model.register_forward_hook(self._note_pass, with_kwargs=True)
        model.model.visual.register_forward_pre_hook(self._note_images, with_kwargs=True)

    def _note_pass(self, _: Any, __: Any, given: dict[str, Any], output: Any) -> None:
        if given["input_ids"].shape[1] > 1:
            self.widths.append(given["input_ids"].shape[1])
            self.logits.append(output.logits[0, -1])
            # a start that rows share is computed without
            if "position_ids" in given:
                self.batches.append(self._rows(given, output.logits[:, -1]))

    def _rows(self, given: dict[str, Any], logits: torch.Tensor) -> list[Computed]:
        ids, width = given["input_ids"], given["past_key_values"].get_seq_length()
        n_columns = width - ids.shape[1]
        # left out where nothing is hidden
        mask = given.get("attention_mask", torch.ones(len(ids), width)).bool()
        return [
            Computed(int(seen[:n_columns].sum()), tuple(new[seen[n_columns:]].tolist()), last)
            for new, seen, last in zip(ids, mask, logits, strict=True)
        ]

    @property
    def mixtures(self) -> list[list[Computed]]:
        """The batches in which some rows go on from what was kept and others from nothing."""
        return [
            rows
            for rows in self.batches
            if any(row.n_known for row in rows) and not all(row.n_known for row in rows)
        ]

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


def opening(number: int, **sampling: Any) -> Request:
    """The first request of a conversation, different in length from the others'."""
    return request(
        "What is it? " * (1 + number),
        n_images=number % 3,
        seed=number,
        max_tokens=5 + 2 * number,
        **sampling,
    )


async def continued(
    model: TransformersModel, number: int, asked: Request, replies: list[Reply], n_turns: int
) -> list[Reply]:
    """Turns of different lengths, with an image more in all but every third."""
    for turn in range(1, n_turns):
        image = None if turn % 3 == 0 else 10 * number + turn
        asked = after(asked, replies[-1], image=image, text="And this? " * turn)
        replies.append(await model.generate(asked))
    return replies


async def conversation(
    model: TransformersModel, number: int, n_turns: int, **sampling: Any
) -> list[Reply]:
    """A first turn and its later ones."""
    asked = opening(number, **sampling)
    return await continued(model, number, asked, [await model.generate(asked)], n_turns)


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
    # more turns than one begin first, and go on beside the others' first
    def asked(number: int) -> Request:
        return opening(number, **sampling)

    async def at_once(model: TransformersModel, seen: Seen) -> tuple[list[list[Reply]], Seen]:
        begun = [[await model.generate(asked(number))] for number in (1, 2, 3)]
        going_on = [
            continued(model, number, asked(number), replies, 1 + number)
            for number, replies in zip((1, 2, 3), begun, strict=True)
        ]
        return await asyncio.gather(conversation(model, 0, 1, **sampling), *going_on), seen

    async def in_turn(model: TransformersModel, seen: Seen) -> tuple[list[list[Reply]], Seen]:
        return [await conversation(model, one, 1 + one, **sampling) for one in range(4)], seen

    together, seen = with_model(tiny_checkpoint, at_once)
    alone, seen_alone = with_model(tiny_checkpoint, in_turn, kept_bytes=0)
    assert [[reply.text for reply in one] for one in together] == [
        [reply.text for reply in one] for one in alone
    ]
    assert max(map(len, seen.batches)) == 4
    assert seen.mixtures
    lone = [row for batch in seen_alone.batches for row in batch]
    assert len(lone) == len(seen_alone.batches)
    for row in (row for batch in seen.mixtures for row in batch):
        (same,) = [
            one
            for one in lone
            if one.new_ids[-len(row.new_ids) :] == row.new_ids
            and len(one.new_ids) == row.n_known + len(row.new_ids)
        ]
        torch.testing.assert_close(row.logits, same.logits, rtol=1e-4, atol=1e-4)


def test_a_turn_that_goes_on_from_much_is_no_batch_with_first_turns(tiny_checkpoint: Path) -> None:
    async def use(model: TransformersModel, seen: Seen) -> list[list[Computed]]:
        long = request("What is it? " * 100, max_tokens=2)
        later = after(long, await model.generate(long), image=None)
        seen.batches.clear()
        firsts = [request(f"Why {number}?", n_images=0, max_tokens=2) for number in range(4)]
        await asyncio.gather(*map(model.generate, [*firsts[:2], later, *firsts[2:]]))
        return seen.batches

    batches = with_model(tiny_checkpoint, use)
    assert sorted(map(len, batches)) == [1, 4]
    ((later,),) = [batch for batch in batches if len(batch) == 1]
    # what there is to compute would not part them
    n_new = [len(row.new_ids) for batch in batches for row in batch]
    assert max(n_new) <= 2 * min(n_new)
    assert later.n_known > 8 * max(n_new)


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
