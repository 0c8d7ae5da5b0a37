"""What all parsers of calls share: the rules, the blocks between tags, and JSON read with care."""

import ast
import json
import math
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Literal, TypeAlias

from medeval.types.sample import JsonValue
from medeval.types.trajectory import ParsedCall

CallSyntax: TypeAlias = Literal[
    "none", "hermes", "openai", "glm_xml", "tagged_json", "fenced_python", "actions_json"
]
Pick: TypeAlias = Literal["all", "first", "last"]
# The published environments whose rules the syntax "fenced_python" can follow.
Dialect: TypeAlias = Literal["refocus", "vtool_v1", "vtool_v2"]

# Values nested deeper can be parsed, but not written again; no tool needs more than two levels.
MAX_DEPTH: Final = 32

# The longest Python literal, in characters, that is read: it bounds the parser's time and stack.
MAX_LITERAL: Final = 20_000

# What JSON calls the types of parsed values other than an object.
KINDS: Final[dict[type, str]] = {
    type(None): "null",
    bool: "a boolean",
    int: "a number",
    float: "a number",
    str: "a string",
    list: "an array",
}

# A name that an error may quote: the model reads the error, so that it must hold no special token.
SAFE_NAME: Final = re.compile(r"[\w.-]{1,64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class CallRules:
    """Which calls of a reply count, and how strictly they are read.

    `pick`: which of several calls is executed; the others are recorded as over the limit.
    `tag`: the element that holds a call in the syntax "tagged_json", and the name of the tool.
    `must_end_reply`: calls in the text count only where the reply ends with one.
    `must_close`: only calls with a closing tag count.
    `in_reasoning`: calls inside closed reasoning count too.
    `python_literals`: text that is no JSON is read as a Python literal.
    `answer_wins`: a reply with a closed answer is the last, although it holds calls. With
    "before_calls" these are over the limit; with "after_calls" they are executed, and the model is
    not shown the results.
    `dialect`: whose rules "fenced_python" follows.
    `any_name`: the first tool carries out a call of any name, or of none.
    `unclosed_malformed`: a Hermes block without its closing tag cannot be read.
    """

    pick: Pick = "all"
    tag: str = "tool_call"
    must_end_reply: bool = False
    must_close: bool = False
    in_reasoning: bool = False
    python_literals: bool = False
    answer_wins: Literal["never", "before_calls", "after_calls"] = "never"
    dialect: Dialect = "vtool_v2"
    any_name: bool = False
    unclosed_malformed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class EarlierReply:
    """An earlier reply of the conversation, and how many of its calls were executed."""

    text: str
    n_executed: int


Parser: TypeAlias = Callable[[str, CallRules], list[ParsedCall]]


class MalformedError(Exception):
    """A call cannot be read; the message tells the model why, so that it can write it again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """The text from an opening tag to the next tag of its kind, or to the end of the text.

    text[start:end] is the block with its tags, text[inside:stop] the text between them. `closed_by`
    is the kind of the tag that ends the block, None for the end of the text.
    """

    start: int
    inside: int
    stop: int
    end: int
    closed_by: Literal["closing", "opening"] | None


@lru_cache(maxsize=64)
def _tags(tag: str) -> re.Pattern[str]:
    return re.compile(rf"</?(?:(?i:think)|{re.escape(tag)})>")


def blocks(text: str, tag: str, *, in_reasoning: bool = False) -> list[Block]:
    """The blocks of one tag, in order, in time linear in the text.

    Unless `in_reasoning`, blocks inside reasoning that is closed with `</think>` are left out. The
    reasoning begins at `<think>`, or at the start of a text without it; an open `<think>` hides
    nothing.
    """
    found = [
        (match.group().lower(), match.start(), match.end()) for match in _tags(tag).finditer(text)
    ]
    opening, closing = f"<{tag.lower()}>", f"</{tag.lower()}>"
    if in_reasoning:
        found = [item for item in found if not item[0].endswith("think>")]
    thinking = [index for index, (name, _, _) in enumerate(found) if name.endswith("think>")]
    last_close = max((index for index in thinking if found[index][0] == "</think>"), default=-1)
    made: list[Block] = []
    index = 0
    if thinking and found[thinking[0]][0] == "</think>":
        index = thinking[0] + 1
    while index < len(found):
        name, start, inside = found[index]
        index += 1
        if name == "<think>" and index <= last_close:
            while found[index][0] != "</think>":
                index += 1
        elif name == opening:
            while index < len(found) and found[index][0] not in (opening, closing):
                index += 1
            ends_it = found[index] if index < len(found) else None
            made.append(_block(text, start, inside, ends_it, closing))
    return made


def _block(
    text: str, start: int, inside: int, ends_it: tuple[str, int, int] | None, closing: str
) -> Block:
    if ends_it is None:
        return Block(start=start, inside=inside, stop=len(text), end=len(text), closed_by=None)
    name, stop, after = ends_it
    closed = name == closing
    return Block(
        start=start,
        inside=inside,
        stop=stop,
        end=after if closed else stop,
        closed_by="closing" if closed else "opening",
    )


def named(name: str | None) -> str:
    """Quotes a name that a model wrote, after a noun in an error that the model reads.

    >>> "no tool " + named("zoom"), "no tool " + named("<|im_end|>")
    ("no tool named 'zoom'", 'no tool of another name')
    """
    safe = name is not None and SAFE_NAME.fullmatch(name)
    return f"named {name!r}" if safe else "of another name"


def as_object(value: JsonValue) -> dict[str, JsonValue]:
    """The arguments of a call; MalformedError where they are no object."""
    if not isinstance(value, dict):
        raise MalformedError(f"the arguments of a call are a JSON object, not {KINDS[type(value)]}")
    return value


def loaded(text: str, *, python_literals: bool = False) -> JsonValue:
    """The value of a JSON text; MalformedError where it cannot be read, or written again in UTF-8.

    With `python_literals` a text that is no JSON is read as a Python literal; nothing is run.
    """
    try:
        value: JsonValue = json.loads(text, parse_float=_finite, parse_constant=_finite)
    except RecursionError:
        raise MalformedError(f"the JSON is nested more than {MAX_DEPTH} deep") from None
    except ValueError as error:
        if not python_literals:
            raise MalformedError(f"the JSON cannot be read: {error}") from None
        value = _python_literal(text, f"the JSON cannot be read: {error}")
    _check_writable(value)
    return value


def _python_literal(text: str, otherwise: str) -> JsonValue:
    """The JSON form of a Python literal; MalformedError(`otherwise`) without one."""
    if len(text) > MAX_LITERAL:
        raise MalformedError(otherwise)
    try:
        with warnings.catch_warnings():
            # Python warns of wrong escapes in a literal, which here are the model's
            warnings.simplefilter("ignore")
            value = ast.literal_eval(text.strip())
        return _as_json(value)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        raise MalformedError(otherwise) from None


def _as_json(value: object) -> JsonValue:
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return _finite(repr(value))
    if isinstance(value, list | tuple):
        return [_as_json(item) for item in value]
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {key: _as_json(item) for key, item in value.items()}
    raise ValueError("a literal without a form in JSON")


def _finite(literal: str) -> float:
    number = float(literal)
    if not math.isfinite(number):
        raise ValueError(f"{literal[:20]} is not a finite number")
    return number


def _check_writable(value: JsonValue) -> None:
    """Raise MalformedError for deep nesting, and for a string that UTF-8 cannot encode."""
    layer = [value]
    for _ in range(MAX_DEPTH):
        for item in layer:
            if isinstance(item, str) and not _has_utf8(item):
                raise MalformedError("a JSON string holds half of a surrogate pair")
        layer = [inner for item in layer for inner in _inner(item)]
        if not layer:
            return
    raise MalformedError(f"the JSON is nested more than {MAX_DEPTH} deep")


def _inner(value: JsonValue) -> Sequence[JsonValue]:
    if isinstance(value, dict):
        return [*value, *value.values()]
    return value if isinstance(value, list) else []


def _has_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
