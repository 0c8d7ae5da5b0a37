import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from medeval import load
from medeval.models.base import Reply, Request
from medeval.models.transformers.model import Row, TransformersModel
from medeval.rollout.conversation import roll_out
from medeval.rollout.protocol import Pair
from medeval.types.trajectory import ImageRef, Message, Text
from tests.tiny_checkpoints import drawn_image, marker, request

PAIR = load("crop_zoom", Pair).value


class Watched(TransformersModel):
    """The model, and the rows of each of its batches."""

    batches: list[list[Row]]

    def _generate_together(self, rows: list[Row]) -> list[Reply]:
        self.batches.append(rows)
        return super()._generate_together(rows)


def with_model(path: Path, use: Callable[[Watched], Awaitable[Any]], **options: Any) -> Any:
    async def run() -> Any:
        model = Watched(path, **options)
        model.batches = []
        try:
            await model.start()
            return await use(model)
        finally:
            await model.close()

    return asyncio.run(run())


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


async def conversation(model: Watched, number: int, n_turns: int, **sampling: Any) -> list[Reply]:
    """A first turn and later ones, with an image more in all but every third."""
    asked = opening(number, **sampling)
    replies = [await model.generate(asked)]
    for turn in range(1, n_turns):
        image = None if turn % 3 == 0 else 10 * number + turn
        asked = after(asked, replies[-1], image=image, text="And this? " * turn)
        replies.append(await model.generate(asked))
    return replies


@pytest.mark.parametrize("sampling", [{}, {"temperature": 1.0, "repetition_penalty": 1.3}])
def test_turns_of_different_conversations_go_together(
    tiny_checkpoint: Path, sampling: dict[str, float]
) -> None:
    async def at_once(model: Watched) -> tuple[list[list[Reply]], int]:
        asked = (conversation(model, number, 1 + number, **sampling) for number in range(4))
        return await asyncio.gather(*asked), max(map(len, model.batches))

    async def in_turn(model: Watched) -> tuple[list[list[Reply]], int]:
        said = [await conversation(model, number, 1 + number, **sampling) for number in range(4)]
        return said, max(map(len, model.batches))

    (together, largest), (alone, single) = (
        with_model(tiny_checkpoint, use) for use in (at_once, in_turn)
    )
    assert largest >= 3 and single == 1
    histories = [[[reply.history for reply in one] for one in all_] for all_ in (together, alone)]
    assert histories[0] == histories[1]


def test_a_later_turn_keeps_no_image_between_turns(tiny_checkpoint: Path) -> None:
    async def use(model: Watched) -> Reply:
        return await model.generate(request("Why?", n_images=2))

    reply = with_model(tiny_checkpoint, use)
    assert not reply.history.states.images


def test_equal_words_over_other_pictures_are_another_conversation(tiny_checkpoint: Path) -> None:
    async def use(model: Watched) -> list[str]:
        texts = []
        for image in (1, 4):
            asked = request("What?", temperature=1.0)
            reply = await model.generate(asked)
            texts.append((await model.generate(after(asked, reply, image=image))).text)
        return texts

    first, second = with_model(tiny_checkpoint, use)
    assert first != second


def test_crop_conversations_are_extended_token_by_token(trained_checkpoint: Path) -> None:
    async def use(model: Watched) -> list[list[Row]]:
        samples = [marker(index) for index in range(20)]
        arms = [
            roll_out(sample, [picture], arm, model)
            for arm in PAIR.arms
            for sample, picture in samples
        ]
        await asyncio.gather(*arms)
        return model.batches

    later = [row for batch in with_model(trained_checkpoint, use) for row in batch]
    later = [row for row in later if row.request.history is not None]
    assert len(later) >= 5
    for row in later:
        assert row.request.history is not None
        earlier = row.request.history.ids
        assert row.prompt.ids[: len(earlier)] == earlier
        assert row.prompt.n_images == 2


def test_rows_start_together_where_that_gives_the_same_logits(tiny_checkpoint: Path) -> None:
    async def use(model: Watched) -> tuple[list[tuple[int, ...]], list[Reply], list[Reply]]:
        asked = [request("What is it? " * 40, "Where?", n_images=n) for n in (1, 2)]
        long = [
            replace(
                one,
                messages=(
                    replace(one.messages[0], content=(Text("Look. " * 50),)),
                    *one.messages[1:],
                ),
            )
            for one in asked
        ]
        together = await asyncio.gather(*map(model.generate, long))
        alone = [await model.generate(one) for one in long]
        assert model._engine is not None
        return list(model._engine.starts._known), together, alone

    starts, together, alone = with_model(tiny_checkpoint, use)
    # one of the trial when the model was loaded, one of the two requests
    assert len(starts) == 2 and min(map(len, starts)) >= 32
    assert [reply.history for reply in together] == [reply.history for reply in alone]
