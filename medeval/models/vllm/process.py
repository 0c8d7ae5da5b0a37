"""A server process that this process starts, and that ends with it."""

import asyncio
import contextlib
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import aiohttp

from medeval.errors import FatalModelError, TransientModelError
from medeval.models.openai.connection import root_url
from medeval.models.vllm import guard
from medeval.models.vllm.address import ServerAddress, connector_to

POLL_S = 0.25
QUESTION_TIMEOUT_S = 10.0
# Longer than the guard's own wait before it kills the server.
END_TIMEOUT_S = guard.GRACE_S + 10.0
LOG_TAIL_BYTES = 64 * 2**10
SHOWN_LINES = 12


class EngineDiedError(TransientModelError):
    """The engine died; requests without a reply may be sent to another."""


class PortTakenError(FatalModelError):
    """Another program listens on the server's port."""


class OldServerError(FatalModelError):
    """A vLLM that is too old to load another checkpoint's weights securely."""


class Cause(NamedTuple):
    """A pattern in the end of a server's log, with its cause and a hint."""

    pattern: str
    cause: str
    hint: str
    kind: type[FatalModelError] = FatalModelError


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
        "leave port out of --model-args: a free one is chosen",
        PortTakenError,
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
        r"unrecognized arguments:.*--(?:uds|worker-extension-cls)\b"
        r"|No module named '?medeval_vllm_worker",
        "it does not know a flag of newer versions",
        "with --model-args port=PORT it is started without",
        OldServerError,
    ),
    Cause(
        r"error: (?:unrecognized arguments|argument |ambiguous option|the following arguments)"
        r"|ValidationError|ValueError: |invalid choice",
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
        self, process: asyncio.subprocess.Process, address: ServerAddress, log: Path, log_start: int
    ) -> None:
        self._process = process
        self._address = address
        self._log_start = log_start
        self.url = address.url
        self.log = log
        self.ended: asyncio.Task[int] = asyncio.create_task(process.wait())

    @classmethod
    async def start(
        cls,
        command: Sequence[str],
        *,
        address: ServerAddress,
        log: Path,
        environment: Mapping[str, str],
    ) -> "ServerProcess":
        """Start a command, without waiting until the server is ready."""
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output:
            log_start = output.tell()
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-I",
                guard.__file__,
                "" if address.socket is None else str(address.socket),
                *command,
                stdin=asyncio.subprocess.PIPE,
                stdout=output,
                stderr=output,
                start_new_session=True,
                env=dict(environment),
            )
        return cls(process, address, log, log_start)

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
        return aiohttp.ClientSession(
            connector=connector_to(self.url),
            timeout=aiohttp.ClientTimeout(total=QUESTION_TIMEOUT_S),
        )

    async def _answers(self, session: aiohttp.ClientSession) -> bool:
        try:
            async with session.get(f"{root_url(self.url)}/health") as response:
                return response.status == 200
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
        # a guard that was killed did not remove the socket
        self._address.clear()


def explained(what: str, log: Path, log_start: int, *, otherwise: str) -> FatalModelError:
    """An engine's error, with the cause and the hint that match the end of its log."""
    tail = _tail(log, log_start)
    lines = [line for line in tail.splitlines() if line.strip()][-SHOWN_LINES:]
    shown = "".join(f"\n  {line}" for line in lines) + f"\n  (log: {log})"
    for known in CAUSES:
        if re.search(known.pattern, tail):
            return known.kind(f"{what}: {known.cause}{shown}", hint=known.hint)
    return FatalModelError(f"{what} ({otherwise}){shown}", hint="see its log")


def _tail(log: Path, start: int) -> str:
    """The end of a log, from the byte `start` at the earliest."""
    try:
        with log.open("rb") as file:
            file.seek(max(start, log.stat().st_size - LOG_TAIL_BYTES))
            return file.read().decode(errors="replace")
    except OSError:
        return ""
