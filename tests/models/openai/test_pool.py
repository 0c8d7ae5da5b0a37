import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from medeval.errors import FatalModelError, TransientModelError
from medeval.evaluation.engines import model_opener
from medeval.evaluation.plan import resolve
from medeval.evaluation.plan_file import read_options
from medeval.models.base import Reply
from medeval.models.openai.client import OpenAIModel
from medeval.models.openai.pool import ServerPool
from tests.small_benchmark import write_benchmark
from tests.stub_server import StubServer, running
from tests.tiny_checkpoints import request


def over(*servers: StubServer | str, max_tries: int = 3, timeout_s: float = 5) -> ServerPool:
    clients = [
        OpenAIModel(
            model="stub",
            base_url=one if isinstance(one, str) else one.base_url,
            max_retries=0,
            timeout_s=timeout_s,
        )
        for one in servers
    ]
    return ServerPool(clients, max_tries=max_tries, first_rest_s=0.05)


@asynccontextmanager
async def started(model: ServerPool) -> AsyncIterator[ServerPool]:
    await model.start()
    try:
        yield model
    finally:
        await model.close()


def with_servers(
    servers: list[StubServer], ask: Callable[[ServerPool], Any], *, dead: int = 0, **how: Any
) -> Any:
    """What is asked of a model over running servers and addresses where none is."""

    async def run() -> Any:
        async with AsyncExitStack() as stack:
            for server in servers:
                await stack.enter_async_context(running(server))
            nowhere = [f"http://127.0.0.1:{port}" for port in range(1, dead + 1)]
            async with started(over(*nowhere, *servers, **how)) as model:
                return await ask(model)

    return asyncio.run(run())


async def ask_many(model: ServerPool, n: int = 40) -> list[Reply]:
    return await asyncio.gather(*(model.generate(request(f"{index}?")) for index in range(n)))


def test_requests_go_to_the_server_with_the_fewest_in_flight() -> None:
    quick, slow = StubServer(latency_s=0.01, places=2), StubServer(latency_s=0.2, places=2)

    async def ask(model: ServerPool) -> None:
        free = asyncio.Semaphore(8)

        async def one(index: int) -> None:
            async with free:
                await model.generate(request(f"{index}?"))

        await asyncio.gather(*map(one, range(60)))

    with_servers([quick, slow], ask)
    assert quick.requests + slow.requests == 60
    assert quick.requests > 2 * slow.requests
    assert max(quick.most_in_flight, slow.most_in_flight) <= 5


def test_a_server_that_fails_is_left_alone_and_its_requests_go_to_the_others() -> None:
    well, ill = StubServer(), StubServer(faults=lambda *_: "500")

    async def ask(model: ServerPool) -> tuple[list[Reply], tuple[str, ...]]:
        return await ask_many(model), model.notes()

    replies, notes = with_servers([well, ill], ask)
    assert all(reply.text for reply in replies)
    assert well.requests == 40
    # all that failed together count once: then one request tries it
    assert ill.requests <= 22
    assert any("failed and was left alone" in note for note in notes)


def test_a_server_that_is_well_again_is_asked_again() -> None:
    well, ill = StubServer(latency_s=0.02), StubServer(latency_s=0.02, faults=["503"] * 3)

    async def ask(model: ServerPool) -> None:
        for _ in range(8):
            await ask_many(model, 10)

    with_servers([well, ill], ask)
    assert ill.requests > 20


def test_a_server_that_is_not_up_is_tried_later() -> None:
    early, late = StubServer(), StubServer()

    async def run() -> None:
        async with running(late):
            port = late.port
        async with running(early):
            model = over(early, f"http://127.0.0.1:{port}")
            async with started(model), running(late):
                await asyncio.sleep(0.1)
                await ask_many(model)

    asyncio.run(run())
    assert early.requests
    assert late.requests


def test_a_request_that_no_server_answers_is_given_up() -> None:
    servers = [StubServer(faults=lambda *_: "500") for _ in range(2)]
    with pytest.raises(TransientModelError):
        with_servers(servers, lambda model: model.generate(request()))
    assert sum(server.requests for server in servers) == 6


def test_a_wait_that_a_server_asks_for_is_kept() -> None:
    server = StubServer(faults=["429"])
    begin = time.monotonic()
    with_servers([server], lambda model: model.generate(request()))
    assert time.monotonic() - begin >= 0.05
    assert server.requests == 2


def test_without_any_server_a_checkpoint_stops() -> None:
    with pytest.raises(FatalModelError, match="no reply"):
        with_servers([], ask_many, dead=2)


def test_one_server_of_several_may_be_down_at_the_start() -> None:
    server = StubServer()
    replies = with_servers([server], ask_many, dead=1)
    assert len(replies) == server.requests == 40


@pytest.mark.parametrize("other", [StubServer(version="9"), StubServer(models=("else",))])
def test_servers_that_serve_different_models_are_refused(other: StubServer) -> None:
    with pytest.raises(FatalModelError):
        with_servers([StubServer(), other], ask_many)


def test_base_url_takes_several_addresses(tmp_path: Path) -> None:
    values = {
        "model": ("stub",),
        "benchmarks": (str(write_benchmark(tmp_path)),),
        "base_url": "127.0.0.1:8001, 127.0.0.1:8002",
        "model_args": {"max_retries": 2, "retry_wait_s": 0.1, "timeout_s": 4},
    }
    plan = resolve(read_options(None, values))
    model = model_opener(plan)(plan.checkpoints[0])
    assert isinstance(model, ServerPool)
    assert model.identity()["model"] == "stub"
