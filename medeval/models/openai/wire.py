"""The chat-completions wire format: a request as JSON bytes, the server's answer as a reply.

Nothing here opens a connection. Servers differ in how they refuse a request; what a refusal means
is decided here, from its codes and its text.
"""

import json
import re
import secrets
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, Field, ValidationError

from medeval.models.base import Reply, Request
from medeval.models.final_turn import final_turn_settings, whole_turns
from medeval.models.openai.body import Body
from medeval.tools.calls.find import ends_at_stop
from medeval.types.sample import EncodedImage, JsonValue
from medeval.types.trajectory import FinishReason, ImageRef, Message, NativeCall, Text, Usage

# Random, so that no text of a conversation can be taken for the place of an image.
IMAGE_PLACE = f"image-{secrets.token_hex(16)}-"
IMAGE_PLACE_PATTERN = re.compile(f"{IMAGE_PLACE}([0-9]+)-")

SHOWN_CHARACTERS = 600

RETRIED_STATUSES = frozenset({408, 409, 425, 429})
# Too many requests, nothing free, a gateway's time-out, and what Anthropic calls overloaded.
OVERLOAD_STATUSES = frozenset({429, 503, 504, 529})
EXHAUSTED_CODES = frozenset({"insufficient_quota"})
FILTER_CODES = frozenset({"content_filter", "content_policy_violation"})
CONTEXT_CODES = frozenset(
    {"context_length_exceeded", "exceed_context_size_error", "model_context_window_exceeded"}
)
CONTEXT_PATTERN = re.compile(
    r"maximum context length"
    r"|model's context length"
    r"|exceeds? the context window"
    r"|exceeds? the available context size"
    r"|longer than the maximum model length"
    r"|prompt is too long"
    r"|maximum prompt length is"
    r"|maximum allowed (?:input )?length"
    r"|input token count .{0,40}exceeds the maximum"
    r"|tokens \+ `?max_new_tokens`? must be"
    r"|reduce the length of the (?:input|messages|prompt)"
    # vLLM, where the prompt fills the context to the last token.
    r"|max_tokens must be at least 1, got 0",
    re.IGNORECASE,
)
ROOM_PATTERN = re.compile(
    r"completion|output tokens|max_\w*tokens|requested token count", re.IGNORECASE
)
NO_ROOM_AT_ALL = re.compile(r"even without any output|at least 1, got 0", re.IGNORECASE)
UNSUPPORTED_PATTERN = re.compile(
    r"unsupported|not support|unrecognized|unrecognised|unknown|unexpected"
    r"|extra inputs|extra_forbidden|not permitted|cannot find field|not a valid field",
    re.IGNORECASE,
)

FINISH_REASONS: Mapping[str, FinishReason] = {
    "length": "length",
    "max_tokens": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "refused",
    "refusal": "refused",
}
# The server gave up on the request; what it wrote until then is no reply.
BROKEN_FINISHES = frozenset({"abort", "error"})


class _Function(BaseModel):
    name: str
    arguments: str | dict[str, Any] | None = None


class _ToolCall(BaseModel):
    id: str | None = None
    function: _Function


class _Message(BaseModel):
    content: str | list[dict[str, Any]] | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    refusal: str | None = None
    tool_calls: list[_ToolCall] | None = None


class _Choice(BaseModel):
    message: _Message
    finish_reason: str | None = None


class _CachedTokens(BaseModel):
    cached_tokens: int | None = None


class _Usage(BaseModel):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: _CachedTokens | None = None


class _Completion(BaseModel):
    choices: Annotated[list[_Choice], Field(min_length=1)]
    usage: _Usage | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """An answer of the server that is an error.

    `codes` are its code and type as text; `parameter` is what it blames, where it says so in a
    field of its own. `message` is the server's text in full.
    """

    status: int
    message: str
    codes: frozenset[str] = frozenset()
    parameter: str | None = None

    @property
    def shown(self) -> str:
        """The status and the server's text, shortened."""
        text = " ".join(self.message.split())
        if len(text) > SHOWN_CHARACTERS:
            text = f"{text[:SHOWN_CHARACTERS]} [...]"
        return f"HTTP {self.status}: {text or 'no text'}"

    @property
    def is_context(self) -> bool:
        """Whether the conversation, or what may be added to it, does not fit the context."""
        return bool(self.codes & CONTEXT_CODES or CONTEXT_PATTERN.search(self.message))

    @property
    def is_room(self) -> bool:
        """Whether a conversation that is too long with `max_tokens` may fit without."""
        return bool(ROOM_PATTERN.search(self.message) and not NO_ROOM_AT_ALL.search(self.message))

    @property
    def is_filter(self) -> bool:
        """Whether a content filter refused the conversation."""
        return bool(self.codes & FILTER_CODES)

    @property
    def is_transient(self) -> bool:
        """Whether the same request may succeed later."""
        return not self.codes & EXHAUSTED_CODES and (
            self.status in RETRIED_STATUSES or self.status >= 500
        )

    @property
    def is_overload(self) -> bool:
        """Whether fewer requests at once would have been taken."""
        return self.status in OVERLOAD_STATUSES

    def unsupported(self, sent: Collection[str]) -> set[str]:
        """Those of the sent parameters that the server says it does not take."""
        if self.status not in (400, 422) or not UNSUPPORTED_PATTERN.search(self._evidence):
            return set()
        if self.parameter is not None and self.parameter in sent:
            return {self.parameter}
        words = {_plain(word) for word in re.findall(r"\w+", self.message)}
        return {name for name in sent if _plain(name) in words}

    @property
    def _evidence(self) -> str:
        return " ".join((self.message, *sorted(self.codes)))


def _plain(name: str) -> str:
    """A parameter's name without its spelling: some servers answer in camel case."""
    return name.replace("_", "").lower()


def parameters(request: Request) -> dict[str, JsonValue]:
    """The settings of a request that a server may not know, by their name on the wire."""
    sampling = request.sampling
    settings: dict[str, JsonValue] = {
        "temperature": sampling.temperature,
        "max_tokens": sampling.max_tokens,
        "seed": request.seed,
        "top_p": sampling.top_p,
        "presence_penalty": sampling.presence_penalty,
        "top_k": sampling.top_k,
        "repetition_penalty": sampling.repetition_penalty,
    }
    if request.stop:
        settings |= {"stop": list(request.stop), "include_stop_str_in_output": True}
    settings |= final_turn_settings(request.messages)
    return {name: value for name, value in settings.items() if value is not None}


def encode(request: Request, settings: Mapping[str, JsonValue]) -> Body:
    """The JSON body of a request."""
    body: dict[str, object] = {
        "messages": [_message(message) for message in whole_turns(request.messages)],
        **settings,
    }
    if request.tools:
        body |= {"tools": [tool.as_json() for tool in request.tools], "tool_choice": "auto"}
    return _filled(json.dumps(body), request.images)


def _filled(text: str, images: Sequence[EncodedImage]) -> Body:
    pieces = IMAGE_PLACE_PATTERN.split(text)
    return Body(
        [
            images[int(piece)] if index % 2 else piece.encode("ascii")
            for index, piece in enumerate(pieces)
        ]
    )


def _message(message: Message) -> dict[str, object]:
    body: dict[str, object] = {"role": message.role, "content": _content(message)}
    if message.native_calls:
        body["tool_calls"] = [_call(call) for call in message.native_calls]
        body["content"] = message.text or None
    if message.call_id is not None:
        body["tool_call_id"] = message.call_id
    return body


def _content(message: Message) -> str | list[dict[str, object]]:
    if not any(isinstance(part, ImageRef) for part in message.content):
        return message.text
    return [_part(part) for part in message.content]


def _part(part: Text | ImageRef) -> dict[str, object]:
    if isinstance(part, Text):
        return {"type": "text", "text": part.text}
    return {"type": "image_url", "image_url": {"url": f"{IMAGE_PLACE}{part.image}-"}}


def _call(call: NativeCall) -> dict[str, object]:
    return {
        "id": call.id,
        "type": "function",
        "function": {"name": call.name, "arguments": _object_text(call.arguments)},
    }


def _object_text(arguments: str) -> str:
    """The arguments as sent before, or an empty object where they are no JSON object.

    Chat templates want an object: newer vLLM does the same by itself, others refuse the whole
    conversation, and what a model wrote would stop the cell.
    """
    try:
        read = json.loads(arguments)
    except ValueError:
        read = None
    return arguments if isinstance(read, dict) else "{}"


def decode(content: bytes, stop: Sequence[str] = ()) -> Reply | None:
    """The reply in a server's answer, None where there is none to be read.

    A text that goes on after one of `stop` is cut right after it; a text that lacks it is left
    as it is, because nobody knows which of several it ended at.
    """
    try:
        completion = _Completion.model_validate_json(content)
    except ValidationError:
        return None
    choice = completion.choices[0]
    if choice.finish_reason in BROKEN_FINISHES:
        return None
    message = choice.message
    written = _text(message.content)
    text = ends_at_stop(written, stop)
    refused = message.refusal is not None and message.refusal != ""
    finish = FINISH_REASONS.get(choice.finish_reason or "stop", "stop")
    return Reply(
        text=message.refusal or "" if refused and not text else text,
        finish="refused" if refused else "stop" if text != written else finish,
        reasoning=message.reasoning_content or message.reasoning or "",
        native_calls=_native_calls(message.tool_calls or []),
        usage=_usage(completion.usage),
    )


def _text(content: str | list[dict[str, Any]] | None) -> str:
    if isinstance(content, list):
        return "".join(str(part["text"]) for part in content if part.get("type") == "text")
    return content or ""


def _native_calls(calls: Sequence[_ToolCall]) -> tuple[NativeCall, ...]:
    return tuple(
        NativeCall(
            id=call.id or f"call_{index}",
            name=call.function.name,
            arguments=_arguments_text(call.function.arguments),
        )
        for index, call in enumerate(calls)
    )


def _arguments_text(arguments: str | dict[str, Any] | None) -> str:
    if isinstance(arguments, dict):
        return json.dumps(arguments)
    return arguments or ""


def _usage(usage: _Usage | None) -> Usage:
    if usage is None:
        return Usage()
    details = usage.prompt_tokens_details
    return Usage(
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.completion_tokens,
        cached_tokens=details.cached_tokens if details else None,
    )


def read_refusal(status: int, content: bytes) -> Refusal | None:
    """The error in a server's answer; None where a status of 200 comes without one.

    Some gateways answer 200 and put the error, with its own status, into the body.
    """
    document = _json_object(content)
    error = document.get("error") or (document if document.get("object") == "error" else None)
    if status == 200 and error is None:
        return None
    if isinstance(error, dict):
        return _from_fields(status, error)
    if isinstance(error, str):
        return Refusal(status=status, message=error)
    if document:
        return _from_fields(status, document)
    return Refusal(status=status, message=content.decode("utf-8", errors="replace"))


def _json_object(content: bytes) -> dict[str, Any]:
    try:
        document = json.loads(content)
    except ValueError:
        return {}
    if isinstance(document, list) and document:
        document = document[0]
    return document if isinstance(document, dict) else {}


def _from_fields(status: int, error: Mapping[str, Any]) -> Refusal:
    code, parameter = error.get("code"), error.get("param")
    own_status = code if isinstance(code, int) and 400 <= code < 600 else status
    return Refusal(
        status=own_status if status == 200 else status,
        message=_message_text(error),
        codes=frozenset(str(value) for value in (code, error.get("type")) if value is not None),
        parameter=parameter if isinstance(parameter, str) else None,
    )


def _message_text(error: Mapping[str, Any]) -> str:
    """All that an error says in words; the input that a validation error repeats is left out."""
    told = [error.get("message"), error.get("detail")]
    metadata = error.get("metadata")
    if isinstance(metadata, dict):
        told.append(metadata.get("raw"))
    return " ".join(_words(part) for part in told if part) or json.dumps(error)


def _words(part: object) -> str:
    if isinstance(part, list):
        return "; ".join(_words(item) for item in part)
    if isinstance(part, dict) and "detail" in part:
        return _words(part["detail"])
    if isinstance(part, dict) and "msg" in part:
        steps = part.get("loc")
        place = ".".join(str(step) for step in steps) if isinstance(steps, list) else ""
        return f"{place}: {part['msg']}"
    return part if isinstance(part, str) else json.dumps(part)
