"""The command line and its server as real processes, and a stub server in a thread."""

import asyncio
import json
import os
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import medeval
from tests.stub_server import StubServer, running

ROOT = Path(medeval.__file__).parents[1]
STUB = Path(__file__).parent / "stub_server.py"

# What the fixtures of the same names in lower case give.
MedevalMain = Callable[..., int]
Serve = Callable[[StubServer], StubServer]


@contextmanager
def serving(server: StubServer) -> Iterator[StubServer]:
    """The stub server in a thread of its own while the block runs."""
    ready, loop, ended = threading.Event(), asyncio.new_event_loop(), asyncio.Event()

    async def serve() -> None:
        async with running(server):
            ready.set()
            await ended.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    try:
        assert ready.wait(10)
        yield server
    finally:
        loop.call_soon_threadsafe(ended.set)
        thread.join()
        loop.close()


def start_medeval(*arguments: object, pythonpath: str = str(ROOT)) -> subprocess.Popen[str]:
    """Start `python -m medeval`; its output is read by the caller."""
    environment = {**os.environ, "PYTHONPATH": pythonpath, "OMP_NUM_THREADS": "1"}
    environment.pop("OPENAI_API_KEY", None)
    return subprocess.Popen(
        [sys.executable, "-m", "medeval", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )


def run_medeval(
    *arguments: object, timeout_s: float = 120, pythonpath: str = str(ROOT)
) -> subprocess.CompletedProcess[str]:
    """Run `python -m medeval` to its end."""
    with start_medeval(*arguments, pythonpath=pythonpath) as process:
        output, errors = process.communicate(timeout=timeout_s)
    return subprocess.CompletedProcess(process.args, process.returncode, output, errors)


@contextmanager
def stub_process(*arguments: object) -> Iterator[str]:
    """The stub server as a program while the block runs; gives its base URL."""
    with subprocess.Popen(
        [sys.executable, str(STUB), *map(str, arguments)], stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            url = process.stdout.readline().strip()
            assert url, "the stub server did not start"
            yield url
        finally:
            process.kill()


def requests_served(base_url: str) -> int:
    """How many chat requests a stub server has seen."""
    with urllib.request.urlopen(f"{base_url.removesuffix('/v1')}/stats", timeout=10) as answer:
        return int(json.load(answer)["requests"])
