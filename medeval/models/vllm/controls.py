"""The control requests of vLLM's server in its developers' mode."""

import json
from typing import Any

import aiohttp

from medeval.errors import ModelError
from medeval.models.openai.connection import root_url
from medeval.models.vllm.address import connector_to

SHOWN_CHARACTERS = 400


class ServerControls:
    """The methods of vLLM's engine that reloading weights needs, called on a server.

    Each raises ModelError where the server does not have the method or takes too long.
    """

    def __init__(self, url: str, *, timeout_s: float) -> None:
        self._url = url
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)

    async def collective_rpc(
        self, method: str, *, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> list[Any]:
        """Call a method on each worker; return the results."""
        body = {"method": method, "args": list(args), "kwargs": kwargs or {}}
        results = (await self._post("/collective_rpc", body)).get("results")
        return results if isinstance(results, list) else []

    async def reset_mm_cache(self) -> None:
        """Clear the cache of prepared images."""
        await self._post("/reset_mm_cache")

    async def reset_encoder_cache(self) -> None:
        """Clear the cache of encoded images."""
        await self._post("/reset_encoder_cache")

    async def reset_prefix_cache(self, *, reset_connector: bool) -> bool:
        """Clear the cache of earlier prompts; True only where the server reports success.

        An older server ignores the query, and reports no success.
        """
        query = "?reset_external=true" if reset_connector else ""
        return (await self._post(f"/reset_prefix_cache{query}")).get("success") is True

    async def _post(self, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        try:
            # after a method that fails, the server closes the connection
            async with (
                aiohttp.ClientSession(
                    connector=connector_to(self._url, force_close=True), timeout=self._timeout
                ) as session,
                session.post(f"{root_url(self._url)}{path}", json=body) as response,
            ):
                content = await response.read()
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise ModelError(f"{path!r} got no answer: {type(error).__name__}: {error}") from error
        if response.status != 200:
            raise ModelError(f"{path!r} got status {response.status}: {_shown(content)}")
        return _object(content)


def _object(content: bytes) -> dict[str, Any]:
    """The JSON object of an answer; empty for any other answer."""
    try:
        document = json.loads(content)
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}


def _shown(content: bytes) -> str:
    """The message of an error in vLLM's form, or else the answer, shortened."""
    error = _object(content).get("error")
    said = error.get("message") if isinstance(error, dict) else None
    return str(said or content.decode(errors="replace"))[:SHOWN_CHARACTERS]
