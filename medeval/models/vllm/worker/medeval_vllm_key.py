"""The check of the key that medeval adds to vLLM's server.

The check that vLLM has leaves out paths such as /invocations, which answers as /v1 does. The server
imports this module by name; it imports only the standard library.
"""

import os
import secrets
from typing import Any


class KeyForAll:
    """ASGI middleware that refuses requests without the key, except to /health."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self._expected = f"Bearer {os.environ['VLLM_API_KEY']}".encode()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Pass a request on, or answer it with 401."""
        given = dict(scope.get("headers", ())).get(b"authorization", b"")
        if (
            scope["type"] != "http"
            or scope["path"] == "/health"
            or secrets.compare_digest(given, self._expected)
        ):
            await self._app(scope, receive, send)
            return
        await send({"type": "http.response.start", "status": 401, "headers": []})
        await send({"type": "http.response.body", "body": b""})
