"""Connections to a server: its address, the openai SDK on its aiohttp transport, and retries.

The SDK brings time-outs, proxies, error classes and Azure. It repeats no request and follows no
redirect here, so that adaptive concurrency sees each refusal. Its import takes half a second, and
happens when the first connection is opened.
"""

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from email.utils import mktime_tz, parsedate_tz
from ipaddress import ip_address
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlsplit

import aiohttp
import tenacity

from medeval.errors import TransientModelError, UsageError

if TYPE_CHECKING:
    from openai import AsyncOpenAI

CONNECT_TIMEOUT_S = 30.0
# uvicorn, under vLLM and SGLang, closes a connection after 5 idle seconds: be first.
KEEP_ALIVE_S = 4.0
# The SDK's own limit is 1000; the caller and the server's refusals bound the requests in flight.
MAX_CONNECTIONS = 100_000


def open_sdk_client(
    base_url: str, *, key: str, timeout_s: float, deployment: str, api_version: str | None
) -> "AsyncOpenAI":
    """The SDK's client of a server; with an `api_version`, of the Azure deployment of that name.

    `timeout_s` bounds the wait for an answer's next bytes.
    """
    import httpx2
    from openai import AsyncAzureOpenAI, AsyncOpenAI, DefaultAioHttpClient

    limits = httpx2.Limits(max_connections=MAX_CONNECTIONS, keepalive_expiry=KEEP_ALIVE_S)
    socket = base_url.removeprefix(UNIX) if base_url.startswith(UNIX) else None
    http_client = DefaultAioHttpClient(
        limits=limits,
        follow_redirects=False,
        # the environment's proxies
        trust_env=not is_this_machine(base_url),
        # None leaves the choice to the client, which is aiohttp
        transport=None if socket is None else httpx2.AsyncHTTPTransport(uds=socket, limits=limits),
    )
    timeout = httpx2.Timeout(timeout_s, connect=min(timeout_s, CONNECT_TIMEOUT_S))
    if api_version is not None:
        return AsyncAzureOpenAI(
            azure_endpoint=base_url.removesuffix("/v1"),
            azure_deployment=deployment,
            api_version=api_version,
            api_key=key,
            timeout=timeout,
            max_retries=0,
            http_client=http_client,
        )
    return AsyncOpenAI(
        base_url=http_url(base_url),
        api_key=key,
        timeout=timeout,
        max_retries=0,
        http_client=http_client,
    )


def root_cause(error: BaseException) -> BaseException:
    """The transport's own error below the SDK's; a TimeoutError only where time ran out.

    The SDK reports every lost connection as a time-out, even where no server listens
    (AIOHTTP_EXC_MAP in openai 3.57).
    """
    while error.__cause__ is not None and not isinstance(error, aiohttp.ClientError | OSError):
        error = error.__cause__
    return error


# Begins the address of a server that listens on a Unix socket: "unix:/folder/socket".
UNIX = "unix:"


def normalised_base_url(base_url: str) -> str:
    """The address that `/chat/completions` is appended to; it ends in `/v1` unless it has a path.

    The address of a Unix socket stays as it is. Raises UsageError for anything but an http address
    or the absolute path of a socket, and for an address that carries a key.

    >>> normalised_base_url("127.0.0.1:8000")
    'http://127.0.0.1:8000/v1'
    >>> normalised_base_url("https://example.org/api/v1/chat/completions/")
    'https://example.org/api/v1'
    """
    given = base_url.strip()
    if given.startswith(f"{UNIX}/"):
        return given
    if given.startswith(UNIX):
        raise UsageError(
            f"a server's socket is named by its whole path, not {base_url!r}",
            hint="write it like 'unix:/run/me/vllm.socket'",
        )
    parts = urlsplit(given if "://" in given else f"http://{given}")
    if "@" in parts.netloc:
        raise UsageError(
            "the base URL carries a user name or a key",
            hint="leave it out; the key is read from the environment",
        )
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query:
        raise UsageError(
            f"the base URL is an http address like 'http://127.0.0.1:8000/v1', not {base_url!r}"
        )
    path = parts.path.rstrip("/").removesuffix("/chat/completions").rstrip("/")
    return f"{parts.scheme}://{parts.netloc}{path or '/v1'}"


def http_url(base_url: str) -> str:
    """The URL in the requests to a server; a socket's address holds no host, so localhost stands.

    >>> http_url("unix:/run/user/1000/vllm.socket")
    'http://localhost/v1'
    """
    return "http://localhost/v1" if base_url.startswith(UNIX) else base_url


def root_url(base_url: str) -> str:
    """The URL that a server's other paths, like /health and /version, are appended to."""
    return http_url(base_url).removesuffix("/v1")


def is_this_machine(base_url: str) -> bool:
    """Whether a server runs on this machine, so that no proxy stands before it."""
    host = urlsplit(http_url(base_url)).hostname or ""
    try:
        address = ip_address(host)
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
    return address.is_loopback or address.is_unspecified


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
