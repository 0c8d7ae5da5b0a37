"""OpenAI's chat completions as bytes: a request as JSON, a server's answer as a reply or a refusal.

Nothing here opens a connection. Servers differ in how they refuse a request; what a refusal means
is decided here, from its codes and its text.
"""

import json
import re
import secrets
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

import pybase64
from pydantic import AliasChoices, BaseModel, Field, ValidationError

from medeval.models.base import Reply, Request
from medeval.models.final_turn import final_turn_settings, whole_turns
from medeval.tools.calls.find import ends_at_stop
from medeval.types.sample import JsonValue, RequestImage
from medeval.types.trajectory import FinishReason, ImageRef, Message, NativeCall, Text, Usage

# Stands for an image's base64 in the JSON text; random, so that no conversation holds it.
PLACEHOLDER = f"image-{secrets.token_hex(16)}-"
PLACEHOLDER_PATTERN = re.compile(f"{PLACEHOLDER}([0-9]+)-")

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
# The prompt and `max_tokens` together do not fit, and the prompt alone may.
MAX_TOKENS_PATTERN = re.compile(
    r"completion|output tokens|max_\w*tokens|requested token count", re.IGNORECASE
)
PROMPT_ALONE_PATTERN = re.compile(r"even without any output|at least 1, got 0", re.IGNORECASE)
UNSUPPORTED_PATTERN = re.compile(
    r"unsupported|not support|unrecognized|unrecognised|unknown|unexpected"
    r"|extra inputs|extra_forbidden|not permitted|cannot find field|not a valid field|deprecated",
    re.IGNORECASE,
)
# `stop` named as a setting: it is too long, empty, or of another form than the server wants.
STOP_PATTERN = re.compile(r"""['"`.$]stop['"`: ]|stop[_ ]sequences?""", re.IGNORECASE)
# vLLM, llama.cpp (also of 2025), Ollama, OpenRouter, OpenAI, DeepSeek.
NO_IMAGES = re.compile(
    r"not a multimodal model"
    r"|image input is not supported"
    r"|unsupported content part type"
    r"|not support (?:image|vision|multimodal)"
    r"|missing data required for image input"
    r"|no endpoints found that support image"
    r"|image_url is only supported by certain models"
    r"|unknown variant `image_url`",
    re.IGNORECASE,
)
NO_IMAGES_OF_TOOLS = re.compile(r"image urls? (?:are|is) only allowed .{0,40}user", re.IGNORECASE)
STREAM_ONLY = re.compile(
    r"only supports? stream|non-?streaming|enable the stream|streaming is required", re.IGNORECASE
)
WEB_PAGE = re.compile(r"^\s*<(?:!doctype html|html)", re.IGNORECASE)
# The first line of an answer that is a stream of server-sent events.
EVENT_STREAM_PATTERN = re.compile(rb"\s*(?:data|event|id|retry|):")

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
    name: str | None = None
    arguments: str | dict[str, Any] | None = None


class _ToolCall(BaseModel):
    index: int | None = None
    id: str | None = None
    function: _Function


class _Message(BaseModel):
    content: str | list[dict[str, Any]] | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    refusal: str | None = None
    tool_calls: list[_ToolCall] | None = None


class _Choice(BaseModel):
    # "delta" in the chunks of a stream
    message: _Message = Field(validation_alias=AliasChoices("message", "delta"))
    finish_reason: str | None = None


class _CachedTokens(BaseModel):
    cached_tokens: int | None = None


class _Usage(BaseModel):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: _CachedTokens | None = None


class _Completion(BaseModel):
    choices: list[_Choice] = []
    usage: _Usage | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """An error that a server answers a request with.

    `message` is its text in full, `codes` are its code and type as text, and `parameter` is the
    setting that a field of its own blames, or None.
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
    def is_too_long(self) -> bool:
        """Whether the prompt, or the prompt with `max_tokens`, does not fit the context."""
        return bool(self.codes & CONTEXT_CODES or self.says(CONTEXT_PATTERN))

    @property
    def blames_max_tokens(self) -> bool:
        """Whether a prompt that is too long with `max_tokens` may fit without it."""
        return self.says(MAX_TOKENS_PATTERN) and not self.says(PROMPT_ALONE_PATTERN)

    @property
    def is_filtered(self) -> bool:
        """Whether a content filter refused the conversation."""
        return bool(self.codes & FILTER_CODES)

    def says(self, pattern: re.Pattern[str]) -> bool:
        """Whether the server's text matches a pattern."""
        return bool(pattern.search(self.message))

    @property
    def is_transient(self) -> bool:
        """Whether the same request may succeed later."""
        lasts = self.codes & EXHAUSTED_CODES or self.says(NO_IMAGES) or self.is_too_long
        return not lasts and (self.status in RETRIED_STATUSES or self.status >= 500)

    @property
    def is_overload(self) -> bool:
        """Whether the server had too many requests at once."""
        return self.status in OVERLOAD_STATUSES

    def unknown_settings(self, sent: Collection[str]) -> set[str]:
        """Those of the `sent` settings that the server says it does not take."""
        evidence = " ".join((self.message, *sorted(self.codes)))
        if self.status not in (400, 422):
            return set()
        # A reply can be cut here as well, so it does not matter what is wrong with `stop`.
        if "stop" in sent and (self.parameter == "stop" or self.says(STOP_PATTERN)):
            return {"stop"}
        if not UNSUPPORTED_PATTERN.search(evidence):
            return set()
        if self.parameter is not None and self.parameter in sent:
            return {self.parameter}
        words = {_plain(word) for word in re.findall(r"\w+", self.message)}
        return {name for name in sent if _plain(name) in words}


def _plain(name: str) -> str:
    """A setting's name as snake case and camel case share it; some servers answer in camel case."""
    return name.replace("_", "").lower()


def request_settings(request: Request) -> dict[str, JsonValue]:
    """The settings of a request, which a server may not know, by their names in its JSON."""
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
    if request.tools:
        settings["tool_choice"] = "auto"
    settings |= final_turn_settings(request.messages)
    return {name: value for name, value in settings.items() if value is not None}


def request_body(request: Request, settings: Mapping[str, JsonValue]) -> bytes:
    """The JSON of a request, with its images as data URLs.

    An image does not pass through the JSON encoder: base64 holds nothing to escape.
    """
    body: dict[str, object] = {
        "messages": [
            _message(message, request.images) for message in whole_turns(request.messages)
        ],
        **settings,
    }
    if request.tools:
        body["tools"] = [tool.as_json() for tool in request.tools]
    # JSON text and numbers of images by turns
    pieces = PLACEHOLDER_PATTERN.split(json.dumps(body))
    return b"".join(
        pybase64.b64encode(request.images[int(piece)].encoded())
        if index % 2
        else piece.encode("ascii")
        for index, piece in enumerate(pieces)
    )


def images_after_tools(messages: Sequence[Message]) -> tuple[Message, ...]:
    """The messages, with the images of tools in a user's turn after the tools' messages."""
    moved: list[Message] = []
    for is_tool, group in groupby(messages, key=lambda message: message.role == "tool"):
        images: list[ImageRef] = []
        for message in group:
            if is_tool:
                images += [part for part in message.content if isinstance(part, ImageRef)]
                texts = tuple(part for part in message.content if isinstance(part, Text))
                message = replace(message, content=texts)
            moved.append(message)
        if images:
            moved.append(Message(role="user", content=tuple(images)))
    return tuple(moved)


def _message(message: Message, images: Sequence[RequestImage]) -> dict[str, object]:
    body: dict[str, object] = {"role": message.role, "content": _content(message, images)}
    if message.native_calls:
        body["tool_calls"] = [_call(call) for call in message.native_calls]
        body["content"] = message.text or None
    if message.call_id is not None:
        body["tool_call_id"] = message.call_id
    return body


def _content(message: Message, images: Sequence[RequestImage]) -> str | list[dict[str, object]]:
    if not any(isinstance(part, ImageRef) for part in message.content):
        return message.text
    return [_part(part, images) for part in message.content]


def _part(part: Text | ImageRef, images: Sequence[RequestImage]) -> dict[str, object]:
    if isinstance(part, Text):
        return {"type": "text", "text": part.text}
    head = f"data:{images[part.image].media_type};base64,"
    return {"type": "image_url", "image_url": {"url": f"{head}{PLACEHOLDER}{part.image}-"}}


def _call(call: NativeCall) -> dict[str, object]:
    return {
        "id": call.id,
        "type": "function",
        "function": {"name": call.name, "arguments": _object_text(call.arguments)},
    }


def _object_text(arguments: str) -> str:
    """The arguments of a call as the model wrote them, or `{}` where they are no JSON object.

    Chat templates want an object. Newer vLLM does the same by itself; other servers refuse the
    whole conversation, and the model's slip would stop the cell.
    """
    try:
        read = json.loads(arguments)
    except ValueError:
        read = None
    return arguments if isinstance(read, dict) else "{}"


def read_reply(content: bytes, stop: Sequence[str] = ()) -> Reply | None:
    """The reply in a server's answer, also in a stream; None where it holds no whole reply.

    A text that goes on after one of the `stop` strings is cut right after it. A text without any
    stays as it is, because nobody knows at which of several it ended.
    """
    try:
        if EVENT_STREAM_PATTERN.match(content):
            completion = _joined(content)
        else:
            completion = _Completion.model_validate_json(content)
    except ValidationError:
        return None
    if not completion.choices or completion.choices[0].finish_reason in BROKEN_FINISHES:
        return None
    choice = completion.choices[0]
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


def _joined(stream: bytes) -> _Completion:
    """What the chunks of a stream add up to; a stream without an end holds no choice."""
    message, joined = _Message(), _Completion()
    for line in stream.splitlines():
        if line.startswith(b"data:") and not line.endswith(b"[DONE]"):
            chunk = _Completion.model_validate_json(line.removeprefix(b"data:"))
            joined.usage = chunk.usage or joined.usage
            for choice in chunk.choices:
                _extend(message, choice.message)
                if choice.finish_reason:
                    joined.choices = [_Choice(message=message, finish_reason=choice.finish_reason)]
    return joined


def _extend(message: _Message, delta: _Message) -> None:
    """Append a chunk's words and calls to a message."""
    for name in ("content", "reasoning", "reasoning_content", "refusal"):
        words = _text(getattr(message, name)) + _text(getattr(delta, name))
        setattr(message, name, words)
    calls = message.tool_calls = message.tool_calls or []
    for call in delta.tool_calls or []:
        # A call goes on without an id, or with its own. Gemini numbers all calls of a reply 0.
        goes_on = calls and call.index == calls[-1].index and call.id in (None, "", calls[-1].id)
        if goes_on and call.index is not None:
            function = calls[-1].function
            more = _arguments_text(call.function.arguments)
            function.arguments = _arguments_text(function.arguments) + more
        else:
            calls.append(call)


def _text(content: str | list[dict[str, Any]] | None) -> str:
    if isinstance(content, list):
        return "".join(str(part["text"]) for part in content if part.get("type") == "text")
    return content or ""


def _native_calls(calls: Sequence[_ToolCall]) -> tuple[NativeCall, ...]:
    return tuple(
        NativeCall(
            id=call.id or f"call_{index}",
            name=call.function.name or "",
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
    """The error in a server's answer; None for a status of 200 without an error in the body.

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
    """All the words of an error, without the input that a validation error repeats."""
    texts = [error.get("message"), error.get("detail")]
    metadata = error.get("metadata")
    if isinstance(metadata, dict):
        texts.append(metadata.get("raw"))
    return " ".join(_words(part) for part in texts if part) or json.dumps(error)


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
