"""How many requests a server is sent at once: all there are, until it says that it has too many."""

import asyncio
import math
from collections import deque
from collections.abc import Awaitable, Callable
from typing import TypeVar

from medeval.errors import OverloadedModelError

# What is left of the requests at once after one was refused, and after one had no answer in time.
AFTER_REFUSAL = 0.85
AFTER_TIME_OUT = 0.5
# Places more a round trip where one more may be too many.
SLOWEST_GROWTH = 0.5

Result = TypeVar("Result")


class Places:
    """Places at a server, one for each request that is under way; who finds none waits in line.

    There is no bound until the server is overloaded. Then there are fewer places than requests
    were under way; requests that were sent together fail together, and count once. Answers make
    more again: slowly where the server last had too many, and quickly far from there.

    With `adapts` False requests are counted, and none waits.
    """

    def __init__(self, *, adapts: bool = True) -> None:
        self._adapts = adapts
        self._limit = math.inf
        self._too_many = 0.0
        self._shrinks = 0
        self._line: deque[asyncio.Future[None]] = deque()
        self.in_flight = 0
        self.n_refused = 0
        self.n_timed_out = 0
        self._most = 0
        self._fewest = math.inf

    @property
    def limit(self) -> float:
        """How many requests may be under way, 1 at least; infinite while all may."""
        return self._limit if self._limit == math.inf else int(self._limit)

    @property
    def is_full(self) -> bool:
        """Whether a further request would wait."""
        return bool(self._line) or self.in_flight >= self.limit

    async def send(self, attempt: Callable[[], Awaitable[Result]]) -> Result:
        """Carry out an attempt at a request once there is a place; raises what it raises."""
        epoch = await self._enter()
        try:
            result = await attempt()
        except OverloadedModelError as error:
            self._note_overload(epoch, timed_out=isinstance(error.__cause__, TimeoutError))
            raise
        else:
            self._note_answer(epoch)
            return result
        finally:
            self.in_flight -= 1
            self._admit()

    async def _enter(self) -> int:
        """Take a place; gives how often places had become fewer when it was taken."""
        self._most = max(self._most, self.in_flight + len(self._line) + 1)
        if not self.is_full:
            self.in_flight += 1
            return self._shrinks
        turn = asyncio.get_running_loop().create_future()
        self._line.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():
                # given a place already, which the next in line can have
                self.in_flight -= 1
                self._admit()
            elif turn in self._line:
                self._line.remove(turn)
            raise
        return self._shrinks

    def _admit(self) -> None:
        while self._line and self.in_flight < self.limit:
            turn = self._line.popleft()
            if not turn.done():
                turn.set_result(None)
                self.in_flight += 1

    def _note_overload(self, epoch: int, *, timed_out: bool) -> None:
        self.n_timed_out += timed_out
        self.n_refused += not timed_out
        if epoch != self._shrinks or not self._adapts:
            return
        self._shrinks += 1
        self._too_many = min(self._limit, self.in_flight)
        share = AFTER_TIME_OUT if timed_out else AFTER_REFUSAL
        self._limit = max(1.0, self._too_many * share // 1)
        self._fewest = min(self._fewest, self.limit)

    def _note_answer(self, epoch: int) -> None:
        """An answer to what was sent since places became fewer tells of room for more."""
        if epoch != self._shrinks or not self._shrinks:
            return
        missing = self._too_many - self._limit
        more = max(SLOWEST_GROWTH, missing / 2, -missing)
        self._limit = min(self._limit + more / self._limit, self._most)

    def note(self) -> str | None:
        """What a server's overload came to, for people; None where there was none."""
        seen = []
        if self.n_refused:
            seen.append(f"refused {_requests(self.n_refused)}")
        if self.n_timed_out:
            seen.append(f"left {_requests(self.n_timed_out)} without an answer in time")
        if not seen:
            return None
        adapted = f"; concurrency went down to {self._fewest} of {self._most}"
        return " and ".join(seen) + (adapted if self._adapts else "")


def _requests(n: int) -> str:
    return "1 request" if n == 1 else f"{n} requests"
