"""A server that listens on a Unix socket."""

import asyncio
import tempfile
from pathlib import Path

import pytest
from aiohttp import web

from medeval.errors import ModelError
from medeval.models.openai.client import OpenAIModel
from tests.stub_server import StubServer
from tests.tiny_checkpoints import request


def test_a_server_on_a_socket_is_asked_like_any_other_and_named_by_its_path() -> None:
    async def ask(socket: Path) -> str:
        runner = web.AppRunner(StubServer(answer="blue").application(), shutdown_timeout=0.1)
        await runner.setup()
        await web.UnixSite(runner, str(socket)).start()
        model = OpenAIModel(model="stub", base_url=f"unix:{socket}", max_retries=0)
        try:
            await model.start()
            return (await model.generate(request())).text
        finally:
            await model.close()
            await runner.cleanup()

    # the path of a socket has at most 103 bytes
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        socket = Path(folder) / "socket"
        assert asyncio.run(ask(socket)) == "blue"
        gone = OpenAIModel(model="stub", base_url=f"unix:{socket}", max_retries=0)
        with pytest.raises(ModelError, match=str(socket)):
            asyncio.run(gone.start())
