"""How many requests a server is sent at once: all, until it refuses some as too many."""

import math
from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio

from medeval.errors import OverloadedModelError

# The share of the requests in flight that may be in flight after one was refused as too many, and
# after one had no answer in time.
AFTER_REFUSAL = 0.85
AFTER_TIME_OUT = 0.5
# Close below the number that was too many, the limit rises by this much a round trip.
SLOWEST_GROWTH = 0.5

Result = TypeVar("Result")


class AdaptiveConcurrency:
    """A limit on the requests in flight at one server; further requests wait in order.

    There is no limit until the server is overloaded. Then the limit falls below the number of
    requests in flight, once for all requests that were sent before it fell. Each answer to a later
    request raises it: slowly near the number that was too many, and quickly far from it.

    With `adapts` False, overloads are counted and no request waits.
    """

    def __init__(self, *, adapts: bool = True) -> None:
        self._adapts = adapts
        self._limiter = anyio.CapacityLimiter(math.inf)
        self._limit = math.inf
        self._too_many = 0.0
        self._n_falls = 0
        self.n_refused = 0
        self.n_timed_out = 0
        self._most = 0
        self._lowest = math.inf

    @property
    def limit(self) -> float:
        """How many requests may be in flight, at least 1; infinite without a limit."""
        return self._limiter.total_tokens

    @property
    def in_flight(self) -> int:
        """How many requests are in flight."""
        return self._limiter.borrowed_tokens

    @property
    def is_full(self) -> bool:
        """Whether a further request would wait."""
        return self._limiter.available_tokens <= 0

    async def send(self, attempt: Callable[[], Awaitable[Result]]) -> Result:
        """The result of `attempt`, begun as soon as the limit allows; raises what it raises."""
        waiting = self._limiter.statistics().tasks_waiting
        self._most = max(self._most, self.in_flight + waiting + 1)
        async with self._limiter:
            n_falls = self._n_falls
            try:
                result = await attempt()
            except OverloadedModelError as error:
                self._note_overload(n_falls, timed_out=isinstance(error.__cause__, TimeoutError))
                raise
            self._note_answer(n_falls)
            return result

    def _note_overload(self, n_falls: int, *, timed_out: bool) -> None:
        """Lower the limit, unless it fell after the request was sent, at fall `n_falls`."""
        self.n_timed_out += timed_out
        self.n_refused += not timed_out
        if n_falls != self._n_falls or not self._adapts:
            return
        self._n_falls += 1
        self._too_many = min(self._limit, self.in_flight)
        share = AFTER_TIME_OUT if timed_out else AFTER_REFUSAL
        self._set_limit(max(1.0, self._too_many * share // 1))
        self._lowest = min(self._lowest, self.limit)

    def _note_answer(self, n_falls: int) -> None:
        """Raise the limit, unless it fell after the request was sent, or never fell."""
        if n_falls != self._n_falls or not n_falls:
            return
        missing = self._too_many - self._limit
        growth = max(SLOWEST_GROWTH, missing / 2, -missing)
        self._set_limit(min(self._limit + growth / self._limit, self._most))

    def _set_limit(self, limit: float) -> None:
        self._limit = limit
        self._limiter.total_tokens = int(limit)

    def note(self) -> str | None:
        """The server's overloads and how far the limit fell, for people; None without any."""
        overloads = []
        if self.n_refused:
            overloads.append(f"refused {_requests(self.n_refused)}")
        if self.n_timed_out:
            overloads.append(f"left {_requests(self.n_timed_out)} without an answer in time")
        if not overloads:
            return None
        fallen = f"; concurrency went down to {self._lowest} of {self._most}"
        return " and ".join(overloads) + (fallen if self._adapts else "")


def _requests(n: int) -> str:
    return "1 request" if n == 1 else f"{n} requests"
