"""Fetches data sets and maps tables into memory, through `datasets` and `huggingface_hub`.

Both keep their files in their own caches (`HF_HOME`, `HF_DATASETS_CACHE`), from which they are
read again without a network. They are imported only where a table needs them. No code of a data
set runs: `trust_remote_code` is never passed.
"""

import csv
import fnmatch
import glob
import logging
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medeval.errors import DataError

# A cell may hold a whole image in base64, and a chunk is read into memory at once.
TSV_CHUNK_ROWS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """The commit of a data set in the hub's cache, and its size on disk in bytes.

    `offline` is True where the hub did not answer; `commit` is then the newest in the cache, or
    None where that is unknown.
    """

    commit: str | None
    size_bytes: int
    offline: bool


NO_HUB_HINT = "give the rows as a local folder with --data-dir, or fetch them where the hub answers"


def map_files(files: list[Path]) -> Any:
    """The `datasets.Dataset` of the files of one parquet or tsv table."""
    import datasets

    names = [glob.escape(str(path.resolve())) for path in files]
    try:
        is_tsv = files[0].suffix == ".tsv"
        kind, options = ("csv", _tsv_options(files[0])) if is_tsv else ("parquet", {})
        with _quiet_tables():
            return datasets.load_dataset(kind, data_files=names, split="train", **options)
    except _table_errors() as error:
        raise DataError(f"cannot read {str(files[0])!r}: {_cause(error)}") from error


def _tsv_options(path: Path) -> dict[str, Any]:
    """The options that read a tsv's cells as text, so that "NA", "007" and "1.50" do not change."""
    import datasets

    with path.open(encoding="utf-8-sig", newline="") as file:
        header = next(csv.reader(file, delimiter="\t"), [])
        if not any(line.strip() for line in file):
            raise ValueError("it has no rows after a line of column names")
    features = datasets.Features({column: datasets.Value("string") for column in header})
    return {
        "sep": "\t",
        "features": features,
        "na_filter": False,
        "chunksize": TSV_CHUNK_ROWS,
        "encoding": "utf-8-sig",
    }


def fetch_split(
    repo: str, config: str | None, split: str, revision: str | None
) -> tuple[Any, Fetched]:
    """The `datasets.Dataset` of a split of a hub data set, and its commit and size."""
    import datasets

    if Path(repo).exists():
        # `datasets` would silently read the local folder of that name
        raise DataError(
            f"{repo!r} is a data set on the hub, and also a folder here",
            hint="run from another folder, or name this one with --data-dir",
        )
    commit = _newest_commit(repo, revision)
    try:
        with _quiet_tables():
            dataset = datasets.load_dataset(repo, config, split=split, revision=commit or revision)
    except _table_errors() as error:
        raise DataError(
            f"cannot read split {split!r} of {repo!r} from the hub: {_cause(error)}",
            hint=NO_HUB_HINT,
        ) from error
    fetched = Fetched(
        commit=commit or _cached_commit(dataset),
        size_bytes=_size([Path(file["filename"]) for file in dataset.cache_files]),
        offline=commit is None,
    )
    return dataset, fetched


def fetch_files(repo: str, revision: str | None, patterns: list[str]) -> tuple[Fetched, Path]:
    """Fetch a repository's files that match `patterns`; their commit and size, and their folder."""
    import huggingface_hub

    offline = _newest_commit(repo, revision) is None
    try:
        with _quiet_hub():
            snapshot = Path(
                huggingface_hub.snapshot_download(
                    repo, repo_type="dataset", revision=revision, allow_patterns=patterns
                )
            )
    except _hub_errors() as error:
        raise DataError(
            f"cannot fetch {repo!r} from the hub: {_cause(error)}", hint=NO_HUB_HINT
        ) from error
    # the snapshot may hold other files from earlier fetches
    files = (path for path in snapshot.rglob("*") if _matches(path.relative_to(snapshot), patterns))
    fetched = Fetched(commit=snapshot.name, size_bytes=_size(files), offline=offline)
    return fetched, snapshot


def _matches(name: Path, patterns: list[str]) -> bool:
    return any(fnmatch.fnmatch(name.as_posix(), pattern) for pattern in patterns)


def _size(files: Iterable[Path]) -> int:
    return sum(path.stat().st_size for path in files if path.is_file())


def _newest_commit(repo: str, revision: str | None) -> str | None:
    """The current commit of a revision, or None where the hub does not answer.

    Then `datasets` may still find the rows in its cache; if not, its error says more.
    """
    import huggingface_hub

    try:
        return huggingface_hub.HfApi().dataset_info(repo, revision=revision).sha
    except _hub_errors():
        return None


def _cached_commit(dataset: Any) -> str | None:
    """The commit in the name of the data set's cache folder, or None."""
    for file in dataset.cache_files:
        name = Path(file["filename"]).parent.name
        if re.fullmatch("[0-9a-f]{40}", name):
            return name
    return None


def _hub_errors() -> tuple[type[Exception], ...]:
    """What `huggingface_hub` raises where the hub or the network fails.

    Network errors come from its HTTP library, which depends on its version; the bases of
    HfHubHTTPError are classes of that library.
    """
    from huggingface_hub.errors import HfHubHTTPError

    return (OSError, ValueError, *HfHubHTTPError.__bases__)


def _table_errors() -> tuple[type[Exception], ...]:
    """What `datasets` raises where it cannot read or fetch data."""
    from datasets.exceptions import DatasetsError

    return (*_hub_errors(), DatasetsError, csv.Error)


@contextmanager
def _quiet_hub() -> Iterator[None]:
    """Silence the progress bars and messages of `huggingface_hub` inside the block."""
    import huggingface_hub.utils

    # `Any`: type checkers do not see its public names as exported
    hub: Any = huggingface_hub.utils
    verbosity, shows_bars = hub.logging.get_verbosity(), not hub.are_progress_bars_disabled()
    hub.logging.set_verbosity(logging.CRITICAL)
    hub.disable_progress_bars()
    try:
        yield
    finally:
        hub.logging.set_verbosity(verbosity)
        if shows_bars:
            hub.enable_progress_bars()


@contextmanager
def _quiet_tables() -> Iterator[None]:
    """Silence the progress bars and messages of `datasets` and the hub inside the block."""
    import datasets

    verbosity = datasets.logging.get_verbosity()
    shows_bars = not datasets.are_progress_bars_disabled()
    datasets.logging.set_verbosity(logging.CRITICAL)
    datasets.disable_progress_bars()
    try:
        with _quiet_hub():
            yield
    finally:
        datasets.logging.set_verbosity(verbosity)
        if shows_bars:
            datasets.enable_progress_bars()


def _cause(error: Exception) -> str:
    """The first lines of an error and of its cause, in which pandas names the bad line."""
    causes = [error, *([error.__cause__] if error.__cause__ else [])]
    lines = [str(cause).strip().partition("\n")[0] or type(cause).__name__ for cause in causes]
    return "; ".join(dict.fromkeys(lines))
