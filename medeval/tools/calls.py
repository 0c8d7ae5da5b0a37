"""Find the tool calls in a reply. Nothing a model writes raises, and the time is linear in it."""

import json
import math
import re
import string
from collections.abc import Sequence
from typing import Final, Literal, TypeAlias

from medeval.types import JsonValue, NativeCall, ParsedCall

CallSyntax: TypeAlias = Literal["none", "hermes", "openai"]

# Part of every fingerprint. Raise it with any change to the parser, the stop rule, the rules that
# find an answer or a tool's pixels that can change a number: old cells are then not resumed.
BEHAVIOUR: Final = 1

TAGS: Final = re.compile(r"</?(?:(?i:think)|tool_call)>")

# What may follow an opening code fence: json, JSON, python, tool_call.
LANGUAGE_LETTERS: Final = string.ascii_letters + "_"

# Deeper values can be parsed but not written down again; no tool takes more than a list of lists.
MAX_DEPTH: Final = 32

# What JSON calls the types that a parsed value has, where an object was called for.
KINDS: Final[dict[type, str]] = {
    type(None): "null",
    bool: "a boolean",
    int: "a number",
    float: "a number",
    str: "a string",
    list: "an array",
}

# What of a model's own words may stand in an error that is put before it: never a special token.
SAFE_NAME: Final = re.compile(r"[\w.-]{1,64}")

HERMES_FORM: Final = '<tool_call>{"name": ..., "arguments": {...}}</tool_call>'


def find_calls(
    text: str, native: Sequence[NativeCall], syntax: CallSyntax
) -> tuple[ParsedCall, ...]:
    """The calls of one reply in order, those in its text before the server's own.

    In the syntax "hermes", `<tool_call>` blocks with one JSON object in each. The last may lack
    its closing tag, which a stop string or the end of the reply took; code fences around the
    object are allowed, and arguments written as a JSON string of an object are decoded once.
    A block inside reasoning that was closed with `</think>` (where the reply starts in the midst
    of reasoning, from its start) quotes the syntax and is no call; an open `<think>` hides nothing.
    A block that cannot be read is a call with an `error`, written for the model.

    In the other syntaxes text holds no calls (a rollout reads text as "hermes" wherever a protocol
    offers no tools, whatever its syntax). Native calls count in every syntax, since a server
    may have taken them out of the text.
    """
    written = _hermes_calls(text) if syntax == "hermes" else []
    return (*written, *(_native_call(call) for call in native))


def ends_at_stop(text: str, stops: Sequence[str]) -> str:
    """The text up to and including the stop string that is complete first; all of it without one.

    >>> ends_at_stop("<answer>A</answer> and more", ("</tool_call>", "</answer>"))
    '<answer>A</answer>'
    """
    found = [(text.find(stop), len(stop)) for stop in stops if stop]
    return text[: min((start + length for start, length in found if start >= 0), default=len(text))]


def named(name: str | None) -> str:
    """A name that a model wrote, to follow a noun in a message that the model will read.

    >>> "no tool " + named("zoom"), "no tool " + named("<|im_end|>")
    ("no tool named 'zoom'", 'no tool of another name')
    """
    safe = name is not None and SAFE_NAME.fullmatch(name)
    return f"named {name!r}" if safe else "of another name"


def _hermes_calls(text: str) -> list[ParsedCall]:
    tags = [(match.group().lower(), match.start(), match.end()) for match in TAGS.finditer(text)]
    thinking = [index for index, (tag, _, _) in enumerate(tags) if tag.endswith("think>")]
    last_close = max((index for index in thinking if tags[index][0] == "</think>"), default=-1)
    calls: list[ParsedCall] = []
    index = 0
    if thinking and tags[thinking[0]][0] == "</think>":
        index = thinking[0] + 1
    while index < len(tags):
        tag, start, inside = tags[index]
        index += 1
        if tag == "<think>" and index <= last_close:
            while tags[index][0] != "</think>":
                index += 1
        elif tag == "<tool_call>":
            while index < len(tags) and not tags[index][0].endswith("tool_call>"):
                index += 1
            closing = tags[index] if index < len(tags) else None
            calls.append(_hermes_call(text, start, inside, closing))
    return calls


def _hermes_call(
    text: str, start: int, inside: int, closing: tuple[str, int, int] | None
) -> ParsedCall:
    """One block: from its opening tag to the next tag of a call, or to the end of the text."""
    end = stop = len(text)
    if closing is not None:
        stop = closing[1]
        end = closing[2] if closing[0] == "</tool_call>" else stop
    name: str | None = None
    arguments: dict[str, JsonValue] | None = None
    error: str | None = None
    try:
        if closing is not None and closing[0] == "<tool_call>":
            raise _MalformedError("the call is not closed before the next one starts")
        name, encoded = _hermes_fields(_unfenced(text[inside:stop]))
        arguments = _object(_loaded(encoded) if isinstance(encoded, str) else encoded)
    except _MalformedError as malformed:
        error = f"{malformed}; write a call as {HERMES_FORM}"
    return ParsedCall(
        raw_text=text[start:end], name=name, arguments=arguments, error=error, start=start, end=end
    )


def _native_call(call: NativeCall) -> ParsedCall:
    name = call.name or None
    arguments: dict[str, JsonValue] | None = None
    error: str | None = None
    try:
        if name is None:
            raise _MalformedError("the call names no tool")
        arguments = _object(_loaded(call.arguments))
    except _MalformedError as malformed:
        error = str(malformed)
    return ParsedCall(
        raw_text=call.arguments, name=name, arguments=arguments, error=error, native_id=call.id
    )


class _MalformedError(Exception):
    """What is wrong with a call, in words that a model can act on."""


def _hermes_fields(body: str) -> tuple[str, JsonValue]:
    """The name in a block, and its arguments as they stand."""
    if "{" not in body:
        raise _MalformedError("the call holds no JSON object")
    call = _loaded(body)
    if not isinstance(call, dict):
        raise _MalformedError(f"a call is one JSON object, not {KINDS[type(call)]}")
    name = call.get("name")
    if not (isinstance(name, str) and name):
        raise _MalformedError('a call has the name of a tool, a string, under "name"')
    if "arguments" not in call:
        raise _MalformedError(f'the call of a tool {named(name)} has no "arguments"')
    return name, call["arguments"]


def _object(value: JsonValue) -> dict[str, JsonValue]:
    if not isinstance(value, dict):
        raise _MalformedError(
            f"the arguments of a call are a JSON object, not {KINDS[type(value)]}"
        )
    return value


def _unfenced(block: str) -> str:
    """The block without a code fence around it, of which the end may be missing."""
    body = block.strip()
    if body.startswith("```"):
        body = body.removeprefix("```").removesuffix("```").lstrip(LANGUAGE_LETTERS).strip()
    return body


def _loaded(text: str) -> JsonValue:
    """The value of a JSON text that can be written down again as JSON in UTF-8."""
    try:
        value: JsonValue = json.loads(text, parse_float=_finite, parse_constant=_finite)
    except RecursionError:
        raise _MalformedError(f"the JSON is nested more than {MAX_DEPTH} deep") from None
    except ValueError as error:
        raise _MalformedError(f"the JSON cannot be read: {error}") from None
    _check_writable(value)
    return value


def _finite(literal: str) -> float:
    number = float(literal)
    if not math.isfinite(number):
        raise ValueError(f"{literal[:20]} is not a finite number")
    return number


def _check_writable(value: JsonValue) -> None:
    """Raise unless the nesting is shallow and every string has a form in UTF-8."""
    layer = [value]
    for _ in range(MAX_DEPTH):
        for item in layer:
            if isinstance(item, str) and not _has_utf8(item):
                raise _MalformedError("a JSON string holds half of a surrogate pair")
        layer = [inner for item in layer for inner in _inner(item)]
        if not layer:
            return
    raise _MalformedError(f"the JSON is nested more than {MAX_DEPTH} deep")


def _inner(value: JsonValue) -> list[JsonValue]:
    if isinstance(value, dict):
        return [*value, *value.values()]
    return value if isinstance(value, list) else []


def _has_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
