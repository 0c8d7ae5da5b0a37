"""Recorded conversations read as a protocol would read them: each call, and where it would stop.

Nothing is generated. A call is carried out only where the sizes of the images are known, on blank
images of those sizes; elsewhere it is checked as far as its arguments alone allow.
"""

import base64
import binascii
import io
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

from medeval.call_rulings import (
    NOT_PICKED,
    calls_of,
    keeps_names,
    offered_tool,
    picked_calls,
    reason_to_refuse,
    refused_as,
    said_before,
    seen_calls,
    winning_answer,
)
from medeval.errors import DataError, ToolError
from medeval.eval_protocol import EvalProtocol
from medeval.images import Picture, made_picture
from medeval.tools.base import ToolContext
from medeval.tools.calls import ends_at_stop
from medeval.types import NativeCall, ParsedCall, StopReason

UNCHECKED: Final = "unchecked: image size unknown"

# What a call would have come to; a recorded one may also be beyond what can be said.
ReplayStatus: TypeAlias = Literal[
    "executed",
    "rejected",
    "malformed",
    "over_limit",
    "not_offered",
    "unchecked: image size unknown",
]
STATUSES: Final[tuple[ReplayStatus, ...]] = (
    "executed", "rejected", "malformed", "over_limit", "not_offered", UNCHECKED,
)  # fmt: skip

# How the protocol's end compares with the recorded one.
Agreement: TypeAlias = Literal["agrees", "stops earlier", "goes on", "recording is cut short"]
AGREEMENTS: Final[tuple[Agreement, ...]] = (
    "agrees", "stops earlier", "goes on", "recording is cut short",
)  # fmt: skip

# No image of a recording is taken to be larger; blank ones are made of what is.
MAX_SIDE: Final = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayedCall:
    """A recorded call: which reply it stands in, from 0, and what the protocol makes of it."""

    turn: int
    name: str | None
    arguments: Mapping[str, Any] | None
    status: ReplayStatus
    error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayed:
    """A recorded conversation under a protocol.

    `stop` is why the protocol ends it, None where it would ask for another reply; `stopped_at` is
    the reply after which it does. `answer` is what it takes for the answer.
    """

    number: int
    n_replies: int
    calls: tuple[ReplayedCall, ...]
    stop: StopReason | None
    stopped_at: int | None
    answer: str | None
    agreement: Agreement


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayReport:
    """All conversations of a file, and counts over them."""

    protocol: str
    conversations: tuple[Replayed, ...]

    @property
    def calls(self) -> dict[str, int]:
        """Calls found, and how many came to each status."""
        counts = Counter(call.status for item in self.conversations for call in item.calls)
        return {"found": counts.total(), **{status: counts[status] for status in STATUSES}}

    @property
    def stops(self) -> dict[str, int]:
        """How many conversations the protocol ends, by its reason."""
        return dict(Counter(item.stop or "goes on" for item in self.conversations))

    @property
    def agreement(self) -> dict[str, int]:
        """How the protocol's ends compare with the recorded ones."""
        counts = Counter(item.agreement for item in self.conversations)
        return {name: counts[name] for name in AGREEMENTS}


def replay_file(path: Path, protocol: EvalProtocol) -> ReplayReport:
    """Replay every conversation of a file: JSON lines, each with `messages`.

    Raises DataError, naming the line, for what is no such conversation.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read the conversations in {str(path)!r}: {error}") from error
    replayed = [
        replay(messages, protocol, number=number) for number, messages in _conversations(text, path)
    ]
    if not replayed:
        raise DataError(f"{str(path)!r} holds no conversation")
    return ReplayReport(protocol=protocol.name, conversations=tuple(replayed))


def _conversations(text: str, path: Path) -> Iterator[tuple[int, list[Mapping[str, Any]]]]:
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path.name}, line {number}: no JSON: {error}") from error
        messages = value.get("messages") if isinstance(value, dict) else value
        if not isinstance(messages, list) or not all(_is_message(item) for item in messages):
            raise DataError(
                f"{path.name}, line {number}: no conversation",
                hint='each line is {"messages": [{"role": ..., "content": ...}, ...]}',
            )
        yield number, messages


def _is_message(value: object) -> bool:
    return isinstance(value, dict) and isinstance(value.get("role"), str)


def replay(
    messages: Sequence[Mapping[str, Any]], protocol: EvalProtocol, *, number: int = 1
) -> Replayed:
    """What a protocol would have done at each reply of a recorded conversation."""
    state = _State(protocol=protocol, pictures=_original_pictures(messages))
    replies = [message for message in messages if message["role"] == "assistant"]
    stop: StopReason | None = None
    answer: str | None = None
    n_read = 0
    for reply in replies:
        n_read += 1
        stop, answer = state.follow(_text(reply), _native_calls(reply))
        if stop is not None:
            break
    ends_on_reply = bool(messages) and messages[-1]["role"] == "assistant"
    # a result that nobody reads may follow a reply that calls and answers at once
    unread = any(call.turn == n_read - 1 for call in state.calls) and answer is not None
    return Replayed(
        number=number,
        n_replies=len(replies),
        calls=tuple(state.calls),
        stop=stop,
        stopped_at=None if stop is None else n_read - 1,
        answer=answer,
        agreement=_agreement(stop, n_read, len(replies), ends_there=ends_on_reply or unread),
    )


def _agreement(
    stop: StopReason | None, n_read: int, n_replies: int, *, ends_there: bool
) -> Agreement:
    """Compare the protocol's end with the recorded one, which `ends_there` or has more to come."""
    if stop is not None:
        return "agrees" if n_read == n_replies and ends_there else "stops earlier"
    return "goes on" if ends_there else "recording is cut short"


@dataclass(slots=True, kw_only=True)
class _State:
    """A conversation while it is replayed; `pictures` is None where a size is unknown."""

    protocol: EvalProtocol
    pictures: list[Picture] | None
    n_turns: int = 0
    calls: list[ReplayedCall] = field(default_factory=list)
    n_originals: int = 0
    said: list[str] = field(default_factory=list)
    made: list[int | None] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.n_originals = len(self.pictures or ())

    def follow(
        self, text: str, native: Sequence[NativeCall]
    ) -> tuple[StopReason | None, str | None]:
        """Why the protocol stops after a reply, None where it goes on, and the answer if any."""
        self.n_turns += 1
        text = ends_at_stop(text, self.protocol.stop)
        found = calls_of(text, native, self.protocol, said_before(self.said, self.calls))
        self.said.append(text)
        seen = seen_calls(found, self.protocol)
        for call in found:
            if call not in seen:
                self._record(call, "malformed", call.error)
        if not seen:
            answer = self.protocol.extract(text)
            if answer is not None:
                return "answered", answer.text
            otherwise: StopReason = "malformed_call" if found else "no_answer"
            return (otherwise if text.strip() else "empty"), None
        return self._carry_out(seen, text)

    def _carry_out(
        self, seen: Sequence[ParsedCall], text: str
    ) -> tuple[StopReason | None, str | None]:
        picked = picked_calls(seen, self.protocol)
        last = winning_answer(text, self.protocol)
        before = last is not None and self.protocol.call_rules.answer_wins == "before_calls"
        for call in seen:
            if before or call not in picked:
                self._record(call, "over_limit", NOT_PICKED)
                continue
            stop = self._ruling(call)
            if stop is not None:
                self._record(call, refused_as(call, stop), call.error)
                return self._at_limit(stop, text)
            if self._execute(call) and self.protocol.on_error == "end" and last is None:
                return self._at_limit("tool_error", text)
        return ("answered", last.text) if last is not None else (None, None)

    def _ruling(self, call: ParsedCall) -> StopReason | None:
        done = ("executed", UNCHECKED)
        n_executed = sum(made.status in done for made in self.calls)
        return reason_to_refuse(
            call,
            "stop",
            self.protocol,
            n_turns=self.n_turns,
            n_executed=n_executed,
            n_images=max(1, self.n_originals) + n_executed,
        )

    def _at_limit(self, stop: StopReason, text: str) -> tuple[StopReason, str | None]:
        if self.protocol.at_limit == "no_answer" or stop == "not_offered":
            return stop, None
        answer = self.protocol.extract(text)
        return (stop, None) if answer is None else ("answered", answer.text)

    def _execute(self, call: ParsedCall) -> bool:
        """Carry a call out as far as the images are known; whether it was refused."""
        if call.error is not None and self.protocol.on_malformed != "carry_out":
            self._record(call, "malformed", call.error)
            return True
        name = call.name if call.error is None else self.protocol.tools[0].name
        arguments = call.arguments or {}
        try:
            tool = offered_tool(self.protocol, name)
            if self.pictures is None:
                tool.check(arguments)
                self._record(call, UNCHECKED, None)
                return False
            self.pictures.append(tool.run(arguments, self._context(self.pictures)).picture)
            self._record(call, "executed", None, made=len(self.pictures) - 1)
        except ToolError as error:
            self._record(call, "rejected", error.message)
            return True
        return False

    def _context(self, pictures: Sequence[Picture]) -> ToolContext:
        budget = self.protocol.model_budget
        sizes = {
            index: budget.size_of(picture.sent)
            for index, picture in enumerate(pictures)
            if budget is not None
        }
        turn = None if keeps_names(self.protocol) else self.n_turns - 1
        made = zip(self.calls, self.made, strict=True)
        return ToolContext(
            pictures=tuple(pictures),
            frame=self.protocol.frame,
            n_originals=self.n_originals,
            model_sizes=sizes,
            earlier=[image for call, image in made if turn in (None, call.turn)],
        )

    def _record(
        self,
        call: ParsedCall,
        status: ReplayStatus,
        error: str | None,
        *,
        made: int | None = None,
    ) -> None:
        self.made.append(made)
        self.calls.append(
            ReplayedCall(
                turn=self.n_turns - 1,
                name=call.name,
                arguments=call.arguments,
                status=status,
                error=error,
            )
        )


def _text(message: Mapping[str, Any]) -> str:
    content = message.get("content")
    if isinstance(content, str):
        return content
    return "".join(part["text"] for part in _parts(message) if isinstance(part.get("text"), str))


def _parts(message: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    content = message.get("content")
    return [part for part in content if isinstance(part, dict)] if isinstance(content, list) else []


def _native_calls(message: Mapping[str, Any]) -> tuple[NativeCall, ...]:
    calls = message.get("tool_calls")
    functions = [
        (str(call.get("id") or f"call_{index}"), call.get("function"))
        for index, call in enumerate(calls if isinstance(calls, list) else [])
        if isinstance(call, dict)
    ]
    return tuple(
        NativeCall(id=call_id, name=str(function.get("name") or ""), arguments=_encoded(function))
        for call_id, function in functions
        if isinstance(function, dict)
    )


def _encoded(function: Mapping[str, Any]) -> str:
    arguments = function.get("arguments")
    return arguments if isinstance(arguments, str) else json.dumps(arguments)


def _original_pictures(messages: Sequence[Mapping[str, Any]]) -> list[Picture] | None:
    """Blank images of the sizes that the recording tells, None where it tells too little."""
    pictures: list[Picture] = []
    for message in messages:
        if message["role"] == "assistant":
            break
        for part in _parts(message):
            if str(part.get("type", "")).startswith("image"):
                size = _size(part)
                if size is None:
                    return None
                pictures.append(_blank(size))
    return pictures or None


def _size(part: Mapping[str, Any]) -> tuple[int, int] | None:
    match part:
        case {"width": int(width), "height": int(height)}:
            return (width, height) if 0 < width <= MAX_SIDE and 0 < height <= MAX_SIDE else None
        case {"image_url": {"url": str(url)}} if url.startswith("data:"):
            return _decoded_size(url)
    return None


def _decoded_size(url: str) -> tuple[int, int] | None:
    from PIL import Image

    try:
        data = base64.b64decode(url.partition(",")[2], validate=True)
        with Image.open(io.BytesIO(data)) as image:
            width, height = image.size
    except (binascii.Error, OSError, ValueError, SyntaxError):
        return None
    return (width, height) if max(width, height) <= MAX_SIDE else None


def _blank(size: tuple[int, int]) -> Picture:
    from PIL import Image

    return made_picture(Image.new("RGB", size), budget=None)
