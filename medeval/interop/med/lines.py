"""One line of a MED log: the fields that are read, and the line as a trajectory.

Released lines have uid, response_length, tool_call_counts, messages and accuracy_reward. Raw ones
also have `result_dict`, and lines exported by medeval a `medeval` object with the fields that the
layout lacks. Other fields are ignored.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from medeval.data.lines import read_objects
from medeval.errors import DataError, RecordError
from medeval.store.files import explained
from medeval.store.records import record_of
from medeval.tools.calls.find import find_calls
from medeval.types.json import STRICT
from medeval.types.trajectory import (
    Answer,
    CallStatus,
    Message,
    Role,
    StopReason,
    Text,
    ToolCall,
    Trajectory,
    Turn,
    Usage,
)

ROLES: Final[Mapping[str, Role]] = {
    "system": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
}
# An empty answer would be judged as the model's own failure.
NO_REPLY: Final = "(not in the log)"
DAMAGED: Final = "restore the file from a copy; --allow-missing imports the rest without it"


@dataclass(frozen=True, slots=True, kw_only=True)
class LineOrigin:
    """The fields of a line beyond the released ones, which medeval writes under `medeval`."""

    __pydantic_config__ = STRICT

    sample_id: str
    repeat: int
    protocol: str
    judge: str
    question: str
    targets: tuple[str, ...]
    groups: Mapping[str, str]
    cluster: str | None
    stop: StopReason
    answer: Answer | None
    calls: tuple[ToolCall, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LogLine:
    """The fields of one line; None where one is absent or has a value of the wrong type.

    `number` counts the lines that are not blank, from 1. `reward` is `accuracy_reward`, 0 to 1.
    `n_calls` is `tool_call_counts`. `instance` is an id that the lines of one sample share across
    files, and `repeat` its repeat.
    """

    number: int
    reward: float | None
    n_calls: int | None
    response_length: int | None
    messages: tuple[Message, ...]
    has_image: tuple[bool, ...]
    instance: str | None
    repeat: int | None
    question: str
    targets: tuple[str, ...]
    origin: LineOrigin | None

    def unscored_because(self, *, needs_calls: bool) -> str | None:
        """Why the line leaves its sample unscored, or None where it does not."""
        if self.reward is None:
            return "the line has no accuracy_reward from 0 to 1"
        if needs_calls and self.n_calls is None:
            return "the line has no tool_call_counts, so whether a tool was called is unknown"
        return None


def read_lines(path: Path) -> Iterator[LogLine]:
    """Each line of a log that is not blank. Raises DataError at one that cannot be read."""
    with explained("read", path), path.open("rb") as file:
        objects = read_objects(file, where=f"{path}, ", hint=DAMAGED)
        for number, values in enumerate(objects, start=1):
            yield _line(values, number, f"{path}, record {number}")


def _line(values: Mapping[str, Any], number: int, where: str) -> LogLine:
    inner = values.get("result_dict")
    result: Mapping[str, Any] = inner if isinstance(inner, dict) else {}
    origin = _origin(values.get("medeval"), where)
    said = [item for item in values.get("messages") or () if isinstance(item, dict)]
    return LogLine(
        number=number,
        reward=_reward(values.get("accuracy_reward")),
        n_calls=_count(values.get("tool_call_counts")),
        response_length=_count(values.get("response_length")),
        messages=tuple(map(_message, said)),
        has_image=tuple(map(_has_image, said)),
        instance=origin.sample_id if origin else _text(result.get("id")),
        repeat=origin.repeat if origin else _count(result.get("repeat_idx")),
        question=origin.question if origin else _text(result.get("question")) or "",
        targets=origin.targets if origin else _targets(result.get("answer")),
        origin=origin,
    )


def _origin(value: object, where: str) -> LineOrigin | None:
    if value is None:
        return None
    try:
        return record_of(LineOrigin, value, f"{where}, its `medeval` object")
    except RecordError as error:
        raise DataError(error.message) from None


def _reward(value: object) -> float | None:
    if isinstance(value, int | float) and math.isfinite(value) and 0 <= value <= 1:
        return float(value)
    return None


def _count(value: object) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return int(value) if math.isfinite(value) and value >= 0 and value == int(value) else None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _targets(answer: object) -> tuple[str, ...]:
    text = _text(answer)
    return () if text is None else (text,)


def _parts(message: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    content = message.get("content")
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    items = content if isinstance(content, list) else []
    return [item for item in items if isinstance(item, dict)]


def _has_image(message: Mapping[str, Any]) -> bool:
    return any(str(part.get("type", "")).startswith("image") for part in _parts(message))


def _message(message: Mapping[str, Any]) -> Message:
    return Message(
        role=ROLES.get(str(message.get("role")), "user"),
        content=tuple(Text(_part_text(part)) for part in _parts(message)),
    )


def _part_text(part: Mapping[str, Any]) -> str:
    """A part's text; for an image, which logs do not hold, its description."""
    if part.get("type") == "text":
        return str(part.get("text") or "")
    return f"[{part.get('description') or part.get('type') or 'image'}]"


def trajectory_of(
    line: LogLine, sample_id: str, *, repeat: int, protocol: str, offers_tools: bool
) -> Trajectory:
    """A line as a trajectory.

    Without a `medeval` object, seeds and seconds are 0, every turn finished with "stop", the
    conversation with "answered", and the answer is the last reply, or NO_REPLY.
    """
    origin = line.origin
    return Trajectory(
        sample_id=sample_id,
        repeat=repeat,
        protocol=protocol,
        messages=line.messages,
        images=(),
        turns=_turns(line),
        calls=_calls(line, offers_tools=offers_tools),
        answer=origin.answer if origin else _last_reply(line),
        stop=origin.stop if origin else "answered",
        seconds=0.0,
    )


def _last_reply(line: LogLine) -> Answer:
    if line.messages and line.messages[-1].role == "assistant":
        text = line.messages[-1].text
        return Answer(text=text, how_found="the last reply in the log", reply=text)
    return Answer(text=NO_REPLY, how_found="not in the log", reply="")


def _turns(line: LogLine) -> tuple[Turn, ...]:
    """All replies as one turn, because the log has one token count for all of them."""
    if line.response_length is None:
        return ()
    replies = [message.text for message in line.messages if message.role == "assistant"]
    return (
        Turn(
            text="\n".join(replies),
            reasoning="",
            native_calls=(),
            finish="stop",
            seed=0,
            usage=Usage(completion_tokens=line.response_length),
            seconds=0.0,
        ),
    )


def _calls(line: LogLine, *, offers_tools: bool) -> tuple[ToolCall, ...]:
    """As many calls as the log counts, each with the details that the conversation shows.

    A call that was answered with an image was executed, one that was answered without was rejected.
    A call that the conversation does not show counts as executed, and as observed if the log holds
    no reply at all.
    """
    if line.origin is not None:
        return line.origin.calls
    count = line.n_calls or 0
    if not offers_tools:
        return tuple(_unseen(turn, "not_offered") for turn in range(count))
    shown = _shown_calls(line)
    if len(shown) > count:
        shown = []
    has_replies = any(message.role == "assistant" for message in line.messages)
    rest = range(len(shown), count)
    return (*shown, *(_unseen(turn, "executed", observed=not has_replies) for turn in rest))


def _unseen(turn: int, status: CallStatus, *, observed: bool = False) -> ToolCall:
    return ToolCall(
        turn=turn, name=None, raw_text="", arguments=None, status=status, observed=observed
    )


def _shown_calls(line: LogLine) -> list[ToolCall]:
    """The calls that the conversation shows an answer to, in order."""
    calls: list[ToolCall] = []
    for position, (message, reply) in enumerate(pairwise(line.messages)):
        if message.role != "assistant" or reply.role == "assistant":
            continue
        written = find_calls(message.text, (), "hermes")
        call = written[0] if written else None
        executed = line.has_image[position + 1]
        calls.append(
            ToolCall(
                turn=len(calls),
                name=call.name if call else None,
                raw_text=call.raw_text if call else "",
                arguments=call.arguments if call else None,
                status="executed" if executed else "rejected",
                error=None if executed else reply.text,
                observed=True,
            )
        )
    return calls
