"""The judgement of an answer: grades and verdicts."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from medeval.types.json import FINITE

Aggregate = Literal["mean over samples", "mean over cycles"]
VerdictStatus = Literal["correct", "incorrect", "undecided"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Grade:
    """A judge's score, or None if it cannot decide, with the extracted answer and the reason.

    `parts` has the scores of the parts of a combined judge, by name.
    """

    score: float | None
    extracted: str | None = None
    reason: str = ""
    parts: Mapping[str, float | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """A grade turned into correct, incorrect or undecided, by one judge identity.

    `score` is None exactly if `status` is "undecided". `judge` is
    `<name>[@<model>]#<first 8 hex of its definition's sha256>`. `parts` are those of the grade.
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
