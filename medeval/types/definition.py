"""A definition and the file it was read from."""

from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Source:
    """The file a definition was read from, and the sha256 of its bytes in hex."""

    path: Path
    sha256: str


@dataclass(frozen=True, slots=True)
class Loaded(Generic[T]):
    """A definition and its source."""

    value: T
    source: Source
