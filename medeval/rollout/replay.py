"""Recorded conversations read as a protocol would read them: each call, and where it would stop.

Nothing is generated. A call is carried out only where the sizes of the images are known, on blank
images of those sizes; elsewhere it is checked as far as its arguments alone allow.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Literal

from medeval.errors import DataError, ToolError
from medeval.rollout.call_policy import (
    calls_of,
    keeps_names,
    offered_tool,
    picked_calls,
    reason_to_refuse,
    reason_to_skip,
    refused_as,
    said_before,
    seen_calls,
    winning_answer,
)
from medeval.rollout.observation import Observed
from medeval.rollout.protocol import EvalProtocol
from medeval.rollout.recorded import (
    SIZE_UNKNOWN,
    Message,
    RecordedImages,
    Recording,
    UncheckedError,
    parts_of,
)
from medeval.tools.base import Tool
from medeval.tools.calls.find import ends_at_stop
from medeval.types.trajectory import Answer, FinishReason, NativeCall, ParsedCall, StopReason

UNCHECKED_FOR: Final = "unchecked: "
UNCHECKED: Final = f"{UNCHECKED_FOR}{SIZE_UNKNOWN}"

# What a call would have come to, in this order; and "unchecked: " with what the recording does not
# tell, where a call hangs on more than the sizes of images.
STATUSES: Final = (
    "executed", "rejected", "malformed", "over_limit", "not_offered", UNCHECKED,
)  # fmt: skip

# How the protocol's end compares with the recorded one.
Agreement = Literal["agrees", "stops earlier", "goes on", "recording is cut short"]
AGREEMENTS: Final[tuple[Agreement, ...]] = (
    "agrees", "stops earlier", "goes on", "recording is cut short",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayedCall:
    """A recorded call: which reply it stands in, from 0, and what the protocol makes of it."""

    turn: int
    name: str | None
    arguments: Mapping[str, Any] | None
    status: str
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
        """Calls found, and how many came to each status of STATUSES, and to any other."""
        counts = Counter(call.status for item in self.conversations for call in item.calls)
        others = sorted(set(counts) - set(STATUSES))
        return {"found": counts.total(), **{name: counts[name] for name in (*STATUSES, *others)}}

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

    A line may hold the sample's `metadata`, and be a trajectory of medeval's own. Raises DataError,
    naming the line, for what is no such conversation.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read the conversations in {str(path)!r}: {error}") from error
    replayed = [
        replay(recording, protocol, number=number) for number, recording in _recordings(text, path)
    ]
    if not replayed:
        raise DataError(f"{str(path)!r} holds no conversation")
    return ReplayReport(protocol=protocol.name, conversations=tuple(replayed))


def _recordings(text: str, path: Path) -> Iterator[tuple[int, Recording]]:
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path.name}, line {number}: no JSON: {error}") from error
        recording = Recording.of(value)
        if recording is None:
            raise DataError(
                f"{path.name}, line {number}: no conversation",
                hint='each line is {"messages": [{"role": ..., "content": ...}, ...]}',
            )
        yield number, recording


def replay(recording: Recording, protocol: EvalProtocol, *, number: int = 1) -> Replayed:
    """What a protocol would have done at each reply of a recorded conversation."""
    messages = recording.messages
    images = recording.images(protocol.pixel_budget)
    state = _State(
        protocol=protocol, images=RecordedImages(images=images, metadata=recording.metadata)
    )
    replies = [message for message in messages if message["role"] == "assistant"]
    stop: StopReason | None = None
    answer: Answer | None = None
    n_read = 0
    for reply in replies:
        finish: FinishReason = "length" if n_read in recording.cut_off else "stop"
        n_read += 1
        stop, answer = state.follow(_text(reply), _native_calls(reply), finish)
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
        answer=None if answer is None else answer.text,
        agreement=_agreement(stop, n_read, len(replies), ends_there=ends_on_reply or unread),
    )


def _agreement(
    stop: StopReason | None, n_read: int, n_replies: int, *, ends_there: bool
) -> Agreement:
    """Compare the protocol's end with the recorded one, which `ends_there` or has more to come."""
    if stop is not None:
        return "agrees" if n_read == n_replies and ends_there else "stops earlier"
    return "goes on" if ends_there else "recording is cut short"


Ended = tuple[StopReason | None, Answer | None]


@dataclass(slots=True, kw_only=True)
class _State:
    """A conversation while it is replayed, in the steps of `medeval.rollout.conversation`."""

    protocol: EvalProtocol
    images: RecordedImages
    texts: list[str] = field(default_factory=list)
    calls: list[ReplayedCall] = field(default_factory=list)
    # of each call, the index of the image that it made
    made: list[int | None] = field(default_factory=list)

    def follow(self, text: str, native: Sequence[NativeCall], finish: FinishReason) -> Ended:
        """Why the protocol stops after a reply, None where it goes on, and the answer if any."""
        text = ends_at_stop(text, self.protocol.stop)
        found = calls_of(text, native, self.protocol, said_before(self.texts, self.calls))
        self.texts.append(text)
        seen = seen_calls(found, self.protocol)
        for call in found:
            if call not in seen:
                self._record(call, "malformed", call.error)
        if not seen:
            answer = self._extract(text, finish)
            if answer is not None:
                return "answered", answer
            if finish == "length":
                return "length", None
            otherwise: StopReason = "malformed_call" if found else "no_answer"
            return (otherwise if text.strip() else "empty"), None
        return self._carry_out(seen, text, finish)

    def _extract(self, text: str, finish: FinishReason) -> Answer | None:
        if self.protocol.answer_over == "all_replies":
            text = "\n".join(self.texts)
        return self.protocol.extract(text, complete=finish != "length")

    def _carry_out(self, seen: Sequence[ParsedCall], text: str, finish: FinishReason) -> Ended:
        picked = picked_calls(seen, self.protocol)
        last = winning_answer(text, self.protocol)
        if last and self.protocol.call_rules.answer_wins == "before_calls":
            for call in seen:
                self._record(call, "over_limit", call.error)
            return "answered", last
        results: list[Observed] = []
        for position, call in enumerate(seen):
            skip = reason_to_skip(call, picked, results)
            if skip is not None:
                self._record(call, *skip)
                continue
            stop = self._reason_to_refuse(call, finish)
            if stop is not None:
                for refused in seen[position:]:
                    self._record(refused, refused_as(refused, stop), refused.error)
                return self._at_limit(stop, finish)
            results.append(Observed(native_id=call.native_id, error=self._execute(call)))
            if results[-1].error is not None and self.protocol.on_error == "end" and not last:
                return self._at_limit("tool_error", "stop")
        return ("answered", last) if last else (None, None)

    def _reason_to_refuse(self, call: ParsedCall, finish: FinishReason) -> StopReason | None:
        n_executed = sum(index is not None for index in self.made)
        return reason_to_refuse(
            call,
            finish,
            self.protocol,
            n_turns=len(self.texts),
            n_executed=n_executed,
            n_images=max(1, self.images.n_originals) + n_executed,
        )

    def _at_limit(self, stop: StopReason, finish: FinishReason) -> Ended:
        if self.protocol.at_limit == "no_answer" or stop == "not_offered":
            return stop, None
        said = [text for text in self.texts if text]
        answer = self._extract(said[-1], finish) if said else None
        return (stop, None) if answer is None else ("answered", answer)

    def _execute(self, call: ParsedCall) -> str | None:
        """Carry a call out as far as the recording goes; why it was refused, None otherwise.

        A call that cannot be checked to its end counts as one that made an image.
        """
        if call.error is not None and self.protocol.on_malformed == "carry_out":
            call = replace(call, name=self.protocol.tools[0].name, arguments={}, error=None)
        if call.error is not None:
            self._record(call, "malformed", call.error)
            return call.error
        try:
            status, index = self._run(offered_tool(self.protocol, call.name), call)
        except ToolError as error:
            self._record(call, "rejected", error.message)
            return error.message
        self._record(call, status, made=index)
        return None

    def _run(self, tool: Tool, call: ParsedCall) -> tuple[str, int]:
        """What a call would come to and the index of its image, or ToolError."""
        arguments = call.arguments or {}
        turn = None if keeps_names(self.protocol) else len(self.texts) - 1
        made = zip(self.calls, self.made, strict=True)
        earlier = [index for done, index in made if turn in (None, done.turn)]
        context = self.images.context(
            self.protocol.frame, self.protocol.model_budget, earlier, by_size=tool.by_size
        )
        tool.check(arguments)
        try:
            return "executed", self.images.add(tool.run(arguments, context))
        except UncheckedError as unknown:
            # of all that is missing, the sizes are what a recording is first mended by
            why = unknown.message if self.images.has_sizes else SIZE_UNKNOWN
            return f"{UNCHECKED_FOR}{why}", self.images.add(None)

    def _record(
        self, call: ParsedCall, status: str, error: str | None = None, made: int | None = None
    ) -> None:
        self.made.append(made)
        self.calls.append(
            ReplayedCall(
                turn=len(self.texts) - 1,
                name=call.name,
                arguments=call.arguments,
                status=status,
                error=error,
            )
        )


def _text(message: Message) -> str:
    content = message.get("content")
    if isinstance(content, str):
        return content
    return "".join(part["text"] for part in parts_of(message) if isinstance(part.get("text"), str))


def _native_calls(message: Message) -> tuple[NativeCall, ...]:
    """The server's own calls, as OpenAI's messages have them or as medeval's trajectories do."""
    calls = message.get("tool_calls") or message.get("native_calls")
    functions = [
        (str(call.get("id") or f"call_{index}"), call.get("function", call))
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
