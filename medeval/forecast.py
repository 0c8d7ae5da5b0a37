"""How long a run still takes: from how long its conversations took so far, kind by kind."""

import math
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Protocol

# Of so many conversations, the latest to end, it is known how long each took.
N_LATEST: Final = 512

# How much conversations of a kind differ is taken to be as so many more of them would tell that
# differ as much as their mean.
N_ASSUMED: Final = 4

# What conversations with earlier checkpoints count of those with the one that has just started.
FADED: Final = 0.25

# What counts of how many were under way with each beginning or end after it: some 100 tell.
RECENT: Final = 0.99

# The time left is worked out no more often than people could read it.
TOLD_EVERY_S: Final = 0.1


@dataclass(frozen=True, slots=True)
class Kind:
    """Conversations that take about as long as each other: one benchmark under one protocol."""

    benchmark: str
    protocol: str


class Progress(Protocol):
    """Where a run tells how far it is."""

    def expect(self, n_trajectories: int) -> None:
        """So many trajectories are to be made, over all checkpoints."""
        ...

    def left(self, seconds: float | None) -> None:
        """So long it will still take; None where nothing can be said yet."""
        ...

    def advance(self, *, scored: bool) -> None:
        """One sample is done: with a trajectory, or left unscored."""
        ...

    def tell(self, message: str) -> None:
        """Something people should read."""
        ...


@dataclass(slots=True)
class _Seen:
    """Conversations of a kind: those that have ended, and those under way."""

    n_ended: float = 0
    seconds: float = 0.0
    squares: float = 0.0
    n_under_way: int = 0
    sum_of_starts: float = 0.0

    def begin(self, now: float) -> None:
        self.n_under_way += 1
        self.sum_of_starts += now

    def end(self, now: float, seconds: float | None) -> None:
        if self.n_under_way:
            began_at = self.sum_of_starts / self.n_under_way
            self.sum_of_starts -= began_at if seconds is None else now - seconds
            self.n_under_way -= 1
        if seconds is not None:
            self.n_ended += 1
            self.seconds += seconds
            self.squares += seconds * seconds

    def fade(self) -> None:
        """Have those that have ended count less from now on."""
        self.n_ended *= FADED
        self.seconds *= FADED
        self.squares *= FADED

    def behind_s(self, now: float) -> float:
        """What those under way have behind them, together."""
        return max(0.0, self.n_under_way * now - self.sum_of_starts)

    def mean_s(self, now: float) -> float:
        """How long one takes, where at least one has ended.

        Those that have ended are the short ones as long as few have, so that those under way
        count as well. By renewal theory, a place that has been busy for t has ended
        t / mean - (1 - cv**2) / 2 of them, where cv is their standard deviation over their mean.
        """
        n = self.n_ended
        squared_cv = n * self.squares / self.seconds**2 - 1 if self.seconds else 0.0
        squared_cv = (n * squared_cv + N_ASSUMED) / (n + N_ASSUMED)
        part = min(max(0.0, (1 - squared_cv) / 2), 0.5)
        return (self.seconds + self.behind_s(now)) / (n + part * self.n_under_way)


@dataclass(slots=True)
class Forecast:
    """What is waiting, by kind, and what was learnt of how long it takes.

    `n_engines` are still to start, `n_at_once` of them beside each other. The time left is that of
    the conversations still to begin, divided by how many were of late under way at once;
    then that until the last of those has ended; and for each further engine its start, and what the
    last conversation of the one before takes beyond the others.
    """

    waiting: Counter[Kind]
    n_engines: int = 0
    n_at_once: int = 1
    clock: Callable[[], float] = time.monotonic
    _seen: dict[Kind, _Seen] = field(default_factory=lambda: defaultdict(_Seen))
    _latest_s: deque[float] = field(default_factory=lambda: deque(maxlen=N_LATEST))
    _starts_s: list[float] = field(default_factory=list)
    _at: float | None = None
    _has_just_begun: bool = False
    _full_s: float = 0.0
    _full_work_s: float = 0.0

    def engine_ready(self, seconds: float) -> None:
        """An engine took so long to start."""
        self.n_engines = max(0, self.n_engines - 1)
        self._starts_s.append(seconds)
        self._at = None
        for seen in self._seen.values():
            seen.fade()

    def begun(self, kind: Kind) -> None:
        """A conversation has begun."""
        self._pass(is_full=True)
        self._seen[kind].begin(self.clock())
        self._has_just_begun = True

    def ended(self, kind: Kind, seconds: float | None) -> None:
        """A conversation that had begun took so long; None where it failed."""
        # after an end, nothing may be left to begin
        self._pass(is_full=self._has_just_begun)
        self._has_just_begun = False
        self.waiting[kind] -= 1
        self._seen[kind].end(self.clock(), seconds)
        if seconds is not None:
            self._latest_s.append(seconds)

    def skipped(self, kind: Kind) -> None:
        """A conversation will not be: it failed before it began."""
        self.waiting[kind] -= 1

    def dropped(self, kind: Kind) -> None:
        """A conversation was lost with its worker, and waits again."""
        self._pass(is_full=False)
        self._seen[kind].end(self.clock(), None)

    def _pass(self, *, is_full: bool) -> None:
        """Note how many were under way since the last event."""
        now = self.clock()
        if self._at is not None and is_full:
            passed_s = now - self._at
            self._full_s = RECENT * self._full_s + passed_s
            self._full_work_s = RECENT * self._full_work_s + self._n_under_way * passed_s
        self._at = now

    @property
    def _n_under_way(self) -> int:
        return sum(seen.n_under_way for seen in self._seen.values())

    def left_s(self) -> float | None:
        """Seconds until the end, None before the first conversation has ended."""
        if not self._latest_s:
            return None
        places = self._full_work_s / self._full_s if self._full_work_s else 1.0
        to_begin_s = sum(
            max(0, n - self._seen[kind].n_under_way) * self._mean_s(kind)
            for kind, n in self.waiting.items()
        )
        left_s = to_begin_s / places + self._last_s(self._n_under_way)
        if not self.n_engines:
            return left_s
        start_s = sum(self._starts_s) / max(1, len(self._starts_s))
        between_s = start_s + self._last_s(places) - self._last_s(1)
        return left_s + self.n_engines * between_s / self.n_at_once

    def _last_s(self, n: float) -> float:
        """How long the last of `n` conversations still takes that are somewhere in their course.

        What is left of one is more than r with the chance that the time after each one's first r
        seconds has in the time of all of them; the last of `n` has its median r where that is
        1 - 2 ** (-1 / n).
        """
        if n <= 0:
            return 0.0
        beyond_s = sum(self._latest_s) * (1 - math.exp2(-1 / n))
        longer_s, n_longer = 0.0, 0
        for seconds in sorted(self._latest_s, reverse=True):
            if longer_s - n_longer * seconds >= beyond_s:
                break
            longer_s += seconds
            n_longer += 1
        return max(0.0, (longer_s - beyond_s) / max(1, n_longer))

    def _mean_s(self, kind: Kind) -> float:
        """The mean of a kind; before one has ended, that of its arm, or of all.

        That is as much more for a benchmark as its other arms tell, where one of those has ended,
        and at least twice what those under way have behind them: they are halfway on average.
        """
        now, seen = self.clock(), self._seen[kind]
        if seen.n_ended:
            return seen.mean_s(now)
        ratios = [
            other.mean_s(now) / self._mean_of_arm_s(one.protocol)
            for one, other in self._seen.items()
            if one.benchmark == kind.benchmark and other.seconds
        ]
        ratio = sum(ratios) / len(ratios) if ratios else 1.0
        least_s = 2 * seen.behind_s(now) / max(1, seen.n_under_way)
        return max(least_s, ratio * self._mean_of_arm_s(kind.protocol))

    def _mean_of_arm_s(self, protocol: str) -> float:
        now = self.clock()
        ended = [(kind, seen) for kind, seen in self._seen.items() if seen.n_ended]
        alike = [seen for kind, seen in ended if kind.protocol == protocol]
        alike = alike or [seen for _, seen in ended]
        n_ended = sum(seen.n_ended for seen in alike)
        return sum(seen.n_ended * seen.mean_s(now) for seen in alike) / n_ended


class Foresight:
    """Passes on how far a run is, and with it how long it will still take."""

    def __init__(self, progress: Progress, forecast: Forecast) -> None:
        self._progress = progress
        self._forecast = forecast
        self._told_at = -math.inf
        progress.expect(forecast.waiting.total())

    def engine_ready(self, seconds: float) -> None:
        """An engine has started, and took so long."""
        self._forecast.engine_ready(seconds)

    def begin(self, kind: Kind) -> None:
        """A conversation has begun."""
        self._forecast.begun(kind)

    def drop(self, kind: Kind) -> None:
        """A conversation was lost with its worker."""
        self._forecast.dropped(kind)

    def skip(self, kind: Kind) -> None:
        """A sample is left unscored of which no conversation began."""
        self._forecast.skipped(kind)
        self._progress.advance(scored=False)

    def advance(self, kind: Kind, *, seconds: float | None) -> None:
        """A conversation is over, after so long; None where its sample is left unscored."""
        self._forecast.ended(kind, seconds)
        now = self._forecast.clock()
        if now >= self._told_at + TOLD_EVERY_S:
            self._progress.left(self._forecast.left_s())
            self._told_at = now
        self._progress.advance(scored=seconds is not None)

    def tell(self, message: str) -> None:
        """Something people should read."""
        self._progress.tell(message)
