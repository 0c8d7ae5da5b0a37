"""How long conversations of a kind take, and when the last of many ends."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from medeval.evaluation.conversation import Kind
from medeval.evaluation.profile import EVEN, Parts, Profile

# Where few have ended, it counts as if so many had of which the logarithm of the seconds differs
# by so much.
N_ASSUMED: Final = 4
ASSUMED_LOG_VARIANCE: Final = 0.5

# What ends with all but this chance by the time that the last begins is taken to.
SURE: Final = 1e-4

LEAST_CHANCE: Final = 1e-12

# So often are those under way and the mean found from each other.
N_ROUNDS: Final = 3

# Those that have begun at about the same time stand for each other, in so many groups.
N_GROUPS: Final = 4

LEAST_S: Final = 1e-3
LEAST_LOG_SD: Final = 0.05
MOST_LOG_SD: Final = 3.0
ROOT_OF_TWO: Final = math.sqrt(2)


@dataclass(frozen=True, slots=True)
class Expected:
    """How long a conversation takes: the mean, and how far the logarithm is spread around its own.

    Taken for lognormal, as lengths of replies nearly are.
    """

    mean_s: float
    log_sd: float
    profile: Profile = EVEN

    @property
    def squared_cv(self) -> float:
        """The square of the standard deviation over the mean."""
        return math.expm1(self.log_sd**2)

    def survival(self, seconds: float) -> float:
        """The chance that one takes longer."""
        if seconds <= 0.0:
            return 1.0
        beyond = math.log(seconds / max(self.mean_s, LEAST_S)) + self.log_sd * self.log_sd / 2
        return math.erfc(beyond / (self.log_sd * ROOT_OF_TWO)) / 2

    def whole_s(self, behind_s: float) -> float:
        """The mean of those that take longer than this."""
        beyond = self.survival(behind_s)
        if beyond < LEAST_CHANCE:
            return max(self.mean_s, behind_s)
        # the time of those that take longer is spread as their number is, but later
        of_time = Expected(self.mean_s * math.exp(self.log_sd**2), self.log_sd)
        return max(behind_s, self.mean_s * of_time.survival(behind_s) / beyond)


def mean_of(several: Sequence[Mapping[Kind, Expected]]) -> dict[Kind, Expected]:
    """What is expected where as much speaks for each of several, which know the same kinds."""
    return {
        kind: Expected(
            sum(each[kind].mean_s for each in several) / len(several),
            sum(each[kind].log_sd for each in several) / len(several),
            several[-1][kind].profile,
        )
        for kind in several[0]
    }


@dataclass(slots=True)
class Durations:
    """Conversations of one kind with one checkpoint: those that have ended, and those under way.

    `began_at` is by the number of the conversation.
    """

    parts: Parts
    n_ended: int = 0
    seconds: float = 0.0
    logs: float = 0.0
    log_squares: float = 0.0
    began_at: dict[int, float] = field(default_factory=dict)

    def took(self, number: int, seconds: float) -> None:
        """One has taken so long; what is shorter than any is taken for the shortest."""
        seconds = max(seconds, LEAST_S)
        self.parts.add(number, seconds)
        log = math.log(seconds)
        self.n_ended += 1
        self.seconds += seconds
        self.logs += log
        self.log_squares += log * log

    def behind_s(self, now: float) -> list[tuple[int, float]]:
        """What those under way have behind them: so many about so long."""
        behind = sorted(now - began_at for began_at in self.began_at.values())
        size = max(1, -(-len(behind) // N_GROUPS))
        groups = [behind[index : index + size] for index in range(0, len(behind), size)]
        return [(len(group), sum(group) / len(group)) for group in groups]

    def mean_s(self, prior_s: float, n_prior: float, log_sd: float, now: float) -> float:
        """How long one takes, where it was taken to be `prior_s`, by so many others.

        Those that have ended are the short ones as long as few have, so that those under way count
        as well, each with what those take on average that take longer than it has so far.
        """
        ended_s, n_ended = self.seconds + n_prior * prior_s, self.n_ended + n_prior
        behind, n = self.behind_s(now), n_ended + len(self.began_at)
        mean_s = ended_s / n_ended
        for _ in range(N_ROUNDS if behind else 0):
            expected = Expected(mean_s, log_sd)
            mean_s = (ended_s + sum(k * expected.whole_s(each_s) for k, each_s in behind)) / n
        return mean_s

    @property
    def spread(self) -> float:
        """The sum of the logarithms' squared distances from their mean."""
        return max(0.0, self.log_squares - self.logs**2 / max(1, self.n_ended))

    def log_sd(self, prior: float) -> float:
        """How far the logarithms are spread, with what was taken for it where few have ended."""
        variance = (self.spread + N_ASSUMED * prior**2) / (self.n_ended + N_ASSUMED)
        return min(max(LEAST_LOG_SD, math.sqrt(variance)), MOST_LOG_SD)


@dataclass(frozen=True, slots=True)
class Start:
    """So many conversations that begin in so many seconds, or have, where it is negative."""

    n: float
    in_s: float
    expected: Expected

    def beyond(self, seconds: float) -> float:
        """The chance of each that it takes longer than so long."""
        beyond = self.expected.survival(seconds)
        if self.in_s < 0.0:
            beyond /= max(self.expected.survival(-self.in_s), beyond, LEAST_CHANCE)
        return beyond

    def log_chance(self, seconds: float) -> float:
        """The logarithm of the chance that all of them will have ended after so long."""
        return self.n * math.log1p(-min(self.beyond(seconds - self.in_s), 1 - LEAST_CHANCE))


def still_taken_s(starts: Sequence[Start], in_s: float) -> float:
    """What places will still be taken by all that has begun, once so long has passed."""
    taken_s = 0.0
    for start in starts:
        behind_s = in_s - start.in_s
        beyond = start.beyond(behind_s)
        if beyond > SURE:
            taken_s += start.n * beyond * (start.expected.whole_s(behind_s) - behind_s)
    return taken_s


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
