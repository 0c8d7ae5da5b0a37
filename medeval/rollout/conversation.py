"""One sample under one protocol: the conversation of a model with its tools, to its end.

A protocol opens the conversation with the sample's question and images. Then, reply by reply:

1. the model writes a reply (`_Conversation.ask_model`);
2. tool calls are looked for in it (`act_on`); without any it is the last reply, and the protocol
   reads the answer from it (`_finish`);
3. the calls are executed in order, as far as the protocol allows (`_carry_out`, `_execute`);
4. their results, images or errors, are put before the model (`_show`), which replies again.

Nothing that a model writes raises: each way in which a conversation can end is a stop reason.
Only an engine that gives no reply raises ModelError, and the sample then has no trajectory.
"""

import asyncio
import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from medeval.errors import ToolError
from medeval.images.memory import ConversationMemory, MemoryBudget, decoding_budget
from medeval.images.picture import Picture
from medeval.models.base import Model, Reply, Request, Sampling, TokenHistory
from medeval.rollout.call_policy import (
    answer_despite_calls,
    calls_of_last_turn,
    chosen_calls,
    is_ignored,
    is_shown,
    keeps_variables,
    offered_tool,
    reason_to_skip,
    reason_to_stop,
    status_after_stop,
)
from medeval.rollout.images import ConversationImages
from medeval.rollout.observation import CallResult
from medeval.rollout.protocol import EvalProtocol
from medeval.tools.base import Tool, ToolContext, ToolResult
from medeval.tools.calls.find import ends_at_stop
from medeval.types.geometry import Size
from medeval.types.sample import JsonValue, Sample
from medeval.types.trajectory import (
    Answer,
    CallStatus,
    FinishReason,
    ImageRef,
    Message,
    ParsedCall,
    StopReason,
    Text,
    ToolCall,
    Trajectory,
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
    memory: ConversationMemory | None = None,
) -> Rollout:
    """Put a sample to a model and follow the conversation to its end.

    `pictures` are the sample's images, prepared for sending; `seed` is the run's; `memory` counts
    the bytes of the images that tools make. Raises what `model.generate` raises, and DataError
    where a sample's image turns out to be damaged once a tool decodes it.
    """
    started = time.monotonic()
    conversation = _Conversation(
        sample=sample,
        protocol=protocol,
        model=model,
        memory=memory or ConversationMemory(MemoryBudget(0)),
    )
    conversation.open(pictures)
    end: _End | None = None
    while end is None:
        turn_seed = request_seed(seed, sample.id, repeat, len(conversation.turns))
        reply = await conversation.ask_model(turn_seed)
        end = await conversation.act_on(reply)
    images = conversation.images
    return Rollout(
        trajectory=Trajectory(
            sample_id=sample.id,
            repeat=repeat,
            protocol=protocol.name,
            messages=tuple(conversation.messages),
            images=tuple(images.recorded),
            turns=tuple(conversation.turns),
            calls=tuple(conversation.calls),
            answer=end.answer,
            stop=end.stop,
            seconds=time.monotonic() - started,
        ),
        made=dict(list(enumerate(images.pictures))[len(sample.images) :]),
    )


class _End(NamedTuple):
    """Why a conversation ended, and its answer: None exactly where `stop` is not "answered"."""

    stop: StopReason
    answer: Answer | None = None


class _TriedCall(NamedTuple):
    """A call of the last reply, its place among the conversation's calls, and its result."""

    call: ParsedCall
    place: int
    result: CallResult


@dataclass(slots=True, kw_only=True)
class _Conversation:
    """The state of one conversation, and the steps that take it on."""

    sample: Sample
    protocol: EvalProtocol
    model: Model
    memory: ConversationMemory
    messages: list[Message] = field(default_factory=list)
    images: ConversationImages = field(default_factory=ConversationImages)
    turns: list[Turn] = field(default_factory=list)
    calls: list[ToolCall] = field(default_factory=list)
    history: TokenHistory | None = None

    def open(self, pictures: Sequence[Picture]) -> None:
        """Begin with the protocol's opening messages and the sample's images."""
        self.messages.extend(self.protocol.opening(self.sample))
        for picture in pictures:
            self.images.add(picture)

    async def ask_model(self, seed: int) -> Reply:
        """Request one reply, and note it as a turn."""
        native = self.protocol.call_syntax == "openai"
        started = time.monotonic()
        reply = await self.model.generate(
            Request(
                messages=tuple(self.messages),
                images=self.images.sent,
                sampling=self._sampling(),
                seed=seed,
                tools=tuple(tool.schema for tool in self.protocol.tools) if native else (),
                stop=self.protocol.stop,
                history=self.history,
            )
        )
        self.memory.recount(self.images.made_bytes(len(self.sample.images)))
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

    def _sampling(self) -> Sampling:
        """The protocol's settings, with no more tokens than are left of its budget."""
        sampling, left = self.protocol.sampling, self._tokens_left()
        if left is None or left >= sampling.max_tokens:
            return sampling
        return replace(sampling, max_tokens=left)

    def _note_model_sizes(self, sizes: tuple[Size, ...] | None) -> None:
        """Note the sizes that the engine reports, in the order of the images in the messages."""
        parts = (part for message in self.messages for part in message.content)
        indices = [part.image for part in parts if isinstance(part, ImageRef)]
        self.images.note_model_sizes(indices, sizes or ())

    async def act_on(self, reply: Reply) -> _End | None:
        """Carry out the calls of the reply just noted; the end, or None where it goes on."""
        turn = self.turns[-1]
        if reply.finish == "context":
            return self._end_at_limit("context", complete=False)
        self._add_reply(turn)
        if reply.finish == "refused":
            return _End("refused")
        found = calls_of_last_turn(self.turns, self.calls, self.protocol)
        calls = [call for call in found if not is_ignored(call, self.protocol)]
        for call in found:
            if call not in calls:
                self._record(call, "malformed", error=call.error)
        if calls:
            return await self._carry_out(calls, turn)
        return self._finish(turn, without_answer="malformed_call" if found else "no_answer")

    def _add_reply(self, turn: Turn) -> None:
        self.messages.append(
            Message(
                role="assistant",
                content=(Text(turn.text),) if turn.text else (),
                reasoning=turn.reasoning,
                native_calls=turn.native_calls,
                continues=self.messages[-1].continues,
            )
        )

    def _finish(self, turn: Turn, without_answer: StopReason) -> _End:
        """The end after a reply without calls: its answer, or why there is none."""
        is_cut_off = turn.finish == "length"
        answer = self._extract(turn.text, complete=not is_cut_off)
        if answer is not None:
            return _End("answered", answer)
        if is_cut_off:
            return _End("length")
        return _End(without_answer if turn.text.strip() else "empty")

    def _end_at_limit(self, stop: StopReason, *, complete: bool = True) -> _End:
        """The end at a limit; an answer only where the protocol takes one from the last reply.

        `complete` says that this reply was not cut off.
        """
        texts = [turn.text for turn in self.turns if turn.text]
        if self.protocol.at_limit == "no_answer" or stop == "not_offered" or not texts:
            return _End(stop)
        answer = self._extract(texts[-1], complete=complete, where=f" at {stop}")
        return _End(stop) if answer is None else _End("answered", answer)

    def _extract(self, text: str, *, complete: bool, where: str = "") -> Answer | None:
        if self.protocol.answer_over == "all_replies":
            text = "\n".join(turn.text for turn in self.turns)
        return self.protocol.extract(text, complete=complete, where=where)

    async def _carry_out(self, calls: Sequence[ParsedCall], turn: Turn) -> _End | None:
        """Execute a reply's calls in order and show the results, unless one of them ends it."""
        protocol = self.protocol
        answer = answer_despite_calls(turn.text, protocol)
        is_overruled = answer is not None and protocol.call_rules.answer_wins == "before_calls"
        if self._is_context_full() or is_overruled:
            for call in calls:
                self._record(call, "over_limit", error=call.error)
            return _End("answered", answer) if answer else self._end_at_limit("context")
        chosen = chosen_calls(calls, protocol)
        tried: list[_TriedCall] = []
        for position, call in enumerate(calls):
            skip = reason_to_skip(call, chosen, [one.result for one in tried])
            if skip is not None:
                self._record(call, skip[0], error=skip[1])
                continue
            stop = self._reason_to_stop(call, turn.finish)
            if stop is not None:
                for left in calls[position:]:
                    self._record(left, status_after_stop(left, stop), error=left.error)
                return self._end_at_limit(stop, complete=turn.finish != "length")
            place = len(self.calls)
            result = await self._execute(call)
            tried.append(_TriedCall(call, place, result))
            if result.error is not None and protocol.on_error == "end" and answer is None:
                return self._end_at_limit("tool_error")
        if answer is not None:
            return _End("answered", answer)
        self._show(tried)
        return self._end_at_limit("length") if self._tokens_left() == 0 else None

    def _reason_to_stop(self, call: ParsedCall, finish: FinishReason) -> StopReason | None:
        return reason_to_stop(
            call,
            finish,
            self.protocol,
            n_turns=len(self.turns),
            n_executed=sum(done.status == "executed" for done in self.calls),
            n_images=len(self.images),
        )

    def _is_context_full(self) -> bool:
        """Whether the last turn left no tokens for another, where the engine counts them."""
        usage, limit = self.turns[-1].usage, self.protocol.max_context_tokens
        used = (usage.prompt_tokens or 0) + (usage.completion_tokens or 0)
        return bool(self.protocol.tools) and limit is not None and used >= limit

    def _tokens_left(self) -> int | None:
        """How many tokens may still follow the first prompt; None for no bound."""
        budget = self.protocol.max_response_tokens
        if budget is None or not self.turns:
            return budget
        first, last = self.turns[0].usage, self.turns[-1].usage
        if first.prompt_tokens is None or last.prompt_tokens is None:
            return budget
        used = last.prompt_tokens + (last.completion_tokens or 0) - first.prompt_tokens
        return max(0, budget - used)

    async def _execute(self, call: ParsedCall) -> CallResult:
        """Run the tool of a call and record the call: the new image, or why there is none."""
        turn = len(self.turns) - 1
        if call.error is not None and self.protocol.on_malformed == "carry_out":
            call = replace(call, name=self.protocol.tools[0].name, arguments={}, error=None)
        if call.error is not None:
            self._record(call, "malformed", error=call.error)
            return CallResult(native_id=call.native_id, error=call.error, malformed=True, turn=turn)
        started = time.monotonic()
        try:
            tool = offered_tool(self.protocol, call.name)
            result = await self._make(tool, call.arguments or {})
        except ToolError as error:
            seconds = time.monotonic() - started
            self._record(call, "rejected", error=error.message, seconds=seconds)
            return CallResult(native_id=call.native_id, error=error.message, turn=turn)
        index = self.images.add(result.picture, result)
        seconds = time.monotonic() - started
        self._record(call, "executed", image=index, seconds=seconds)
        return CallResult(
            native_id=call.native_id,
            image=index,
            turn=turn,
            made=index + 1 - len(self.sample.images),
            raw=result.picture.raw,
            sent=result.picture.sent,
        )

    async def _make(self, tool: Tool, arguments: Mapping[str, JsonValue]) -> ToolResult:
        reserved_bytes, taken_bytes = await self.memory.reserve(self.images.largest_px), 0
        try:
            # decoding and resizing a large image must not hold up the other conversations
            result = await asyncio.to_thread(self._run, tool, arguments)
            taken_bytes = result.picture.held_bytes
            return result
        finally:
            self.memory.image_made(reserved_bytes, taken_bytes)

    def _run(self, tool: Tool, arguments: Mapping[str, JsonValue]) -> ToolResult:
        with decoding_budget().taken(self.images.largest_px):
            return tool.run(arguments, self._context())

    def _context(self) -> ToolContext:
        """What the tool of the last reply's calls may work on."""
        budget = self.protocol.model_budget
        turns = None if keeps_variables(self.protocol) else len(self.turns) - 1
        return ToolContext(
            pictures=tuple(self.images.pictures),
            frame=self.protocol.frame,
            n_originals=len(self.sample.images),
            model_sizes={} if budget is None else self.images.model_sizes(budget),
            metadata=self.sample.metadata,
            raw_to_root=tuple(self.images.raw_to_root),
            earlier=[call.image for call in self.calls if turns in (None, call.turn)],
        )

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

    def _show(self, tried: Sequence[_TriedCall]) -> None:
        """Put the results before the model, in the place that the protocol gives them."""
        any_failed = any(one.result.error is not None for one in tried)
        shown = [one for one in tried if is_shown(one.call, one.result, any_failed=any_failed)]
        results = [one.result for one in shown]
        self.messages = list(
            self.protocol.after_calls(self.messages, results, self.sample.question)
        )
        if self.protocol.observation.place == "rewritten":
            self.history = None
        for one in shown:
            self.calls[one.place] = replace(self.calls[one.place], observed=True)
