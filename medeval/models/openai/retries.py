"""Requests that are sent again after a failure that may pass."""

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from email.utils import mktime_tz, parsedate_tz
from typing import TypeVar

import tenacity

from medeval.errors import TransientModelError

# Where a server asks for a longer wait, the request is sent again after this long all the same.
MAX_RETRY_AFTER_S = 120.0
MAX_BACKOFF_S = 60.0

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Retries:
    """How many times a request is sent at most, and the wait after its first failure."""

    max_tries: int
    first_wait_s: float

    async def run(self, attempt: Callable[[], Awaitable[Result]]) -> Result:
        """The result of `attempt`, repeated while it raises TransientModelError.

        Raises the last TransientModelError after `max_tries`. Tenacity, which takes a tenth of a
        request's CPU time, sees only the requests that failed.
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
                f"{error.message} (tried {self.max_tries} times)",
                retry_after_s=error.retry_after_s,
            ) from error

    def _wait_s(self, state: tenacity.RetryCallState) -> float:
        """The back-off, or the wait that the server asked for where that is longer."""
        error = state.outcome.exception() if state.outcome else None
        asked_s = error.retry_after_s if isinstance(error, TransientModelError) else None
        # Requests that failed together must not all be sent again at the same moment.
        backoff = tenacity.wait_exponential(
            self.first_wait_s, max=MAX_BACKOFF_S
        ) + tenacity.wait_random_exponential(self.first_wait_s, max=MAX_BACKOFF_S)
        return max(backoff(state), min(asked_s or 0.0, MAX_RETRY_AFTER_S))


def retry_after_s(header: str) -> float | None:
    """Seconds to wait by a Retry-After header, a number or an HTTP date; None for anything else.

    >>> retry_after_s("1.5")
    1.5
    """
    try:
        seconds = float(header)
    except ValueError:
        date = parsedate_tz(header)
        return None if date is None else max(0.0, mktime_tz(date) - time.time())
    return seconds if seconds >= 0 else None
