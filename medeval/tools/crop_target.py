"""Which image a crop is cut from: the one that the call names, the first, or the newest."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from string import Template
from typing import Final, Literal, TypeAlias

from medeval.errors import ToolError
from medeval.tools.arguments import MANY_IMAGES, check_template, seen
from medeval.tools.base import ToolContext
from medeval.types.sample import JsonValue

TargetRule: TypeAlias = Literal["index", "first", "source", "latest"]

INTEGER_TEXT: Final = re.compile(r"[+-]?[0-9]{1,9}")
SOURCE: Final = re.compile(r"original_image|observation_([0-9]{1,6})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """How a call says which image it works on.

    `rule` "index": `argument` holds an integer, counted from `base` over all images or over the
    sample's "originals" (`over`). A call without it means `default`, and is refused where that is
    None. `lenient` also accepts an integer written as text, and drops fractions. "source":
    `argument` holds `original_image`, or `observation_i` for the i-th image that a call made.
    "first" is the sample's first image and "latest" the newest of the conversation, without an
    argument. `refusal` replaces the error for an image that is not there: `$seen` is the value,
    `$last` the highest index.
    """

    rule: TargetRule = "index"
    argument: str = "image_index"
    base: int = 0
    over: Literal["all", "originals"] = "all"
    default: int | None = 0
    lenient: bool = False
    refusal: str = ""

    def __post_init__(self) -> None:
        check_template("a target", "refusal", self.refusal, {"seen", "last"})

    @property
    def arguments(self) -> tuple[str, ...]:
        """The names of the arguments that the rule reads."""
        return (self.argument,) if self.rule in ("index", "source") else ()

    def index(self, arguments: Mapping[str, JsonValue], context: ToolContext) -> int:
        """The index of the image that a call means; ToolError where there is none."""
        match self.rule:
            case "first":
                return 0
            case "latest":
                return len(context.pictures) - 1
            case "source":
                return self._source(arguments, context)
            case "index":
                return self._index(arguments, context)

    def _index(self, arguments: Mapping[str, JsonValue], context: ToolContext) -> int:
        value = arguments.get(self.argument, self.default)
        if self.argument not in arguments and self.default is None:
            raise ToolError(f"{self.argument!r} is missing; it is an integer")
        number = whole_number(value, lenient=self.lenient)
        if number is None or abs(number) >= MANY_IMAGES:
            self._refuse(value, context)
            raise ToolError(
                f"{self.argument!r} is an integer counted from {self.base}, not {seen(value)}"
            )
        last = self._count(context) - 1 + self.base
        if not self.base <= number <= last:
            self._refuse(number, context)
            raise ToolError(
                f"there is no image {number}; images are numbered {self.base} to {last}"
            )
        return number - self.base

    def _count(self, context: ToolContext) -> int:
        return context.n_originals if self.over == "originals" else len(context.pictures)

    def _refuse(self, value: JsonValue, context: ToolContext) -> None:
        if self.refusal:
            last = self._count(context) - 1 + self.base
            raise ToolError(Template(self.refusal).substitute(seen=seen(value), last=last))

    def _source(self, arguments: Mapping[str, JsonValue], context: ToolContext) -> int:
        if self.argument not in arguments:
            raise ToolError(f"{self.argument!r} is missing; it is 'original_image' or such")
        value = arguments[self.argument]
        named = SOURCE.fullmatch(value) if isinstance(value, str) else None
        if named is None:
            raise ToolError(
                f"{self.argument!r} is 'original_image' or 'observation_i', not {seen(value)}"
            )
        made = len(context.pictures) - context.n_originals
        number = int(named[1] or 0)
        if named[1] is None:
            return 0
        if not 1 <= number <= made:
            raise ToolError(f"there is no observation {number}; there are {made} so far")
        return context.n_originals - 1 + number


def whole_number(value: JsonValue, *, lenient: bool = False) -> int | None:
    """A JSON number without a fraction as an integer; None for anything else.

    With `lenient` also a text of digits, and a number without its fraction.

    >>> whole_number(1.0), whole_number("1"), whole_number("1", lenient=True)
    (1, None, 1)
    """
    if isinstance(value, bool):
        return None
    if lenient and isinstance(value, str) and INTEGER_TEXT.fullmatch(value.strip()):
        return int(value)
    if isinstance(value, float) and (value.is_integer() or (lenient and math.isfinite(value))):
        return int(value)
    return value if isinstance(value, int) else None
