"""A server that this process starts, and that ends with it."""

import asyncio
import contextlib
import re
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import aiohttp

from medeval.errors import FatalModelError, TransientModelError
from medeval.models import guard

POLL_S = 0.25
QUESTION_TIMEOUT_S = 10.0
# Longer than the guard waits before it kills.
END_TIMEOUT_S = guard.GRACE_S + 10.0
LOG_TAIL_BYTES = 64 * 2**10
SHOWN_LINES = 12

# What a server's last words mean, and what helps; the first that matches.
CAUSES: Sequence[tuple[str, str, str]] = (
    (
        r"No module named '?vllm'?(?:\W|$)",
        "its Python has no vLLM",
        "pip install 'medeval[vllm]', or name a Python that has it: --model-args python=PATH or "
        "MEDEVAL_VLLM_PYTHON",
    ),
    (
        r"Address already in use|Errno 98\b|EADDRINUSE",
        "its port is taken",
        "leave port out of --model-args: a free one is chosen",
    ),
    (
        r"out of memory|OutOfMemoryError|No available memory for the cache blocks"
        r"|less than desired GPU memory utilization|larger than the (?:available|maximum)"
        r"|larger than the maximum number of tokens that can be stored|Cannot allocate memory"
        r"|KV cache is needed|not enough memory|std::bad_alloc",
        "it ran out of memory",
        "lower max_model_len, max_num_seqs or gpu_memory_utilization, or raise tensor_parallel "
        "in --model-args",
    ),
    (
        r"error: (?:unrecognized arguments|argument |ambiguous option|the following arguments)"
        r"|ValidationError|ValueError: |invalid choice",
        "it refuses an argument",
        "see the log, and vLLM's own help for what --model-args may hold in this version",
    ),
)


class EngineDiedError(TransientModelError):
    """The engine ended while it was needed: what it had not answered may be asked of another."""


class PortTakenError(FatalModelError):
    """Another program listens where a server was to."""


def free_port() -> int:
    """A port of this machine that nobody listens on now."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


class ServerProcess:
    """One life of a server on loopback, with its output in a log file.

    It is in a session of its own, so that Ctrl-C in a terminal reaches us alone, under a guard
    that ends it when this process is gone, however that came.
    """

    def __init__(
        self, process: asyncio.subprocess.Process, port: int, log: Path, log_start: int
    ) -> None:
        self._process = process
        self._log_start = log_start
        self.root = f"http://127.0.0.1:{port}"
        self.log = log
        self.ended: asyncio.Task[int] = asyncio.create_task(process.wait())

    @classmethod
    async def start(
        cls, command: Sequence[str], *, port: int, log: Path, environment: Mapping[str, str]
    ) -> "ServerProcess":
        """Start a command; the server is not ready yet."""
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output:
            log_start = output.tell()
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-I",
                guard.__file__,
                *command,
                stdin=asyncio.subprocess.PIPE,
                stdout=output,
                stderr=output,
                start_new_session=True,
                env=dict(environment),
            )
        return cls(process, port, log, log_start)

    @property
    def is_running(self) -> bool:
        """Whether it has not ended."""
        return not self.ended.done()

    async def await_health(self, timeout_s: float) -> None:
        """Wait until /health answers. Raises FatalModelError where it ends, or takes too long."""
        try:
            async with asyncio.timeout(timeout_s), _session() as session:
                while not await _is_healthy(session, self.root):
                    done, _ = await asyncio.wait({self.ended}, timeout=POLL_S)
                    if done:
                        raise self.failure("ended before it was ready")
        except TimeoutError:
            raise FatalModelError(
                f"the server was not ready after {timeout_s:g} s; its log is {str(self.log)!r}",
                hint="raise start_timeout_s in --model-args where loading takes longer",
            ) from None

    async def is_healthy(self) -> bool:
        """Whether it runs and says that it can work."""
        if not self.is_running:
            return False
        async with _session() as session:
            return await _is_healthy(session, self.root)

    def failure(self, what: str) -> FatalModelError:
        """The error of a server that ended, with the cause that its log tells of."""
        code = self.ended.result() if self.ended.done() else None
        otherwise = f"exit code {code!r}"
        return explained(f"the server {what}", self.log, self._log_start, otherwise=otherwise)

    async def close(self) -> None:
        """End it, its own processes included."""
        if self.is_running and self._process.stdin is not None:
            self._process.stdin.close()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(self.ended), END_TIMEOUT_S)
        if self.is_running:
            self._process.kill()
            await self.ended


def explained(what: str, log: Path, log_start: int, *, otherwise: str) -> FatalModelError:
    """An error of an engine, with the cause and the help that the end of its log tells of."""
    tail = _tail(log, log_start)
    lines = [line for line in tail.splitlines() if line.strip()][-SHOWN_LINES:]
    shown = "".join(f"\n  {line}" for line in lines) + f"\n  (log: {log})"
    for pattern, cause, hint in CAUSES:
        if re.search(pattern, tail):
            kind = PortTakenError if "port" in cause else FatalModelError
            return kind(f"{what}: {cause}{shown}", hint=hint)
    return FatalModelError(f"{what} ({otherwise}){shown}", hint="see its log")


def _session() -> aiohttp.ClientSession:
    return aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=QUESTION_TIMEOUT_S))


async def _is_healthy(session: aiohttp.ClientSession, root: str) -> bool:
    try:
        async with session.get(f"{root}/health") as response:
            return response.status == 200
    except (aiohttp.ClientError, OSError, TimeoutError):
        return False


def _tail(log: Path, start: int) -> str:
    """The end of a log, at most back to where a life of the server began."""
    try:
        with log.open("rb") as file:
            file.seek(max(start, log.stat().st_size - LOG_TAIL_BYTES))
            return file.read().decode(errors="replace")
    except OSError:
        return ""
