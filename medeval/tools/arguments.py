"""Reads the arguments of a call; a ToolError tells the model how to correct them."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Final

from medeval.errors import ToolError
from medeval.tools.calls.find import KINDS, named
from medeval.types.sample import JsonValue

# No conversation holds so many images, and an error should not quote a longer number.
MANY_IMAGES: Final = 1_000_000

# JSON that an error may quote: the model reads the error, so that it must hold no special token.
SAFE_JSON: Final = re.compile(r'[\w .,:"\[\]{}+-]*')


def check_names(arguments: Mapping[str, JsonValue], known: Sequence[str]) -> None:
    """Raise ToolError, with the `known` names, for an argument that is not one of them."""
    for argument in arguments:
        if argument not in known:
            raise ToolError(
                f"there is no argument {named(argument)}; "
                + ("the arguments are " if len(known) > 1 else "the argument is ")
                + _listed(known)
            )


def read_index(value: JsonValue, argument: str) -> int:
    """The integer of an image's index, whether or not there is such an image; else ToolError."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) < MANY_IMAGES:
        return value
    raise ToolError(f"{argument!r} is an integer counted from 0, not {seen(value)}")


def read_number(value: JsonValue, argument: str) -> float:
    """A finite number; else ToolError."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ToolError(f"{argument!r} holds numbers only, not {seen(value)}")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise ToolError(f"{argument!r} holds finite numbers only, not {seen(value)}")
    return number


def read_image(arguments: Mapping[str, JsonValue], argument: str) -> int:
    """The index of the image that a call names: 0, the first, without the argument."""
    return read_index(arguments.get(argument, 0), argument)


def read_choice(value: JsonValue, argument: str, choices: Sequence[str]) -> str:
    """One of the `choices`; else ToolError."""
    if isinstance(value, str) and value in choices:
        return value
    raise ToolError(f"{argument!r} is {_either(choices)}, not {seen(value)}")


def required(arguments: Mapping[str, JsonValue], argument: str, what: str) -> JsonValue:
    """An argument that a call must have; else ToolError. `what` tells the model what it is."""
    if argument not in arguments:
        raise ToolError(f"{argument!r} is missing; it is {what}")
    return arguments[argument]


def image_parameter(task: str) -> JsonValue:
    """The schema of the argument that names an image; `task` is such as "turn" or "draw on"."""
    return {
        "type": "integer",
        "minimum": 0,
        "default": 0,
        "description": (
            f"Which image to {task}, counted from 0 in the order in which the images appear in "
            "the conversation: 0 is the first image you were given, and images made by tools are "
            "numbered after those you were given."
        ),
    }


def seen(value: JsonValue) -> str:
    """A value as an error may quote it: its JSON, cut at 80 characters, or else its type."""
    shown = json.dumps(value, ensure_ascii=False)
    if not SAFE_JSON.fullmatch(shown):
        return KINDS.get(type(value), "an object")
    return shown if len(shown) <= 80 else f"{shown[:77]}..."


def _listed(names: Sequence[str]) -> str:
    *first, last = (repr(name) for name in names)
    return f"{', '.join(first)} and {last}" if first else last


def _either(words: Sequence[str]) -> str:
    *first, last = (json.dumps(word) for word in words)
    return f"{', '.join(first)} or {last}" if first else last
