"""Any server that speaks OpenAI's chat completions: vLLM, SGLang, llama.cpp, hosted APIs."""

import json
import os
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import aiohttp

from medeval.errors import FatalModelError, ModelError, OverloadedModelError, TransientModelError
from medeval.models.base import Reply, Request
from medeval.models.final_turn import FINAL_TURN_SETTINGS, HINT, FinalTurnCheck
from medeval.models.openai.address import (
    connector_to,
    http_url,
    normalised_base_url,
    proxy_for,
    root_url,
)
from medeval.models.openai.body import Body
from medeval.models.openai.concurrency import Places
from medeval.models.openai.retries import Retries, retry_after_s
from medeval.models.openai.wire import Refusal, decode, encode, parameters, read_refusal
from medeval.types.sample import JsonValue

CONNECT_TIMEOUT_S = 30.0
# For requests that generate nothing: the list of models, the version.
QUESTION_TIMEOUT_S = 30.0
# uvicorn, under vLLM and SGLang, closes a connection after 5 idle seconds: be first.
KEEP_ALIVE_S = 4.0
# Servers without keys are sent this, because some insist on the header.
NO_KEY = "EMPTY"
# The two names of the same setting.
BOUNDS = frozenset({"max_tokens", "max_completion_tokens"})


@dataclass(frozen=True, slots=True)
class _Answer:
    """What a server answered to one HTTP request."""

    status: int
    content: bytes
    retry_after_s: float | None


class OpenAIModel:
    """One model on an OpenAI-compatible server.

    `model` None, or "", takes the only one that the server lists. The key is read from the
    environment at `start`. Failures that may pass are repeated `max_retries` times, after
    `retry_wait_s` and then twice as long each time, drawn out at random to at most twice that, or
    after what Retry-After asks for (at most `MAX_RETRY_AFTER_S`). `extra_body` is sent with each
    request and wins over the request's own settings. `name` stands for the model in messages.
    With `adaptive`, a server that has too much to do is sent fewer requests at once.

    A turn may take as many tokens as its `max_tokens` and the context allow: a server that
    refuses a prompt which fits, because `max_tokens` does not fit beside it, is asked again
    without `max_tokens`, as engines in this process and newer servers do by themselves. The
    reply is "context" where the prompt does not fit.

    A setting that the server says it does not know is left out from then on and told in `notes`,
    but for the two that a conversation ending with the assistant's words cannot do without.
    """

    def __init__(
        self,
        *,
        model: str | None,
        base_url: str,
        api_key_variable: str = "OPENAI_API_KEY",
        timeout_s: float = 600.0,
        max_retries: int = 5,
        retry_wait_s: float = 0.5,
        extra_body: Mapping[str, JsonValue] | None = None,
        name: str | None = None,
        adaptive: bool = True,
    ) -> None:
        self._model = model or ""
        self._name = name
        self._base_url = normalised_base_url(base_url)
        self._url = http_url(self._base_url)
        self._proxy = proxy_for(self._url)
        self._api_key_variable = api_key_variable
        self._timeout_s = timeout_s
        self._retries = Retries(max_retries + 1, first_wait_s=retry_wait_s)
        self._extra_body = dict(extra_body or {})
        self._key = NO_KEY
        self._session: aiohttp.ClientSession | None = None
        self._version: str | None = None
        self._max_model_len: int | None = None
        self._left_out: dict[str, str] = {}
        self._room_note: str | None = None
        self._final_turn = FinalTurnCheck(self.label)
        self._places = Places(adapts=adaptive)

    async def start(self) -> None:
        """Connect, and check the model's name against the server's list where it has one."""
        self._key = os.environ.get(self._api_key_variable, "").strip() or NO_KEY
        self._session = self._open_session()
        try:
            self._choose(await self._listed())
            self._version = await self._server_version()
        except BaseException:
            await self.close()
            raise

    def _open_session(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            # Concurrency is the caller's to bound.
            connector=connector_to(self._base_url, limit=0, keepalive_timeout=KEEP_ALIVE_S),
            headers={"Authorization": f"Bearer {self._key}"},
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=self._timeout_s, connect=CONNECT_TIMEOUT_S),
            proxy=self._proxy,
        )

    async def generate(self, request: Request) -> Reply:
        """Generate one turn, or more of the last one."""
        if request.messages and request.messages[-1].role == "assistant":
            await self._final_turn.check(self._generate)
        return await self._generate(request)

    async def _generate(self, request: Request) -> Reply:
        no_room: Refusal | None = None
        while True:
            settings = self._settings(request, is_bounded=no_room is None)
            body = encode(request, {"model": self._model, **settings, **self._extra_body})
            complete = partial(self._complete, body, request.stop)
            outcome = await self._retries.of(partial(self._places.send, complete))
            if isinstance(outcome, Reply):
                self._note_room(no_room)
                return outcome
            if outcome.is_context and outcome.is_room and BOUNDS & settings.keys():
                no_room = outcome
            elif outcome.is_context:
                return Reply(text="", finish="context")
            elif outcome.is_filter:
                return Reply(text="", finish="refused")
            else:
                self._leave_out(outcome, settings)

    def _settings(self, request: Request, *, is_bounded: bool) -> dict[str, JsonValue]:
        """What is sent of a request's settings, by the name under which it is sent."""
        settings = parameters(request)
        if "max_tokens" in self._left_out:
            settings["max_completion_tokens"] = settings["max_tokens"]
        hidden = self._left_out.keys() | self._extra_body.keys()
        if not is_bounded or BOUNDS & self._extra_body.keys():
            hidden |= BOUNDS
        return {key: value for key, value in settings.items() if key not in hidden}

    def _leave_out(self, refusal: Refusal, sent: Mapping[str, JsonValue]) -> None:
        """Remember the settings a refusal names; raises FatalModelError where it names none."""
        unknown = refusal.unsupported(sent)
        if not unknown or "max_completion_tokens" in unknown:
            raise self._fatal(refusal)
        if unknown & FINAL_TURN_SETTINGS:
            raise FatalModelError(
                f"the server of {self.label} does not take {sorted(unknown)!r}, which tell it what "
                f"to do with a last turn of the assistant's ({self._redacted(refusal.shown)})",
                hint=HINT,
            )
        for setting in sorted(unknown):
            instead = "sent as 'max_completion_tokens'" if setting == "max_tokens" else "left out"
            self._left_out[setting] = (
                f"the server of {self.label} does not take {setting!r}; it is {instead} "
                f"({self._redacted(refusal.shown)})"
            )

    def _note_room(self, refusal: Refusal | None) -> None:
        if refusal is not None and self._room_note is None:
            self._room_note = (
                f"the server of {self.label} had no room for max_tokens beside some prompts; "
                f"those turns took the room there was ({self._redacted(refusal.shown)})"
            )

    async def _complete(self, body: Body, stop: tuple[str, ...]) -> Reply | Refusal:
        """One try: a reply, or a refusal that stands; raises TransientModelError otherwise."""
        answer = await self._send("POST", "/chat/completions", body)
        if answer.status == 200:
            reply = decode(answer.content, stop)
            if reply is not None:
                return reply
        refusal = read_refusal(answer.status, answer.content)
        if refusal is None:
            seen = Refusal(status=200, message=answer.content[:4096].decode(errors="replace"))
            raise self._transient(f"an answer that holds no reply, {seen.shown}")
        return self._standing(refusal, answer)

    def _standing(self, refusal: Refusal, answer: _Answer) -> Refusal:
        if refusal.is_transient and not refusal.is_context:
            raise self._transient(
                refusal.shown, answer.retry_after_s, is_overload=refusal.is_overload
            )
        return refusal

    async def _send(
        self, method: str, path: str, body: Body | None = None, *, root: str | None = None
    ) -> _Answer:
        if self._session is None:
            raise FatalModelError(f"{self.label} is asked before start(), or after close()")
        try:
            async with self._session.request(
                method,
                f"{root or self._url}{path}",
                data=None if body is None else _stream(body),
                headers=None if body is None else _headers(body),
                allow_redirects=False,
                timeout=self._timeout(generates=body is not None),
            ) as response:
                content = await response.read()
                wait_s = retry_after_s(response.headers.get("Retry-After"))
                return _Answer(response.status, content, wait_s)
        except TimeoutError as error:
            cause = f"no answer in time ({type(error).__name__})"
            raise self._transient(cause, is_overload=True) from error
        except (aiohttp.ClientError, OSError) as error:
            raise self._transient(f"{type(error).__name__}: {error}") from error

    def _timeout(self, *, generates: bool) -> aiohttp.ClientTimeout:
        total_s = self._timeout_s if generates else min(self._timeout_s, QUESTION_TIMEOUT_S)
        return aiohttp.ClientTimeout(total=total_s, sock_connect=min(total_s, CONNECT_TIMEOUT_S))

    async def _listed(self) -> list[dict[str, Any]]:
        """The server's list of models, empty where it has none."""
        try:
            answer = await self._retries.of(lambda: self._question("/models"))
        except TransientModelError as error:
            raise FatalModelError(
                error.message, hint="is the server up, and --base-url its address?"
            ) from error
        if answer.status == 401:
            raise self._fatal(_refusal(answer))
        return _model_cards(answer.content) if answer.status == 200 else []

    async def _question(self, path: str, *, root: str | None = None) -> _Answer:
        answer = await self._send("GET", path, root=root)
        if answer.status not in (200, 501):
            self._standing(_refusal(answer), answer)
        return answer

    def _choose(self, cards: list[dict[str, Any]]) -> None:
        names = [str(card["id"]) for card in cards]
        if not self._model and len(names) == 1:
            self._model = names[0]
        # Some list "models/NAME" or "OWNER/NAME" and take NAME.
        matching = [card for card in cards if f"/{card['id']}".endswith(f"/{self._model}")]
        if not self._model or (names and not matching):
            wanted = repr(self._model) if self._model else "a model without a name"
            raise FatalModelError(
                f"{wanted} was asked for, but {self._base_url!r} lists {names!r}",
                hint="name one of the server's models with --model",
            )
        length = matching[0].get("max_model_len") if matching else None
        self._max_model_len = length if isinstance(length, int) else None

    async def _server_version(self) -> str | None:
        """What vLLM answers on /version; None for servers that do not tell."""
        root = root_url(self._base_url)
        try:
            answer = await self._retries.of(lambda: self._question("/version", root=root))
            document = json.loads(answer.content)
        except (ModelError, ValueError):
            return None
        version = document.get("version") if isinstance(document, dict) else None
        return version if answer.status == 200 and isinstance(version, str) else None

    async def close(self) -> None:
        """Close the connections."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    def identity(self) -> Mapping[str, JsonValue]:
        """The model's name and what the server tells of itself; its address is not part of it."""
        return {
            "engine": "openai",
            "model": self._model,
            "server_version": self._version,
            "max_model_len": self._max_model_len,
            "extra_body": dict(self._extra_body),
        }

    def notes(self) -> tuple[str, ...]:
        """Settings left out, turns with less room than asked for, and a server's overload."""
        overload = self._places.note()
        busy = None if overload is None else f"the server of {self.label} {overload}"
        told = (self._room_note, self._final_turn.note, busy)
        return (*self._left_out.values(), *(note for note in told if note is not None))

    @property
    def is_full(self) -> bool:
        """Whether a further request would wait until the server has less to do."""
        return self._places.is_full

    @property
    def label(self) -> str:
        """The model, for people."""
        return repr(self._name or self._model or self._base_url)

    def _redacted(self, text: str) -> str:
        return text if self._key == NO_KEY else text.replace(self._key, "[key]")

    def _transient(
        self, cause: str, wait_s: float | None = None, *, is_overload: bool = False
    ) -> TransientModelError:
        kind = OverloadedModelError if is_overload else TransientModelError
        return kind(f"no reply from {self.label}: {self._redacted(cause)}", retry_after_s=wait_s)

    def _fatal(self, refusal: Refusal) -> FatalModelError:
        hints = {
            401: f"put a key that the server accepts into {self._api_key_variable}",
            403: f"may the key in {self._api_key_variable} use this model?",
            404: "check --model and --base-url",
        }
        return FatalModelError(
            f"the server refuses requests for {self.label}: {self._redacted(refusal.shown)}",
            hint=hints.get(refusal.status),
        )


async def _stream(body: Body) -> AsyncIterator[bytes]:
    for piece in body:
        yield piece


def _headers(body: Body) -> dict[str, str]:
    return {"Content-Type": "application/json", "Content-Length": str(body.size_bytes)}


def _refusal(answer: _Answer) -> Refusal:
    refusal = read_refusal(answer.status, answer.content)
    return refusal or Refusal(status=answer.status, message="")


def _model_cards(content: bytes) -> list[dict[str, Any]]:
    """The entries of a list of models; empty for an answer of another form."""
    try:
        document = json.loads(content)
    except ValueError:
        return []
    entries = document.get("data") if isinstance(document, dict) else document
    if not isinstance(entries, list):
        return []
    return [entry for entry in entries if isinstance(entry, dict) and "id" in entry]
