"""The settings of a cell as one hash, and the differences between the settings of two cells."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import zip_longest
from typing import Self

from medeval.types.json import STRICT
from medeval.types.sample import JsonObject

MAX_SHOWN_LENGTH = 80


@dataclass(frozen=True, slots=True, kw_only=True)
class CellRecord:
    """The settings of a cell: the fields that can change its numbers, and their hash.

    `recorded` has further settings that are not compared (addresses, concurrency): one entry for
    each set of values with which a run worked on the cell.
    """

    __pydantic_config__ = STRICT

    fingerprint: str
    fields: JsonObject
    recorded: tuple[JsonObject, ...]

    def __post_init__(self) -> None:
        if self.fingerprint != fingerprint(self.fields):
            raise ValueError("the fingerprint is not that of the fields")

    @classmethod
    def of(cls, fields: Mapping[str, object], *recorded: Mapping[str, object]) -> Self:
        """The record of these fields and of the settings next to them."""
        return cls(
            fingerprint=fingerprint(fields),
            fields=json.loads(canonical_json(fields)),
            recorded=tuple(json.loads(canonical_json(entry)) for entry in recorded),
        )


def canonical_json(value: object) -> str:
    """One text for equal JSON values: sorted keys, no spaces, whole floats as integers.

    Raises ValueError for NaN and infinities, TypeError for values without a JSON form.

    >>> canonical_json({"b": (1.0, 0.5), "a": True})
    '{"a":true,"b":[1,0.5]}'
    """
    return json.dumps(
        _whole_floats_as_integers(value), sort_keys=True, separators=(",", ":"), allow_nan=False
    )


def _whole_floats_as_integers(value: object) -> object:
    if isinstance(value, Mapping):
        return {key: _whole_floats_as_integers(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_whole_floats_as_integers(item) for item in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def fingerprint(fields: Mapping[str, object]) -> str:
    """The sha256, in hex, of the fields' canonical JSON."""
    return hashlib.sha256(canonical_json(fields).encode()).hexdigest()


def differences(before: Mapping[str, object], now: Mapping[str, object]) -> list[str]:
    """One line for each different field: its dotted name, the recorded and the new value."""
    old, new = dict(_leaves(before)), dict(_leaves(now))
    return [
        f"{'.'.join(path)}: {_shown_difference(old.get(path), new.get(path))}"
        for path in sorted(old.keys() | new.keys())
        if old.get(path) != new.get(path)
    ]


def _leaves(
    fields: Mapping[str, object], above: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], str]]:
    """The path of names and the canonical JSON of each value that is not an object."""
    for name, value in fields.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, (*above, name))
        else:
            yield (*above, name), canonical_json(value)


def _shown_difference(old: str | None, new: str | None) -> str:
    """Both values, shortened to the part around their first difference if they are long."""
    if old is None or new is None:
        return f"recorded {_excerpt(old, 0)}, now {_excerpt(new, 0)}"
    pairs = enumerate(zip_longest(old, new))
    start = next(index for index, (first, second) in pairs if first != second)
    return f"recorded {_excerpt(old, start)}, now {_excerpt(new, start)}"


def _excerpt(text: str | None, start: int) -> str:
    if text is None:
        return "nothing"
    if len(text) <= MAX_SHOWN_LENGTH:
        return text
    begin = max(0, start - MAX_SHOWN_LENGTH // 4)
    end = begin + MAX_SHOWN_LENGTH
    before = "..." if begin > 0 else ""
    after = "..." if end < len(text) else ""
    return f"{before}{text[begin:end]}{after}"
