"""How an answer is judged: grades and verdicts."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from medeval.types.json import FINITE

Aggregate = Literal["mean over samples", "mean over cycles"]
VerdictStatus = Literal["correct", "incorrect", "undecided"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Grade:
    """What a judge found: a score, or None where it cannot decide, with what it read and why.

    `parts` are the scores of the judges that it is made of, by name, where it is made of several.
    """

    score: float | None
    extracted: str | None = None
    reason: str = ""
    parts: Mapping[str, float | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """A grade turned into correct, incorrect or undecided, by one judge identity.

    `score` is None exactly where `status` is "undecided". `judge` is
    `<name>[@<model>]#<first 8 hex of its definition's sha256>`. `parts` are the grade's.
    """

    __pydantic_config__ = FINITE

    sample_id: str
    repeat: int
    judge: str
    status: VerdictStatus
    score: float | None
    extracted: str | None = None
    reason: str = ""
    parts: Mapping[str, float | None] = field(default_factory=dict)
