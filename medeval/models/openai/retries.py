"""Attempts at a server that are made again where they fail for a while only."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TypeVar

import tenacity

from medeval.errors import TransientModelError

# A server may ask for a longer wait than this; it is asked again after this long all the same.
MAX_RETRY_AFTER_S = 120.0
MAX_BACKOFF_S = 60.0

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Retries:
    """How often an attempt is made at most, and how long to wait after the first failure."""

    max_tries: int
    first_wait_s: float

    async def of(self, attempt: Callable[[], Awaitable[Result]]) -> Result:
        """What an attempt comes to; raises the TransientModelError of the last.

        Tenacity, which takes a tenth of a request's time, sees attempts only once one has failed.
        """
        try:
            return await attempt()
        except TransientModelError as error:
            failures = [error]

        async def once() -> Result:
            if failures:
                raise failures.pop()
            return await attempt()

        retrying = tenacity.AsyncRetrying(
            stop=tenacity.stop_after_attempt(self.max_tries),
            wait=self._wait_s,
            retry=tenacity.retry_if_exception_type(TransientModelError),
            reraise=True,
        )
        try:
            return await retrying(once)
        except TransientModelError as error:
            raise type(error)(
                f"{error.message} (tried {self.max_tries!r} times)",
                retry_after_s=error.retry_after_s,
            ) from error

    def _wait_s(self, state: tenacity.RetryCallState) -> float:
        """The back-off, or what the server asked for where that is longer."""
        error = state.outcome.exception() if state.outcome else None
        asked_s = error.retry_after_s if isinstance(error, TransientModelError) else None
        # Many requests that failed together must not come back together.
        backoff = tenacity.wait_exponential(
            self.first_wait_s, max=MAX_BACKOFF_S
        ) + tenacity.wait_random_exponential(self.first_wait_s, max=MAX_BACKOFF_S)
        return max(backoff(state), min(asked_s or 0.0, MAX_RETRY_AFTER_S))


def retry_after_s(header: str | None) -> float | None:
    """Seconds to wait by a Retry-After header, a number or an HTTP date; None where it says none.

    >>> retry_after_s("1.5")
    1.5
    """
    if header is None:
        return None
    try:
        seconds = float(header)
    except ValueError:
        seconds = _seconds_until(header)
    return seconds if seconds >= 0 else None


def _seconds_until(date: str) -> float:
    """Seconds until an HTTP date, 0 for one that is past, -1 for text that is none."""
    try:
        moment = parsedate_to_datetime(date)
    except ValueError:
        return -1.0
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())
