"""How long a run still takes: from how long its conversations took so far, kind by kind."""

import time
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol


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
class Forecast:
    """What is waiting, by kind, and what was learnt of how long it takes.

    `n_engines` are still to start, `n_at_once` of them beside each other. Conversations run side
    by side, so that a second on the clock does several seconds of their work; how many is
    measured, and holds whatever keeps the engine from more.
    """

    waiting: Counter[Kind]
    n_engines: int = 0
    n_at_once: int = 1
    clock: Callable[[], float] = time.monotonic
    _began_at: float | None = None
    _idle_s: float = 0.0
    _in_flight: int = 0
    _sum_of_starts: float = 0.0
    _done: Counter[Kind] = field(default_factory=Counter)
    _seconds: dict[Kind, float] = field(default_factory=lambda: defaultdict(float))
    _starts_s: list[float] = field(default_factory=list)

    def engine_ready(self, seconds: float) -> None:
        """An engine took so long to start."""
        self.n_engines = max(0, self.n_engines - 1)
        self._starts_s.append(seconds)
        if self._began_at is None:
            self._began_at = self.clock()
        self._idle_s += min(seconds, self.clock() - self._began_at) / self.n_at_once

    def begun(self) -> None:
        """A conversation has begun."""
        self._in_flight += 1
        self._sum_of_starts += self.clock()

    def ended(self, kind: Kind, seconds: float | None) -> None:
        """A conversation took so long; None where it failed."""
        self.waiting[kind] -= 1
        if self._in_flight:
            began_at = self._sum_of_starts / self._in_flight
            self._sum_of_starts -= began_at if seconds is None else self.clock() - seconds
            self._in_flight -= 1
        if seconds is not None:
            self._done[kind] += 1
            self._seconds[kind] += seconds

    def left_s(self) -> float | None:
        """Seconds until the end, None before the first conversation has ended."""
        work_s = sum(self._seconds.values())
        if self._began_at is None or work_s <= 0:
            return None
        walking_s = self.clock() - self._began_at - self._idle_s
        # what those in flight have behind them is work done, and none that is left
        behind_s = max(0.0, self._in_flight * self.clock() - self._sum_of_starts)
        work_s += behind_s
        waiting_s = sum(n * self._mean_s(kind) for kind, n in self.waiting.items())
        start_s = sum(self._starts_s) / len(self._starts_s)
        waiting_s = max(0.0, waiting_s - behind_s)
        return waiting_s * walking_s / work_s + self.n_engines * start_s / self.n_at_once

    def _mean_s(self, kind: Kind) -> float:
        """The mean of a kind; before one has ended, that of its arm, or of all."""
        alike = [kind] if self._done[kind] else []
        alike = alike or [one for one in self._done if one.protocol == kind.protocol]
        alike = alike or list(self._done)
        return sum(self._seconds[one] for one in alike) / sum(self._done[one] for one in alike)


class Foresight:
    """Passes on how far a run is, and with it how long it will still take."""

    def __init__(self, progress: Progress, forecast: Forecast) -> None:
        self._progress = progress
        self._forecast = forecast
        progress.expect(forecast.waiting.total())

    def engine_ready(self, seconds: float) -> None:
        """An engine has started, and took so long."""
        self._forecast.engine_ready(seconds)

    def begin(self) -> None:
        """A conversation has begun."""
        self._forecast.begun()

    def advance(self, kind: Kind, *, seconds: float | None) -> None:
        """One sample is done, after so long; None where it is left unscored."""
        self._forecast.ended(kind, seconds)
        self._progress.left(self._forecast.left_s())
        self._progress.advance(scored=seconds is not None)

    def tell(self, message: str) -> None:
        """Something people should read."""
        self._progress.tell(message)
