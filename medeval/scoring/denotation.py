"""Whether two answers denote the same values: the rule of WikiTableQuestions and TableVQA-Bench.

After naver-ai/tablevqabench@88d0514, src/evaluate_tablevqa_dataset.py, which took it from the
WikiTableQuestions evaluator. The script strips a text's end by regular expressions; this module
reads the text from its end, so that a long text takes linear time.

"nan", "inf" and numbers too large for a float, on which the script crashes, are compared as text.
"""

import math
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from medeval.scoring.answers import collapsed

NUMBER_TOLERANCE = 1e-6

_QUOTES = str.maketrans({**dict.fromkeys("‘’´`", "'"), **dict.fromkeys("“”", '"')})  # noqa: RUF001
_DASHES = str.maketrans(dict.fromkeys("‐‑‒–—−", "-"))  # noqa: RUF001
_MARKS = frozenset("•♦†‡*#+")


@dataclass(frozen=True, slots=True)
class Denoted:
    """What one answer denotes: its kind, its value and its normalised text."""

    kind: Literal["number", "date", "text"]
    value: float | tuple[int, int, int] | str
    normalised: str

    def matches(self, other: "Denoted") -> bool:
        """Whether the normalised texts are equal, or the numbers or dates are."""
        if self.normalised == other.normalised:
            return True
        if self.kind != other.kind or self.kind == "text":
            return False
        if isinstance(self.value, int | float) and isinstance(other.value, int | float):
            return _is_near(self.value, other.value)
        return self.value == other.value


def _is_near(first: float, second: float) -> bool:
    try:
        return abs(first - second) < NUMBER_TOLERANCE
    except OverflowError:  # an integer too large for a float
        return False


def denotes_same(targets: Iterable[str], answers: Iterable[str]) -> bool:
    """Whether two lists of texts denote the same set of values.

    Equal values count once. The two sets must have equal sizes, and each target match an answer.

    >>> denotes_same(["2"], ["2.0"]), denotes_same(["1,000"], ["1000"])
    (True, False)
    """
    expected, given = _distinct(targets), _distinct(answers)
    return len(expected) == len(given) and all(
        any(target.matches(answer) for answer in given) for target in expected
    )


def _distinct(texts: Iterable[str]) -> list[Denoted]:
    """What the texts denote, each value once; 2 and 2.0 are one value."""
    first: dict[tuple[str, object], Denoted] = {}
    for text in texts:
        denoted = denote(text)
        first.setdefault((denoted.kind, denoted.value), denoted)
    return list(first.values())


def denote(text: str) -> Denoted:
    """What a text denotes: a number, a date `year-month-day` (`xx` where unknown), or a text."""
    plain = normalise(text)
    number = _number(text)
    date = None if number is not None else _date(text)
    if date is not None and date[1] == date[2] == -1:
        number = date[0]
    if number is not None:
        near = abs(number - round(number)) < NUMBER_TOLERANCE
        return Denoted("number", int(number) if near else number, plain)
    if date is not None:
        return Denoted("date", date, plain)
    return Denoted("text", plain, plain)


def _number(text: str) -> float | None:
    try:
        return int(text)
    except ValueError:
        pass
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _date(text: str) -> tuple[int, int, int] | None:
    parts = text.lower().split("-")
    if len(parts) != 3:
        return None
    try:
        year = -1 if parts[0] in ("xx", "xxxx") else int(parts[0])
        month, day = (-1 if part == "xx" else int(part) for part in parts[1:])
    except ValueError:
        return None
    known = (month == -1 or 1 <= month <= 12) and (day == -1 or 1 <= day <= 31)
    return (year, month, day) if known and (year, month, day) != (-1, -1, -1) else None


def normalise(text: str) -> str:
    """The text without accents, citations, trailing parentheses and outer quotes, in lower case.

    Quotation marks and dashes become plain ones, whitespace single spaces, and one full stop at
    the end is dropped.

    >>> normalise('"Foo (bar)[1].'), normalise("Léon Balcer (PC)")
    ('"foo (bar)[1]', 'leon balcer')
    """
    text = "".join(
        letter
        for letter in unicodedata.normalize("NFKD", text)
        if unicodedata.category(letter) != "Mn"
    )
    text = text.translate(_QUOTES).translate(_DASHES)
    before = None
    while text != before:
        before = text
        text = text.strip()
        text = text[: _citations_start(text)].strip()
        text = text[: _parentheses_start(text)].strip()
        if len(text) > 1 and text[0] == text[-1] == '"' and '"' not in text[1:-1]:
            text = text[1:-1]
    return collapsed(text.removesuffix(".")).lower().strip()


def _citations_start(text: str) -> int:
    """Where the trailing marks and bracketed notes begin; the text's length where it has none.

    A note at the very start of the text counts only where it is a number: "[12]".
    """
    end = len(text)
    while end:
        if text[end - 1] in _MARKS:
            end -= 1
            continue
        start = _note_start(text, end) if text[end - 1] == "]" else -1
        if start < 0:
            break
        end = start
    return end


def _note_start(text: str, end: int) -> int:
    """Where the note that ends before `end` begins, -1 where there is none."""
    after_last = text.rfind("]", 0, end - 1) + 1
    start = text.find("[", after_last, end - 1)
    if start == 0 and not text[1 : end - 1].isdecimal():
        return text.find("[", 1, end - 1)
    return start


def _parentheses_start(text: str) -> int:
    """Where the trailing parentheses begin, each after a space."""
    end = len(text)
    while end and text[end - 1] == ")":
        after_last = text.rfind(")", 0, end - 1) + 1
        start = text.find(" (", after_last, end - 1)
        if start < 0:
            break
        end = start
    return end
