"""What vLLM's server takes, in its developers' mode, beside requests for replies."""

import json
from typing import Any

import aiohttp

from medeval.errors import ModelError
from medeval.models.openai.connection import root_url
from medeval.models.vllm.address import connector_to

SHOWN_CHARACTERS = 400


class ServerControls:
    """The methods of vLLM's engine by which weights are reloaded, on a server.

    Each raises ModelError where the server does not have it, or does not do it in time.
    """

    def __init__(self, url: str, *, timeout_s: float) -> None:
        self._url = url
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)

    async def collective_rpc(
        self, method: str, *, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> list[Any]:
        """What each worker returns from a method."""
        body = {"method": method, "args": list(args), "kwargs": kwargs or {}}
        results = (await self._post("/collective_rpc", body)).get("results")
        return results if isinstance(results, list) else []

    async def reset_mm_cache(self) -> None:
        """Forget prepared images."""
        await self._post("/reset_mm_cache")

    async def reset_encoder_cache(self) -> None:
        """Forget encoded images."""
        await self._post("/reset_encoder_cache")

    async def reset_prefix_cache(self, *, reset_connector: bool) -> bool:
        """Forget the states of earlier prompts; False unless the server says that it did.

        A server that ignores the query, as it does not know it, says nothing of success either.
        """
        query = "?reset_external=true" if reset_connector else ""
        return (await self._post(f"/reset_prefix_cache{query}")).get("success") is True

    async def _post(self, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        try:
            # where a method fails, the server closes the connection after its answer
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
            raise ModelError(f"{path!r} was answered {response.status}: {_shown(content)}")
        return _object(content)


def _object(content: bytes) -> dict[str, Any]:
    """The JSON object of an answer; empty for an answer of another form, or none."""
    try:
        document = json.loads(content)
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}


def _shown(content: bytes) -> str:
    """What an error says, without its place in vLLM's own form."""
    error = _object(content).get("error")
    said = error.get("message") if isinstance(error, dict) else None
    return str(said or content.decode(errors="replace"))[:SHOWN_CHARACTERS]
