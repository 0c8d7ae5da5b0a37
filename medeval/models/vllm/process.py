"""A server process that this process starts, and that ends with it."""

import asyncio
import contextlib
import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import aiohttp

from medeval.errors import FatalModelError, TransientModelError
from medeval.models.vllm import guard

POLL_S = 0.25
QUESTION_TIMEOUT_S = 10.0
# Longer than the guard's own wait before it kills the server.
END_TIMEOUT_S = guard.GRACE_S + 10.0
LOG_TAIL_BYTES = 64 * 2**10
SHOWN_LINES = 12
# Linux's tables of connections, and their code for a socket that listens.
LISTENERS = ("/proc/net/tcp", "/proc/net/tcp6")
LISTENS = "0A"


class EngineDiedError(TransientModelError):
    """The engine died; requests without a reply may be sent to another."""


class Cause(NamedTuple):
    """A pattern in the end of a server's log, with its cause and a hint."""

    pattern: str
    cause: str
    hint: str


# An error's name and message in a log, without the prefix that vLLM gives every line.
ERROR_LINE = re.compile(r"\b[A-Z]\w*(?:Error|Exception|Interrupt)\b: .+|\b(?:Value )?error[:,] .+")
# What vLLM says in lines that only point to an earlier one.
ECHO = "root cause"
# The first pattern that matches decides.
CAUSES = (
    Cause(
        r"No module named '?vllm'?(?:\W|$)",
        "its Python has no vLLM",
        "pip install 'medeval[vllm]', or name a Python that has it: --model-args python=PATH or "
        "MEDEVAL_VLLM_PYTHON",
    ),
    Cause(
        r"Address already in use|Errno 98\b|EADDRINUSE",
        "its port is taken",
        "another program took it while the server started; run the command again",
    ),
    Cause(
        r"out of memory|OutOfMemoryError|No available memory for the cache blocks"
        r"|less than desired GPU memory utilization|larger than the (?:available|maximum)"
        r"|larger than the maximum number of tokens that can be stored|Cannot allocate memory"
        r"|KV cache is needed|not enough memory|std::bad_alloc",
        "it ran out of memory",
        "lower max_model_len, max_num_seqs or gpu_memory_utilization, or raise tensor_parallel "
        "in --model-args",
    ),
    Cause(
        r"error: (?:unrecognized arguments|argument |ambiguous option|the following arguments)"
        r"|ValidationError|invalid choice",
        "it refuses an argument",
        "see the log, and vLLM's own help for what --model-args may hold in this version",
    ),
)


class ServerProcess:
    """One running server on this machine, with its output in a log file.

    It has its own session, so that Ctrl-C in a terminal does not reach it, and runs under a guard
    that ends it when this process ends for whatever reason.
    """

    def __init__(
        self, process: asyncio.subprocess.Process, port: int, log: Path, log_start: int
    ) -> None:
        self._process = process
        self._port = port
        self._log_start = log_start
        self.url = f"http://127.0.0.1:{port}"
        self.log = log
        self.ended: asyncio.Task[int] = asyncio.create_task(process.wait())

    @classmethod
    async def start(
        cls,
        command: Sequence[str],
        *,
        port: int,
        log: Path,
        environment: Mapping[str, str],
    ) -> "ServerProcess":
        """Start a command that will listen on the port, without waiting until it is ready."""
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
        """Whether the process runs."""
        return not self.ended.done()

    async def await_health(self, timeout_s: float) -> None:
        """Wait for /health; raises FatalModelError where the server ends or takes too long."""
        try:
            async with asyncio.timeout(timeout_s), self._session() as session:
                while not await self._answers(session):
                    done, _ = await asyncio.wait({self.ended}, timeout=POLL_S)
                    if done:
                        raise self.failure("ended before it was ready")
        except TimeoutError:
            raise FatalModelError(
                f"the server was not ready after {timeout_s:g} s; its log is {str(self.log)!r}",
                hint="raise start_timeout_s in --model-args where loading takes longer",
            ) from None

    async def is_healthy(self) -> bool:
        """Whether the process runs and /health answers."""
        if not self.is_running:
            return False
        async with self._session() as session:
            return await self._answers(session)

    def _session(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=QUESTION_TIMEOUT_S))

    async def _answers(self, session: aiohttp.ClientSession) -> bool:
        try:
            async with session.get(f"{self.url}/health") as response:
                return response.status == 200 and is_own_port(self._port)
        except (aiohttp.ClientError, OSError, TimeoutError):
            return False

    def failure(self, what: str) -> FatalModelError:
        """The error of a server that ended, with the cause in its log."""
        code = self.ended.result() if self.ended.done() else None
        otherwise = f"exit code {code!r}"
        return explained(f"the server {what}", self.log, self._log_start, otherwise=otherwise)

    async def close(self) -> None:
        """End the server and its processes."""
        if self.is_running and self._process.stdin is not None:
            self._process.stdin.close()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(self.ended), END_TIMEOUT_S)
        if self.is_running:
            self._process.kill()
            await self.ended


def is_own_port(port: int) -> bool:
    """Whether nobody but this user listens on a port, as far as the system reports it.

    A server listens only once it has loaded its model. Until then another user of the machine could
    listen there, and answer in its place.
    """
    tables = [path for path in map(Path, LISTENERS) if path.is_file()]
    lines = [line.split() for path in tables for line in path.read_text().splitlines()[1:]]
    owners = {
        int(line[7]) for line in lines if line[1].endswith(f":{port:04X}") and line[3] == LISTENS
    }
    return not tables or owners == {os.getuid()}


def explained(what: str, log: Path, log_start: int, *, otherwise: str) -> FatalModelError:
    """An engine's error, with the cause and the hint that match the end of its log."""
    tail = _tail(log, log_start)
    lines = [line for line in tail.splitlines() if line.strip()][-SHOWN_LINES:]
    shown = "".join(f"\n  {line}" for line in lines) + f"\n  (log: {log})"
    errors = [line for line in ERROR_LINE.findall(tail) if ECHO not in line]
    said = errors[-1] if errors else otherwise
    for known in CAUSES:
        if re.search(known.pattern, tail):
            return FatalModelError(f"{what}: {known.cause}: {said}{shown}", hint=known.hint)
    return FatalModelError(f"{what}: {said}{shown}", hint="see its log")


def _tail(log: Path, start: int) -> str:
    """The end of a log, from the byte `start` at the earliest."""
    try:
        with log.open("rb") as file:
            file.seek(max(start, log.stat().st_size - LOG_TAIL_BYTES))
            return file.read().decode(errors="replace")
    except OSError:
        return ""
