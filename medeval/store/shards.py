"""Shards: parts of a benchmark's samples for independent runs."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class Shard:
    """The `number`th of `count` parts, counted from 1.

    A benchmark's selected samples go to the parts in turn, by position. Parts differ by at most
    one sample, all arms and repeats of a sample are in one part, and a larger `--limit` moves no
    sample to another part.
    """

    number: int
    count: int

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    @classmethod
    def read(cls, text: str) -> "Shard":
        """The shard with the name `i/n`; raises ValueError for any other text.

        >>> Shard.read("2/4")
        Shard(number=2, count=4)
        """
        number, _, count = text.partition("/")
        if not (number.strip().isdecimal() and count.strip().isdecimal()):
            raise ValueError("a shard is i/n, as 2/4 for the second of four")
        shard = cls(int(number), int(count))
        if not 1 <= shard.number <= shard.count:
            raise ValueError("shards are counted from 1: the first of four is 1/4, the last 4/4")
        return shard

    def holds(self, position: int) -> bool:
        """Whether the sample at a position, counted from 0, is in this shard.

        >>> [position for position in range(9) if Shard(2, 4).holds(position)]
        [1, 5]
        """
        return position % self.count == self.number - 1


def run_folder(series: str, shard: str | None) -> str:
    """The default run folder, named by the first series of the run and by its shard.

    >>> run_folder("rl", None), run_folder("Qwen/VL", "2/4")
    ('outputs/rl', 'outputs/Qwen-VL-shard-2-4')
    """
    name = series if shard is None else f"{series}-shard-{shard}"
    plain = "".join(letter if letter.isalnum() or letter in "-_." else "-" for letter in name)
    return f"outputs/{plain}"


def n_asked(entries: Iterable[Mapping[str, object]], default: int) -> int:
    """The number of trajectories that runs asked for in a cell, from its `recorded` entries.

    An entry has the number of `samples` (without it, `default`) and of `repeats`. The numbers of
    different shards add up; of several entries for the same samples, the largest counts.

    >>> n_asked([{"samples": 4, "repeats": 2}, {"samples": 5}], 0)
    8
    >>> n_asked([{"samples": 3, "shard": "1/2"}, {"samples": 2, "shard": "2/2"}], 0)
    5
    """
    asked: dict[str | None, int] = {None: 0}
    for entry in entries:
        number = _number(entry, "samples", default) * _number(entry, "repeats", 1)
        shard = str(entry["shard"]) if entry.get("shard") else None
        asked[shard] = max(asked.get(shard, 0), number)
    whole = asked.pop(None)
    by_count: dict[int, int] = {}
    for name, number in asked.items():
        count = Shard.read(str(name)).count
        by_count[count] = by_count.get(count, 0) + number
    return max(whole, *by_count.values()) if by_count else whole


def missing_shards(entries: Iterable[Mapping[str, object]]) -> Iterator[Shard]:
    """The shards that no entry of a cell has, for each number of shards in the entries.

    No shard is missing if an entry is without a shard, as that run did the whole cell.

    >>> [str(shard) for shard in missing_shards([{"shard": "1/3"}, {"shard": "3/3"}])]
    ['2/3']
    """
    names = [entry.get("shard") for entry in entries]
    found = {Shard.read(str(name)) for name in names if name}
    if not all(names):
        return
    for count in sorted({shard.count for shard in found}):
        yield from (
            shard for number in range(count) if (shard := Shard(number + 1, count)) not in found
        )


def _number(entry: Mapping[str, object], name: str, default: int) -> int:
    value = entry.get(name, default)
    return value if isinstance(value, int) else default
