"""The outcome of one sample at one checkpoint, in both arms."""

from collections.abc import Mapping
from dataclasses import dataclass

from medeval.types.json import FINITE
from medeval.types.trajectory import StopReason


@dataclass(frozen=True, slots=True, kw_only=True)
class OutcomeRecord:
    """One sample at one checkpoint in both arms: the paired per-instance log that MED reads.

    `free_correct`, `available_correct` and the scores are None if the judge left the answer
    undecided. `called` and the call counts are of the available arm. An answer is None if the
    trajectory ended without one. `judge` is the judge identity.
    """

    __pydantic_config__ = FINITE

    checkpoint: str
    series: str
    step: int | None
    benchmark: str
    pair: str
    sample_id: str
    groups: Mapping[str, str]
    cluster: str | None
    repeat: int
    free_correct: bool | None
    available_correct: bool | None
    free_score: float | None
    available_score: float | None
    called: bool
    calls_attempted: int
    calls_executed: int
    calls_observed: int
    free_answer: str | None
    available_answer: str | None
    targets: tuple[str, ...]
    free_stop: StopReason
    available_stop: StopReason
    judge: str
