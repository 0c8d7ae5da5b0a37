"""A planned benchmark's samples: read lazily, and recorded before the first request."""

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
from medeval.images.picture import sent_size_and_type, sha256_of
from medeval.store.shards import Shard
from medeval.types.sample import ImageRecord, ImageSource, Sample, SampleRecord

# Reading and hashing let other threads run; more of them than processors wait for the disk at best.
INSPECTORS = min(4, max(2, os.cpu_count() or 2))
# Handing one image at a time to another thread takes a tenth of what looking into it takes.
INSPECTED_AT_ONCE = 8
# Of a benchmark with more samples none are kept, and its rows are read again for each checkpoint.
MOST_KEPT = 2500
# What a definition's own code raises at a row that is not as it expects.
UNEXPECTED = (LookupError, ValueError, TypeError, AttributeError, ArithmeticError)


class BenchmarkSamples:
    """The samples a run asks for, in the order of the rows.

    Once read they are kept, up to `MOST_KEPT`; of more, iterating reads the rows anew.

    Of a shard, only its own. `count` is the number of rows there are, asked for or not.
    Raises DataError where the number of rows is not the published one, unless a mismatch
    is allowed, where a column is missing or `to_sample` fails, or where two rows give one id.
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
        self._seen: list[str] | None = None
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
        """The ids of the samples, in order; the rows are read for them once."""
        if self._seen is None:
            deque(self._checked(), maxlen=0)
        assert self._seen is not None, "all samples were seen"
        return self._seen

    def __iter__(self) -> Iterator[Sample]:
        return (sample for _, sample in self.numbered())

    def numbered(self) -> Iterator[tuple[int, Sample]]:
        """Each sample with its place, from 0, among those that all shards together ask for."""
        if self._kept is not None:
            return iter(self._kept)
        return (item for item in enumerate(self._asked()) if self._shard.holds(item[0]))

    def _asked(self) -> Iterator[Sample]:
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
                f"benchmark {self.benchmark.name!r}: row {row.index} became no sample: "
                f"{type(error).__name__}: {error}",
                hint="is this row as the definition's to_sample expects it?",
            ) from error

    def records(self) -> Iterator[SampleRecord]:
        """Every sample in full, its images read once for size and hash, a few at a time."""
        with ThreadPoolExecutor(INSPECTORS, thread_name_prefix="inspect") as pool:
            ahead: deque[Future[list[SampleRecord]]] = deque()
            try:
                for samples in _in_batches(self._checked(), INSPECTED_AT_ONCE):
                    ahead.append(pool.submit(_inspected, samples))
                    if len(ahead) > INSPECTORS:
                        yield from ahead.popleft().result()
                while ahead:
                    yield from ahead.popleft().result()
            finally:
                pool.shutdown(wait=False, cancel_futures=True)

    def _checked(self) -> Iterator[Sample]:
        """Each sample, with ids that are asked for and none of them twice."""
        seen: set[str] = set()
        own: list[str] = []
        kept: list[tuple[int, Sample]] = []
        for position, sample in enumerate(self._asked()):
            if sample.id in seen:
                raise DataError(
                    f"benchmark {self.benchmark.name!r} has the sample id {sample.id!r} twice",
                    hint="ids pair the arms, so each must name one sample",
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
        self._seen = own
        self._kept = kept if len(kept) == len(own) else None


def _inspected(samples: Sequence[Sample]) -> list[SampleRecord]:
    return [
        SampleRecord.from_sample(sample, [inspect_image(source) for source in sample.images])
        for sample in samples
    ]


def _in_batches(samples: Iterator[Sample], size: int) -> Iterator[list[Sample]]:
    """The samples in lists of `size`, the last one shorter."""
    while batch := list(itertools.islice(samples, size)):
        yield batch


def check_count(benchmark: Benchmark, count: int, *, allow: bool) -> None:
    """Raise DataError where a data set is shorter or longer than the published one."""
    if benchmark.count is not None and count != benchmark.count and not allow:
        raise DataError(
            f"benchmark {benchmark.name!r} has {count} rows here, but {benchmark.count} "
            "were published",
            hint="--limit or --allow-count-mismatch runs a part; its score is not the benchmark's",
        )


def inspect_image(source: ImageSource) -> ImageRecord:
    """Size, type and hash of an image's own bytes; an unreadable one is recorded with its error."""
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
