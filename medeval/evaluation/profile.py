"""How long a kind's conversations take by their place: data sets are often sorted by category."""

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

# A kind's conversations are told apart by so many parts of the data set at most, of at least so
# many each.
MOST_PARTS: Final = 16
LEAST_IN_A_PART: Final = 8


@dataclass(frozen=True, slots=True)
class Profile:
    """By part of the data set: how many there are, and how long they take beside all."""

    numbers: tuple[int, ...] = ()
    ratios: tuple[float, ...] = ()

    def seen_and_left(self, begun: Sequence[int]) -> tuple[float, float]:
        """How long those take that have begun, by part, and those that have not, beside all."""
        left = [max(0, n - seen) for n, seen in zip(self.numbers, begun, strict=False)]
        return self._mean(begun), self._mean(left)

    def _mean(self, numbers: Sequence[int]) -> float:
        n = sum(numbers[: len(self.ratios)])
        if not n:
            return 1.0
        return sum(k * ratio for k, ratio in zip(numbers, self.ratios, strict=False)) / n


EVEN: Final = Profile()


class Parts:
    """Seconds by part of a data set, of `size` conversations."""

    def __init__(self, size: int) -> None:
        self._size = max(1, size)
        count = max(1, min(MOST_PARTS, size // LEAST_IN_A_PART))
        self._numbers = array("l", [0] * count)
        self._seconds = array("d", [0.0] * count)

    def add(self, number: int, seconds: float) -> None:
        """The conversation of that number took so long."""
        part = self._part(number)
        self._numbers[part] += 1
        self._seconds[part] += seconds

    def begun(self, under_way: Iterable[int]) -> Sequence[int]:
        """How many of each part have ended, or are among those under way."""
        numbers = list(self._numbers)
        for number in under_way:
            numbers[self._part(number)] += 1
        return numbers

    def _part(self, number: int) -> int:
        return min(number * len(self._numbers) // self._size, len(self._numbers) - 1)

    def profile(self, squared_cv: float) -> Profile:
        """Of what has ended, with the differences that chance makes between parts taken out."""
        n, seconds = sum(self._numbers), sum(self._seconds)
        if len(self._numbers) < 2 or seconds <= 0.0:
            return EVEN
        mean_s = seconds / n
        ratios = [
            part_s / (k * mean_s) if k else 1.0
            for k, part_s in zip(self._numbers, self._seconds, strict=True)
        ]
        variance = sum(k * (r - 1) ** 2 for k, r in zip(self._numbers, ratios, strict=True)) / n
        by_chance = squared_cv * (len(ratios) - 1) / n
        kept = max(0.0, 1 - by_chance / variance) if variance else 0.0
        return Profile(tuple(self._numbers), tuple(1 + kept * (ratio - 1) for ratio in ratios))
