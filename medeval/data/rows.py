"""Rows of hub data sets, of repository snapshots, of local tables, or drawn by a definition.

The rows of a JSON file are kept in memory. Other tables read a row each time it is indexed. Image
files are read each time they are needed. A row is only data: a path in it cannot lead outside its
folder, and no code of a data set runs.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeAlias

from medeval.data.files import Folder, shown
from medeval.data.hub import Fetched, fetch_files, fetch_split, map_files
from medeval.data.image_columns import NamedFile, header_size, image_cell, read_embedded, read_file
from medeval.data.tables import (
    ArrowTable,
    DrawnTable,
    JsonTable,
    RepeatedTable,
    SeveralTables,
    Table,
    local_files,
)
from medeval.errors import DataError
from medeval.types.geometry import Size
from medeval.types.sample import ImageSource


@dataclass(frozen=True, slots=True)
class HubRows:
    """A split of a hub data set.

    `revision` is a commit, tag or branch, None for the newest; `Origin` records its commit.
    `mirrors` are other repositories with the same rows, tried in order where the first cannot be
    read; `Origin` records which one was read.
    """

    repo: str
    split: str
    config: str | None = None
    revision: str | None = None
    mirrors: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class HubFiles:
    """A table (jsonl or json) in a hub data set repository, with the files that its rows name.

    Several tables are read one after the other. `allow_patterns` selects the files of the
    repository that are fetched; the tables always are. Paths in rows are relative to the folder of
    the first table, or, with `paths_from="repository"`, to the repository; a file that is missing
    there is looked for in the fetched zip archives whose names match `archives`.
    """

    repo: str
    table: str | tuple[str, ...]
    revision: str | None = None
    allow_patterns: tuple[str, ...] = ("*",)
    paths_from: Literal["table", "repository"] = "table"
    archives: tuple[str, ...] = ()

    @property
    def tables(self) -> tuple[str, ...]:
        """The names of the tables, in order."""
        return (self.table,) if isinstance(self.table, str) else self.table


@dataclass(frozen=True, slots=True)
class DrawnRows:
    """Rows that a definition makes itself.

    `draw` maps a position, 0 to `count` - 1, to a row. It may be called again each time a row or
    its image is read, and must return the same row each time.
    """

    count: int
    draw: Callable[[int], Mapping[str, object]]


@dataclass(frozen=True, slots=True)
class RepeatedRows:
    """Each row of a source `times` in a row; the column "part" counts them from 0."""

    rows: HubRows | HubFiles | DrawnRows
    times: int


RowSource: TypeAlias = HubRows | HubFiles | DrawnRows | RepeatedRows


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where rows came from, in words; `revision` is the hub commit, None where there is none.

    `files` are the tables that were read, with their sizes in bytes; empty for a split of a hub
    data set, which the commit identifies. `cached_bytes` is the size of these rows in the hub's
    cache, None for rows that are not from the hub. `offline` is True where the hub did not answer;
    `revision` is then the newest in the cache.
    """

    description: str
    revision: str | None = None
    files: tuple[tuple[str, int], ...] = ()
    cached_bytes: int | None = None
    offline: bool = False


class Row(Mapping[str, object]):
    """One row: a read-only mapping of column to value, with readers that check what they read.

    `index` is its position among all rows, counted from 0. A missing column raises DataError,
    which lists the columns.
    """

    __slots__ = ("_position", "_table", "_values", "index")

    def __init__(self, table: Table, index: int) -> None:
        self._table, self._position = (
            table.part(index) if isinstance(table, SeveralTables) else (table, index)
        )
        self._values = self._table.read(self._position)
        self.index = index

    @property
    def table(self) -> str:
        """The name of the row's table."""
        return self._table.name

    def __getitem__(self, column: str) -> object:
        try:
            return self._values[column]
        except KeyError:
            raise DataError(
                f"{self._table.name}, row {self._position}: no column {column!r}; "
                f"its columns: {sorted(self._values)!r}"
            ) from None

    def __contains__(self, column: object) -> bool:
        return column in self._values

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def get(self, column: str, default: object = None) -> object:
        """The value of a column, or `default` where there is no such column."""
        return self._values.get(column, default)

    def text(self, column: str) -> str:
        """A column's text; a number becomes text, anything else raises DataError."""
        return self._as_text(self[column], self._where(column))

    def texts(self, column: str) -> tuple[str, ...]:
        """A column's texts in order; a single text counts as one."""
        value = self[column]
        values = value if isinstance(value, list | tuple) else [value]
        return tuple(
            self._as_text(item, self._where(column, position))
            for position, item in enumerate(values)
        )

    def image(self, column: str) -> ImageSource:
        """A column's image: bytes, base64 text, a path relative to the table, or the hub's form.

        Raises DataError where it is none of these, or where the path leads outside its folder.
        """
        return self._source(column, self[column], None)

    def images(self, column: str) -> tuple[ImageSource, ...]:
        """A column's images in order; a single image counts as one."""
        value = self[column]
        if not isinstance(value, list | tuple):
            return (self._source(column, value, None),)
        return tuple(self._source(column, item, position) for position, item in enumerate(value))

    def image_size(self, column: str) -> Size:
        """The stored size of a column's image, read from its header alone."""
        return header_size(self.image(column).read(), self._where(column))

    def file(self, name: str) -> bytes | None:
        """The bytes of a file named relative to the table, or None where there is none."""
        return self._table.folder.read(name)

    def image_file(self, name: str) -> ImageSource:
        """The image in a file named relative to the table; the file is opened when it is read.

        Raises DataError where the name leads outside the folder.
        """
        self._table.folder.check(name)
        where = f"{self._table.name}, row {self._position}"
        return ImageSource(name=name, read=partial(read_file, self._table.folder, name, where))

    def digest(self, column: str) -> str:
        """The sha256 of a column's value, in hex: of its bytes, or of its text."""
        value = self[column]
        if isinstance(value, Mapping) and isinstance(value.get("bytes"), bytes):
            value = value["bytes"]
        data = value if isinstance(value, bytes) else str(value).encode("utf-8", "surrogatepass")
        return hashlib.sha256(data).hexdigest()

    def _where(self, column: str, position: int | None = None) -> str:
        cell = column if position is None else f"{column}[{position}]"
        return f"{self._table.name}, row {self._position}, {cell}"

    @staticmethod
    def _as_text(value: object, where: str) -> str:
        if isinstance(value, str):
            return value
        if isinstance(value, int | float) and not isinstance(value, bool):
            return str(value)
        raise DataError(f"{where}: expected text, got {shown(value)}")

    def _source(self, column: str, value: object, position: int | None) -> ImageSource:
        where = self._where(column, position)
        cell = image_cell(value, where)
        if isinstance(cell, NamedFile):
            self._table.folder.check(cell.name)
            read = partial(read_file, self._table.folder, cell.name, where)
            return ImageSource(name=cell.name, read=read)
        read = partial(read_embedded, self._table, self._position, column, position, where)
        return ImageSource(name=where, read=read)


class Rows:
    """The rows of one source: a sequence that reads each row when it is indexed."""

    def __init__(self, table: Table, origin: Origin) -> None:
        self.table = table
        self.origin = origin

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, index: int) -> Row:
        if not 0 <= index < len(self):
            raise IndexError(f"row {index!r} of {len(self)}")
        return Row(self.table, index)

    def __iter__(self) -> Iterator[Row]:
        return (self[index] for index in range(len(self)))


def open_rows(source: RowSource, data_dir: Path | None = None) -> Rows:
    """The rows of a source, or the same rows from a local copy.

    `data_dir` is a folder with one table (parquet, tsv, jsonl or json) at its top, or the table
    itself. Raises DataError where the rows cannot be read, or where there are none.
    """
    match source:
        case RepeatedRows():
            return _repeated(open_rows(source.rows, data_dir), source.times)
        case _ if data_dir is not None:
            rows = _local_rows(source, data_dir)
        case DrawnRows():
            rows = _drawn_rows(source)
        case HubFiles():
            rows = _snapshot_rows(source)
        case HubRows():
            rows = _split_rows(source)
    if not len(rows):
        names = "".join(f": {name}" for name, _ in rows.origin.files)
        raise DataError(
            f"{rows.origin.description} has no rows{names}", hint="is the table complete?"
        )
    return rows


def _repeated(rows: Rows, times: int) -> Rows:
    return Rows(RepeatedTable(rows.table, times), rows.origin)


def _local_rows(source: HubRows | HubFiles | DrawnRows, data_dir: Path) -> Rows:
    files, folder = _local_tables(source, data_dir)
    origin = Origin(
        description=f"local {data_dir}",
        files=tuple((path.name, path.stat().st_size) for path in files),
    )
    if files[0].suffix in (".json", ".jsonl"):
        return Rows(_json_tables(files, folder), origin)
    return Rows(ArrowTable(map_files(files), files[0].name, folder), origin)


def _local_tables(
    source: HubRows | HubFiles | DrawnRows, data_dir: Path
) -> tuple[list[Path], Folder]:
    """The tables of a local copy and their folder; its layout may be the repository's or flat."""
    named = [data_dir / table for table in source.tables] if isinstance(source, HubFiles) else []
    if not named or not all(path.is_file() for path in named):
        named = []
    files = named or local_files(data_dir)
    if not isinstance(source, HubFiles):
        return files, Folder(files[0].parent)
    whole = bool(named) and source.paths_from == "repository"
    archives = [path for pattern in source.archives for path in data_dir.glob(pattern)]
    return files, Folder(data_dir if whole else files[0].parent, archives=tuple(sorted(archives)))


def _json_tables(files: list[Path], folder: Folder) -> Table:
    tables = [JsonTable(path, folder) for path in files]
    return tables[0] if len(tables) == 1 else SeveralTables(tables)


def _drawn_rows(source: DrawnRows) -> Rows:
    origin = Origin(description="drawn by the definition")
    return Rows(DrawnTable(source.count, source.draw), origin)


def _snapshot_rows(source: HubFiles) -> Rows:
    fetched, snapshot = fetch_files(
        source.repo, source.revision, [*source.tables, *source.allow_patterns]
    )
    paths = [snapshot / table for table in source.tables]
    for path, table in zip(paths, source.tables, strict=True):
        if not path.is_file():
            raise DataError(f"{source.repo!r} has no table {table!r}")
    archives = [path for pattern in source.archives for path in snapshot.glob(pattern)]
    # a snapshot's files are links into the repository's folder in the hub's cache, hence `root`
    folder = Folder(
        snapshot if source.paths_from == "repository" else paths[0].parent,
        root=snapshot.parent.parent,
        archives=tuple(sorted(archives)),
    )
    files = tuple(
        (table, path.stat().st_size) for table, path in zip(source.tables, paths, strict=True)
    )
    return Rows(_json_tables(paths, folder), _hub_origin(source.repo, fetched, files))


def _split_rows(source: HubRows) -> Rows:
    repo, dataset, fetched = _first_split(source)
    config = f" {source.config}" if source.config else ""
    table = ArrowTable(dataset, f"{repo} {source.split}", Folder())
    return Rows(table, _hub_origin(f"{repo}{config} {source.split}", fetched))


def _first_split(source: HubRows) -> tuple[str, Any, Fetched]:
    """The split of the first readable repository: the source's own or a mirror."""
    problems: list[DataError] = []
    for repo in (source.repo, *source.mirrors):
        try:
            return repo, *fetch_split(repo, source.config, source.split, source.revision)
        except DataError as error:
            problems.append(error)
    raise problems[0]


def _hub_origin(what: str, fetched: Fetched, files: tuple[tuple[str, int], ...] = ()) -> Origin:
    return Origin(
        description=f"hub {what}",
        revision=fetched.commit,
        files=files,
        cached_bytes=fetched.size_bytes,
        offline=fetched.offline,
    )
