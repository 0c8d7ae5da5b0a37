"""Reads the calls of GLM-4.5: a name, then keys and values, each between tags of its own.

As in the published parsers, a value is read as JSON where it is JSON, and as plain text otherwise.
Newlines between the parts are optional.
"""

import re
from typing import Final

from medeval.tools.calls.syntax import CallRules, MalformedError, blocks, loaded, named
from medeval.types.sample import JsonValue
from medeval.types.trajectory import ParsedCall

MARKS: Final = re.compile(r"</?arg_(?:key|value)>")
ORDER: Final = ("<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>")
GLM_FORM: Final = (
    "<tool_call>name\n<arg_key>key</arg_key>\n<arg_value>value</arg_value>\n</tool_call>"
)


def glm_calls(text: str, rules: CallRules) -> list[ParsedCall]:
    """The `<tool_call>` blocks with a tool's name and its arguments as keys and values."""
    return [
        _glm_call(text[block.start : block.end], text[block.inside : block.stop], block.start)
        for block in blocks(text, "tool_call", in_reasoning=rules.in_reasoning)
        if block.closed_by == "closing" or not rules.must_close
    ]


def _glm_call(raw_text: str, body: str, start: int) -> ParsedCall:
    first = MARKS.search(body)
    name = (body[: first.start()] if first else body).strip() or None
    arguments: dict[str, JsonValue] | None = None
    error: str | None = None
    try:
        if name is None:
            raise MalformedError("the call names no tool")
        arguments = _arguments(body, name)
    except MalformedError as malformed:
        error = f"{malformed}; write a call as {GLM_FORM}"
    return ParsedCall(
        raw_text=raw_text,
        name=name,
        arguments=arguments,
        error=error,
        start=start,
        end=start + len(raw_text),
    )


def _arguments(body: str, name: str) -> dict[str, JsonValue]:
    marks = list(MARKS.finditer(body))
    if len(marks) % 4 or any(mark.group() != ORDER[place % 4] for place, mark in enumerate(marks)):
        raise MalformedError(
            f"the call of a tool {named(name)} does not hold keys and values in turn"
        )
    return {
        body[marks[at].end() : marks[at + 1].start()].strip(): _value(
            body[marks[at + 2].end() : marks[at + 3].start()]
        )
        for at in range(0, len(marks), 4)
    }


def _value(text: str) -> JsonValue:
    try:
        return loaded(text, python_literals=True)
    except MalformedError:
        return text.encode("utf-8", "replace").decode()
