"""Any server that speaks OpenAI's chat completions: vLLM, SGLang, llama.cpp, Azure, hosted APIs."""

import asyncio
import json
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import aiohttp

from medeval.errors import FatalModelError, ModelError, OverloadedModelError, TransientModelError
from medeval.models.base import Reply, Request
from medeval.models.final_turn import FINAL_TURN_SETTINGS, HINT, FinalTurnCheck
from medeval.models.openai.concurrency import AdaptiveConcurrency
from medeval.models.openai.connection import (
    Retries,
    http_url,
    normalised_base_url,
    open_sdk_client,
    retry_after_s,
    root_cause,
    root_url,
)
from medeval.models.openai.wire import (
    NO_IMAGES,
    NO_IMAGES_OF_TOOLS,
    STREAM_ONLY,
    WEB_PAGE,
    Refusal,
    images_after_tools,
    read_refusal,
    read_reply,
    request_body,
    request_settings,
)
from medeval.types.sample import JsonValue, RequestImage

if TYPE_CHECKING:
    from httpx2 import Response
    from openai import AsyncOpenAI

# For requests that generate nothing: the list of models, the version.
GET_TIMEOUT_S = 30.0
# Servers without keys are sent this, because some insist on the header.
NO_KEY = "EMPTY"
# The two names of one setting.
MAX_TOKENS_NAMES = frozenset({"max_tokens", "max_completion_tokens"})
STOP_SETTINGS = frozenset({"stop", "include_stop_str_in_output"})
# So many failures with `stop`, and no reply: the next request goes without it.
SUSPICIOUS_FAILURES: Final = 2
# What a server may not take, besides settings that are left out, and what is done instead.
STREAM: Final = "requests without 'stream'"
TOOL_IMAGES: Final = "images in a tool's message"
ROOM: Final = "'max_tokens' beside some prompts"
INSTEAD: Final[Mapping[str, str]] = {
    "max_tokens": "'max_tokens'; it is sent as 'max_completion_tokens'",
    "stop": "'stop'; it is left out, and replies are cut here",
    STREAM: f"{STREAM}; its streams are joined here",
    TOOL_IMAGES: f"{TOOL_IMAGES}; they are sent in a user's turn after it",
    ROOM: f"{ROOM}; those turns took the room there was",
}


class OpenAIModel:
    """One model on an OpenAI-compatible server.

    `model` None, or "", takes the only model that the server lists. The key is read from the
    environment at `start`. `timeout_s` bounds the wait for an answer.

    A failure that may pass is followed by up to `max_retries` further tries: the first after
    `retry_wait_s`, each later one after twice as long, drawn out at random to at most twice that,
    or after what Retry-After asks for (at most `MAX_RETRY_AFTER_S`). With `adaptive`, an overloaded
    server is sent fewer requests at once.

    `extra_body` is sent with each request and wins over the request's own settings. `name` stands
    for the model in messages. An `api_version` makes the server Azure's: `base_url` is then the
    resource's address, and `model` the deployment.

    A turn may take as many tokens as its `max_tokens` and the context allow. Where a server refuses
    a prompt because `max_tokens` does not fit after it, the request is sent again without
    `max_tokens`, as engines in this process and newer servers do by themselves. The reply is
    "context" where the prompt alone does not fit.

    What the server says it does not take is left out or sent in another way from then on, which
    `notes` reports: settings, except for the two that a conversation ending with the assistant's
    words needs; `stop`, also where it alone makes the server fail; requests without a stream; and
    images in a tool's message.
    """

    def __init__(
        self,
        *,
        model: str | None,
        base_url: str,
        api_key_variable: str = "OPENAI_API_KEY",
        api_version: str | None = None,
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
        self._api_key_variable = api_key_variable
        self._api_version = api_version
        self._timeout_s = timeout_s
        self._retries = Retries(max_retries + 1, first_wait_s=retry_wait_s)
        self._extra_body = dict(extra_body or {})
        self._key = NO_KEY
        self._sdk: AsyncOpenAI | None = None
        self._version: str | None = None
        self._max_model_len: int | None = None
        self._refused: dict[str, str] = {}
        self._has_replied = False
        self._takes_stop = False
        self._failures_with_stop: list[Refusal] = []
        self._final_turn = FinalTurnCheck(self.label)
        self._concurrency = AdaptiveConcurrency(adapts=adaptive)

    async def start(self) -> None:
        """Connect, and check the model's name against the server's list where it has one."""
        self._key = os.environ.get(self._api_key_variable, "").strip() or NO_KEY
        self._sdk = open_sdk_client(
            self._base_url,
            key=self._key,
            timeout_s=self._timeout_s,
            deployment=self._model,
            api_version=self._api_version,
        )
        if self._api_version is not None:
            return  # Azure lists models, but not deployments
        try:
            self._choose_model(await self._model_list())
            self._version = await self._server_version()
        except BaseException:
            await self.close()
            raise

    async def generate(self, request: Request) -> Reply:
        """Generate one turn, or more of the last one."""
        if request.messages and request.messages[-1].role == "assistant":
            await self._final_turn.check(self._generate)
        return await self._generate(request)

    async def _generate(self, request: Request) -> Reply:
        without_max_tokens: Refusal | None = None
        await _encode(request.images)
        while True:
            settings = self._settings(request)
            if without_max_tokens is not None:
                settings = {k: v for k, v in settings.items() if k not in MAX_TOKENS_NAMES}
            sent = request
            if TOOL_IMAGES in self._refused:
                sent = replace(request, messages=images_after_tools(request.messages))
            attempt = partial(self._try, sent, settings)
            outcome = await self._retries.run(partial(self._concurrency.send, attempt))
            if isinstance(outcome, Reply):
                if without_max_tokens is not None:
                    self._remember(ROOM, without_max_tokens)
                return outcome
            if outcome.is_too_long:
                if not outcome.blames_max_tokens or not MAX_TOKENS_NAMES & settings.keys():
                    return Reply(text="", finish="context")
                without_max_tokens = outcome
            elif outcome.is_filtered:
                return Reply(text="", finish="refused")
            else:
                self._adapt(outcome, sent, settings)

    def _settings(self, request: Request) -> dict[str, JsonValue]:
        """The settings of a request that are sent, by the name under which they are sent."""
        settings = request_settings(request)
        if "max_tokens" in self._refused:
            settings["max_completion_tokens"] = settings["max_tokens"]
        if STREAM in self._refused:
            settings |= {"stream": True, "stream_options": {"include_usage": True}}
        hidden = self._refused.keys() | self._extra_body.keys()
        if MAX_TOKENS_NAMES & self._extra_body.keys():
            hidden |= MAX_TOKENS_NAMES
        if "stop" in self._refused:
            hidden |= STOP_SETTINGS
        return {name: value for name, value in settings.items() if name not in hidden}

    def _adapt(self, refusal: Refusal, sent: Request, settings: Mapping[str, JsonValue]) -> None:
        """Remember what a refusal is about; raises FatalModelError where nothing helps."""
        refused = refusal.unknown_settings(settings)
        if refusal.says(STREAM_ONLY) and "stream" not in {*settings, *self._extra_body}:
            refused = {STREAM}
        if refusal.says(NO_IMAGES_OF_TOOLS) and images_after_tools(sent.messages) != sent.messages:
            refused = {TOOL_IMAGES}
        if not refused or "max_completion_tokens" in refused:
            raise self._fatal(refusal)
        if refused & FINAL_TURN_SETTINGS:
            raise FatalModelError(
                f"the server of {self.label} does not take {sorted(refused)!r}, which tell it what "
                f"to do with a last turn of the assistant's ({self._redacted(refusal.shown)})",
                hint=HINT,
            )
        for name in sorted(refused):
            self._remember(name, refusal)

    def _remember(self, refused: str, refusal: Refusal) -> None:
        """Do without something from now on."""
        instead = INSTEAD.get(refused, f"{refused!r}; it is left out")
        reason = self._redacted(refusal.shown)
        note = f"the server of {self.label} does not take {instead} ({reason})"
        self._refused.setdefault(refused, note)

    async def _try(self, request: Request, settings: Mapping[str, JsonValue]) -> Reply | Refusal:
        """One try: a reply, or a refusal that stands; raises TransientModelError otherwise."""
        fails_with_stop = len(self._failures_with_stop) >= SUSPICIOUS_FAILURES
        suspects_stop = fails_with_stop and "stop" in settings and not self._takes_stop
        if suspects_stop:
            settings = {k: v for k, v in settings.items() if k not in STOP_SETTINGS}
        body = request_body(request, {"model": self._model, **settings, **self._extra_body})
        response = await self._send("/chat/completions", body)
        reply = read_reply(response.content, request.stop) if response.status_code == 200 else None
        if reply is not None:
            if suspects_stop and self._failures_with_stop and not self._takes_stop:
                self._remember("stop", self._failures_with_stop[-1])
            self._has_replied = True
            self._takes_stop |= "stop" in settings
            return reply
        refusal = read_refusal(response.status_code, response.content)
        if refusal is None:
            refusal = Refusal(status=200, message=response.content[:4096].decode(errors="replace"))
            # A server that has replied may show a page for a while.
            if self._has_replied or not refusal.says(WEB_PAGE):
                raise self._transient(f"an answer that holds no reply, {refusal.shown}")
        if suspects_stop:
            self._failures_with_stop.clear()
        elif refusal.status == 500 and "stop" in settings and not self._takes_stop:
            self._failures_with_stop.append(refusal)
        return self._unless_transient(refusal, response)

    def _unless_transient(self, refusal: Refusal, response: "Response") -> Refusal:
        """The refusal, unless the same request may succeed later; then TransientModelError."""
        if refusal.is_transient:
            wait_s = retry_after_s(response.headers.get("Retry-After", ""))
            raise self._transient(refusal.shown, wait_s, is_overload=refusal.is_overload)
        return refusal

    async def _send(self, path: str, body: bytes | None = None) -> "Response":
        """The answer to one HTTP request, of any status; POST with a body, GET without."""
        import openai
        from httpx2 import Response

        if self._sdk is None:
            raise FatalModelError(f"{self.label} is asked before start(), or after close()")
        try:
            if body is None:
                timeout_s = min(self._timeout_s, GET_TIMEOUT_S)
                return await self._sdk.get(path, cast_to=Response, options={"timeout": timeout_s})
            length = {"Content-Length": str(len(body))}
            return await self._sdk.post(
                path, content=_stream(body), cast_to=Response, options={"headers": length}
            )
        except openai.APIStatusError as error:
            return error.response
        except (openai.APIConnectionError, aiohttp.ClientError, OSError) as error:
            cause = root_cause(error)
            if isinstance(cause, TimeoutError):
                shown = f"no answer in time ({type(cause).__name__})"
                raise self._transient(shown, is_overload=True) from cause
            shown = f"{type(cause).__name__} at {self._base_url}: {cause}"
            raise self._transient(shown) from cause

    async def _model_list(self) -> list[dict[str, Any]]:
        """The server's list of models, empty where it has none."""
        try:
            return _model_cards(await self._retries.run(partial(self._get_json, "/models")))
        except TransientModelError as error:
            raise FatalModelError(
                error.message, hint="is the server up, and --base-url its address?"
            ) from error

    async def _get_json(self, url: str) -> object:
        """The JSON that a server answers a GET request with; None where it does not."""
        response = await self._send(url)
        refusal = read_refusal(response.status_code, response.content)
        if refusal is not None:
            # 500: "transformers serve" 5.19, where the machine has no cache of models
            is_no_list = refusal.status in (500, 501)
            if not is_no_list and self._unless_transient(refusal, response).status == 401:
                raise self._fatal(refusal)
            return None
        try:
            return json.loads(response.content)
        except ValueError:
            return None

    def _choose_model(self, cards: list[dict[str, Any]]) -> None:
        """Take the model's name and its context's length from the server's list."""
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
        """What vLLM answers on /version; None for other servers."""
        url = f"{root_url(self._base_url)}/version"
        try:
            document = await self._retries.run(partial(self._get_json, url))
        except ModelError:
            return None
        version = document.get("version") if isinstance(document, dict) else None
        return version if isinstance(version, str) else None

    async def close(self) -> None:
        """Close the connections."""
        sdk, self._sdk = self._sdk, None
        if sdk is not None:
            await sdk.close()

    def identity(self) -> Mapping[str, JsonValue]:
        """The model's name and what the server says of itself, without its address."""
        return {
            "engine": "openai",
            "model": self._model,
            "server_version": self._version,
            "max_model_len": self._max_model_len,
            "extra_body": dict(self._extra_body),
        }

    def notes(self) -> tuple[str, ...]:
        """Settings left out, turns without `max_tokens`, and the server's overloads."""
        overload = self._concurrency.note()
        busy = None if overload is None else f"the server of {self.label} {overload}"
        others = (self._final_turn.note, busy)
        return (*self._refused.values(), *(note for note in others if note is not None))

    @property
    def is_full(self) -> bool:
        """Whether a further request would wait until the server has less to do."""
        return self._concurrency.is_full

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
        url = f"{http_url(self._base_url)}/chat/completions"
        address = f"requests go to {url}: is --base-url right? It mostly ends in /v1"
        hints = {
            401: f"put a key that the server accepts into {self._api_key_variable}",
            403: f"may the key in {self._api_key_variable} use this model?",
            404: f"check --model; {address}",
            405: address,
        }
        hint = address if refusal.says(WEB_PAGE) else hints.get(refusal.status)
        if refusal.says(NO_IMAGES):
            hint = "serve a model that takes images; llama.cpp takes them with --mmproj"
        return FatalModelError(
            f"the server refuses requests for {self.label}: {self._redacted(refusal.shown)}",
            hint=hint,
        )


async def _encode(images: Sequence[RequestImage]) -> None:
    """Encode the images that are not, which must not hold up the other conversations."""
    for image in images:
        if not image.is_encoded:
            await asyncio.to_thread(image.encoded)


async def _stream(body: bytes) -> AsyncIterator[bytes]:
    """The body in one piece; aiohttp warns of bytes above 1 MB that are not a stream."""
    yield body


def _model_cards(document: object) -> list[dict[str, Any]]:
    """The entries of a list of models; empty for JSON of another form."""
    entries = document.get("data") if isinstance(document, dict) else document
    if not isinstance(entries, list):
        return []
    return [entry for entry in entries if isinstance(entry, dict) and "id" in entry]
