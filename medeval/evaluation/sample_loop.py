"""Runs the samples of one checkpoint on one engine, many at once, and writes each when it ends.

After a failure that is not the model's fault, the sample stays unscored, failures.jsonl has the
cause, and the loop continues. A refusal that every request would get stops the cell.
"""

import asyncio
import heapq
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from operator import itemgetter

from medeval.errors import DataError, FatalModelError, ModelError, RecordError
from medeval.evaluation.cell import Cell, n_missing
from medeval.evaluation.cost import EngineTime
from medeval.evaluation.interrupt import Interrupt
from medeval.evaluation.progress import Progress
from medeval.images.cache import ImageCache
from medeval.images.memory import ConversationMemory, MemoryBudget
from medeval.images.picture import Picture, prepare
from medeval.models.base import Model
from medeval.rollout.conversation import Rollout, roll_out
from medeval.rollout.protocol import EvalProtocol
from medeval.scoring.judging import JudgeQueue, failure, unwrapped_error_group
from medeval.store.cell_folder import CellWriter
from medeval.store.run_folder import RunFolder
from medeval.types.failure import FailureKind
from medeval.types.sample import ImageSource, Sample
from medeval.types.trajectory import Trajectory


class NotStartedError(Exception):
    """The run ends before a conversation starts; the next start of the run makes it."""


class SampleImages:
    """A sample's images, read and encoded once for `n_conversations` and released after the last.

    `cache` re-encodes the images, if given. Once `is_over` returns true, no image is read.
    """

    def __init__(
        self,
        sample: Sample,
        memory: MemoryBudget,
        *,
        n_conversations: int,
        cache: ImageCache | None = None,
        is_over: Callable[[], bool],
    ) -> None:
        self._sample = sample
        self._memory = memory
        self._n_conversations = n_conversations
        self._prepare_file = prepare if cache is None else cache.prepare
        self._is_over = is_over
        self._held_bytes = 0
        self._lock = asyncio.Lock()
        self._pictures: dict[object, Sequence[Picture]] = {}

    @asynccontextmanager
    async def for_conversation(
        self, protocol: EvalProtocol
    ) -> AsyncIterator[tuple[Sequence[Picture], ConversationMemory]]:
        """One conversation: the images as the protocol sends them, and memory for its tools.

        Raises DataError if an image cannot be read, and NotStartedError if the run ends before
        the images are read.
        """
        try:
            with self._memory.conversation() as conversation:
                yield await self._read(protocol, conversation), conversation
        finally:
            self.skip()

    def skip(self) -> None:
        """Count one conversation as done; after the last, release the images."""
        self._n_conversations -= 1
        if not self._n_conversations:
            self._pictures.clear()
            self._memory.release(self._held_bytes)

    async def _read(
        self, protocol: EvalProtocol, conversation: ConversationMemory
    ) -> Sequence[Picture]:
        budget = protocol.pixel_budget
        async with self._lock:
            if budget not in self._pictures:
                reserved_bytes = await self._memory.reserve_for_sample(conversation)
                taken_bytes = 0
                try:
                    if self._is_over():
                        raise NotStartedError
                    self._pictures[budget], taken_bytes = await asyncio.to_thread(
                        self._prepare, protocol
                    )
                finally:
                    self._held_bytes += taken_bytes
                    self._memory.sample_read(reserved_bytes, taken_bytes)
            return self._pictures[budget]

    def _prepare(self, protocol: EvalProtocol) -> tuple[Sequence[Picture], int]:
        """The images, and their size in bytes."""
        prepared = [self._prepare_one(source, protocol) for source in self._sample.images]
        return [picture for picture, _ in prepared], sum(n_bytes for _, n_bytes in prepared)

    def _prepare_one(self, source: ImageSource, protocol: EvalProtocol) -> tuple[Picture, int]:
        data = source.read()
        picture = self._prepare_file(data, name=source.name, budget=protocol.pixel_budget)
        # for tools, a re-encoded image keeps the bytes of its file in memory as well
        own_bytes = 0 if picture.sent_image.encoded() is data else picture.held_bytes
        return picture, len(data) + own_bytes


@dataclass(slots=True, kw_only=True)
class Job:
    """One trajectory to make; `position` is the sample's index in the benchmark, from 0."""

    cell: Cell
    sample: Sample
    images: SampleImages
    repeat: int
    position: int


@dataclass(slots=True, kw_only=True)
class SampleLoop:
    """Makes the missing trajectories of one checkpoint's cells, and queues each for judging."""

    folder: RunFolder
    cells: Sequence[Cell]
    model: Model
    progress: Progress
    interrupt: Interrupt
    seed: int
    concurrency: int
    keep_images: int
    defer_grading: bool
    judge_concurrency: int = 1
    writer_name: str = "0"
    image_cache: ImageCache | None = None
    memory: MemoryBudget = field(init=False)
    engine_time: EngineTime = field(default_factory=EngineTime)

    def __post_init__(self) -> None:
        self.memory = MemoryBudget.of_conversations(self.concurrency)

    async def run(self) -> None:
        """Make and judge every missing trajectory.

        Raises RecordError if the run folder cannot be written, and DataError if the rows cannot
        be read; earlier records stay.
        """
        with ExitStack() as stack:
            for cell in self.cells:
                cell.writer = stack.enter_context(cell.folder.writer(self.writer_name))
                on_disk = cell.folder.done()
                cell.done = on_disk if cell.done <= on_disk else cell.done | on_disk
                cell.tries = Counter(
                    (failure.sample_id, failure.repeat)
                    for failure in cell.folder.failures()
                    if failure.kind != "judge"
                )
            jobs = self._jobs()
            async with unwrapped_error_group(), asyncio.TaskGroup() as group:
                queue = JudgeQueue(
                    group,
                    concurrency=self.judge_concurrency,
                    is_over=self._is_over,
                )
                for _ in range(self.concurrency):
                    group.create_task(self._work(jobs, queue))

    def _is_over(self) -> bool:
        return self.interrupt.reason is not None

    def _jobs(self) -> Iterator[Job]:
        """All missing trajectories; a sample's repeats and arms follow each other.

        The jobs of each benchmark are spread evenly over the run. So the rate so far predicts the
        time left, even if the trajectories of one benchmark take longer than another's.
        """
        by_benchmark: dict[str, list[Cell]] = {}
        for cell in self.cells:
            by_benchmark.setdefault(cell.planned.name, []).append(cell)
        return _spread_evenly(
            (sum(map(n_missing, cells)), self._jobs_of(cells)) for cells in by_benchmark.values()
        )

    def _jobs_of(self, cells: Sequence[Cell]) -> Iterator[Job]:
        """The missing trajectories of one benchmark, sample by sample."""
        for position, sample in cells[0].samples.numbered():
            missing = [
                (cell, repeat)
                for repeat in range(cells[0].repeats)
                for cell in cells
                if (sample.id, repeat) not in cell.done
            ]
            images = SampleImages(
                sample,
                self.memory,
                n_conversations=len(missing),
                cache=self.image_cache,
                is_over=self._is_over,
            )
            for cell, repeat in missing:
                yield Job(cell=cell, sample=sample, images=images, repeat=repeat, position=position)

    async def _work(self, jobs: Iterator[Job], queue: JudgeQueue) -> None:
        for job in jobs:
            if self._is_over():
                return
            if job.cell.stopped is None:
                await self._do(job, queue)
            else:
                job.images.skip()

    async def _do(self, job: Job, queue: JudgeQueue) -> None:
        """Finish one job and record its failure; raises only RecordError."""
        try:
            trajectory = await self._converse(job)
        except NotStartedError:
            pass
        except RecordError:
            raise
        except FatalModelError as error:
            self._fail(job, "model", error)
            job.cell.stop(str(error), self.progress)
        except ModelError as error:
            self._fail(job, "model", error)
        except DataError as error:
            self._fail(job, "data", error)
        except Exception as error:  # noqa: BLE001 - the boundary of one sample's rollout
            self._fail(job, "internal", error)
        else:
            await self._record(job, trajectory, queue)

    async def _converse(self, job: Job) -> Trajectory:
        """Run a job's conversation, and release its images before the judge starts.

        Raises NotStartedError if the loop is interrupted before the images are read.
        """
        protocol = job.cell.protocol.value
        async with job.images.for_conversation(protocol) as (pictures, memory):
            if self._is_over():
                raise NotStartedError
            started = self.engine_time.begin()
            try:
                rollout = await roll_out(
                    job.sample,
                    pictures,
                    protocol,
                    self.model,
                    repeat=job.repeat,
                    seed=self.seed,
                    memory=memory,
                )
            finally:
                engine_s = self.engine_time.end(started)
            self._keep_images(job, rollout)
            return replace(rollout.trajectory, engine_seconds=engine_s)

    def _keep_images(self, job: Job, rollout: Rollout) -> None:
        if self.keep_images < 0 or job.position < self.keep_images:
            for picture in rollout.made.values():
                image = picture.sent_image
                self.folder.keep_image(image.sha256, image.media_type, image.encoded())

    async def _record(self, job: Job, trajectory: Trajectory, queue: JudgeQueue) -> None:
        writer = _writer_of(job.cell)
        writer.append_trajectory(trajectory)
        if not self.defer_grading:
            await queue.judge(writer, job.sample, trajectory, job.cell.planned.judges)
        self.progress.advance(scored=True)

    def _fail(self, job: Job, kind: FailureKind, error: Exception) -> None:
        key = (job.sample.id, job.repeat)
        job.cell.tries[key] += 1
        record = failure(key, kind, error, try_number=job.cell.tries[key])
        _writer_of(job.cell).append_failure(record)
        self.progress.advance(scored=False)


def _spread_evenly(sequences: Iterable[tuple[int, Iterator[Job]]]) -> Iterator[Job]:
    """Merge sequences of jobs, each given with its length; the longest starts."""

    def with_position(length: int, jobs: Iterator[Job]) -> Iterator[tuple[float, Job]]:
        for index, job in enumerate(jobs):
            yield (index + 0.5) / length, job

    positioned = (with_position(length, jobs) for length, jobs in sequences)
    return (job for _, job in heapq.merge(*positioned, key=itemgetter(0)))


def _writer_of(cell: Cell) -> CellWriter:
    assert cell.writer is not None, "a cell is open for writing while the loop runs"
    return cell.writer
