"""What trajectories took: tokens, and seconds of their engine."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from medeval.store.endings import Ending
from medeval.types.trajectory import Usage


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What a cell's trajectories took together.

    Tokens are None where the engine did not count them. `seconds` adds up conversations that ran
    side by side; `engine_s`, the parts of its time that an engine spent on each, None where one of
    them does not tell.
    """

    n_trajectories: int = 0
    usage: Usage = field(default_factory=Usage)
    seconds: float = 0.0
    engine_s: float | None = None


class Tally:
    """Adds up what trajectories took, as they pass by."""

    def __init__(self) -> None:
        self._usage = Usage()
        self._seconds = 0.0
        self._engine_s: float | None = 0.0
        self._n = 0

    def passing(self, endings: Iterable[Ending]) -> Iterator[Ending]:
        """The same endings, each counted."""
        for ending in endings:
            self._usage += ending.usage
            self._seconds += ending.seconds
            if self._engine_s is None or ending.engine_seconds is None:
                self._engine_s = None
            else:
                self._engine_s += ending.engine_seconds
            self._n += 1
            yield ending

    def cost(self) -> Cost:
        """The cost so far."""
        return Cost(
            n_trajectories=self._n,
            usage=self._usage,
            seconds=self._seconds,
            engine_s=self._engine_s,
        )
