"""The check of the key on a managed server, around an application of its own."""

import asyncio
from typing import Any

import pytest

from medeval.models.vllm.reload import WORKER_FOLDER


@pytest.mark.parametrize(
    ("path", "key", "status"),
    [
        ("/v1/chat/completions", b"Bearer right", 200),
        ("/invocations", b"Bearer right", 200),
        ("/invocations", b"Bearer wrong", 401),
        ("/invocations", None, 401),
        ("/tokenize", "Bearer ü".encode(), 401),
        ("/health", None, 200),
    ],
)
def test_every_path_but_health_needs_the_key(
    path: str, key: bytes | None, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(WORKER_FOLDER))
    monkeypatch.setenv("VLLM_API_KEY", "right")
    from medeval_vllm_key import KeyForAll  # type: ignore[import-not-found]

    answered: list[int] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def send(message: dict[str, Any]) -> None:
        answered.extend([message["status"]] if "status" in message else [])

    headers = [] if key is None else [(b"authorization", key)]
    scope = {"type": "http", "path": path, "headers": headers}
    asyncio.run(KeyForAll(application)(scope, None, send))
    assert answered == [status]
