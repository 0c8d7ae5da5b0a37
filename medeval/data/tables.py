"""Tables read one row at a time by position.

The rows of a JSON file are held in memory; parquet, tsv and hub tables are those that `hub` maps
into memory. Of drawn rows, a bounded number of bytes is held. Image columns are not decoded here.
"""

import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from threading import Lock
from types import MappingProxyType
from typing import Any, Final, Protocol

from medeval.data.files import Folder, shown
from medeval.data.lines import read_objects
from medeval.errors import DataError

# In the order in which they are listed to people.
TABLE_SUFFIXES = (".parquet", ".tsv", ".jsonl", ".json")

# Rows that cost a drawing to make and are read at each checkpoint again.
KEPT_DRAWN_BYTES: Final = 64 * 2**20

_SHARD = re.compile(r"(?P<stem>.*)-(?P<part>\d{5})-of-(?P<parts>\d{5})")


class Table(Protocol):
    """Rows by position. `name` is the table's name in messages."""

    name: str
    folder: Folder

    def __len__(self) -> int: ...

    def read(self, index: int) -> Mapping[str, object]:
        """Read one row, 0 to the length - 1."""
        ...


# The column that holds the key of a row whose table is one object of objects.
KEY = "key"
INCOMPLETE: Final = "is the file complete?"


class JsonTable:
    """A file of JSON objects, one a line, in one list or in one object.

    Where the objects stand in one object, by keys, a row has its own key under "key". Raises
    DataError where the file holds anything else.
    """

    def __init__(self, path: Path, folder: Folder) -> None:
        self.name = path.name
        self.folder = folder
        self._rows = _json_rows(path)

    def __len__(self) -> int:
        return len(self._rows)

    def read(self, index: int) -> Mapping[str, object]:
        """Read one row."""
        return self._rows[index]


def _json_rows(path: Path) -> Sequence[Mapping[str, object]]:
    try:
        if path.suffix == ".jsonl":
            with path.open("rb") as file:
                return list(read_objects(file, where=f"{path.name}, ", hint=INCOMPLETE))
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path.name} is not JSON: {error}", hint=INCOMPLETE) from error
    rows = list(content.values()) if isinstance(content, dict) else content
    if not isinstance(rows, list):
        raise DataError(f"{path.name}: expected JSON objects in a list, got {shown(content)}")
    for index, row in enumerate(rows):
        if not isinstance(row, dict):
            raise DataError(f"{path.name}, row {index}: expected a JSON object, got {shown(row)}")
    if isinstance(content, dict):
        return [{KEY: key, **row} for key, row in content.items()]
    return rows


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
