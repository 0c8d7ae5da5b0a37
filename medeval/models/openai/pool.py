"""One model on several servers: each request goes to the server with the fewest in flight."""

import asyncio
import contextlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from medeval.errors import FatalModelError, OverloadedModelError, TransientModelError
from medeval.models.base import Reply, Request
from medeval.models.openai.client import OpenAIModel
from medeval.models.openai.connection import MAX_RETRY_AFTER_S
from medeval.store.fingerprints import differences
from medeval.types.sample import JsonValue

FIRST_REST_S = 1.0
LONGEST_REST_S = 60.0


@dataclass(slots=True, eq=False)
class _Server:
    """A server with its failures in a row; after one it rests until `resting_until`."""

    client: OpenAIModel
    is_connected: bool = False
    in_flight: int = 0
    failures: int = 0
    resting_until: float = 0.0
    rests: int = 0

    @property
    def takes_requests(self) -> bool:
        """Whether it is well and has room, or has rested and no other request tries it."""
        if not self.failures:
            return not self.client.is_full
        return not self.in_flight and time.monotonic() >= self.resting_until


class ServerPool:
    """A model on several OpenAI-compatible servers that hold the same weights.

    A server that fails rests, longer each time, and is then tried with one request. A request that
    failed goes to another server, and is given up after `max_tries` times the number of servers.
    An overloaded server is sent fewer requests at once. The clients must not repeat requests.
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
        errors = []
        try:
            for server in self._servers:
                try:
                    await self._connect(server)
                except TransientModelError as error:
                    self._rest(server, 0, error)
                    errors.append(error)
            if len(errors) == len(self._servers):
                raise FatalModelError(errors[0].message, hint=errors[0].hint)
        except BaseException:
            await self.close()
            raise

    async def _connect(self, server: _Server) -> None:
        """Connect to one; raises TransientModelError where it may be reached later."""
        try:
            await server.client.start()
        except FatalModelError as error:
            cause = error.__cause__
            if not isinstance(cause, TransientModelError):
                raise
            raise TransientModelError(
                error.message, hint=error.hint, retry_after_s=cause.retry_after_s
            ) from cause
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
        """Generate one turn on the server with the fewest requests in flight."""
        for remaining in reversed(range(self._max_tries)):
            server = await self._next()
            failures = server.failures
            try:
                if not server.is_connected:
                    await self._connect(server)
                reply = await server.client.generate(request)
            except TransientModelError as error:
                # a server that is busy with other requests needs no rest, only fewer of them
                if not isinstance(error, OverloadedModelError) or server.in_flight == 1:
                    self._rest(server, failures, error)
                if not remaining:
                    raise
            else:
                server.failures = 0
                return reply
            finally:
                server.in_flight -= 1
                self._changed.set()
        raise AssertionError("the last try returns or raises")

    async def _next(self) -> _Server:
        """The server to ask next, with the request counted; waits while none takes requests."""
        while True:
            ready = [server for server in self._servers if server.takes_requests]
            if ready:
                chosen = min(ready, key=lambda server: server.in_flight)
                chosen.in_flight += 1
                return chosen
            self._changed.clear()
            rests = [one.resting_until for one in self._servers if not one.in_flight]
            wait_s = min(rests) - time.monotonic() if rests else None
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._changed.wait()

    def _rest(self, server: _Server, failures: int, error: TransientModelError) -> None:
        """Let a server rest, once for all requests sent when it had failed `failures` times."""
        if server.failures != failures:
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
        """What the servers, all alike, say of themselves."""
        return dict(self._identity or self._servers[0].client.identity())

    def notes(self) -> tuple[str, ...]:
        """Which servers failed how often, and the clients' notes."""
        failed = [
            f"{server.client.label} failed and was left alone {server.rests} times"
            for server in self._servers
            if server.rests
        ]
        of_clients = [note for server in self._servers for note in server.client.notes()]
        return tuple(dict.fromkeys((*failed, *of_clients)))
