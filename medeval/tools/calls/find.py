"""Finds the tool calls in a reply. No reply makes it raise, and its time is linear in the text."""

import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final

from medeval.tools.calls.actions import actions_calls
from medeval.tools.calls.glm import glm_calls
from medeval.tools.calls.hermes import hermes_calls, tagged_calls
from medeval.tools.calls.syntax import KINDS as KINDS
from medeval.tools.calls.syntax import CallRules as CallRules
from medeval.tools.calls.syntax import CallSyntax as CallSyntax
from medeval.tools.calls.syntax import EarlierReply as EarlierReply
from medeval.tools.calls.syntax import MalformedError, Parser, as_object, loaded
from medeval.tools.calls.syntax import named as named
from medeval.types.sample import JsonValue
from medeval.types.trajectory import NativeCall, ParsedCall

# Part of every fingerprint. Raise it with each change of a parser, the stop rule, an answer rule or
# a tool's pixels that can change a number, so that cells of the older code are not resumed.
BEHAVIOUR: Final = 3


def _python_calls(
    text: str, rules: CallRules, earlier: Sequence[EarlierReply] = ()
) -> list[ParsedCall]:
    # imported here because Python's own parser loads slowly, and most protocols do not need it
    from medeval.tools.calls.fenced_python import python_calls

    return python_calls(text, rules, earlier)


# The parser of calls in a reply's text, for each syntax that writes them there.
PARSERS: Final[Mapping[CallSyntax, Parser]] = MappingProxyType(
    {
        "hermes": hermes_calls,
        "glm_xml": glm_calls,
        "tagged_json": tagged_calls,
        "actions_json": actions_calls,
        "fenced_python": _python_calls,
    }
)

# A program for a general Python sandbox, as DeepEyesV2 and Thyme write it.
SANDBOX_CODE: Final = re.compile(r"<code>\s*(?:```python)?")
SANDBOX_REFUSAL: Final = (
    "this is a program for a Python sandbox (DeepEyesV2, Thyme); "
    "medeval runs no code that a model wrote, and has no preset for such models"
)

DEFAULT_RULES: Final = CallRules()


def find_calls(
    text: str,
    native: Sequence[NativeCall],
    syntax: CallSyntax,
    rules: CallRules = DEFAULT_RULES,
    earlier: Sequence[EarlierReply] = (),
) -> tuple[ParsedCall, ...]:
    """The calls of one reply in order: those in its `text`, then the `native` ones.

    Native calls count in every syntax, since a server may have taken them out of the text. A call
    that cannot be read has an `error`, written for the model. `rules.pick` is left to the caller.

    "hermes": `<tool_call>` blocks with one JSON object each. The last block may lack its closing
    tag, which a stop string or the end of the reply cuts off. A code fence around the object is
    allowed, and arguments written as a JSON string of an object are decoded once. A block inside
    reasoning that is closed with `</think>` is a quotation and no call; the reasoning begins at
    `<think>`, or at the start of a reply without it. An open `<think>` hides nothing.
    "tagged_json": the same, with the arguments alone between `<tag>` and `</tag>`.
    "glm_xml": a name, then keys and values in tags of their own.
    "actions_json": one JSON object with a list of actions.
    "fenced_python": the calls of the first block of Python, which is read and never run; it may use
    variables of the `earlier` replies. "none" and "openai": text holds no calls.

    A program for a general Python sandbox counts as a call that cannot be read.
    """
    parser = PARSERS.get(syntax)
    if syntax == "fenced_python":
        written = _python_calls(text, rules, earlier)
    else:
        written = parser(text, rules) if parser else []
    if rules.must_end_reply and not (written and written[-1].end == len(text.rstrip())):
        written = []
    if parser and not written and not native:
        written = _sandbox_call(text)
    return (*written, *(_native_call(call) for call in native))


def ends_at_stop(text: str, stops: Sequence[str]) -> str:
    """The text up to and including the first stop string; all of it without one.

    >>> ends_at_stop("<answer>A</answer> and more", ("</tool_call>", "</answer>"))
    '<answer>A</answer>'
    """
    found = [(text.find(stop), len(stop)) for stop in stops if stop]
    return text[: min((start + length for start, length in found if start >= 0), default=len(text))]


def _native_call(call: NativeCall) -> ParsedCall:
    name = call.name or None
    arguments: dict[str, JsonValue] | None = None
    error: str | None = None
    try:
        if name is None:
            raise MalformedError("the call names no tool")
        arguments = as_object(loaded(call.arguments))
    except MalformedError as malformed:
        error = str(malformed)
    return ParsedCall(
        raw_text=call.arguments, name=name, arguments=arguments, error=error, native_id=call.id
    )


def _sandbox_call(text: str) -> list[ParsedCall]:
    """The first program for a sandbox in a reply, as a call that cannot be read."""
    opening = SANDBOX_CODE.search(text)
    if opening is None:
        return []
    closing = text.find("</code>", opening.end())
    end = len(text) if closing < 0 else closing + len("</code>")
    return [
        ParsedCall(
            raw_text=text[opening.start() : end],
            name=None,
            arguments=None,
            error=SANDBOX_REFUSAL,
            start=opening.start(),
            end=end,
        )
    ]
