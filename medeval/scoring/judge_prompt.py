"""What a judge asks a model, and how the reply is read. An unclear reply is never guessed at."""

import json
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from medeval.errors import JudgeError
from medeval.scoring.answers import find_answer
from medeval.types.sample import Sample
from medeval.types.trajectory import Answer
from medeval.types.verdict import Grade

# Longer replies are not searched; no judge's prompt asks for so much.
MAX_REPLY_CHARACTERS = 20_000

_PLACEHOLDER = re.compile(r"<\|(\w+)\|>")
# Characters stripped around a single word: markup, quotes, punctuation.
_AROUND_WORD = " \t\r\n*_`\"'.,:;!()[]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ruling:
    """How a judge's reply states its verdict.

    Either a JSON object with `key`, whose value is one of `correct` or `incorrect` (several
    objects must agree), or a reply that is one of those words and nothing else. `extracted` are
    the keys under which the object may repeat the answer that it judged. Case is ignored.
    """

    key: str
    correct: tuple[str, ...]
    incorrect: tuple[str, ...]
    extracted: tuple[str, ...] = ()

    def read(self, reply: str) -> Grade:
        """The score 1.0 or 0.0; None where the reply is unclear. The reply is kept as the reason.

        >>> RIGHT_OR_WRONG.read("INCORRECT").score, RIGHT_OR_WRONG.read("Not incorrect!").score
        (0.0, None)
        """
        text = find_answer(reply, "whole_reply", complete=True) or ""
        if len(text) <= MAX_REPLY_CHARACTERS:
            rulings = [ruling for ruling in _json_objects(text) if self.key in ruling]
            scores = {self._score(ruling[self.key]) for ruling in rulings}
            if not rulings:
                scores = {self._score(text.strip(_AROUND_WORD))}
            if len(scores) == 1 and None not in scores:
                return Grade(
                    score=scores.pop(), extracted=self._judged_answer(rulings), reason=reply
                )
        return Grade(score=None, reason=f"the judge's reply holds no verdict: {reply!r}")

    def _score(self, value: object) -> float | None:
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        word = str(value).strip().casefold()
        if word in self.correct:
            return 1.0
        return 0.0 if word in self.incorrect else None

    def _judged_answer(self, rulings: list[Mapping[str, object]]) -> str | None:
        for name in self.extracted:
            for ruling in rulings:
                if name in ruling:
                    return str(ruling[name])
        return None


SCORE = Ruling(key="score", correct=("1",), incorrect=("0",))
YES_OR_NO = Ruling(key="score", correct=("1", "yes"), incorrect=("0", "no"))
RIGHT_OR_WRONG = Ruling(key="verdict", correct=("correct",), incorrect=("incorrect",))


def _json_objects(text: str) -> list[Mapping[str, object]]:
    """The outermost JSON objects in a text, from left to right."""
    decoder = json.JSONDecoder(object_pairs_hook=_without_duplicates)
    objects: list[Mapping[str, object]] = []
    start = text.find("{")
    while start >= 0:
        try:
            value, end = decoder.raw_decode(text, start)
        except (ValueError, RecursionError):
            end = start + 1
        else:
            objects.append(value)
        start = text.find("{", end)
    return objects


def _without_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a key is given twice")
    return value


@dataclass(frozen=True, slots=True, kw_only=True)
class Inquiry:
    """One question to a judge's model: a prompt, and how to read the reply.

    `max_tokens` bounds the reply. The temperature is always 0.
    """

    prompt: str
    ruling: Ruling
    system: str = ""
    max_tokens: int = 1024


Ask = Callable[[Inquiry], Awaitable[Grade]]


def filled(template: str, values: Mapping[str, str]) -> str:
    """The template with each `<|name|>` replaced; placeholders inside the values are left alone.

    Raises JudgeError where the template names a value that is not given.

    >>> filled("Is <|answer|> the <|what|>?", {"answer": "<|what|>", "what": "end"})
    'Is <|what|> the end?'
    """
    missing = set(_PLACEHOLDER.findall(template)) - set(values)
    if missing:
        raise JudgeError(f"the prompt asks for {sorted(missing)!r}; given: {sorted(values)!r}")
    return _PLACEHOLDER.sub(lambda placeholder: values[placeholder[1]], template)


def asking(
    inquire: Callable[[Sample, Answer], Inquiry],
) -> Callable[[Sample, Answer, Ask], Awaitable[Grade]]:
    """The `ask` function of a judge that sends one inquiry and returns its grade."""

    def ask(sample: Sample, answer: Answer, ask_model: Ask) -> Awaitable[Grade]:
        return ask_model(inquire(sample, answer))

    return ask
