"""The cost of trajectories: tokens, and seconds of their engine."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from medeval.types.trajectory import Trajectory, Usage


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """The cost of all trajectories of a cell.

    Tokens are None where the engine did not count them. `seconds` is the sum over conversations,
    which ran at the same time. `engine_s` is the sum of the engine's time for each, None where one
    of them lacks it.
    """

    n_trajectories: int = 0
    usage: Usage = field(default_factory=Usage)
    seconds: float = 0.0
    engine_s: float | None = None


class Tally:
    """Adds up the cost of trajectories while they are iterated over."""

    def __init__(self) -> None:
        self._usage = Usage()
        self._seconds = 0.0
        self._engine_s: float | None = 0.0
        self._n = 0

    def passing(self, trajectories: Iterable[Trajectory]) -> Iterator[Trajectory]:
        """The same trajectories, each counted."""
        for trajectory in trajectories:
            self._usage += trajectory.usage
            self._seconds += trajectory.seconds
            if self._engine_s is None or trajectory.engine_seconds is None:
                self._engine_s = None
            else:
                self._engine_s += trajectory.engine_seconds
            self._n += 1
            yield trajectory

    def cost(self) -> Cost:
        """The cost so far."""
        return Cost(
            n_trajectories=self._n,
            usage=self._usage,
            seconds=self._seconds,
            engine_s=self._engine_s,
        )
