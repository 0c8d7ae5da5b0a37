import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from medeval.images.made_room import BYTES_A_PIXEL, MadeRoom, Share
from medeval.images.memory import Holding
from medeval.images.picture import prepare
from medeval.images.resize import PixelBudget
from medeval.models.base import Request
from medeval.models.scripted import ScriptedModel
from medeval.rollout.conversation import roll_out
from medeval.rollout.protocol import EvalProtocol
from medeval.tools.base import ToolContext
from medeval.tools.function import tool
from medeval.tools.rotate_flip import rotate
from medeval.types.sample import ImageSource, Sample
from tests.tiny_checkpoints import drawn_image

TURN = '<tool_call>\n{"name": "rotate", "arguments": {"angle": 90}}\n</tool_call>'


async def converse(room: MadeRoom, images: list[int], seen: list[int]) -> None:
    """Make images of so many pixels, each of which takes all that was set aside for it."""
    with room.share() as share:
        for pixels in images:
            set_aside = await share.set_aside(pixels)
            seen.append(room.held_bytes)
            await asyncio.sleep(0)
            share.made(set_aside, set_aside)
            await asyncio.sleep(0)


IMAGES = st.lists(st.lists(st.integers(1, 50), max_size=5), min_size=1, max_size=12)


@given(conversations=IMAGES, limit_px=st.integers(1, 120))
@settings(max_examples=150)
def test_all_conversations_end_and_hold_at_most_the_limit_and_what_one_of_them_takes(
    conversations: list[list[int]], limit_px: int
) -> None:
    async def run() -> list[int]:
        room, seen = MadeRoom(BYTES_A_PIXEL * limit_px), [0]
        work = asyncio.gather(*(converse(room, images, seen) for images in conversations))
        await asyncio.wait_for(work, 20)
        assert room.held_bytes == 0
        return seen

    largest_px = max(map(sum, conversations))
    assert max(asyncio.run(run())) <= BYTES_A_PIXEL * (limit_px + largest_px)


def in_line(room: MadeRoom, n: int) -> list[asyncio.Task[int]]:
    """Conversations that each ask for one image of 10 pixels, in order."""
    return [asyncio.create_task(Share(room).set_aside(10)) for _ in range(n)]


def test_room_is_given_in_the_order_of_first_calls_and_to_the_first_at_once() -> None:
    async def run() -> None:
        room = MadeRoom(BYTES_A_PIXEL * 10)
        with room.share() as first, room.share() as second:
            first.made(await first.set_aside(10), BYTES_A_PIXEL * 10)
            asks = asyncio.create_task(second.set_aside(5))
            others = in_line(room, 2)
            await asyncio.sleep(0.01)
            assert not any(task.done() for task in (asks, *others)), "the room is full"
            again = await asyncio.wait_for(first.set_aside(30), 5)
            first.made(again, 0)
            await asyncio.sleep(0.01)
            assert not asks.done()
            first.made(0, -first.held_bytes)
            await asyncio.sleep(0.01)
            assert asks.done()
            assert not any(task.done() for task in others)
        await asyncio.sleep(0.01)
        assert [task.done() for task in others] == [True, False]
        others[1].cancel()
        await asyncio.gather(*others, return_exceptions=True)

    asyncio.run(run())


def test_a_conversation_that_is_dropped_while_it_waits_keeps_nobody_waiting() -> None:
    async def run() -> None:
        room = MadeRoom(BYTES_A_PIXEL * 10)
        seen: list[int] = []
        tasks = [asyncio.create_task(converse(room, [10, 10], seen)) for _ in range(4)]
        await asyncio.sleep(0)
        tasks[1].cancel()
        tasks[2].cancel()
        await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 20)
        assert room.held_bytes == 0

    asyncio.run(run())


def test_small_images_made_of_large_ones_wait_for_each_other_only_until_the_first_is_made() -> None:
    async def run() -> None:
        room = MadeRoom(BYTES_A_PIXEL * 10)
        shares = [Share(room) for _ in range(8)]
        asks = [asyncio.create_task(share.set_aside(10)) for share in shares]
        await asyncio.sleep(0.01)
        assert [task.done() for task in asks] == [True] + 7 * [False]
        shares[0].made(await asks[0], 2)
        await asyncio.sleep(0.01)
        assert [await task for task in asks[1:]] == 7 * [2]
        for share in shares[1:]:
            share.made(2, 1)
        assert room.held_bytes == 2 + 7

    asyncio.run(run())


TURNING = EvalProtocol(
    name="turning",
    user="$question",
    system="$tools",
    call_syntax="hermes",
    tools=(rotate(),),
    max_calls=4,
    max_generations=5,
)


async def most_held(n: int, limit_bytes: int) -> tuple[int, int]:
    """The most bytes that so many conversations of four rotations held, and what one takes."""
    room, picture = MadeRoom(limit_bytes), prepare(drawn_image(0).data, name="a")
    image = ImageSource(name="a", read=lambda: b"")
    sample = Sample(id="a", question="?", images=(image,), targets=())
    seen: list[int] = []

    def turn(request: Request) -> str:
        seen.append(room.held_bytes)
        return TURN

    model = ScriptedModel(turn, latency_s=0.005)
    rollouts = await asyncio.gather(
        *(roll_out(sample, (picture,), TURNING, model, made_room=room) for _ in range(n))
    )
    assert room.held_bytes == 0
    assert all(len(rollout.made) == 4 for rollout in rollouts)
    return max(seen), sum(made.held_bytes for made in rollouts[0].made.values())


@pytest.mark.parametrize("n_of_one", [0, 2, 100])
def test_what_tools_make_in_many_conversations_is_bounded_and_all_of_them_end(
    n_of_one: int,
) -> None:
    _, one = asyncio.run(most_held(1, 0))
    most, _ = asyncio.run(most_held(12, n_of_one * one))
    assert most <= (n_of_one + 1) * one
    assert most <= 12 * one


def same(image: Image.Image) -> Image.Image:
    """The same again."""
    return image


def test_pixels_that_stay_decoded_are_counted() -> None:
    small = PixelBudget(min_px=16, max_px=256, factor=4)
    parent = prepare(drawn_image(0).data, name="a")
    made = tool(same, budget=small).run({}, ToolContext(pictures=(parent,), frame="permille"))
    assert made.picture.sent != made.picture.raw
    assert made.picture.held_bytes == len(made.picture.encoded.data) + 4 * parent.raw.area_px


def test_tools_have_as_much_room_as_the_images_of_samples() -> None:
    assert Holding.of_places(64).made.limit_bytes == 256 << 20
