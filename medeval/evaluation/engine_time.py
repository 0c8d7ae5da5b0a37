"""Whose time an engine's was: each second, in equal parts, that of the conversations under way."""

import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(slots=True)
class EngineTime:
    """Deals an engine's seconds out to conversations, so that all parts add up to its busy time.

    That is the time in which at least one conversation is under way. It takes as long for a
    thousand of them as for one: what each of them gets is counted once for all.

    >>> seconds = iter([0.0, 2.0, 6.0, 7.0])
    >>> engine = EngineTime(clock=lambda: next(seconds))
    >>> one, other = engine.begin(), engine.begin()
    >>> engine.end(one), engine.end(other)
    (4.0, 3.0)
    """

    clock: Callable[[], float] = time.monotonic
    _each_s: float = 0.0
    _n_under_way: int = 0
    _counted_at: float = 0.0

    def begin(self) -> float:
        """A conversation begins; what is returned is what `end` wants."""
        self._count()
        self._n_under_way += 1
        return self._each_s

    def end(self, begun: float) -> float:
        """It is over; the seconds of the engine that were its own."""
        self._count()
        self._n_under_way -= 1
        return self._each_s - begun

    def _count(self) -> None:
        now = self.clock()
        if self._n_under_way:
            self._each_s += (now - self._counted_at) / self._n_under_way
        self._counted_at = now
