"""In which order one engine's conversations begin, over benchmarks of unlike size and length."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Generic, Self, TypeVar

Job = TypeVar("Job")

# So many conversations of every benchmark begin first: they tell how long the rest will take.
PILOT: Final = 8

# The longest begin first as soon as what is to begin takes so many times one of them: otherwise
# places stand empty at the end, while the last long ones go on.
LAST_STRETCH: Final = 3.0


@dataclass(slots=True)
class _Queue(Generic[Job]):
    """One benchmark: its conversations still to begin, and how long those took that ended."""

    jobs: Iterator[Job]
    n: int
    n_left: int
    n_ended: int = 0
    seconds: float = 0.0

    @property
    def n_begun(self) -> int:
        return self.n - self.n_left

    @property
    def share_left(self) -> float:
        """How much is left, of what comes after the pilot."""
        return (self.n_left - 0.5) / max(1, self.n - PILOT)


class Order(Generic[Job]):
    """Deals out the jobs of several benchmarks, given with their number, each in its own order.

    A few of each come first, then every benchmark's rest is spread evenly over the whole, so that
    what a part takes tells what the rest will; in the last stretch, those that take longest come
    first. Among equals the largest does. `places` is how many are under way at once.
    """

    def __init__(self, jobs: Mapping[str, tuple[int, Iterator[Job]]], places: int) -> None:
        by_size = sorted(jobs.items(), key=lambda item: -item[1][0])
        self._queues = {name: _Queue(each, n, n) for name, (n, each) in by_size}
        self._places = places

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Job:
        queue = self._next_queue([queue for queue in self._queues.values() if queue.n_left > 0])
        if queue is None:
            raise StopIteration
        queue.n_left -= 1
        return next(queue.jobs)

    def ended(self, name: str, seconds: float) -> None:
        """One of a benchmark took so long."""
        self._queues[name].n_ended += 1
        self._queues[name].seconds += seconds

    def _next_queue(self, left: list[_Queue[Job]]) -> _Queue[Job] | None:
        if len(left) < 2:
            return left[0] if left else None
        first = min(left, key=lambda queue: queue.n_begun)
        if first.n_begun < PILOT:
            return first
        means = [queue.seconds / queue.n_ended if queue.n_ended else 0.0 for queue in left]
        rest_s = sum(mean * queue.n_left for mean, queue in zip(means, left, strict=True))
        if rest_s / self._places < LAST_STRETCH * max(means):
            return left[means.index(max(means))]
        return max(left, key=lambda queue: queue.share_left)
