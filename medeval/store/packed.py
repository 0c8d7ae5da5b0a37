"""Keys and texts by the hundred thousand, in tens of bytes each: a set of tuples takes hundreds."""

from array import array
from collections.abc import Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from typing import overload

SampleKey = tuple[str, int]
VerdictKey = tuple[str, int, str]


def packed_text(text: str) -> bytes:
    """A text as bytes; lone surrogates, which a file of JSON may hold, survive."""
    return text.encode("utf-8", "surrogatepass")


def unpacked_text(data: bytes | bytearray) -> str:
    """The text that `packed_text` turned into these bytes."""
    return data.decode("utf-8", "surrogatepass")


class Table:
    """Byte strings, each once, at places counted from 0; some 20 bytes each beside their own.

    A hash table with open addresses over one buffer. Not safe to add to from threads.
    """

    def __init__(self) -> None:
        self._data = bytearray()
        self._ends = array("q", [0])
        # places + 1, at most half of them taken; 0 is free
        self._slots = array("i", bytes(4 * 16))

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, place: int) -> bytes:
        return bytes(self._data[self._ends[place] : self._ends[place + 1]])

    def __iter__(self) -> Iterator[bytes]:
        return (self[place] for place in range(len(self)))

    def place(self, item: bytes) -> int | None:
        """Where an item is, None where it is not."""
        if not len(self):
            return None
        found = self._slots[self._slot(item)]
        return found - 1 if found else None

    def add(self, item: bytes) -> int:
        """Where an item is, at the end where it is new."""
        slot = self._slot(item)
        if found := self._slots[slot]:
            return found - 1
        n = len(self._ends)
        self._data += item
        self._ends.append(len(self._data))
        self._slots[slot] = n
        if 2 * n > len(self._slots):
            self._spread()
        return n - 1

    def _slot(self, item: bytes) -> int:
        """The slot that an item is in, or the free one that it would take."""
        data, ends, slots = self._data, self._ends, self._slots
        last = len(slots) - 1
        slot = hash(item) & last
        while (found := slots[slot]) and data[ends[found - 1] : ends[found]] != item:
            slot = (slot + 1) & last
        return slot

    def _spread(self) -> None:
        """Double the slots."""
        slots = array("i", bytes(2 * self._slots.itemsize * len(self._slots)))
        data, last, start = bytes(self._data), len(slots) - 1, 0
        for number, end in enumerate(self._ends):
            if number:
                slot = hash(data[start:end]) & last
                while slots[slot]:
                    slot = (slot + 1) & last
                slots[slot] = number
            start = end
        self._slots = slots


class Texts(Sequence[str]):
    """Texts in the order they were added; 8 bytes each beside their own."""

    def __init__(self, texts: Iterable[str] = ()) -> None:
        self._data = bytearray()
        self._ends = array("q", [0])
        for text in texts:
            self.append(text)

    def append(self, text: str) -> None:
        """Add a text at the end."""
        self._data += packed_text(text)
        self._ends.append(len(self._data))

    def __len__(self) -> int:
        return len(self._ends) - 1

    @overload
    def __getitem__(self, place: int) -> str: ...
    @overload
    def __getitem__(self, place: slice) -> list[str]: ...
    def __getitem__(self, place: int | slice) -> str | list[str]:
        if isinstance(place, slice):
            return [self[each] for each in range(*place.indices(len(self)))]
        each = range(len(self))[place]
        return unpacked_text(self._data[self._ends[each] : self._ends[each + 1]])


class SampleKeys(AbstractSet[SampleKey]):
    """A set of sample ids with their repeats, each at a place counted from 0, in that order."""

    def __init__(self, keys: Iterable[SampleKey] = ()) -> None:
        self._table = Table()
        for key in keys:
            self.add(key)

    def __repr__(self) -> str:
        return f"SampleKeys({list(self)!r})"

    def add(self, key: SampleKey) -> int:
        """Where a key is, at the end where it is new."""
        return self._table.add(_packed(key))

    def place(self, key: SampleKey) -> int | None:
        """Where a key is, None where it is not."""
        return self._table.place(_packed(key))

    def __getitem__(self, place: int) -> SampleKey:
        repeat, _, sample_id = self._table[place].partition(b" ")
        return unpacked_text(sample_id), int(repeat)

    def __contains__(self, key: object) -> bool:
        match key:
            case (str(sample_id), int(repeat)):
                return self.place((sample_id, repeat)) is not None
        return False

    def __iter__(self) -> Iterator[SampleKey]:
        return (self[place] for place in range(len(self)))

    def __len__(self) -> int:
        return len(self._table)


def _packed(key: SampleKey) -> bytes:
    return packed_text(f"{key[1]} {key[0]}")


class Numbered:
    """The last number that was given for each key."""

    def __init__(self) -> None:
        self.keys = SampleKeys()
        self._numbers = array("q")

    def __setitem__(self, key: SampleKey, number: int) -> None:
        place = self.keys.add(key)
        if place == len(self._numbers):
            self._numbers.append(number)
        else:
            self._numbers[place] = number

    def get(self, key: SampleKey) -> int | None:
        """The number of a key, None where none was given."""
        place = self.keys.place(key)
        return None if place is None else self._numbers[place]


class VerdictKeys(AbstractSet[VerdictKey]):
    """A set of sample ids with their repeats and judges, ordered by judge."""

    def __init__(self, keys: Iterable[VerdictKey] = ()) -> None:
        self._by_judge: dict[str, SampleKeys] = {}
        for sample_id, repeat, judge in keys:
            if judge not in self._by_judge:
                self._by_judge[judge] = SampleKeys()
            self._by_judge[judge].add((sample_id, repeat))

    def __contains__(self, key: object) -> bool:
        match key:
            case (str(sample_id), int(repeat), str(judge)):
                return (sample_id, repeat) in self._by_judge.get(judge, ())
        return False

    def __iter__(self) -> Iterator[VerdictKey]:
        return ((*key, judge) for judge, keys in self._by_judge.items() for key in keys)

    def __len__(self) -> int:
        return sum(map(len, self._by_judge.values()))
