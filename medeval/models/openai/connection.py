"""Connections to a server: the openai SDK on its aiohttp transport.

The SDK brings time-outs, proxies, error classes and Azure. It repeats no request and follows no
redirect here, so that adaptive concurrency sees each refusal. Its import takes half a second, and
happens when the first connection is opened.
"""

from typing import TYPE_CHECKING

import aiohttp

from medeval.models.openai.address import UNIX, http_url, is_this_machine

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
