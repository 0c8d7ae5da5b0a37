"""A judge: the rule that scores an answer."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, fields, replace

from medeval.errors import DefinitionError, JudgeError
from medeval.scoring.judge_prompt import Ask
from medeval.types.sample import Sample
from medeval.types.trajectory import Answer
from medeval.types.verdict import Grade


def _without_model(sample: Sample, answer: Answer) -> Grade:
    raise JudgeError("this judge asks a model, and no model is given")


def _nothing_to_check() -> None:
    pass


@dataclass(frozen=True, kw_only=True)
class Judge:
    """A rule that scores an answer.

    `grade` takes a sample and its answer and returns a score on the scale of `metric`, or None
    where it cannot decide; it raises JudgeError where it cannot judge at all. An answer is correct
    at a score of `correct_at` or more. `reads` names the Sample fields that it needs besides the
    question.

    A judge that asks a model defines `ask` instead of `grade`; the third argument of `ask` sends
    an Inquiry to the model (`medeval.scoring.judge_prompt`). `bound` returns such a judge with a
    `grade` function and with `model`, the model's name. `check` raises UsageError where something
    must be installed first. `licence` is the licence of a prompt that was published elsewhere.
    """

    name: str
    metric: str
    grade: Callable[[Sample, Answer], Grade | Awaitable[Grade]] = _without_model
    ask: Callable[[Sample, Answer, Ask], Awaitable[Grade]] | None = None
    correct_at: float = 1.0
    reads: tuple[str, ...] = ("targets",)
    model: str | None = None
    check: Callable[[], None] = _nothing_to_check
    source: str = ""
    licence: str = ""

    @property
    def needs_endpoint(self) -> bool:
        """Whether it asks a model."""
        return self.ask is not None

    def bound(self, model: str, ask: Ask) -> "Judge":
        """The judge with the model that it asks; a judge that asks none is returned unchanged."""
        own = self.ask
        if own is None:
            return self
        return replace(self, model=model, grade=lambda sample, answer: own(sample, answer, ask))

    def __post_init__(self) -> None:
        if self.model is None and (self.grade is _without_model) != self.needs_endpoint:
            raise DefinitionError(f"judge {self.name!r} needs either a grade or an ask function")
        known = {item.name for item in fields(Sample)}
        for name in self.reads:
            if name not in known:
                raise DefinitionError(
                    f"judge {self.name!r} reads {name!r}, which is no field of a sample; "
                    f"known: {sorted(known)!r}"
                )
