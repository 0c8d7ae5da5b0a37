"""Recorded conversations read as a protocol would read them: each call, and where it would stop.

A recording is driven through the conversation of `medeval.rollout.conversation`: its replies stand
in for a model's. A call is carried out only where the sizes of the images are known, on blank
images of those sizes; elsewhere it is checked as far as its arguments alone allow.
"""

import asyncio
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal

from medeval.errors import DataError
from medeval.models.base import Reply
from medeval.models.scripted import ScriptedModel
from medeval.rollout.conversation import roll_out
from medeval.rollout.protocol import EvalProtocol
from medeval.rollout.recorded import (
    SIZE_UNKNOWN,
    UNCHECKED_OPERATION,
    RecordedTools,
    Recording,
)
from medeval.types.sample import ImageSource, Sample
from medeval.types.trajectory import StopReason, ToolCall, Trajectory

UNCHECKED: Final = f"unchecked: {SIZE_UNKNOWN}"

# What a call may come to, in the order in which a report counts it. A call that depends on more
# than the sizes of images may also be "unchecked: " for another reason.
STATUSES: Final = (
    "executed", "rejected", "malformed", "over_limit", "not_offered", UNCHECKED,
)  # fmt: skip

# What the model answers once the recording holds no further reply; it ends the conversation.
NO_MORE: Final = Reply(text="", finish="context")

# How the protocol's end compares with the recorded one.
EndComparison = Literal["agrees", "stops earlier", "goes on", "recording is cut short"]
END_COMPARISONS: Final[tuple[EndComparison, ...]] = (
    "agrees", "stops earlier", "goes on", "recording is cut short",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayedCall:
    """A recorded call: the number of its reply, from 0, and what the protocol makes of it."""

    turn: int
    name: str | None
    arguments: Mapping[str, Any] | None
    status: str
    error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayed:
    """A recorded conversation under a protocol.

    `number` is the line in the file, from 1. `stop` is why the protocol ends the conversation, None
    where it would ask for another reply; `stopped_at` is the number, from 0, of the reply after
    which it does. `answer` is the text that the protocol takes for the answer.
    """

    number: int
    n_replies: int
    calls: tuple[ReplayedCall, ...]
    stop: StopReason | None
    stopped_at: int | None
    answer: str | None
    agreement: EndComparison


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayReport:
    """All conversations of a file, and counts over them."""

    protocol: str
    conversations: tuple[Replayed, ...]

    @property
    def calls(self) -> dict[str, int]:
        """How many calls were found, and how many of them have each status."""
        counts = Counter(call.status for item in self.conversations for call in item.calls)
        others = sorted(set(counts) - set(STATUSES))
        return {"found": counts.total(), **{name: counts[name] for name in (*STATUSES, *others)}}

    @property
    def stops(self) -> dict[str, int]:
        """How many conversations the protocol ends for each reason."""
        return dict(Counter(item.stop or "goes on" for item in self.conversations))

    @property
    def agreement(self) -> dict[str, int]:
        """How many conversations compare in each way with their recorded end."""
        counts = Counter(item.agreement for item in self.conversations)
        return {name: counts[name] for name in END_COMPARISONS}


def replay_file(path: Path, protocol: EvalProtocol) -> ReplayReport:
    """Replay every conversation of a file of JSON lines, each with `messages`.

    A line may also hold the sample's `metadata`, and may be a trajectory that medeval wrote. Raises
    DataError, with the number of the line, for a line without a conversation.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read the conversations in {str(path)!r}: {error}") from error
    recordings = dict(_recordings(text, path))
    if not recordings:
        raise DataError(f"{str(path)!r} holds no conversation")
    conversations = asyncio.run(_replay_all(recordings, protocol))
    return ReplayReport(protocol=protocol.name, conversations=conversations)


async def _replay_all(
    recordings: Mapping[int, Recording], protocol: EvalProtocol
) -> tuple[Replayed, ...]:
    """Replay recordings, by the numbers of their lines, one after the other."""
    return tuple(
        [await replay(recording, protocol, number) for number, recording in recordings.items()]
    )


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


async def replay(recording: Recording, protocol: EvalProtocol, number: int = 1) -> Replayed:
    """What a protocol would have done at each reply of a recorded conversation.

    `number` is the line of the recording in its file, from 1.
    """
    replies = recording.replies
    tools = RecordedTools(recording.images(protocol.pixel_budget), recording.metadata)
    model = ScriptedModel([*replies, NO_MORE])
    rollout = await roll_out(
        _sample(len(tools.pictures)),
        tools.pictures,
        replace(protocol, tools=tuple(tools.wrap(tool) for tool in protocol.tools)),
        model,
    )
    ended = rollout.trajectory
    goes_on = len(model.requests) > len(replies)
    answer = None if goes_on else ended.answer
    n_read = len(replies) if goes_on else len(ended.turns)
    ends_on_reply = bool(recording.messages) and recording.messages[-1]["role"] == "assistant"
    # after a reply that both calls and answers, the recording may hold a result that no reply reads
    unread = any(call.turn == n_read - 1 for call in ended.calls) and answer is not None
    return Replayed(
        number=number,
        n_replies=len(replies),
        calls=tuple(_replayed(call, ended) for call in ended.calls),
        stop=None if goes_on else ended.stop,
        stopped_at=None if goes_on else n_read - 1,
        answer=None if answer is None else answer.text,
        agreement=_agreement(
            n_read, len(replies), goes_on=goes_on, ends_there=ends_on_reply or unread
        ),
    )


def _sample(n_images: int) -> Sample:
    """A sample that stands in for the recorded one: no model reads its question."""
    image = ImageSource(name="recorded", read=bytes)
    return Sample(id="recorded", question="", images=(image,) * n_images, targets=())


def _replayed(call: ToolCall, ended: Trajectory) -> ReplayedCall:
    status: str = call.status
    image = None if call.image is None else ended.images[call.image]
    if image is not None and image.operation == UNCHECKED_OPERATION:
        status = f"unchecked: {image.arguments['unknown']}"
    return ReplayedCall(
        turn=call.turn,
        name=call.name,
        arguments=call.arguments,
        status=status,
        error=call.error,
    )


def _agreement(n_read: int, n_replies: int, *, goes_on: bool, ends_there: bool) -> EndComparison:
    """Compare the protocol's end with the recorded one.

    `goes_on` means that the protocol would ask for another reply; `ends_there` that nothing which
    awaits a reply follows the last recorded one.
    """
    if not goes_on:
        return "agrees" if n_read == n_replies and ends_there else "stops earlier"
    return "goes on" if ends_there else "recording is cut short"
