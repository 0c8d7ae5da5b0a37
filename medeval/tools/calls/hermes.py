"""Reads calls in Hermes blocks, and in blocks of another tag that hold the arguments alone."""

import string
from typing import Final

from medeval.tools.calls.syntax import (
    KINDS,
    Block,
    CallRules,
    MalformedError,
    as_object,
    blocks,
    loaded,
    named,
)
from medeval.types.sample import JsonValue
from medeval.types.trajectory import ParsedCall

# The letters of a language after an opening code fence: json, JSON, python, tool_call.
LANGUAGE_LETTERS: Final = string.ascii_letters + "_"

HERMES_FORM: Final = '<tool_call>{"name": ..., "arguments": {...}}</tool_call>'


def hermes_calls(text: str, rules: CallRules) -> list[ParsedCall]:
    """The `<tool_call>` blocks, each with one JSON object of a name and arguments."""
    return [
        _hermes_call(text, block, rules)
        for block in blocks(text, "tool_call", in_reasoning=rules.in_reasoning)
        if block.closed_by == "closing" or not rules.must_close
    ]


def tagged_calls(text: str, rules: CallRules) -> list[ParsedCall]:
    """The blocks of `rules.tag`, each with the arguments alone; the tag is the tool's name."""
    return [
        _tagged_call(text, block, rules)
        for block in blocks(text, rules.tag, in_reasoning=rules.in_reasoning)
        if block.closed_by == "closing" or not rules.must_close
    ]


def _hermes_call(text: str, block: Block, rules: CallRules) -> ParsedCall:
    """The call in one block; one with an `error` where it cannot be read."""
    name: str | None = None
    arguments: dict[str, JsonValue] | None = None
    error: str | None = None
    literal = rules.python_literals
    try:
        _check_closed(block, needs_end=rules.unclosed_malformed)
        body = _unfenced(text[block.inside : block.stop])
        name, encoded = _fields(body, rules)
        if isinstance(encoded, str):
            encoded = loaded(encoded, python_literals=literal)
        arguments = as_object(encoded)
    except MalformedError as malformed:
        error = f"{malformed}; write a call as {HERMES_FORM}"
    return _parsed(text, block, name, arguments, error)


def _tagged_call(text: str, block: Block, rules: CallRules) -> ParsedCall:
    arguments: dict[str, JsonValue] | None = None
    error: str | None = None
    try:
        _check_closed(block)
        body = _unfenced(text[block.inside : block.stop])
        if "{" not in body:
            raise MalformedError("the call holds no JSON object")
        arguments = as_object(loaded(body, python_literals=rules.python_literals))
    except MalformedError as malformed:
        error = f"{malformed}; write a call as <{rules.tag}>{{...}}</{rules.tag}>"
    return _parsed(text, block, rules.tag, arguments, error)


def _parsed(
    text: str,
    block: Block,
    name: str | None,
    arguments: dict[str, JsonValue] | None,
    error: str | None,
) -> ParsedCall:
    return ParsedCall(
        raw_text=text[block.start : block.end],
        name=name,
        arguments=arguments,
        error=error,
        start=block.start,
        end=block.end,
    )


def _check_closed(block: Block, *, needs_end: bool = False) -> None:
    if block.closed_by == "opening":
        raise MalformedError("the call is not closed before the next one starts")
    if needs_end and block.closed_by is None:
        raise MalformedError("the call is not closed")


def _fields(body: str, rules: CallRules) -> tuple[str | None, JsonValue]:
    """The name in a block, None only with `rules.any_name`, and the arguments as written."""
    if "{" not in body:
        raise MalformedError("the call holds no JSON object")
    call = loaded(body, python_literals=rules.python_literals)
    if not isinstance(call, dict):
        raise MalformedError(f"a call is one JSON object, not {KINDS[type(call)]}")
    name = call.get("name")
    if not (isinstance(name, str) and name):
        name = None
    if name is None and not rules.any_name:
        raise MalformedError('a call has the name of a tool, a string, under "name"')
    if "arguments" not in call:
        raise MalformedError(f'the call of a tool {named(name)} has no "arguments"')
    return name, call["arguments"]


def _unfenced(block: str) -> str:
    """The text of a block without the code fence around it, whose end may be missing."""
    body = block.strip()
    if body.startswith("```"):
        body = body.removeprefix("```").removesuffix("```").lstrip(LANGUAGE_LETTERS).strip()
    return body
