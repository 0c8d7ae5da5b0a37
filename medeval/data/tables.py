"""Tables read one row at a time by position; no row is held but drawn ones, up to a bound.

A JSON table keeps the offsets of its rows; parquet, tsv and hub tables are those that `hub` maps
into memory. Image columns are never decoded here.
"""

import json
import mmap
import os
import re
import sys
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from threading import Lock
from types import MappingProxyType
from typing import Any, Final, Protocol
from weakref import finalize

from medeval.data.files import Folder, shown
from medeval.errors import DataError

# In the order in which they are listed to people.
TABLE_SUFFIXES = (".parquet", ".tsv", ".jsonl", ".json")

# Rows that cost a drawing to make and are read at each checkpoint again.
KEPT_DRAWN_BYTES: Final = 64 * 2**20

_SHARD = re.compile(r"(?P<stem>.*)-(?P<part>\d{5})-of-(?P<parts>\d{5})")
# Strings are taken whole, so that a bracket in one does not count.
_JSON_TOKEN = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|[][{}]', re.DOTALL)


class Table(Protocol):
    """Rows by position. `name` tells people which table it is."""

    name: str
    folder: Folder

    def __len__(self) -> int: ...

    def read(self, index: int) -> Mapping[str, object]:
        """Read one row, 0 to the length - 1."""
        ...


# The column that holds the key of a row whose table is one object of objects.
KEY = "key"


class JsonTable:
    """A file of JSON objects, one a line, in one list or in one object; only offsets are held.

    Where the objects stand in one object, by keys, a row has its own under "key".
    """

    def __init__(self, path: Path, folder: Folder) -> None:
        self.name = path.name
        self.folder = folder
        self._path = path
        self._starts = array("Q")
        self._ends = array("Q")
        # open for as long as the table is in use: a run reads each row several times
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        finalize(self, os.close, self._descriptor)
        self._keyed = path.suffix == ".json" and _is_object(path)
        for start, end in self._spans():
            self._starts.append(start)
            self._ends.append(end)

    def _spans(self) -> Iterator[tuple[int, int]]:
        if self._path.suffix != ".json":
            return _lines(self._path)
        return _members(self._path) if self._keyed else _elements(self._path)

    def __len__(self) -> int:
        return len(self._starts)

    def read(self, index: int) -> Mapping[str, object]:
        """Read one row; DataError names the line of one that is no JSON object."""
        start, end = self._starts[index], self._ends[index]
        try:
            text = os.pread(self._descriptor, end - start, start).decode("utf-8-sig")
            row = json.loads(f"{{{text}}}" if self._keyed else text)
        except (OSError, ValueError, RecursionError) as error:
            raise DataError(
                f"{self.name}, line {_line_number(self._path, start)}: no JSON object: {error}",
                hint="is the file complete?",
            ) from error
        if not isinstance(row, dict):
            raise DataError(
                f"{self.name}, line {_line_number(self._path, start)}: "
                f"expected a JSON object, got {shown(row)}"
            )
        if not self._keyed:
            return row
        ((key, values),) = row.items()
        return {KEY: key, **values}


class SeveralTables:
    """Tables one after the other, as one; each keeps its own name and folder."""

    def __init__(self, tables: Sequence[Table]) -> None:
        self.name = tables[0].name
        self.folder = tables[0].folder
        self._tables = tables

    def __len__(self) -> int:
        return sum(map(len, self._tables))

    def part(self, index: int) -> tuple[Table, int]:
        """The table that a row stands in, and its position there."""
        for table in self._tables:
            if index < len(table):
                return table, index
            index -= len(table)
        raise IndexError(f"no row {index!r} beyond the last table")

    def read(self, index: int) -> Mapping[str, object]:
        """Read one row."""
        table, position = self.part(index)
        return table.read(position)


# The column that counts the repeats of a row, from 0.
PART = "part"


class RepeatedTable:
    """Each row of a table several times in a row, counted in the column "part"."""

    def __init__(self, table: Table, times: int) -> None:
        self.name = table.name
        self.folder = table.folder
        self._table = table
        self._times = times

    def __len__(self) -> int:
        return len(self._table) * self._times

    def read(self, index: int) -> Mapping[str, object]:
        """Read one row."""
        position, part = divmod(index, self._times)
        return {**self._table.read(position), PART: part}


class ArrowTable:
    """A table that `datasets` has memory-mapped."""

    def __init__(self, dataset: Any, name: str, folder: Folder) -> None:
        self.name = name
        self.folder = folder
        # In this format an image column stays the struct of bytes and path that is stored.
        self._dataset = dataset.with_format("arrow")

    def __len__(self) -> int:
        return len(self._dataset)

    def read(self, index: int) -> Mapping[str, object]:
        """Read one row."""
        row: dict[str, object] = self._dataset[index].to_pylist()[0]
        return row


class DrawnTable:
    """Rows that a function makes, anew at each reading once those kept take `KEPT_DRAWN_BYTES`.

    The first ones stay, so that a small table is drawn once for all its readings.
    """

    def __init__(self, count: int, draw: Callable[[int], Mapping[str, object]]) -> None:
        self.name = "drawn rows"
        self.folder = Folder()
        self._count = count
        self._draw = draw
        self._kept: dict[int, Mapping[str, object]] = {}
        self._room_bytes = KEPT_DRAWN_BYTES
        self._lock = Lock()

    def __len__(self) -> int:
        return self._count

    def read(self, index: int) -> Mapping[str, object]:
        """Make one row."""
        kept = self._kept.get(index)
        return self._made(index) if kept is None else kept

    def _made(self, index: int) -> Mapping[str, object]:
        row = self._draw(index)
        size = sum(sys.getsizeof(value) for value in row.values())
        with self._lock:
            if index not in self._kept and size <= self._room_bytes:
                self._kept[index] = MappingProxyType(row)
                self._room_bytes -= size
        return row


def local_files(place: Path) -> list[Path]:
    """The one table of a folder (its parts in order), or the file that is named.

    Raises DataError where there is no table or more than one, listing what there is.
    """
    if place.is_file():
        if place.suffix in TABLE_SUFFIXES:
            return [place]
        raise DataError(f"{str(place)!r} is no table", hint=f"read are {', '.join(TABLE_SUFFIXES)}")
    if not place.is_dir():
        raise DataError(f"no folder or file {str(place)!r}", hint="check the path of --data-dir")
    tables: dict[str, list[Path]] = {}
    for suffix in TABLE_SUFFIXES:
        for path in sorted(place.glob(f"*{suffix}")):
            shard = _SHARD.fullmatch(path.stem)
            tables.setdefault(f"{shard['stem'] if shard else path.stem}{suffix}", []).append(path)
    if len(tables) != 1:
        found = f"{len(tables)} tables: {', '.join(tables)}" if tables else "no table"
        raise DataError(
            f"expected one table ({', '.join(TABLE_SUFFIXES)}) in {str(place)!r}, found {found}",
            hint="name the table's file itself with --data-dir",
        )
    return _complete(next(iter(tables.values())))


def _complete(files: list[Path]) -> list[Path]:
    shard = _SHARD.fullmatch(files[0].stem)
    if shard and len(files) != int(shard["parts"]):
        raise DataError(
            f"{files[0].name!r} is one of {int(shard['parts'])} parts, "
            f"but {len(files)} are in {str(files[0].parent)!r}"
        )
    return files


def _lines(path: Path) -> Iterator[tuple[int, int]]:
    """Start and end of each line that is not blank."""
    start = 0
    with path.open("rb") as file:
        for line in file:
            if line.strip():
                yield start, start + len(line)
            start += len(line)


def _elements(path: Path) -> Iterator[tuple[int, int]]:
    """Start and end of each element of a JSON list of objects.

    Raises DataError where the file is no such list, or ends before the list does.
    """
    if not path.stat().st_size:
        return
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
        depth, start, end, between = 0, 0, 0, b"["
        for token in _JSON_TOKEN.finditer(text):
            mark = text[token.start() : token.start() + 1]
            depth += {b"[": 1, b"{": 1, b"]": -1, b"}": -1}.get(mark, 0)
            if depth == 2 and mark in (b"[", b"{"):
                start = token.start()
                _expect(between, text[end:start], path, start)
            elif depth == 1 and mark in (b"]", b"}"):
                end, between = token.end(), b","
                yield start, end
        _expect(b"]" if end else b"[]", text[end:], path, end)


def _is_object(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4096).removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"{")


def _members(path: Path) -> Iterator[tuple[int, int]]:
    """Start of the key and end of the value of each member of a JSON object of objects.

    Raises DataError where the file is no such object, or ends before the object does.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
        depth, end, between = 0, 0, b"{"
        key: tuple[int, int] | None = None
        for token in _JSON_TOKEN.finditer(text):
            mark = text[token.start() : token.start() + 1]
            depth += {b"[": 1, b"{": 1, b"]": -1, b"}": -1}.get(mark, 0)
            if depth == 1 and mark == b'"':
                key = key or token.span()
            elif depth == 2 and mark == b"{" and key is not None and key[0] >= end:
                _expect(between, text[end : key[0]], path, key[0], "an object")
                _expect(b":", text[key[1] : token.start()], path, token.start(), "an object")
            elif depth == 1 and mark == b"}" and key is not None:
                yield key[0], token.end()
                end, between, key = token.end(), b",", None
        _expect(b"}" if end else b"{}", text[end:], path, end, "an object")


def _expect(expected: bytes, found: bytes, path: Path, offset: int, what: str = "a list") -> None:
    if b"".join(found.removeprefix(b"\xef\xbb\xbf").split()) != expected:
        raise DataError(
            f"{path.name}, line {_line_number(path, offset)}: expected {what} of JSON objects "
            f"with {expected.decode()!r} here, got {shown(found)}",
            hint="is the file complete?",
        )


def _line_number(path: Path, offset: int) -> int:
    """The line that a byte stands in, counted from 1; 0 where the file has gone."""
    try:
        with path.open("rb") as file:
            breaks = 0
            while offset > 0 and (part := file.read(min(offset, 1 << 20))):
                breaks += part.count(b"\n")
                offset -= len(part)
            return breaks + 1
    except OSError:
        return 0
