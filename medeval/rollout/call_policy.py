"""Which of a reply's calls a protocol sees, and which it carries out."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from medeval.errors import ToolError
from medeval.rollout.observation import Observed
from medeval.rollout.protocol import EvalProtocol
from medeval.tools.base import Tool
from medeval.tools.calls.find import CallSyntax, Said, find_calls, named
from medeval.types.trajectory import (
    Answer,
    CallStatus,
    FinishReason,
    NativeCall,
    ParsedCall,
    StopReason,
    ToolCall,
)

NOT_PICKED: Final = "the protocol carries out one call of a reply, and this is another"
AFTER_FAILURE: Final = "not run: an earlier call of the same block failed"

# Rules that find an answer in any text at all, and so close none.
WHOLE_TEXTS: Final = ("whole_reply", "raw_reply")


def calls_of(
    text: str,
    native: Sequence[NativeCall],
    protocol: EvalProtocol,
    earlier: Sequence[Said] = (),
) -> tuple[ParsedCall, ...]:
    """All calls of a reply, in the syntax that the protocol reads, after the `earlier` replies."""
    return find_calls(text, native, _syntax_read(protocol), protocol.call_rules, earlier)


def said_before(texts: Sequence[str], calls: Sequence[ToolCall]) -> tuple[Said, ...]:
    """The replies so far, with how many calls of each were carried out."""
    ran = Counter(call.turn for call in calls if call.status == "executed")
    return tuple(Said(text=text, n_ran=ran[turn]) for turn, text in enumerate(texts))


def keeps_names(protocol: EvalProtocol) -> bool:
    """Whether a block of code may use what the blocks of earlier replies made."""
    return protocol.call_syntax == "fenced_python" and protocol.call_rules.dialect == "refocus"


def _syntax_read(protocol: EvalProtocol) -> CallSyntax:
    """The syntax of calls in a reply's text: without tools no server takes them out of it."""
    if protocol.tools or protocol.call_syntax not in ("none", "openai"):
        return protocol.call_syntax
    return "hermes"


def seen_calls(found: Sequence[ParsedCall], protocol: EvalProtocol) -> tuple[ParsedCall, ...]:
    """The calls that a protocol sees: all, or only those that can be read."""
    blind = protocol.tools and protocol.on_malformed == "ignore"
    return tuple(call for call in found if not blind or call.error is None)


def picked_calls(seen: Sequence[ParsedCall], protocol: EvalProtocol) -> tuple[ParsedCall, ...]:
    """The calls of a reply that are carried out; without tools all are looked at."""
    pick = protocol.call_rules.pick if protocol.tools else "all"
    if pick == "all":
        return tuple(seen)
    return tuple(seen[:1] if pick == "first" else seen[-1:])


def reason_to_refuse(
    call: ParsedCall,
    finish: FinishReason,
    protocol: EvalProtocol,
    *,
    n_turns: int,
    n_executed: int,
    n_images: int,
) -> StopReason | None:
    """Why a call ends the conversation instead of being carried out, or None.

    `n_turns` counts the reply that holds it; `n_executed` and `n_images` what came before.
    """
    last_turn = n_turns >= protocol.max_generations
    if not protocol.tools:
        return "not_offered"
    mended = protocol.on_malformed == "carry_out"
    if call.error is not None and finish == "length" and not mended:
        return "length"
    if call.error is not None and not mended and (last_turn or protocol.on_malformed == "end"):
        return "malformed_call"
    if n_executed >= protocol.max_calls:
        return "call_limit"
    if last_turn:
        return "turn_limit"
    full = protocol.max_images is not None and n_images >= protocol.max_images
    return "image_limit" if full and call.error is None else None


def winning_answer(text: str, protocol: EvalProtocol) -> Answer | None:
    """The closed answer that ends a conversation although its reply holds calls."""
    if protocol.call_rules.answer_wins == "never":
        return None
    closed = tuple(rule for rule in protocol.answer_rules if rule not in WHOLE_TEXTS)
    return replace(protocol, answer_rules=closed).extract(text, complete=False)


def refused_as(call: ParsedCall, stop: StopReason) -> CallStatus:
    """The status of a call that was not carried out because the conversation ended."""
    if stop == "not_offered":
        return "not_offered"
    return "over_limit" if call.error is None else "malformed"


def reason_to_skip(
    call: ParsedCall, picked: Sequence[ParsedCall], results: Sequence[Observed]
) -> tuple[CallStatus, str] | None:
    """Why a call is passed over, as its status and its error, or None where it is carried out."""
    if call not in picked:
        return "over_limit", NOT_PICKED
    if call.of_block and results and results[-1].error is not None:
        return "rejected", AFTER_FAILURE
    return None


def put_before_model(ran: Sequence[ParsedCall], results: Sequence[Observed]) -> list[int]:
    """The places of the results that the model is shown, among those of the calls that ran.

    All of them; but of a block of code only what it shows, or, where a call of it failed, that.
    """
    failed = any(result.error is not None for result in results)
    return [
        place
        for place, (call, result) in enumerate(zip(ran, results, strict=True))
        if not call.of_block or (result.error is not None if failed else call.shown)
    ]


def offered_tool(protocol: EvalProtocol, name: str | None) -> Tool:
    """The tool that a call means. Raises ToolError, with the offered names, where there is none."""
    if protocol.call_rules.any_name:
        return protocol.tools[0]
    for tool in protocol.tools:
        if tool.name == name:
            return tool
    offered = ", ".join(tool.name for tool in protocol.tools)
    raise ToolError(f"there is no tool {named(name)}; offered: {offered}")
