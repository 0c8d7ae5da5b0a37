import asyncio
from collections.abc import Callable
from contextlib import ExitStack

import pytest

from medeval.errors import DataError
from medeval.evaluation.sample_loop import NotStartedError, SampleImages
from medeval.images.memory import MemoryBudget
from medeval.images.resize import PixelBudget
from medeval.rollout.protocol import EvalProtocol
from medeval.types.sample import ImageSource, Sample
from tests.tiny_checkpoints import drawn_image

DATA = drawn_image(0).encoded()
AS_IT_IS = EvalProtocol(name="as_it_is", user="$question", call_syntax="hermes")
SMALL = EvalProtocol(
    name="small",
    user="$question",
    call_syntax="hermes",
    pixel_budget=PixelBudget(min_px=16, max_px=256, factor=4),
)


class Reads:
    """A sample's only image, and the number of times it was read."""

    def __init__(self, data: bytes = DATA) -> None:
        self.count = 0
        self._data = data

    def __call__(self) -> bytes:
        self.count += 1
        return self._data

    @property
    def sample(self) -> Sample:
        return Sample(
            id="a", question="?", images=(ImageSource(name="a.png", read=self),), targets=()
        )


def shared(
    reads: Reads,
    memory: MemoryBudget,
    n_conversations: int = 1,
    is_over: Callable[[], bool] = lambda: False,
) -> SampleImages:
    return SampleImages(
        reads.sample, memory, n_conversations=n_conversations, cache=None, is_over=is_over
    )


def test_images_are_read_once_for_all_conversations_of_a_size_and_anew_for_another() -> None:
    reads = Reads()

    async def use() -> None:
        images = shared(reads, MemoryBudget(10**9), n_conversations=4)
        for protocol in (AS_IT_IS, SMALL, AS_IT_IS, SMALL):
            async with images.for_conversation(protocol) as ((picture,), _):
                assert (picture.sent == picture.raw) is (protocol is AS_IT_IS)

    asyncio.run(use())
    assert reads.count == 2


def test_bytes_are_held_until_the_last_conversation_and_a_skipped_one_counts() -> None:
    async def use() -> None:
        memory = MemoryBudget(10**9)
        images = shared(Reads(), memory, n_conversations=3)
        for protocol in (AS_IT_IS, AS_IT_IS):
            async with images.for_conversation(protocol):
                assert memory.held_bytes == len(DATA)
        assert memory.held_bytes == len(DATA)
        images.skip()
        assert memory.held_bytes == 0

    asyncio.run(use())


def test_a_resized_image_holds_its_file_as_well() -> None:
    async def use() -> None:
        memory = MemoryBudget(10**9)
        async with shared(Reads(), memory).for_conversation(SMALL) as ((picture,), _):
            assert memory.held_bytes == len(DATA) + len(picture.sent_image.encoded())

    asyncio.run(use())


async def most_under_way(memory: MemoryBudget, n: int, n_conversations: int = 1) -> int:
    """How many of `n` conversations run at once if each waits until no other can start."""
    under_way = most = 0

    async def converse() -> None:
        nonlocal under_way, most
        images = shared(Reads(), memory, n_conversations=n_conversations)
        for _ in range(n_conversations):
            async with images.for_conversation(AS_IT_IS):
                under_way += 1
                most = max(most, under_way)
                await asyncio.sleep(0.05)
                under_way -= 1

    await asyncio.gather(*(converse() for _ in range(n)))
    assert memory.held_bytes == 0
    return most


@pytest.mark.parametrize(
    ("limit", "expected"),
    [(len(DATA) * 6, 3), (len(DATA) * 2, 1), (2, 1), (len(DATA) * 100, 12)],
)
def test_samples_hold_no_more_than_half_of_the_budget_but_one_may_always_begin(
    limit: int, expected: int
) -> None:
    assert asyncio.run(most_under_way(MemoryBudget(limit), 12)) == expected


def test_samples_that_wait_for_their_other_arm_do_not_keep_all_from_going_on() -> None:
    assert asyncio.run(most_under_way(MemoryBudget(2 * len(DATA)), 6, n_conversations=2)) >= 1


def test_the_first_images_are_read_alone_for_nobody_knows_how_large_they_are() -> None:
    async def use() -> tuple[int, int]:
        memory = MemoryBudget(2000)
        with ExitStack() as stack:
            waiting = [
                asyncio.create_task(
                    memory.reserve_for_sample(stack.enter_context(memory.conversation()))
                )
                for _ in range(64)
            ]
            await asyncio.sleep(0.01)
            n_first = sum(task.done() for task in waiting)
            memory.sample_read(await waiting[0], 100)
            await asyncio.sleep(0.01)
            n_then = sum(task.done() for task in waiting)
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)
        return n_first, n_then

    assert asyncio.run(use()) == (1, 10)


def test_who_waits_for_room_when_all_is_over_reads_nothing_and_nothing_stays_held() -> None:
    is_over = False
    reads = [Reads() for _ in range(6)]

    async def use() -> int:
        nonlocal is_over
        memory = MemoryBudget(2 * len(DATA))
        n_begun = 0

        async def converse(of: Reads) -> None:
            nonlocal n_begun
            async with shared(of, memory, is_over=lambda: is_over).for_conversation(AS_IT_IS):
                n_begun += 1
                await asyncio.sleep(0.05)

        tasks = [asyncio.create_task(converse(of)) for of in reads]
        while not n_begun:
            await asyncio.sleep(0.005)
        is_over = True
        ends = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 20)
        assert [type(end) for end in ends] == [type(None), *[NotStartedError] * 5]
        assert memory.held_bytes == 0
        return n_begun

    assert asyncio.run(use()) == 1
    assert [of.count for of in reads] == [1, 0, 0, 0, 0, 0]


def failing() -> bytes:
    raise DataError("no such file")


@pytest.mark.parametrize("read", [failing, lambda: b"no image"])
def test_an_image_that_cannot_be_read_leaves_nothing_held(read: Callable[[], bytes]) -> None:
    async def use() -> None:
        memory = MemoryBudget(1000)
        sample = Sample(
            id="a", question="?", images=(ImageSource(name="a", read=read),), targets=()
        )
        images = SampleImages(sample, memory, n_conversations=2, is_over=lambda: False)
        for _ in range(2):
            with pytest.raises(DataError):
                async with images.for_conversation(AS_IT_IS):
                    pass
        assert memory.held_bytes == 0

    asyncio.run(use())
