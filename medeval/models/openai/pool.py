"""One model behind several servers: each request goes to the one with the least to do."""

import asyncio
import contextlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from medeval.errors import FatalModelError, OverloadedModelError, TransientModelError
from medeval.models.base import Reply, Request
from medeval.models.openai.client import OpenAIModel
from medeval.models.openai.retries import MAX_RETRY_AFTER_S
from medeval.store.fingerprints import differences
from medeval.types.sample import JsonValue

FIRST_REST_S = 1.0
LONGEST_REST_S = 60.0


@dataclass(slots=True, eq=False)
class _Server:
    """A server and how it does: `failures` in a row, and when it may be asked again."""

    client: OpenAIModel
    is_connected: bool = False
    in_flight: int = 0
    failures: int = 0
    resting_until: float = 0.0
    rests: int = 0

    @property
    def takes_requests(self) -> bool:
        """Whether it is well and has room, or has rested and nobody tries it yet."""
        if not self.failures:
            return not self.client.is_full
        return not self.in_flight and time.monotonic() >= self.resting_until


class SeveralServers:
    """A model on several OpenAI-compatible servers that hold the same.

    A request goes to the server with the fewest in flight. One that fails rests, for longer each
    time, and is then tried with one request; what it failed at goes to the others, and is given
    up after `max_tries` on each. One that has too much to do is sent fewer requests at once. The
    clients are to repeat nothing themselves.
    """

    def __init__(
        self, clients: Sequence[OpenAIModel], *, max_tries: int, first_rest_s: float = FIRST_REST_S
    ) -> None:
        self._servers = [_Server(client) for client in clients]
        self._max_tries = max_tries * len(clients)
        self._first_rest_s = first_rest_s
        self._changed = asyncio.Event()
        self._identity: dict[str, JsonValue] | None = None

    async def start(self) -> None:
        """Connect to all; raises FatalModelError where none can be reached, or two differ."""
        try:
            errors = [error for server in self._servers if (error := await self._reach(server))]
            if len(errors) == len(self._servers):
                raise errors[0]
        except BaseException:
            await self.close()
            raise

    async def _reach(self, server: _Server) -> FatalModelError | None:
        """Connect to one; why it could not be reached, where it may be reached later."""
        seen = server.failures
        try:
            await self._connect(server)
        except FatalModelError as error:
            if not isinstance(error.__cause__, TransientModelError):
                raise
            self._rest(server, seen, error.__cause__)
            return error
        return None

    async def _connect(self, server: _Server) -> None:
        await server.client.start()
        identity = dict(server.client.identity())
        if self._identity is None:
            self._identity = identity
        if changed := differences(self._identity, identity):
            raise FatalModelError(
                f"{server.client.label} is not the model of the servers before it: "
                f"{'; '.join(changed)}",
                hint="all servers of --base-url must serve one model in one version",
            )
        server.is_connected = True

    async def generate(self, request: Request) -> Reply:
        """Generate one turn on the server with the least to do."""
        for remaining in reversed(range(self._max_tries)):
            server = await self._next()
            seen = server.failures
            try:
                reply = await self._ask(server, request)
            except TransientModelError as error:
                # one that is busy with others needs no rest, only fewer of them
                if not isinstance(error, OverloadedModelError) or server.in_flight == 1:
                    self._rest(server, seen, error)
                if not remaining:
                    raise
            else:
                server.failures = 0
                return reply
            finally:
                server.in_flight -= 1
                self._changed.set()
        raise AssertionError("the last try returns or raises")

    async def _ask(self, server: _Server, request: Request) -> Reply:
        if not server.is_connected:
            error = await self._reach(server)
            if error is not None:
                raise TransientModelError(error.message, hint=error.hint)
        return await server.client.generate(request)

    async def _next(self) -> _Server:
        """The server to ask next, its place taken; waits where all are failing."""
        while True:
            ready = [server for server in self._servers if server.takes_requests]
            if ready:
                chosen = min(ready, key=lambda server: server.in_flight)
                chosen.in_flight += 1
                return chosen
            self._changed.clear()
            rests = [one.resting_until for one in self._servers if not one.in_flight]
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(_loop_time(min(rests)) if rests else None):
                    await self._changed.wait()

    def _rest(self, server: _Server, seen: int, error: TransientModelError) -> None:
        """Leave a server alone for a while; requests that failed together count once."""
        if server.failures != seen:
            return
        backoff_s = min(self._first_rest_s * 2**server.failures, LONGEST_REST_S)
        asked_s = min(error.retry_after_s or 0.0, MAX_RETRY_AFTER_S)
        server.failures += 1
        server.rests += 1
        server.resting_until = time.monotonic() + max(backoff_s, asked_s)

    async def close(self) -> None:
        """Close the connections."""
        for server in self._servers:
            server.is_connected = False
            await server.client.close()

    def identity(self) -> Mapping[str, JsonValue]:
        """What the servers, all alike, tell of themselves."""
        return dict(self._identity or self._servers[0].client.identity())

    def notes(self) -> tuple[str, ...]:
        """Which servers failed how often, and what the clients tell."""
        failed = [
            f"{server.client.label} failed and was left alone {server.rests} times"
            for server in self._servers
            if server.rests
        ]
        told = [note for server in self._servers for note in server.client.notes()]
        return tuple(dict.fromkeys((*failed, *told)))


def _loop_time(moment: float) -> float:
    """A moment of the monotonic clock as the event loop's own."""
    return asyncio.get_running_loop().time() + moment - time.monotonic()
