import asyncio
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medeval.models.transformers.batcher import Batcher, run_in_halves


class FullError(Exception):
    pass


def collected(items: list[int], *, max_size: int) -> list[list[int]]:
    """The batches in which items of these lengths are run."""
    batches: list[list[int]] = []

    def run(batch: list[int]) -> list[int | Exception]:
        batches.append(batch)
        return [-item for item in batch]

    async def use() -> None:
        batcher = Batcher[int, int](run, max_size=max_size, length=lambda item: item)
        results = await asyncio.gather(*map(batcher.submit, items))
        assert results == [-item for item in items]
        await batcher.close()

    asyncio.run(use())
    return batches


def test_whatever_waits_is_one_batch() -> None:
    assert collected([3, 4, 5], max_size=8) == [[3, 4, 5]]


def test_the_oldest_goes_first_with_those_of_like_length() -> None:
    assert collected([50, 30, 52, 31], max_size=2) == [[50, 52], [30, 31]]


def test_a_batch_is_not_padded_to_over_twice_a_length() -> None:
    assert collected([10, 30, 20, 5, 21], max_size=8) == [[10, 20, 5], [30, 21]]


def test_one_failure_is_its_own_and_a_broken_batch_everyones() -> None:
    def run(batch: list[int]) -> list[int | Exception]:
        if 9 in batch:
            raise KeyError("broken")
        return [ValueError("bad") if item < 0 else item for item in batch]

    async def use() -> None:
        batcher = Batcher[int, int](run, max_size=2, length=lambda item: abs(item))
        good, bad = await asyncio.gather(
            batcher.submit(1), batcher.submit(-1), return_exceptions=True
        )
        assert good == 1
        assert isinstance(bad, ValueError)
        with pytest.raises(KeyError):
            await batcher.submit(9)
        assert await batcher.submit(2) == 2
        await batcher.close()

    asyncio.run(use())


def test_a_batch_waits_for_what_is_announced() -> None:
    sizes: list[int] = []

    def run(batch: list[int]) -> list[int | Exception]:
        sizes.append(len(batch))
        return list(batch)

    async def use() -> None:
        batcher = Batcher[int, int](run, max_size=4, length=lambda _: 1, settle_s=0.001)

        async def late(item: int) -> None:
            with batcher.announced():
                await asyncio.sleep(0.05 * item)
            await batcher.submit(item)

        await asyncio.gather(*(late(item) for item in range(4)))
        await batcher.close()

    asyncio.run(use())
    assert sizes == [4]


def test_a_cancelled_request_is_not_run() -> None:
    seen: list[int] = []
    go_on = threading.Event()

    def run(batch: list[int]) -> list[int | Exception]:
        seen.extend(batch)
        go_on.wait(5)
        return list(batch)

    async def use() -> None:
        batcher = Batcher[int, int](run, max_size=1, length=int, settle_s=0.001)
        first, second = (asyncio.create_task(batcher.submit(item)) for item in (1, 2))
        await asyncio.sleep(0.05)
        second.cancel()
        first.cancel()
        go_on.set()
        await asyncio.gather(first, second, return_exceptions=True)
        assert await batcher.submit(3) == 3
        await batcher.close()

    asyncio.run(use())
    assert seen == [1, 3]


def test_a_batcher_serves_one_event_loop_after_another() -> None:
    batcher = Batcher[int, int](lambda batch: list(batch), max_size=2, length=int)
    assert [asyncio.run(batcher.submit(item)) for item in (1, 2)] == [1, 2]
    asyncio.run(batcher.close())


@given(items=st.lists(st.integers(1, 9), min_size=1), room=st.integers(1, 20))
def test_halves_run_every_item_that_fits_alone(items: list[int], room: int) -> None:
    def run(some: list[int]) -> list[int]:
        if sum(some) > room:
            raise FullError
        return some

    released: list[None] = []
    results = run_in_halves(run, items, exhausted=FullError, release=lambda: released.append(None))
    assert [result if isinstance(result, int) else None for result in results] == [
        item if item <= room else None for item in items
    ]
    assert all(isinstance(result, int | FullError) for result in results)
    assert bool(released) == (sum(items) > room and len(items) > 1)


def test_items_that_wait_when_it_is_closed_get_an_error() -> None:
    begun, go_on = threading.Event(), threading.Event()

    def run(items: list[int]) -> list[int | Exception]:
        begun.set()
        go_on.wait(10)
        return list(items)

    async def use() -> list[object]:
        batcher = Batcher[int, int](run, max_size=1, length=lambda _: 1)
        asked = [asyncio.create_task(batcher.submit(number)) for number in range(3)]
        await asyncio.to_thread(begun.wait, 10)
        closing = asyncio.create_task(batcher.close())
        await asyncio.sleep(0.05)
        go_on.set()
        await closing
        return await asyncio.gather(*asked, return_exceptions=True)

    first, *others = asyncio.run(use())
    assert first == 0
    assert [str(one) for one in others] == ["the model was closed"] * 2
