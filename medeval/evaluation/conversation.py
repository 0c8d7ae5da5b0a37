"""What a conversation is to whoever foresees how long a run takes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True, slots=True)
class Kind:
    """Conversations that take about as long as each other: one benchmark under one protocol."""

    benchmark: str
    protocol: str


@dataclass(frozen=True, slots=True)
class Conversation:
    """One conversation with a checkpoint, by its number among those of its kind."""

    checkpoint: str
    kind: Kind
    number: int

    @property
    def words(self) -> tuple[str, str, str, int]:
        """Itself as one line of JSON may hold it."""
        return self.checkpoint, self.kind.benchmark, self.kind.protocol, self.number

    @classmethod
    def of(cls, words: Sequence[str | int]) -> Self:
        """The conversation of which these are the `words`."""
        checkpoint, benchmark, protocol, number = words
        return cls(str(checkpoint), Kind(str(benchmark), str(protocol)), int(number))
