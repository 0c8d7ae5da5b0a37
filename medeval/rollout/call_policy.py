"""What a protocol does with the tool calls of a reply: ignore, skip, execute, or stop there."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from medeval.errors import ToolError
from medeval.rollout.observation import CallResult
from medeval.rollout.protocol import EvalProtocol
from medeval.tools.base import Tool
from medeval.tools.calls.find import CallSyntax, EarlierReply, find_calls, named
from medeval.types.trajectory import (
    Answer,
    CallStatus,
    FinishReason,
    ParsedCall,
    StopReason,
    ToolCall,
    Turn,
)

NOT_CHOSEN: Final = "the protocol carries out one call of a reply, and this is another"
AFTER_FAILURE: Final = "not run: an earlier call of the same block failed"

# Answer rules that accept any text, so that no reply is marked as final by them.
RULES_FOR_ANY_TEXT: Final = ("whole_reply", "raw_reply")


def calls_of_last_turn(
    turns: Sequence[Turn], calls: Sequence[ToolCall], protocol: EvalProtocol
) -> tuple[ParsedCall, ...]:
    """All calls in the last of the `turns`, in the syntax that the protocol reads.

    `calls` are those of the turns before. A block of Python may use the names that the blocks
    before it have bound, as far as their calls were executed.
    """
    *earlier, last = turns
    n_executed = Counter(call.turn for call in calls if call.status == "executed")
    return find_calls(
        last.text,
        last.native_calls,
        _syntax_to_read(protocol),
        protocol.call_rules,
        [
            EarlierReply(text=turn.text, n_executed=n_executed[number])
            for number, turn in enumerate(earlier)
        ],
    )


def _syntax_to_read(protocol: EvalProtocol) -> CallSyntax:
    """The syntax of calls in a reply's text.

    Without tools in the request, no server takes native calls out of the text, where models write
    them as Hermes blocks.
    """
    if protocol.tools or protocol.call_syntax not in ("none", "openai"):
        return protocol.call_syntax
    return "hermes"


def keeps_variables(protocol: EvalProtocol) -> bool:
    """Whether a block of code may use the variables of earlier replies' blocks."""
    return protocol.call_syntax == "fenced_python" and protocol.call_rules.dialect == "refocus"


def is_ignored(call: ParsedCall, protocol: EvalProtocol) -> bool:
    """Whether the protocol passes over a call that cannot be read as if it were not there."""
    ignores = bool(protocol.tools) and protocol.on_malformed == "ignore"
    return ignores and call.error is not None


def chosen_calls(calls: Sequence[ParsedCall], protocol: EvalProtocol) -> tuple[ParsedCall, ...]:
    """The calls of a reply that are to be executed: all, the first or the last."""
    pick = protocol.call_rules.pick if protocol.tools else "all"
    if pick == "all":
        return tuple(calls)
    return tuple(calls[:1] if pick == "first" else calls[-1:])


def reason_to_skip(
    call: ParsedCall, chosen: Sequence[ParsedCall], results: Sequence[CallResult]
) -> tuple[CallStatus, str] | None:
    """The status and the error of a call that is passed over; None where it is not.

    `results` are those of the calls before it in the same reply.
    """
    if call not in chosen:
        return "over_limit", NOT_CHOSEN
    if call.of_block and results and results[-1].error is not None:
        return "rejected", AFTER_FAILURE
    return None


def reason_to_stop(
    call: ParsedCall,
    finish: FinishReason,
    protocol: EvalProtocol,
    *,
    n_turns: int,
    n_executed: int,
    n_images: int,
) -> StopReason | None:
    """Why the conversation ends before a call is executed; None where it goes on.

    `finish` is how the reply with the call ended. `n_turns` counts the replies, this one included;
    `n_executed` the calls that were executed and `n_images` the images so far.
    """
    is_last_turn = n_turns >= protocol.max_generations
    if not protocol.tools:
        return "not_offered"
    if call.error is not None and protocol.on_malformed != "carry_out":
        if finish == "length":
            return "length"
        if is_last_turn or protocol.on_malformed == "end":
            return "malformed_call"
    if n_executed >= protocol.max_calls:
        return "call_limit"
    if is_last_turn:
        return "turn_limit"
    is_full = protocol.max_images is not None and n_images >= protocol.max_images
    return "image_limit" if is_full and call.error is None else None


def status_after_stop(call: ParsedCall, stop: StopReason) -> CallStatus:
    """The status of a call that was not executed because the conversation ended before it."""
    if stop == "not_offered":
        return "not_offered"
    return "over_limit" if call.error is None else "malformed"


def answer_despite_calls(text: str, protocol: EvalProtocol) -> Answer | None:
    """The closed answer with which a reply ends the conversation although it also holds calls."""
    if protocol.call_rules.answer_wins == "never":
        return None
    rules = tuple(rule for rule in protocol.answer_rules if rule not in RULES_FOR_ANY_TEXT)
    return replace(protocol, answer_rules=rules).extract(text, complete=False)


def offered_tool(protocol: EvalProtocol, name: str | None) -> Tool:
    """The tool that a call names; ToolError, with the names on offer, where there is none."""
    if protocol.call_rules.any_name:
        return protocol.tools[0]
    for tool in protocol.tools:
        if tool.name == name:
            return tool
    offered = ", ".join(tool.name for tool in protocol.tools)
    raise ToolError(f"there is no tool {named(name)}; offered: {offered}")


def is_shown(call: ParsedCall, result: CallResult, *, any_failed: bool) -> bool:
    """Whether the model is shown the result of a call that ran.

    Always, except for the calls of a block of code: of these it is shown what the block displays,
    or only the error where a call of the reply failed (`any_failed`).
    """
    if not call.of_block:
        return True
    return result.error is not None if any_failed else call.shown
