"""What a judge asks a model, and how its reply is read. A reply is never guessed at."""

import json
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from medeval.errors import JudgeError
from medeval.scoring.answers import find_answer
from medeval.types.sample import Sample
from medeval.types.trajectory import Answer
from medeval.types.verdict import Grade

# No judge is asked for so much; what is longer is not searched.
MAX_REPLY_CHARACTERS = 20_000

_PLACE = re.compile(r"<\|(\w+)\|>")
# What may stand around a single word: markup, quotes, punctuation.
_AROUND_WORD = " \t\r\n*_`\"'.,:;!()[]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ruling:
    """How a judge's reply says its verdict.

    As JSON: an object with `key`, whose value is one of `correct` or `incorrect`; of several
    objects all must agree. Without one, the whole reply as one of those words. `extracted` are
    the keys under which the object may repeat the answer it judged. Case does not matter.
    """

    key: str
    correct: tuple[str, ...]
    incorrect: tuple[str, ...]
    extracted: tuple[str, ...] = ()

    def read(self, reply: str) -> Grade:
        """1.0 or 0.0, or None with the reply kept where it says neither plainly.

        >>> RIGHT_OR_WRONG.read("INCORRECT").score, RIGHT_OR_WRONG.read("Not incorrect!").score
        (0.0, None)
        """
        told = find_answer(reply, "whole_reply", complete=True) or ""
        if len(told) <= MAX_REPLY_CHARACTERS:
            rulings = [found for found in _objects(told) if self.key in found]
            scores = {self._score(found[self.key]) for found in rulings}
            if not rulings:
                scores = {self._score(told.strip(_AROUND_WORD))}
            if len(scores) == 1 and None not in scores:
                return Grade(score=scores.pop(), extracted=self._repeated(rulings), reason=reply)
        return Grade(score=None, reason=f"the judge's reply holds no verdict: {reply!r}")

    def _score(self, value: object) -> float | None:
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        word = str(value).strip().casefold()
        if word in self.correct:
            return 1.0
        return 0.0 if word in self.incorrect else None

    def _repeated(self, rulings: list[Mapping[str, object]]) -> str | None:
        for name in self.extracted:
            for found in rulings:
                if name in found:
                    return str(found[name])
        return None


SCORE = Ruling(key="score", correct=("1",), incorrect=("0",))
YES_OR_NO = Ruling(key="score", correct=("1", "yes"), incorrect=("0", "no"))
RIGHT_OR_WRONG = Ruling(key="verdict", correct=("correct",), incorrect=("incorrect",))


def _objects(text: str) -> list[Mapping[str, object]]:
    """The JSON objects in a text, from left to right, none inside another."""
    decoder = json.JSONDecoder(object_pairs_hook=_unambiguous)
    found: list[Mapping[str, object]] = []
    start = text.find("{")
    while start >= 0:
        try:
            value, end = decoder.raw_decode(text, start)
        except (ValueError, RecursionError):
            end = start + 1
        else:
            found.append(value)
        start = text.find("{", end)
    return found


def _unambiguous(pairs: list[tuple[str, object]]) -> dict[str, object]:
    read = dict(pairs)
    if len(read) != len(pairs):
        raise ValueError("a key is given twice")
    return read


@dataclass(frozen=True, slots=True, kw_only=True)
class Inquiry:
    """One question to a judge's model: a prompt, and how the reply is to be read.

    `max_tokens` bounds the reply. Nothing is drawn at random: the temperature is 0.
    """

    prompt: str
    ruling: Ruling
    system: str = ""
    max_tokens: int = 1024


Ask = Callable[[Inquiry], Awaitable[Grade]]


def filled(template: str, values: Mapping[str, str]) -> str:
    """A prompt with each `<|name|>` replaced, all at once: what is filled in is text.

    Raises JudgeError where the template asks for a value that is not given.

    >>> filled("Is <|answer|> the <|what|>?", {"answer": "<|what|>", "what": "end"})
    'Is <|what|> the end?'
    """
    missing = set(_PLACE.findall(template)) - set(values)
    if missing:
        raise JudgeError(f"the prompt asks for {sorted(missing)!r}; given: {sorted(values)!r}")
    return _PLACE.sub(lambda place: values[place[1]], template)


def asking(
    inquire: Callable[[Sample, Answer], Inquiry],
) -> Callable[[Sample, Answer, Ask], Awaitable[Grade]]:
    """The `ask` function of a judge that puts one inquiry and takes its ruling."""

    def ask(sample: Sample, answer: Answer, ask_model: Ask) -> Awaitable[Grade]:
        return ask_model(inquire(sample, answer))

    return ask
