"""One sample under one protocol: from the opening messages to an answer or a limit.

Nothing a model writes raises; every way a conversation can end is a stop reason. Only an engine
that gives no reply raises ModelError, and the sample then stays without a trajectory.
"""

import asyncio
import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from medeval.errors import ToolError
from medeval.images.memory import ConversationMemory, MemoryBudget, decoding_budget
from medeval.images.picture import Picture
from medeval.models.base import Model, Reply, Request, Sampling, TokenHistory
from medeval.rollout.call_policy import (
    calls_of,
    keeps_names,
    offered_tool,
    picked_calls,
    put_before_model,
    reason_to_refuse,
    reason_to_skip,
    refused_as,
    said_before,
    seen_calls,
    winning_answer,
)
from medeval.rollout.images import Album
from medeval.rollout.observation import Observed
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
    """Put a sample, with its images prepared, to a model and follow the conversation to its end.

    `seed` is the run's; what tools make is counted in `memory`. Raises what `model.generate`
    raises, and DataError where a sample's image turns out to be damaged once a tool decodes it.
    """
    started = time.monotonic()
    conversation = _Conversation(
        sample=sample,
        protocol=protocol,
        model=model,
        memory=memory or ConversationMemory(MemoryBudget(0)),
    )
    conversation.open(pictures)
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
            images=tuple(conversation.album.recorded),
            turns=tuple(conversation.turns),
            calls=tuple(conversation.calls),
            answer=answer,
            stop=stop,
            seconds=time.monotonic() - started,
        ),
        made=dict(list(enumerate(conversation.album.pictures))[len(sample.images) :]),
    )


@dataclass(slots=True, kw_only=True)
class _Conversation:
    sample: Sample
    protocol: EvalProtocol
    model: Model
    memory: ConversationMemory
    messages: list[Message] = field(default_factory=list)
    album: Album = field(default_factory=Album)
    turns: list[Turn] = field(default_factory=list)
    calls: list[ToolCall] = field(default_factory=list)
    history: TokenHistory | None = None

    def open(self, pictures: Sequence[Picture]) -> None:
        self.messages.extend(self.protocol.opening(self.sample))
        for picture in pictures:
            self.album.add(picture)

    async def generate(self, seed: int) -> Reply:
        native = self.protocol.call_syntax == "openai"
        started = time.monotonic()
        reply = await self.model.generate(
            Request(
                messages=tuple(self.messages),
                images=self.album.encoded,
                sampling=self._sampling(),
                seed=seed,
                tools=tuple(tool.schema for tool in self.protocol.tools) if native else (),
                stop=self.protocol.stop,
                history=self.history,
                is_last=self._is_last_turn(),
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

    def _is_last_turn(self) -> bool:
        """Whether the turn to come cannot be extended: no tools, the last turn, or a rewriting."""
        protocol = self.protocol
        last = len(self.turns) + 1 >= protocol.max_generations
        return last or not protocol.tools or protocol.observation.place == "rewritten"

    def _sampling(self) -> Sampling:
        """The protocol's settings, with no more tokens than are left of its budget."""
        sampling, left = self.protocol.sampling, self._tokens_left()
        if left is None or left >= sampling.max_tokens:
            return sampling
        return replace(sampling, max_tokens=left)

    def _note_model_sizes(self, sizes: tuple[Size, ...] | None) -> None:
        parts = (part for message in self.messages for part in message.content)
        places = [part.index for part in parts if isinstance(part, ImageRef)]
        self.album.note_model_sizes(places, sizes or ())

    async def follow(self, reply: Reply) -> tuple[StopReason | None, Answer | None]:
        """Act on the last reply: the reason to stop, or None to go on, and the answer if any."""
        if reply.finish == "context":
            return self._at_limit("context", complete=False)
        turn = self.turns[-1]
        content = (Text(turn.text),) if turn.text else ()
        self.messages.append(
            Message(
                role="assistant",
                content=content,
                reasoning=turn.reasoning,
                native_calls=turn.native_calls,
                continues=self.messages[-1].continues,
            )
        )
        if reply.finish == "refused":
            return "refused", None
        earlier = said_before([before.text for before in self.turns[:-1]], self.calls)
        found = calls_of(turn.text, turn.native_calls, self.protocol, earlier)
        seen = seen_calls(found, self.protocol)
        for call in found:
            if call not in seen:
                self._record(call, "malformed", error=call.error)
        if not seen:
            otherwise: StopReason = "malformed_call" if found else "no_answer"
            return self._conclude(turn.text, turn.finish, otherwise)
        return await self._carry_out(seen, turn)

    def _conclude(
        self, text: str, finish: FinishReason, otherwise: StopReason
    ) -> tuple[StopReason, Answer | None]:
        cut_off = finish == "length"
        answer = self._extract(text, complete=not cut_off)
        if answer is not None:
            return "answered", answer
        if cut_off:
            return "length", None
        return (otherwise if text.strip() else "empty"), None

    def _extract(self, text: str, *, complete: bool, where: str = "") -> Answer | None:
        if self.protocol.answer_over == "all_replies":
            text = "\n".join(turn.text for turn in self.turns)
        return self.protocol.extract(text, complete=complete, where=where)

    def _at_limit(
        self, stop: StopReason, *, complete: bool = True
    ) -> tuple[StopReason, Answer | None]:
        """The end at a limit: the reason, or what the rules find in the last reply all the same."""
        if self.protocol.at_limit == "no_answer" or stop == "not_offered" or not self.turns:
            return stop, None
        said = [turn for turn in self.turns if turn.text]
        answer = (
            self._extract(said[-1].text, complete=complete, where=f" at {stop}") if said else None
        )
        return (stop, None) if answer is None else ("answered", answer)

    async def _carry_out(
        self, found: Sequence[ParsedCall], turn: Turn
    ) -> tuple[StopReason | None, Answer | None]:
        """Execute a reply's calls in order until one of them ends the conversation."""
        protocol = self.protocol
        picked = picked_calls(found, protocol)
        last = winning_answer(turn.text, protocol)
        if self._is_over_context() or (last and protocol.call_rules.answer_wins == "before_calls"):
            for call in found:
                self._record(call, "over_limit", error=call.error)
            return ("answered", last) if last else self._at_limit("context")
        ran: list[ParsedCall] = []
        results: list[Observed] = []
        places: list[int] = []
        for position, call in enumerate(found):
            skip = reason_to_skip(call, picked, results)
            if skip is not None:
                self._record(call, skip[0], error=skip[1])
                continue
            stop = self._reason_to_refuse(call, turn.finish)
            if stop is not None:
                for refused in found[position:]:
                    self._record(refused, refused_as(refused, stop), error=refused.error)
                return self._at_limit(stop, complete=turn.finish != "length")
            ran.append(call)
            places.append(len(self.calls))
            results.append(await self._execute(call))
            if results[-1].error is not None and protocol.on_error == "end" and not last:
                return self._at_limit("tool_error")
        if last:
            return "answered", last
        self._show(put_before_model(ran, results), results, places)
        return self._at_limit("length") if self._tokens_left() == 0 else (None, None)

    def _show(
        self, shown: Sequence[int], results: Sequence[Observed], places: Sequence[int]
    ) -> None:
        """Put some of the results before the model, where the protocol has them stand."""
        told = [results[at] for at in shown]
        self.messages = list(self.protocol.after_calls(self.messages, told, self.sample.question))
        if self.protocol.observation.place == "rewritten":
            self.history = None
        for place in (places[at] for at in shown):
            self.calls[place] = replace(self.calls[place], observed=True)

    def _is_over_context(self) -> bool:
        """Whether the last turn left no room for another, where the engine counts tokens."""
        usage, limit = self.turns[-1].usage, self.protocol.max_context_tokens
        used = (usage.prompt_tokens or 0) + (usage.completion_tokens or 0)
        return bool(self.protocol.tools) and limit is not None and used >= limit

    def _tokens_left(self) -> int | None:
        """What is left of the tokens that may follow the first prompt; None for no bound."""
        budget = self.protocol.max_response_tokens
        if budget is None or not self.turns:
            return budget
        first, last = self.turns[0].usage, self.turns[-1].usage
        if first.prompt_tokens is None or last.prompt_tokens is None:
            return budget
        used = last.prompt_tokens + (last.completion_tokens or 0) - first.prompt_tokens
        return max(0, budget - used)

    def _reason_to_refuse(self, call: ParsedCall, finish: FinishReason) -> StopReason | None:
        return reason_to_refuse(
            call,
            finish,
            self.protocol,
            n_turns=len(self.turns),
            n_executed=sum(made.status == "executed" for made in self.calls),
            n_images=len(self.album),
        )

    async def _execute(self, call: ParsedCall) -> Observed:
        turn = len(self.turns) - 1
        if call.error is not None and self.protocol.on_malformed == "carry_out":
            call = replace(call, name=self.protocol.tools[0].name, arguments={}, error=None)
        if call.error is not None:
            self._record(call, "malformed", error=call.error)
            return Observed(native_id=call.native_id, error=call.error, malformed=True, turn=turn)
        started = time.monotonic()
        try:
            tool = offered_tool(self.protocol, call.name)
            result = await self._make(tool, call.arguments or {})
        except ToolError as error:
            seconds = time.monotonic() - started
            self._record(call, "rejected", error=error.message, seconds=seconds)
            return Observed(native_id=call.native_id, error=error.message, turn=turn)
        index = self.album.add(result.picture, result)
        seconds = time.monotonic() - started
        self._record(call, "executed", image=index, seconds=seconds)
        return Observed(
            native_id=call.native_id,
            image=index,
            turn=turn,
            made=index + 1 - len(self.sample.images),
            raw=result.picture.raw,
            sent=result.picture.sent,
        )

    async def _make(self, tool: Tool, arguments: Mapping[str, JsonValue]) -> ToolResult:
        reserved_bytes, taken_bytes = await self.memory.reserve(self.album.largest_px), 0
        try:
            # decoding and resizing a large image must not hold up the other conversations
            result = await asyncio.to_thread(self._run, tool, arguments)
            taken_bytes = result.picture.held_bytes
            return result
        finally:
            self.memory.image_made(reserved_bytes, taken_bytes)

    def _run(self, tool: Tool, arguments: Mapping[str, JsonValue]) -> ToolResult:
        with decoding_budget().taken(self.album.largest_px):
            return tool.run(arguments, self._context())

    def _context(self) -> ToolContext:
        budget = self.protocol.model_budget
        turn = None if keeps_names(self.protocol) else len(self.turns) - 1
        return ToolContext(
            pictures=tuple(self.album.pictures),
            frame=self.protocol.frame,
            n_originals=len(self.sample.images),
            model_sizes={} if budget is None else self.album.model_sizes(budget),
            metadata=self.sample.metadata,
            raw_to_root=tuple(self.album.raw_to_root),
            earlier=[call.image for call in self.calls if turn in (None, call.turn)],
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
