"""A model with replies from a list or a function, for tests and replay."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

from medeval.errors import FatalModelError
from medeval.models.base import Reply, Request
from medeval.types.sample import JsonValue

Script: TypeAlias = "Sequence[str | Reply] | Callable[[Request], str | Reply]"


class ScriptedModel:
    """A model that replies from a sequence, in order, or by a function of each request.

    A string becomes a reply with finish "stop". Errors of the function propagate; a sequence that
    has run out raises FatalModelError. Each reply takes `latency_s` seconds. `requests` holds all
    requests so far, in the order of arrival.
    """

    def __init__(self, replies: Script, latency_s: float = 0.0) -> None:
        self._replies = replies
        self._latency_s = latency_s
        self.requests: list[Request] = []

    async def start(self) -> None:
        """Do nothing."""

    async def generate(self, request: Request) -> Reply:
        """The next reply of the script."""
        index = len(self.requests)
        self.requests.append(request)
        await asyncio.sleep(self._latency_s)
        reply = self._replies(request) if callable(self._replies) else self._nth(index)
        return Reply(text=reply, finish="stop") if isinstance(reply, str) else reply

    def _nth(self, index: int) -> str | Reply:
        assert not callable(self._replies)
        if index >= len(self._replies):
            raise FatalModelError(
                f"the script has {len(self._replies)} replies, but one more was asked for"
            )
        return self._replies[index]

    async def close(self) -> None:
        """Do nothing."""

    def identity(self) -> Mapping[str, JsonValue]:
        """The engine's name; a script's replies are not part of it."""
        return {"engine": "scripted"}

    def notes(self) -> tuple[str, ...]:
        """No notes."""
        return ()
