"""One sample under one protocol: from the opening messages to an answer or a limit.

Nothing a model writes raises; every way a conversation can end is a stop reason. Only an engine
that gives no reply raises ModelError, and the sample then stays without a trajectory.
"""

import asyncio
import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from medeval.definitions import EvalProtocol, Observed
from medeval.errors import ToolError
from medeval.images import Picture
from medeval.models.base import Model, Reply, Request, TokenHistory
from medeval.tools.base import Tool, ToolContext, ToolResult
from medeval.tools.calls import CallSyntax, ends_at_stop, find_calls, named
from medeval.types import (
    IDENTITY,
    Affine,
    Answer,
    CallStatus,
    FinishReason,
    Message,
    ParsedCall,
    Sample,
    Size,
    StopReason,
    Text,
    ToolCall,
    Trajectory,
    TrajectoryImage,
    Turn,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """A finished conversation, and the images its calls made, by index in the conversation."""

    trajectory: Trajectory
    made: dict[int, Picture]


def request_seed(seed: int, sample_id: str, repeat: int, turn: int) -> int:
    """The seed of one request, 0 to 2**31 - 1: the same in both arms and after a resume.

    >>> request_seed(0, "a", 0, 0) == request_seed(0, "a", 0, 0) != request_seed(0, "a", 0, 1)
    True
    """
    digest = hashlib.sha256(f"{seed}|{sample_id}|{repeat}|{turn}".encode()).digest()
    return int.from_bytes(digest[:4]) & 0x7FFFFFFF


async def roll_out(
    sample: Sample,
    pictures: Sequence[Picture],
    protocol: EvalProtocol,
    model: Model,
    *,
    repeat: int = 0,
    seed: int = 0,
) -> Rollout:
    """Put a sample, with its images prepared, to a model and follow the conversation to its end.

    `seed` is the run's. Raises what `model.generate` raises, and DataError where a sample's image
    turns out to be damaged once a tool decodes it.
    """
    conversation = _Conversation(sample=sample, protocol=protocol, model=model)
    conversation.open(pictures)
    started = time.monotonic()
    stop: StopReason | None = None
    answer: Answer | None = None
    while stop is None:
        turn_seed = request_seed(seed, sample.id, repeat, len(conversation.turns))
        reply = await conversation.generate(turn_seed)
        stop, answer = await conversation.follow(reply)
    return Rollout(
        trajectory=Trajectory(
            sample_id=sample.id,
            repeat=repeat,
            protocol=protocol.name,
            messages=tuple(conversation.messages),
            images=tuple(conversation.images),
            turns=tuple(conversation.turns),
            calls=tuple(conversation.calls),
            answer=answer,
            stop=stop,
            seconds=time.monotonic() - started,
        ),
        made=dict(list(enumerate(conversation.pictures))[len(sample.images) :]),
    )


@dataclass(slots=True, kw_only=True)
class _Conversation:
    sample: Sample
    protocol: EvalProtocol
    model: Model
    messages: list[Message] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)
    images: list[TrajectoryImage] = field(default_factory=list)
    raw_to_root: list[Affine] = field(default_factory=list)
    turns: list[Turn] = field(default_factory=list)
    calls: list[ToolCall] = field(default_factory=list)
    history: TokenHistory | None = None

    def open(self, pictures: Sequence[Picture]) -> None:
        self.messages.extend(self.protocol.opening(self.sample))
        for picture in pictures:
            self._add_image(picture)

    async def generate(self, seed: int) -> Reply:
        native = self.protocol.call_syntax == "openai"
        started = time.monotonic()
        reply = await self.model.generate(
            Request(
                messages=tuple(self.messages),
                images=tuple(picture.encoded for picture in self.pictures),
                sampling=self.protocol.sampling,
                seed=seed,
                tools=tuple(tool.schema for tool in self.protocol.tools) if native else (),
                stop=self.protocol.stop,
                history=self.history,
            )
        )
        self.history = reply.history
        self._note_model_sizes(reply.model_sizes)
        text = ends_at_stop(reply.text, self.protocol.stop)
        ended = text.endswith(tuple(stop for stop in self.protocol.stop if stop))
        self.turns.append(
            Turn(
                text=text,
                reasoning=reply.reasoning,
                native_calls=reply.native_calls,
                # an engine that knows no stop strings may write on until it is cut off
                finish="stop" if ended and reply.finish == "length" else reply.finish,
                seed=seed,
                usage=reply.usage,
                seconds=time.monotonic() - started,
            )
        )
        return reply

    def _note_model_sizes(self, sizes: tuple[Size, ...] | None) -> None:
        for index, size in enumerate(sizes or ()):
            self.images[index] = _with_model_size(self.images[index], size)

    async def follow(self, reply: Reply) -> tuple[StopReason | None, Answer | None]:
        """Act on the last reply: the reason to stop, or None to go on, and the answer if any."""
        if reply.finish == "context":
            return "context", None
        turn = self.turns[-1]
        content = (Text(turn.text),) if turn.text else ()
        self.messages.append(
            Message(
                role="assistant",
                content=content,
                reasoning=turn.reasoning,
                native_calls=turn.native_calls,
            )
        )
        if reply.finish == "refused":
            return "refused", None
        found = find_calls(turn.text, turn.native_calls, _syntax_read(self.protocol))
        if not found:
            return self._conclude(turn.text, turn.finish)
        return await self._carry_out(found, turn.finish), None

    def _conclude(self, text: str, finish: FinishReason) -> tuple[StopReason, Answer | None]:
        cut_off = finish == "length"
        answer = self.protocol.extract(text, complete=not cut_off)
        if answer is not None:
            return "answered", answer
        if cut_off:
            return "length", None
        return ("no_answer" if text.strip() else "empty"), None

    async def _carry_out(
        self, found: Sequence[ParsedCall], finish: FinishReason
    ) -> StopReason | None:
        """Execute a reply's calls in order until one of them ends the conversation."""
        results: list[Observed] = []
        for position, call in enumerate(found):
            stop = self._reason_to_refuse(call, finish)
            if stop is not None:
                for refused in found[position:]:
                    self._record(refused, _refused_as(refused, stop), error=refused.error)
                return stop
            results.append(await self._execute(call))
        self.messages.extend(self.protocol.observe(results))
        self.calls[-len(found) :] = [
            replace(call, observed=True) for call in self.calls[-len(found) :]
        ]
        return None

    def _reason_to_refuse(self, call: ParsedCall, finish: FinishReason) -> StopReason | None:
        """Why a call ends the conversation instead of being carried out, or None."""
        protocol = self.protocol
        last_turn = len(self.turns) >= protocol.max_generations
        executed = sum(made.status == "executed" for made in self.calls)
        if not protocol.tools:
            return "not_offered"
        if call.error is not None and finish == "length":
            return "length"
        if call.error is not None and (last_turn or protocol.on_malformed == "end"):
            return "malformed_call"
        if executed >= protocol.max_calls:
            return "call_limit"
        if last_turn:
            return "turn_limit"
        full = protocol.max_images is not None and len(self.pictures) >= protocol.max_images
        return "image_limit" if full and call.error is None else None

    async def _execute(self, call: ParsedCall) -> Observed:
        if call.error is not None:
            self._record(call, "malformed", error=call.error)
            return Observed(native_id=call.native_id, error=call.error)
        started = time.monotonic()
        try:
            tool = _find_tool(self.protocol.tools, call.name)
            context = ToolContext(pictures=tuple(self.pictures), frame=self.protocol.frame)
            # decoding and resizing a large image must not hold up the other conversations
            result = await asyncio.to_thread(tool.run, call.arguments or {}, context)
        except ToolError as error:
            seconds = time.monotonic() - started
            self._record(call, "rejected", error=error.message, seconds=seconds)
            return Observed(native_id=call.native_id, error=error.message)
        index = self._add_image(result.picture, result)
        seconds = time.monotonic() - started
        self._record(call, "executed", image=index, seconds=seconds)
        return Observed(native_id=call.native_id, image=index)

    def _add_image(self, picture: Picture, made: ToolResult | None = None) -> int:
        """Take an image into the conversation: the sample's own, or what a call made."""
        index = len(self.pictures)
        raw_to_root = (
            IDENTITY if made is None else self.raw_to_root[made.parent].after(made.raw_to_parent)
        )
        self.pictures.append(picture)
        self.raw_to_root.append(raw_to_root)
        self.images.append(
            TrajectoryImage(
                index=index,
                sha256=picture.encoded.sha256,
                media_type=picture.encoded.media_type,
                parent=None if made is None else made.parent,
                root=index if made is None else self.images[made.parent].root,
                operation=None if made is None else made.operation,
                arguments={} if made is None else made.arguments,
                to_root=raw_to_root.after(_sent_to_raw(picture)),
                raw=picture.raw,
                sent=picture.sent,
                exif_orientation=picture.exif_orientation,
            )
        )
        return index

    def _record(
        self,
        call: ParsedCall,
        status: CallStatus,
        *,
        error: str | None = None,
        image: int | None = None,
        seconds: float = 0.0,
    ) -> None:
        self.calls.append(
            ToolCall(
                turn=len(self.turns) - 1,
                name=call.name,
                raw_text=call.raw_text,
                arguments=call.arguments,
                status=status,
                error=error,
                image=image,
                seconds=seconds,
            )
        )


def _syntax_read(protocol: EvalProtocol) -> CallSyntax:
    """The syntax of calls in a reply's text: without tools no server takes them out of it."""
    return protocol.call_syntax if protocol.tools else "hermes"


def _refused_as(call: ParsedCall, stop: StopReason) -> CallStatus:
    """The status of a call that was not carried out because the conversation ended."""
    if stop == "not_offered":
        return "not_offered"
    return "over_limit" if call.error is None else "malformed"


def _find_tool(tools: Sequence[Tool], name: str | None) -> Tool:
    for tool in tools:
        if tool.name == name:
            return tool
    offered = ", ".join(tool.name for tool in tools)
    raise ToolError(f"there is no tool {named(name)}; offered: {offered}")


def _sent_to_raw(picture: Picture) -> Affine:
    return Affine(
        picture.raw.width_px / picture.sent.width_px,
        0.0,
        0.0,
        0.0,
        picture.raw.height_px / picture.sent.height_px,
        0.0,
    )


def _with_model_size(image: TrajectoryImage, size: Size) -> TrajectoryImage:
    return image if image.model == size else replace(image, model=size)
