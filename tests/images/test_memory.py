import asyncio
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from medeval.images.memory import (
    DECODED_BYTES_A_PIXEL,
    MIN_BYTES,
    DecodingBudget,
    MemoryBudget,
)
from medeval.images.picture import prepare
from medeval.images.resize import PixelBudget
from medeval.models.base import Request
from medeval.models.scripted import ScriptedModel
from medeval.rollout.conversation import Rollout, roll_out
from medeval.rollout.protocol import EvalProtocol
from medeval.tools.base import ToolContext
from medeval.tools.function import tool
from medeval.tools.rotate_flip import rotate
from medeval.types.sample import ImageSource, Sample
from tests.medeval_processes import ROOT
from tests.tiny_checkpoints import drawn_image

PILLOW_MEMORY = """
from PIL import Image

from medeval.images.memory import DecodingBudget

DecodingBudget()
print(Image.core.get_block_size() >> 20)
"""


def most_at_once(budget: DecodingBudget, sizes: list[int], n_threads: int = 8) -> int:
    """The largest number of pixels that were decoded at one time."""
    lock, inside, most = threading.Lock(), 0, 0

    def work(pixels: int) -> None:
        nonlocal inside, most
        with budget.taken(pixels):
            with lock:
                inside += pixels
                most = max(most, inside)
            threading.Event().wait(0.002)
            with lock:
                inside -= pixels

    with ThreadPoolExecutor(n_threads) as pool:
        list(pool.map(work, sizes))
    return most


@pytest.mark.parametrize("sizes", [[30] * 20, [100, 1, 1, 1, 100, 50, 50, 60], [1] * 40])
def test_no_more_pixels_are_decoded_at_once_than_the_limit(sizes: list[int]) -> None:
    assert most_at_once(DecodingBudget(100), sizes) <= 100


def test_small_images_are_decoded_side_by_side() -> None:
    barrier = threading.Barrier(8, timeout=20)
    budget = DecodingBudget(100)

    def meet(pixels: int) -> None:
        with budget.taken(pixels):
            barrier.wait()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(meet, [10] * 8))


def test_an_image_larger_than_the_limit_is_decoded_alone() -> None:
    assert most_at_once(DecodingBudget(10), [500, 5, 500, 5]) == 500


def test_an_error_leaves_the_limit_as_it_was() -> None:
    budget = DecodingBudget(10)
    with pytest.raises(ValueError, match="damaged"), budget.taken(10):
        raise ValueError("damaged")
    with budget.taken(10):
        pass


@pytest.mark.parametrize(("own", "expected"), [({}, "64"), ({"PILLOW_BLOCK_SIZE": "32m"}, "32")])
def test_pillow_holds_large_blocks_unless_its_variable_says_otherwise(
    own: dict[str, str], expected: str
) -> None:
    others = {name: value for name, value in os.environ.items() if not name.startswith("PILLOW_")}
    shown = subprocess.run(
        [sys.executable, "-c", PILLOW_MEMORY],
        env={**others, **own},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout
    assert shown.strip() == expected


async def converse(budget: MemoryBudget, sample_bytes: int, made: list[int]) -> int:
    """The most bytes held by a sample and tool images of the given sizes in pixels."""
    most = 0
    with budget.conversation() as conversation:
        reserved = await budget.reserve_for_sample(conversation)
        await asyncio.sleep(0)
        budget.sample_read(reserved, sample_bytes)
        for pixels in made:
            most = max(most, budget.held_bytes)
            reserved = await conversation.reserve(pixels)
            await asyncio.sleep(0)
            conversation.image_made(reserved, reserved)
            await asyncio.sleep(0)
        most = max(most, budget.held_bytes)
    budget.release(sample_bytes)
    return most


MADE = st.lists(st.lists(st.integers(1, 50), max_size=5), min_size=1, max_size=12)


@given(sample_px=st.integers(1, 50), made=MADE, limit_px=st.integers(1, 120))
@settings(max_examples=150)
def test_all_conversations_end_and_hold_at_most_the_limit_and_the_images_of_one(
    sample_px: int, made: list[list[int]], limit_px: int
) -> None:
    async def run() -> list[int]:
        budget = MemoryBudget(DECODED_BYTES_A_PIXEL * limit_px)
        work = asyncio.gather(
            *(converse(budget, DECODED_BYTES_A_PIXEL * sample_px, sizes) for sizes in made)
        )
        most = await asyncio.wait_for(work, 20)
        assert budget.held_bytes == 0
        return most

    of_one = sample_px + max(map(sum, made))
    assert max(asyncio.run(run())) <= DECODED_BYTES_A_PIXEL * (limit_px + of_one)


def test_the_conversation_that_began_first_never_waits_and_others_wait_for_room() -> None:
    async def run() -> None:
        budget = MemoryBudget(DECODED_BYTES_A_PIXEL * 10)
        with budget.conversation() as first, budget.conversation() as second:
            first.image_made(await first.reserve(10), DECODED_BYTES_A_PIXEL * 10)
            waiting = asyncio.create_task(second.reserve(5))
            again = await asyncio.wait_for(first.reserve(30), 5)
            await asyncio.sleep(0.01)
            assert not waiting.done(), "the budget is full"
            first.image_made(again, 0)
            first.image_made(0, -DECODED_BYTES_A_PIXEL * 5)
            assert await asyncio.wait_for(waiting, 5) == DECODED_BYTES_A_PIXEL * 5

    asyncio.run(run())


def test_samples_leave_half_of_the_budget_to_tools() -> None:
    async def run() -> None:
        budget = MemoryBudget(DECODED_BYTES_A_PIXEL * 20)
        with budget.conversation() as first, budget.conversation() as second:
            budget.sample_read(await budget.reserve_for_sample(first), DECODED_BYTES_A_PIXEL * 10)
            waiting = asyncio.create_task(budget.reserve_for_sample(second))
            assert await asyncio.wait_for(second.reserve(10), 5) == DECODED_BYTES_A_PIXEL * 10
            assert not waiting.done()
            waiting.cancel()

    asyncio.run(run())


def test_a_conversation_that_is_cancelled_while_it_waits_keeps_nobody_waiting() -> None:
    async def run() -> None:
        budget = MemoryBudget(DECODED_BYTES_A_PIXEL * 10)
        tasks = [asyncio.create_task(converse(budget, 9, [10, 10])) for _ in range(4)]
        await asyncio.sleep(0)
        tasks[1].cancel()
        tasks[2].cancel()
        await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 20)
        assert budget.held_bytes == 0

    asyncio.run(run())


TURN = '<tool_call>\n{"name": "rotate", "arguments": {"angle": 90}}\n</tool_call>'
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
    """The most bytes that conversations of four rotations held, and the bytes of one of them."""
    budget, picture = MemoryBudget(limit_bytes), prepare(drawn_image(0).encoded(), name="a")
    image = ImageSource(name="a", read=lambda: b"")
    sample = Sample(id="a", question="?", images=(image,), targets=())
    seen: list[int] = []

    def turn(request: Request) -> str:
        seen.append(budget.held_bytes)
        return TURN

    model = ScriptedModel(turn, latency_s=0.005)

    async def one() -> Rollout:
        with budget.conversation() as memory:
            return await roll_out(sample, (picture,), TURNING, model, memory=memory)

    rollouts = await asyncio.gather(*(one() for _ in range(n)))
    assert budget.held_bytes == 0
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
    """The same image."""
    return image


def test_pixels_that_stay_decoded_are_counted() -> None:
    small = PixelBudget(min_px=16, max_px=256, factor=4)
    parent = prepare(drawn_image(0).encoded(), name="a")
    made = tool(same, budget=small).run({}, ToolContext(pictures=(parent,), frame="permille"))
    assert made.picture.sent != made.picture.raw
    sent_px, raw_px = made.picture.sent.area_px, parent.raw.area_px
    assert made.picture.held_bytes == 4 * sent_px + 4 * raw_px
    png = made.picture.sent_image.encoded()
    assert made.picture.held_bytes == len(png) + 4 * raw_px


def test_an_image_that_the_engine_encodes_is_counted_by_its_png_from_then_on() -> None:
    budget, picture = MemoryBudget(10**9), prepare(drawn_image(0).encoded(), name="a")
    image = ImageSource(name="a", read=lambda: b"")
    sample = Sample(id="a", question="?", images=(image,), targets=())
    held: list[int] = []
    png: list[int] = []

    def reply(request: Request) -> str:
        held.append(budget.held_bytes)
        png.extend(len(made.encoded()) for made in request.images[1:] if not made.is_encoded)
        return TURN

    async def converse() -> None:
        with budget.conversation() as memory:
            await roll_out(sample, (picture,), TURNING, ScriptedModel(reply), memory=memory)

    asyncio.run(converse())
    pixels = 4 * picture.raw.area_px
    assert held == [0, *(sum(png[:n]) + pixels for n in range(4))]


def test_a_conversation_has_eight_megabytes_and_a_few_conversations_have_enough() -> None:
    assert MemoryBudget.of_conversations(64).limit_bytes == 512 << 20
    assert MemoryBudget.of_conversations(1).limit_bytes == MIN_BYTES
