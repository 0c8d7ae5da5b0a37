"""Tables whose rows are read one at a time, by position.

The rows of a JSON file are kept in memory; parquet, tsv and hub tables are memory-mapped
(`medeval.data.hub`); drawn rows are kept up to `KEPT_DRAWN_BYTES`. Images are not decoded here.
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

# In the order of error messages.
TABLE_SUFFIXES = (".parquet", ".tsv", ".jsonl", ".json")

# Drawn rows are slow to make, and each checkpoint reads them again.
KEPT_DRAWN_BYTES: Final = 64 * 2**20

_SHARD = re.compile(r"(?P<stem>.*)-(?P<part>\d{5})-of-(?P<parts>\d{5})")


class Table(Protocol):
    """Rows by position; `name` is the table's name in error messages."""

    name: str
    folder: Folder

    def __len__(self) -> int: ...

    def read(self, index: int) -> Mapping[str, object]:
        """Read the row at `index`, from 0."""
        ...


# The column with a row's key, where the table is one object of objects.
KEY = "key"
INCOMPLETE: Final = "is the file complete?"


class JsonTable:
    """A file of JSON objects: one a line, in one list, or as the values of one object.

    In the last case each row has its key in the column "key". Raises DataError where the file
    holds anything else.
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
    """Several tables joined end to end; rows keep the name and folder of their own table."""

    def __init__(self, tables: Sequence[Table]) -> None:
        self.name = tables[0].name
        self.folder = tables[0].folder
        self._tables = tables

    def __len__(self) -> int:
        return sum(map(len, self._tables))

    def part(self, index: int) -> tuple[Table, int]:
        """The table of a row, and the row's position in it."""
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
    """A table with each row repeated `times` times; the column "part" counts from 0."""

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
    """A table that `datasets` maps into memory."""

    def __init__(self, dataset: Any, name: str, folder: Folder) -> None:
        self.name = name
        self.folder = folder
        # this format leaves an image column as the stored struct of bytes and path
        self._dataset = dataset.with_format("arrow")

    def __len__(self) -> int:
        return len(self._dataset)

    def read(self, index: int) -> Mapping[str, object]:
        """Read one row."""
        row: dict[str, object] = self._dataset[index].to_pylist()[0]
        return row


class DrawnTable:
    """Rows that the function `draw` makes.

    The first rows, up to `KEPT_DRAWN_BYTES`, are drawn once and kept; others at each reading.
    """

    def __init__(self, count: int, draw: Callable[[int], Mapping[str, object]]) -> None:
        self.name = "drawn rows"
        self.folder = Folder()
        self._count = count
        self._draw = draw
        self._kept: dict[int, Mapping[str, object]] = {}
        self._free_bytes = KEPT_DRAWN_BYTES
        self._lock = Lock()

    def __len__(self) -> int:
        return self._count

    def read(self, index: int) -> Mapping[str, object]:
        """Make one row."""
        kept = self._kept.get(index)
        return self._drawn(index) if kept is None else kept

    def _drawn(self, index: int) -> Mapping[str, object]:
        row = self._draw(index)
        size = sum(sys.getsizeof(value) for value in row.values())
        with self._lock:
            if index not in self._kept and size <= self._free_bytes:
                self._kept[index] = MappingProxyType(row)
                self._free_bytes -= size
        return row


def local_files(path: Path) -> list[Path]:
    """The files of the one table in a folder, in order, or `path` itself where it is a file.

    Raises DataError where the folder has no table, or has several, which it lists.
    """
    if path.is_file():
        if path.suffix in TABLE_SUFFIXES:
            return [path]
        raise DataError(
            f"{str(path)!r} is not a table", hint=f"supported: {', '.join(TABLE_SUFFIXES)}"
        )
    if not path.is_dir():
        raise DataError(f"no folder or file {str(path)!r}", hint="check the path of --data-dir")
    tables: dict[str, list[Path]] = {}
    for suffix in TABLE_SUFFIXES:
        for file in sorted(path.glob(f"*{suffix}")):
            shard = _SHARD.fullmatch(file.stem)
            tables.setdefault(f"{shard['stem'] if shard else file.stem}{suffix}", []).append(file)
    if len(tables) != 1:
        seen = f"{len(tables)} tables: {', '.join(tables)}" if tables else "no table"
        raise DataError(
            f"expected one table ({', '.join(TABLE_SUFFIXES)}) in {str(path)!r}, found {seen}",
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
