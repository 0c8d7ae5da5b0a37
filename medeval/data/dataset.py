"""The samples of a benchmark in a run: read lazily, and recorded before the first request."""

import itertools
import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from medeval.data.benchmark import Benchmark
from medeval.data.rows import Origin, Row, Rows, open_rows
from medeval.errors import DataError
from medeval.images.picture import sent_size_and_type
from medeval.images.request_image import sha256_of
from medeval.store.shards import Shard
from medeval.types.sample import ImageRecord, ImageSource, Sample, SampleRecord

# Threads that read and hash images, which release the GIL.
INSPECTORS = min(4, max(2, os.cpu_count() or 2))
# Samples per task: a task for each would add a tenth to the time that an image takes.
INSPECTION_BATCH = 8
# A benchmark with more samples is not kept in memory; its rows are read for each checkpoint.
MOST_KEPT = 2500
# What a definition's own code may raise on an unexpected row.
UNEXPECTED = (LookupError, ValueError, TypeError, AttributeError, ArithmeticError)


class BenchmarkSamples:
    """The samples that a run evaluates, in the order of the rows.

    `limit` keeps the first samples, `ids` the named ones, and `shard` its part of those. `count`
    is the number of all rows. Up to `MOST_KEPT` samples are kept in memory; of more, each
    iteration reads the rows again.

    Raises DataError where the number of rows is not the published one (unless
    `allow_count_mismatch`, or only a part is evaluated), where a column is missing, where
    `to_sample` fails, or where two samples have the same id.
    """

    def __init__(
        self,
        benchmark: Benchmark,
        data_dir: Path | None = None,
        *,
        limit: int | None = None,
        ids: Iterable[str] = (),
        shard: str | None = None,
        allow_count_mismatch: bool = False,
    ) -> None:
        self.benchmark = benchmark
        self._rows: Rows = open_rows(benchmark.rows, data_dir)
        self._limit = limit
        self._ids = frozenset(ids)
        self._shard = Shard.read(shard or "1/1")
        self.count = len(self._rows)
        self._own_ids: list[str] | None = None
        self._kept: list[tuple[int, Sample]] | None = None
        check_count(self.benchmark, self.count, allow=self._is_part or allow_count_mismatch)

    @property
    def _is_part(self) -> bool:
        return self._limit is not None or bool(self._ids)

    @property
    def origin(self) -> Origin:
        """Where the rows came from."""
        return self._rows.origin

    @property
    def ids(self) -> Sequence[str]:
        """The ids of the samples, in order; the first call reads the rows."""
        if self._own_ids is None:
            deque(self._checked(), maxlen=0)
        assert self._own_ids is not None, "the rows were read"
        return self._own_ids

    def __iter__(self) -> Iterator[Sample]:
        return (sample for _, sample in self.numbered())

    def numbered(self) -> Iterator[tuple[int, Sample]]:
        """Each sample with its position, from 0, among the samples of all shards together."""
        if self._kept is not None:
            return iter(self._kept)
        return (item for item in enumerate(self._selected()) if self._shard.holds(item[0]))

    def _selected(self) -> Iterator[Sample]:
        chosen = (
            sample
            for sample in map(self._to_sample, self._rows)
            if not self._ids or sample.id in self._ids
        )
        return itertools.islice(chosen, self._limit)

    def _to_sample(self, row: Row) -> Sample:
        missing = [column for column in self.benchmark.columns if column not in row]
        if missing:
            raise DataError(
                f"benchmark {self.benchmark.name!r}: row {row.index} has no column {missing[0]!r}; "
                f"its columns: {', '.join(row)}",
                hint="are these rows the ones the definition was written for?",
            )
        try:
            return self.benchmark.to_sample(row)
        except UNEXPECTED as error:
            raise DataError(
                f"benchmark {self.benchmark.name!r}: to_sample failed on row {row.index}: "
                f"{type(error).__name__}: {error}",
                hint="is this row as the definition's to_sample expects it?",
            ) from error

    def records(self) -> Iterator[SampleRecord]:
        """The record of each sample; its images are read for their sizes and hashes."""
        with ThreadPoolExecutor(INSPECTORS, thread_name_prefix="inspect") as pool:
            pending: deque[Future[list[SampleRecord]]] = deque()
            try:
                for samples in _in_batches(self._checked(), INSPECTION_BATCH):
                    pending.append(pool.submit(_inspected, samples))
                    if len(pending) > INSPECTORS:
                        yield from pending.popleft().result()
                while pending:
                    yield from pending.popleft().result()
            finally:
                pool.shutdown(wait=False, cancel_futures=True)

    def _checked(self) -> Iterator[Sample]:
        """Each sample; raises DataError for an id that occurs twice, and for a missing one."""
        seen: set[str] = set()
        own: list[str] = []
        kept: list[tuple[int, Sample]] = []
        for position, sample in enumerate(self._selected()):
            if sample.id in seen:
                raise DataError(
                    f"benchmark {self.benchmark.name!r} has the sample id {sample.id!r} twice",
                    hint="samples are paired across arms by id, so each id must be unique",
                )
            seen.add(sample.id)
            if self._shard.holds(position):
                own.append(sample.id)
                if len(own) <= MOST_KEPT:
                    kept.append((position, sample))
                yield sample
        absent = sorted(self._ids - seen)
        if absent:
            raise DataError(
                f"benchmark {self.benchmark.name!r} has no sample {absent[0]!r}",
                hint="--sample-id takes ids as in samples/<benchmark>.jsonl",
            )
        self._own_ids = own
        self._kept = kept if len(kept) == len(own) else None


def _inspected(samples: Sequence[Sample]) -> list[SampleRecord]:
    return [
        SampleRecord.from_sample(sample, [inspect_image(source) for source in sample.images])
        for sample in samples
    ]


def _in_batches(samples: Iterator[Sample], size: int) -> Iterator[list[Sample]]:
    """The samples in lists of `size`; the last one may be shorter."""
    while batch := list(itertools.islice(samples, size)):
        yield batch


def check_count(benchmark: Benchmark, count: int, *, allow: bool) -> None:
    """Raise DataError where the number of rows differs from the published one, unless `allow`."""
    if benchmark.count is not None and count != benchmark.count and not allow:
        raise DataError(
            f"benchmark {benchmark.name!r} has {count} rows here, but {benchmark.count} "
            "were published",
            hint="--limit or --allow-count-mismatch runs a part; its score is not the benchmark's",
        )


def inspect_image(source: ImageSource) -> ImageRecord:
    """The size, type and hash of an image's stored bytes, or the error where it is unreadable."""
    record = ImageRecord(source=source.name)
    try:
        data = source.read()
        record = replace(record, sha256=sha256_of(data), size_bytes=len(data))
        size, media_type = sent_size_and_type(data, name=source.name)
        return replace(
            record, width_px=size.width_px, height_px=size.height_px, media_type=media_type
        )
    except DataError as error:
        return replace(record, error=error.message)
