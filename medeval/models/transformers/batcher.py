"""Collects requests from many coroutines into batches for one worker thread."""

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Generic, TypeVar

from medeval.errors import TransientModelError

Item = TypeVar("Item")
Result = TypeVar("Result")

MAX_STRETCH = 2.0


@dataclass(frozen=True, slots=True)
class _Waiting(Generic[Item, Result]):
    item: Item
    future: "asyncio.Future[Result]"


class Batcher(Generic[Item, Result]):
    """Runs the waiting items in batches of at most `max_size`.

    `run` is called in a worker thread, one batch at a time; it returns a result or an exception
    for each item, in order. A batch holds the oldest item and those nearest to it in `length`, none
    more than `MAX_STRETCH` times longer or shorter, because the items of a batch are padded to the
    longest. A batch waits for announced items, and then `settle_s` seconds for others.
    """

    def __init__(
        self,
        run: Callable[[list[Item]], list[Result | Exception]],
        *,
        max_size: int,
        length: Callable[[Item], int],
        settle_s: float = 0.005,
    ) -> None:
        self._run = run
        self._max_size = max_size
        self._length = length
        self._settle_s = settle_s
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="medeval-generate")
        self._waiting: list[_Waiting[Item, Result]] = []
        self._announced = 0
        self._changed = asyncio.Event()
        self._drain: asyncio.Task[None] | None = None
        self._is_closed = False

    @contextmanager
    def announced(self) -> Iterator[None]:
        """Announce that the block makes an item, for which the next batch waits."""
        self._announced += 1
        try:
            yield
        finally:
            self._announced -= 1
            self._changed.set()

    async def submit(self, item: Item) -> Result:
        """The result of one item; raises the exception that `run` returned for it."""
        loop = asyncio.get_running_loop()
        waiting: _Waiting[Item, Result] = _Waiting(item, loop.create_future())
        self._waiting.append(waiting)
        self._changed.set()
        if self._drain is None or self._drain.done():
            self._drain = loop.create_task(self._run_batches())
        return await waiting.future

    async def close(self) -> None:
        """Wait for the running batch, and end the thread; items that wait get an error."""
        self._is_closed = True
        await asyncio.to_thread(self._executor.shutdown, wait=True, cancel_futures=True)
        for one in self._waiting:
            if not one.future.done():
                one.future.set_exception(TransientModelError("the model was closed"))
        self._waiting = []

    async def _run_batches(self) -> None:
        self._changed = asyncio.Event()
        while self._waiting and not self._is_closed:
            await self._settle()
            if not self._is_closed:
                await self._run_batch()

    async def _run_batch(self) -> None:
        """Run one batch, without keeping references to its results, which may be large."""
        loop = asyncio.get_running_loop()
        batch = self._take()
        running = loop.run_in_executor(self._executor, self._run, [one.item for one in batch])
        await asyncio.wait([running])
        _deliver(batch, running)

    async def _settle(self) -> None:
        """Return when a batch is full or no more items are expected."""
        while len(self._waiting) < self._max_size:
            self._changed.clear()
            try:
                async with asyncio.timeout(None if self._announced else self._settle_s):
                    await self._changed.wait()
            except TimeoutError:
                return

    def _take(self) -> list[_Waiting[Item, Result]]:
        self._waiting = [one for one in self._waiting if not one.future.done()]
        if not self._waiting:
            return []
        oldest = self._length(self._waiting[0].item)
        stretch = {id(one): _stretch(self._length(one.item), oldest) for one in self._waiting}
        nearest = sorted(self._waiting, key=lambda one: stretch[id(one)])
        batch = [one for one in nearest[: self._max_size] if stretch[id(one)] <= MAX_STRETCH]
        taken = {id(one) for one in batch}
        self._waiting = [one for one in self._waiting if id(one) not in taken]
        return batch


def _stretch(one: int, other: int) -> float:
    """How many times longer the longer of two lengths is."""
    shorter, longer = sorted((one, other))
    return longer / max(1, shorter)


def _deliver(
    batch: list[_Waiting[Item, Result]],
    running: "asyncio.Future[list[Result | Exception]]",
) -> None:
    error = running.exception()
    results = [error] * len(batch) if error else running.result()
    for waiting, result in zip(batch, results, strict=True):
        if waiting.future.done():
            continue
        if isinstance(result, BaseException):
            waiting.future.set_exception(result)
        else:
            waiting.future.set_result(result)


def run_in_halves(
    run: Callable[[list[Item]], list[Result]],
    items: list[Item],
    *,
    exhausted: type[Exception],
    release: Callable[[], None],
) -> list[Result | Exception]:
    """Run items together; where that raises `exhausted`, run each half separately, and so on.

    `release` is called before each further try. An item that fails alone yields its exception.
    """
    try:
        return list(run(items))
    except exhausted as error:
        if len(items) == 1:
            return [error.with_traceback(None)]
    release()
    middle = len(items) // 2
    return [
        result
        for half in (items[:middle], items[middle:])
        for result in run_in_halves(run, half, exhausted=exhausted, release=release)
    ]
