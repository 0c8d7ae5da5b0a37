"""Joins run folders into one: the shards of a run, or runs from independent machines.

Everything is checked before anything is written, lines are copied byte for byte, and lines that
exist already are skipped. So the same command finishes an interrupted merge, or adds one more run.
"""

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from medeval.analysis.results import write_results
from medeval.analysis.summary import CellSummary
from medeval.errors import RecordError, UsageError
from medeval.scoring.judge_replies import FILES, file_name
from medeval.store.cell_folder import CellFolder
from medeval.store.files import Appender, read_lines
from medeval.store.fingerprints import differences
from medeval.store.records import line
from medeval.store.run_folder import CellKey, RunFolder
from medeval.store.shards import missing_shards
from medeval.types.run import DefinitionCopy, RunRecord
from medeval.types.sample import MediaType

# Fields of a benchmark that must be equal in every run; the origin of its rows may differ.
EQUAL_BENCHMARK_FIELDS = (
    "revision", "count", "expected_count", "pairing", "aggregate", "suite", "cluster_size",
)  # fmt: skip
MEDIA_TYPES: dict[str, MediaType] = {
    ".jpg": "image/jpeg",
    ".png": "image/png",
    ".webp": "image/webp",
}
SEPARATE_FOLDERS = "merge the runs that belong together, each kind into a folder of its own"


@dataclass(frozen=True, slots=True, kw_only=True)
class MergeReport:
    """The result of a merge. `missing` has a text for each cell that lacks shards."""

    folder: RunFolder
    summaries: Sequence[CellSummary]
    n_added: int
    missing: Sequence[str]

    @property
    def is_complete(self) -> bool:
        """Whether no shard is missing and every sample of the plan has its verdict."""
        return not self.missing and not any(summary.unscored for summary in self.summaries)


def merge(out: Path, runs: Sequence[Path]) -> MergeReport:
    """Join run folders into `out`, which may exist already.

    Raises RecordError, and leaves `out` unchanged, if two runs have different settings or data,
    if they have different records of the same sample, repeat and arm, or if a run is in use.
    """
    sources = _sources(out, runs)
    folder = RunFolder(out)
    with ExitStack() as stack:
        for source in sources:
            if os.access(source.path, os.W_OK):
                stack.enter_context(source.lock())
        stack.enter_context(folder.lock())
        existing = [folder] if RunFolder.exists(out) else []
        _check([*existing, *sources])
        n_added = sum(_copy_run(folder, source) for source in sources)
        cells = folder.cells()
        return MergeReport(
            folder=folder,
            summaries=write_results(folder, cells),
            n_added=n_added,
            missing=[text for key in cells for text in _missing_shards(folder.cell(key))],
        )


def _sources(out: Path, runs: Sequence[Path]) -> list[RunFolder]:
    for path in runs:
        if path.resolve() == out.resolve():
            raise UsageError(
                f"{str(out)!r} is both the folder to merge into and a run to merge",
                hint="medeval merge OUT RUN...: OUT comes first, and is another folder",
            )
    return [RunFolder.open(path) for path in {path.resolve(): path for path in runs}.values()]


def _check(folders: Sequence[RunFolder]) -> None:
    """Raise RecordError if the folders cannot be one run."""
    _check_records(folders)
    for benchmark in {name: None for folder in folders for name in folder.benchmarks()}:
        _Lines(f"benchmark {benchmark!r}").check(
            (folder.path, sample.id, line(sample))
            for folder in folders
            if benchmark in folder.benchmarks()
            for sample in folder.samples(benchmark)
        )
    for key in {key: None for folder in folders for key in folder.cells()}:
        cells = [(folder.path, folder.cell(key)) for folder in folders if key in folder.cells()]
        _check_fields(key, cells)
        subject = f"cell {key.checkpoint!r} x {key.benchmark!r} x {key.protocol!r}"
        _Lines(subject).check(
            (path, *item) for path, cell in cells for item in cell.trajectory_lines()
        )
        _Lines(subject).check(
            (path, *item) for path, cell in cells for item in cell.verdict_lines()
        )


def _check_records(folders: Sequence[RunFolder]) -> None:
    seen: dict[tuple[str, str], tuple[Path, object]] = {}
    for folder in folders:
        for name, value in _settings(folder.record()):
            path, before = seen.setdefault(name, (folder.path, value))
            if before != value:
                raise RecordError(
                    f"{path} and {folder.path} differ in the {name[0]} of {name[1]!r}: "
                    f"{before!r} and {value!r}",
                    hint=SEPARATE_FOLDERS,
                )


def _settings(record: RunRecord) -> Iterator[tuple[tuple[str, str], object]]:
    """The settings that must be equal in two runs which both have them, by kind and name."""
    for benchmark, judge in record.judges.items():
        yield ("judge", benchmark), judge
    for pair, arms in record.pairs.items():
        yield ("arms", pair), arms
    for benchmark, entry in record.benchmarks.items():
        for field in EQUAL_BENCHMARK_FIELDS:
            yield (field, benchmark), getattr(entry, field)


def _check_fields(key: CellKey, cells: Sequence[tuple[Path, CellFolder]]) -> None:
    first_path, first = cells[0]
    before = first.record()
    for path, cell in cells[1:]:
        now = cell.record()
        if before is not None and now is not None and before.fingerprint != now.fingerprint:
            lines = "".join(f"\n  {line}" for line in differences(before.fields, now.fields))
            raise RecordError(
                f"cell {key.checkpoint!r} x {key.benchmark!r} x {key.protocol!r} of {path} was "
                f"made with other settings than that of {first_path}:{lines}",
                hint=SEPARATE_FOLDERS,
            )


@dataclass(frozen=True, slots=True)
class _Lines:
    """Lines of which all with the same key must be equal."""

    subject: str

    def check(self, lines: Iterator[tuple[Path, object, bytes]]) -> None:
        """Raise RecordError at a line that differs from an earlier one with the same key."""
        seen: dict[object, tuple[bytes, Path]] = {}
        for path, key, data in lines:
            digest = hashlib.sha256(data).digest()
            before, first = seen.setdefault(key, (digest, path))
            if before != digest:
                raise RecordError(
                    f"{self.subject}: {first} and {path} have different records of {key!r}",
                    hint="the same sample was run twice: leave one of the runs out",
                )


def _copy_run(out: RunFolder, source: RunFolder) -> int:
    """Copy what the merged run lacks; returns the number of copied trajectories."""
    for benchmark in source.benchmarks():
        out.write_samples(benchmark, source.samples(benchmark))
    _copy_record(out, source)
    for path in sorted((source.path / "images").glob("[!.]*")):
        out.keep_image(path.stem, MEDIA_TYPES[path.suffix], path.read_bytes())
    _copy_replies(out, source)
    return sum(_copy_cell(out.cell(key), source.cell(key)) for key in source.cells())


def _copy_record(out: RunFolder, source: RunFolder) -> None:
    record = source.record()
    definitions = tuple(_copied_definition(out, source, part) for part in record.definitions)
    record = replace(record, definitions=definitions)
    if RunFolder.exists(out.path):
        before = out.record()
        new = tuple(item for item in record.sessions if item not in before.sessions)
        record = before.extended(replace(record, sessions=new))
        if record == before:
            return
    out.write_record(record)


def _copied_definition(out: RunFolder, source: RunFolder, part: DefinitionCopy) -> DefinitionCopy:
    copy = source.path / "definitions" / part.copy_name
    return replace(part, copy_name=out.keep_definition(copy, part.kind, part.name))


def _copy_replies(out: RunFolder, source: RunFolder) -> None:
    known = set(_replies(out))
    new = [data for data in _replies(source) if data not in known]
    if new:
        with Appender(out.path / file_name()) as replies:
            for data in new:
                replies.append(data)


def _replies(folder: RunFolder) -> Iterator[bytes]:
    for path in sorted(folder.path.glob(FILES)):
        yield from (data for _, data in read_lines(path))


def _copy_cell(out: CellFolder, source: CellFolder) -> int:
    record = source.record()
    assert record is not None, "a listed cell has its record"
    for entry in record.recorded:
        out.claim(record.fields, entry)
    done, judged, failures = out.done(), out.judged(), list(out.failures())
    n_added = 0
    with out.writer() as writer:
        for key, data in source.trajectory_lines():
            if key not in done:
                writer.copy("trajectory", data)
                n_added += 1
        for verdict, data in source.verdict_lines():
            if verdict not in judged:
                writer.copy("verdict", data)
        for failure in source.failures():
            if failure not in failures:
                writer.append_failure(failure)
    return n_added


def _missing_shards(cell: CellFolder) -> Iterator[str]:
    record = cell.record()
    entries: Sequence[Mapping[str, object]] = () if record is None else record.recorded
    shards = ", ".join(map(str, missing_shards(entries)))
    if shards:
        key = cell.key
        yield f"{key.checkpoint} x {key.benchmark} x {key.protocol} lacks shards {shards}"
