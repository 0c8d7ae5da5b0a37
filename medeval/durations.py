"""How long conversations of a kind take, and when the last of many ends."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from medeval.conversation import Kind

# Where few have ended, it counts as if so many had of which the logarithm of the seconds differs
# by so much.
N_ASSUMED: Final = 4
ASSUMED_LOG_VARIANCE: Final = 0.5

# What ends with all but this chance by the time that the last begins is taken to.
SURE: Final = 1e-4

LEAST_S: Final = 1e-3
LEAST_LOG_SD: Final = 0.05
ROOT_OF_TWO: Final = math.sqrt(2)


@dataclass(frozen=True, slots=True)
class Expected:
    """How long a conversation takes: the mean, and how far the logarithm is spread around its own.

    Taken for lognormal, as lengths of replies nearly are.
    """

    mean_s: float
    log_sd: float

    def survival(self, seconds: float) -> float:
        """The chance that one takes longer."""
        if seconds <= 0.0:
            return 1.0
        beyond = math.log(seconds / max(self.mean_s, LEAST_S)) + self.log_sd * self.log_sd / 2
        return math.erfc(beyond / (self.log_sd * ROOT_OF_TWO)) / 2


def mean_of(several: Sequence[Mapping[Kind, Expected]]) -> dict[Kind, Expected]:
    """What is expected where as much speaks for each of several, which know the same kinds."""
    return {
        kind: Expected(
            sum(each[kind].mean_s for each in several) / len(several),
            sum(each[kind].log_sd for each in several) / len(several),
        )
        for kind in several[0]
    }


@dataclass(slots=True)
class Durations:
    """Conversations of one kind with one checkpoint: those that have ended, and those under way.

    `began_at` is by the number of the conversation.
    """

    n_ended: int = 0
    seconds: float = 0.0
    logs: float = 0.0
    log_squares: float = 0.0
    began_at: dict[int, float] = field(default_factory=dict)
    _sum_of_starts: float = 0.0

    def begin(self, number: int, now: float) -> None:
        """One has begun."""
        self._sum_of_starts += now - self.began_at.get(number, 0.0)
        self.began_at[number] = now

    def leave(self, number: int) -> float | None:
        """One is no longer under way; when it had begun, None where it had not."""
        began_at = self.began_at.pop(number, None)
        self._sum_of_starts = self._sum_of_starts - (began_at or 0.0) if self.began_at else 0.0
        return began_at

    def took(self, seconds: float) -> None:
        """One has taken so long."""
        log = math.log(max(seconds, LEAST_S))
        self.n_ended += 1
        self.seconds += seconds
        self.logs += log
        self.log_squares += log * log

    def time_s(self, now: float) -> float:
        """What all took so far, those under way included."""
        return self.seconds + max(0.0, len(self.began_at) * now - self._sum_of_starts)

    def log_sd(self, prior: Expected | None) -> float:
        """How far the logarithms are spread, with what was expected where few have ended."""
        assumed = ASSUMED_LOG_VARIANCE if prior is None else prior.log_sd**2
        mean = self.logs / max(1, self.n_ended)
        squares = max(0.0, self.log_squares - self.n_ended * mean**2)
        variance = (squares + N_ASSUMED * assumed) / (self.n_ended + N_ASSUMED)
        return max(LEAST_LOG_SD, math.sqrt(variance))

    def count(self, log_sd: float) -> float:
        """How many whole conversations `time_s` is the time of.

        Those that have ended are the short ones as long as few have, so that those under way
        count as well. By renewal theory, a place that has been busy for t has ended
        t / mean - (1 - cv**2) / 2 of them, where cv is their standard deviation over their mean.
        """
        squared_cv = math.expm1(min(log_sd, 2.0) ** 2)
        part = min(max(0.0, (1 - squared_cv) / 2), 0.5)
        return self.n_ended + part * len(self.began_at)


@dataclass(frozen=True, slots=True)
class Start:
    """So many conversations that begin in so many seconds, or have, where it is negative."""

    n: float
    in_s: float
    expected: Expected

    def log_chance(self, seconds: float) -> float:
        """The logarithm of the chance that all of them will have ended after so long."""
        taken = seconds - self.in_s
        beyond = self.expected.survival(taken)
        if self.in_s < 0.0:
            beyond /= max(self.expected.survival(-self.in_s), 1e-300)
        return self.n * math.log1p(-min(beyond, 1 - 1e-12))


def last_end_s(starts: Sequence[Start]) -> float:
    """In how long, as likely sooner as later, the last of conversations will have ended."""
    if not starts:
        return 0.0

    low = max(0.0, *(start.in_s for start in starts))
    in_doubt = [start for start in starts if start.log_chance(low) < -SURE]

    def is_over(seconds: float) -> bool:
        return sum(start.log_chance(seconds) for start in in_doubt) > -math.log(2)

    step = max(LEAST_S, *(start.expected.mean_s for start in starts))
    high = low + step
    while not is_over(high) and step < 1e9:
        low, step = high, 2 * step
        high = low + step
    while high - low > 0.01 * high + LEAST_S:
        middle = (low + high) / 2
        low, high = (low, middle) if is_over(middle) else (middle, high)
    return (low + high) / 2
