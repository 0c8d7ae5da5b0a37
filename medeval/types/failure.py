"""The record of a failed try at a sample."""

from dataclasses import dataclass
from typing import Literal

from medeval.types.json import STRICT

FailureKind = Literal["model", "data", "judge", "internal"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FailureRecord:
    """One try at a sample that failed without the model's fault; the sample stays unscored.

    `try_number` counts from 1. `when` is ISO 8601 in UTC.
    """

    __pydantic_config__ = STRICT

    sample_id: str
    repeat: int
    kind: FailureKind
    try_number: int
    error: str
    traceback: str
    when: str
