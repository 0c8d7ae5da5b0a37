"""The run folder: everything needed to check, extend, resume, regrade and analyse a run."""

import hashlib
import logging
from collections.abc import Iterable, Iterator
from dataclasses import fields
from pathlib import Path

from medeval.errors import RecordError
from medeval.store.cell_folder import CellFolder, CellWriter, read_record
from medeval.store.files import explained, make_folder, read_lines, write_whole
from medeval.store.keys import CellKey, OutcomeKey, quoted, unquoted
from medeval.store.locks import Lock
from medeval.store.records import line, parse_record, pretty
from medeval.types.outcome import OutcomeRecord
from medeval.types.run import RunRecord
from medeval.types.sample import MediaType, SampleRecord

__all__ = ["CellFolder", "CellKey", "CellWriter", "OutcomeKey", "RunFolder"]

logger = logging.getLogger(__name__)

# Another process may be reading and hashing the images of a whole benchmark.
SAMPLES_WAIT_S = 600.0

SUFFIXES: dict[MediaType, str] = {"image/jpeg": "jpg", "image/png": "png", "image/webp": "webp"}


class RunFolder:
    """A run folder; `create` or `open` it. Reading needs no lock."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __repr__(self) -> str:
        return f"RunFolder({str(self.path)!r})"

    @classmethod
    def exists(cls, path: Path) -> bool:
        """Whether there is a run folder at `path`."""
        return (path / "run.json").is_file()

    @classmethod
    def create(cls, path: Path, record: RunRecord) -> "RunFolder":
        """Start a run folder. Raises RecordError if `path` has one already."""
        if cls.exists(path):
            raise RecordError(
                f"there is a run in {str(path)!r} already",
                hint="open it to extend or resume it, or name another folder with --output-dir",
            )
        folder = cls(path)
        folder.write_record(record)
        return folder

    @classmethod
    def open(cls, path: Path) -> "RunFolder":
        """An existing run folder. Raises RecordError if it does not exist or cannot be read."""
        folder = cls(path)
        folder.record()
        return folder

    def record(self) -> RunRecord:
        """The record in run.json."""
        record = read_record(RunRecord, self.path / "run.json")
        if record is None:
            raise RecordError(
                f"{str(self.path)!r} is not a run folder: it has no run.json",
                hint="name the folder that was given to `medeval run` as --output-dir",
            )
        return record

    def write_record(self, record: RunRecord) -> None:
        """Replace run.json. Hold `lock` while reading, extending and writing it back."""
        write_whole(self.path / "run.json", [pretty(record)])

    def lock(self, *, wait_s: float = 0.0) -> Lock:
        """A lock on the run as a whole, as a context manager.

        Entering raises RecordError, naming the holder's host and process id, if another process
        holds it for longer than `wait_s` seconds. Cells and samples have their own locks.
        """
        make_folder(self.path)
        return Lock(self.path / ".run.lock", subject=f"run {str(self.path)!r}", wait_s=wait_s)

    def keep_definition(self, source: Path, kind: str, name: str) -> str:
        """Copy a definition file byte for byte; returns the copy's name in `definitions/`.

        If a copy of the same name has another content, both stay, and the name of the new one has
        its hash.
        """
        with explained("read", source):
            data = source.read_bytes()
        stem, suffix = f"{kind}-{quoted(name)}", source.suffix
        digest = hashlib.sha256(data).hexdigest()[:8]
        for copy_name in (f"{stem}{suffix}", f"{stem}-{digest}{suffix}"):
            copy = self.path / "definitions" / copy_name
            if not copy.exists():
                write_whole(copy, [data])
                return copy_name
            if copy.read_bytes() == data:
                return copy_name
        raise RecordError(
            f"{copy} does not have the hash in its name",
            hint="it was changed by hand: delete it, and it is copied again",
        )

    def _samples_path(self, benchmark: str) -> Path:
        return self.path / "samples" / f"{quoted(benchmark)}.jsonl"

    def write_samples(self, benchmark: str, samples: Iterable[SampleRecord]) -> None:
        """Add the samples of a benchmark to those in the file.

        Raises RecordError, and leaves the file unchanged, if a sample differs from the one in the
        file with the same id, or if two samples have the same id.
        """
        path = self._samples_path(benchmark)
        make_folder(path.parent)
        lock = Lock(
            path.with_name(f".{path.name}.lock"),
            subject=f"the samples of benchmark {benchmark!r}",
            wait_s=SAMPLES_WAIT_S,
        )
        with lock:
            write_whole(path, self._merged(benchmark, samples))

    def _merged(self, benchmark: str, samples: Iterable[SampleRecord]) -> Iterator[bytes]:
        """The lines in the file, then those of new samples."""
        known: dict[str, bytes] = {}
        for record in self._samples(benchmark):
            data = _sample_line(record)
            known[record.id] = hashlib.sha256(data).digest()
            yield data
        given: set[str] = set()
        for sample in samples:
            data = _sample_line(sample)
            if sample.id in given:
                raise RecordError(f"benchmark {benchmark!r} has sample id {sample.id!r} twice")
            given.add(sample.id)
            if sample.id not in known:
                yield data
            elif known[sample.id] != hashlib.sha256(data).digest():
                raise self._conflict(benchmark, sample)

    def _conflict(self, benchmark: str, sample: SampleRecord) -> RecordError:
        before = next(record for record in self._samples(benchmark) if record.id == sample.id)
        new = parse_record(SampleRecord, _sample_line(sample), f"sample {sample.id!r}")
        name = next(
            each.name
            for each in fields(SampleRecord)
            if getattr(before, each.name) != getattr(new, each.name)
        )
        return RecordError(
            f"sample {sample.id!r} of benchmark {benchmark!r} is not the one this run began "
            f"with: its {name} was {getattr(before, name)!r}, now {getattr(new, name)!r}",
            hint="use the data the run began with, or name another folder with --output-dir",
        )

    def _samples(self, benchmark: str) -> Iterator[SampleRecord]:
        path = self._samples_path(benchmark)
        for number, data in read_lines(path, whole=True):
            yield parse_record(SampleRecord, data, f"{path}, line {number}")

    def samples(self, benchmark: str) -> Iterator[SampleRecord]:
        """Each sample of a benchmark. Raises RecordError if the run has no such benchmark."""
        if not self._samples_path(benchmark).exists():
            raise RecordError(
                f"the run in {str(self.path)!r} has no samples of benchmark {benchmark!r}; "
                f"it has: {self.benchmarks()!r}"
            )
        return self._samples(benchmark)

    def benchmarks(self) -> list[str]:
        """The names of the benchmarks with samples in this run, sorted."""
        return sorted(unquoted(path.stem) for path in (self.path / "samples").glob("[!.]*.jsonl"))

    def cell(self, key: CellKey) -> CellFolder:
        """The folder of a cell, which may not exist yet."""
        return CellFolder(self.path / "cells" / key.relative_path, key)

    def cells(self) -> list[CellKey]:
        """The claimed cells, sorted by series, step, benchmark and protocol."""
        root = self.path / "cells"
        found = [
            CellKey.from_path(path.parent.relative_to(root))
            for path in root.glob("*/*/*/*/cell.json")
        ]
        return sorted(found, key=lambda key: key.order)

    def _outcomes_path(self, key: OutcomeKey) -> Path:
        return self.path / "outcomes" / key.relative_path

    def write_outcomes(
        self,
        series: str,
        step: int | None,
        benchmark: str,
        pair: str,
        outcomes: Iterable[OutcomeRecord],
        judge: str | None = None,
    ) -> Path:
        """Replace the outcomes of a pair; returns the file.

        `judge` is None for the benchmark's primary judge.
        """
        path = self._outcomes_path(OutcomeKey(series, step, benchmark, pair, judge))
        write_whole(path, (line(outcome) for outcome in outcomes))
        return path

    def outcomes(
        self, series: str, step: int | None, benchmark: str, pair: str, judge: str | None = None
    ) -> Iterator[OutcomeRecord]:
        """Each outcome of a pair. Raises RecordError if none were written."""
        path = self._outcomes_path(OutcomeKey(series, step, benchmark, pair, judge))
        if not path.exists():
            raise RecordError(
                f"there are no outcomes in {str(path)!r}",
                hint="`medeval grade` rebuilds outcomes from the trajectories and verdicts",
            )
        return (
            parse_record(OutcomeRecord, data, f"{path}, line {number}")
            for number, data in read_lines(path, whole=True)
        )

    def drop_outcomes(
        self, series: str, step: int | None, benchmark: str, pair: str, judge: str | None = None
    ) -> None:
        """Delete the outcomes of a pair; no error if there are none."""
        path = self._outcomes_path(OutcomeKey(series, step, benchmark, pair, judge))
        with explained("delete", path):
            path.unlink(missing_ok=True)

    def outcome_keys(self) -> list[OutcomeKey]:
        """The keys of all outcomes, sorted by series, step, benchmark, pair and judge."""
        root = self.path / "outcomes"
        found = [
            OutcomeKey.from_path(path.relative_to(root)) for path in root.glob("*/*/*/[!.]*.jsonl")
        ]
        return sorted(found, key=lambda key: key.order)

    def write_table(self, name: str, text: str) -> Path:
        """Write or replace `tables/<name>`; returns the file."""
        path = self.path / "tables" / quoted(name)
        write_whole(path, [text.encode()])
        return path

    def drop_table(self, name: str) -> None:
        """Delete an outdated table; no error if there is none."""
        path = self.path / "tables" / quoted(name)
        with explained("delete", path):
            path.unlink(missing_ok=True)

    def _image_path(self, stem: str, suffix: str) -> Path:
        return self.path / "images" / f"{quoted(stem)}.{suffix}"

    def keep_image(self, stem: str, media_type: MediaType, data: bytes) -> Path:
        """Write an image to a file, once; `stem`, its hash, names it. Returns the file."""
        path = self._image_path(stem, SUFFIXES[media_type])
        if not path.exists():
            write_whole(path, [data])
        return path

    def image_file(self, stem: str) -> tuple[Path, MediaType] | None:
        """The file of a kept image and its type, or None if the image was not kept."""
        for media_type, suffix in SUFFIXES.items():
            path = self._image_path(stem, suffix)
            if path.exists():
                return path, media_type
        return None


def _sample_line(sample: SampleRecord) -> bytes:
    return line(sample, f"sample {sample.id!r}")
