"""Judges trajectories, while a run makes them or later from the run folder."""

import asyncio
import traceback
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager

from medeval.errors import MedevalError, RecordError
from medeval.scoring.grade import Graded, grade_answer, judge_identity
from medeval.scoring.judge import Judge
from medeval.store.cell_folder import CellFolder, CellWriter
from medeval.store.records import now
from medeval.types.definition import Loaded
from medeval.types.failure import FailureKind, FailureRecord
from medeval.types.sample import Sample, SampleRecord
from medeval.types.trajectory import Trajectory

# Answers that may wait for a judge, each with its conversation; then `judge` itself waits.
MAX_WAITING = 1024


def failure(
    key: tuple[str, int], kind: FailureKind, error: Exception, *, try_number: int
) -> FailureRecord:
    """The record of a failure, with its traceback."""
    sample_id, repeat = key
    return FailureRecord(
        sample_id=sample_id,
        repeat=repeat,
        kind=kind,
        try_number=try_number,
        error=error.message
        if isinstance(error, MedevalError)
        else f"{type(error).__name__}: {error}",
        traceback="".join(traceback.format_exception(error)),
        when=now(),
    )


async def judge_trajectory(
    writer: CellWriter, sample: Sample, trajectory: Trajectory, judges: Sequence[Loaded[Judge]]
) -> None:
    """Append each judge's verdict on a trajectory; a failure where its endpoint does not answer."""
    for judge in judges:
        graded = await grade_answer(
            sample, trajectory.answer, trajectory.stop, judge, repeat=trajectory.repeat
        )
        if graded.failure is not None:
            writer.append_failure(_judge_failure(graded))
        if graded.is_scored:
            writer.append_verdict(graded.verdict)


class JudgeQueue:
    """The queue of answers for judges that ask a model, so that conversations do not wait for them.

    Each such verdict is a task of `group`, and `concurrency` of them run at once; where `is_over`
    returns True, the waiting ones are skipped. Judges that ask no model judge immediately.
    """

    def __init__(
        self, group: asyncio.TaskGroup, *, concurrency: int, is_over: Callable[[], bool]
    ) -> None:
        self._group = group
        self._slots = asyncio.Semaphore(concurrency)
        self._waiting_room = asyncio.Semaphore(concurrency + MAX_WAITING)
        self._is_over = is_over

    async def judge(
        self,
        writer: CellWriter,
        sample: Sample,
        trajectory: Trajectory,
        judges: Sequence[Loaded[Judge]],
    ) -> None:
        """Append the verdicts of judges that ask no model, and queue the others."""
        quick = [judge for judge in judges if not judge.value.needs_endpoint]
        await judge_trajectory(writer, sample, trajectory, quick)
        for judge in judges:
            if judge.value.needs_endpoint:
                await self._waiting_room.acquire()
                self._group.create_task(self._judge_queued(writer, sample, trajectory, judge))

    async def _judge_queued(
        self, writer: CellWriter, sample: Sample, trajectory: Trajectory, judge: Loaded[Judge]
    ) -> None:
        try:
            async with self._slots:
                if not self._is_over():
                    await judge_trajectory(writer, sample, trajectory, (judge,))
        finally:
            self._waiting_room.release()


async def judge_cell(
    cell: CellFolder,
    samples: Iterable[SampleRecord],
    judges: Sequence[Loaded[Judge]],
    *,
    again: bool = False,
    is_over: Callable[[], bool] = lambda: False,
    concurrency: int = 1,
    writer_name: str = "0",
) -> int:
    """Judge a cell's trajectories that lack a verdict by one of the judges; return their number.

    With `again`, all trajectories are judged. The rest is skipped as soon as `is_over` returns
    True. `concurrency` inquiries to a model run at once. Raises RecordError where a trajectory's
    sample is not among `samples`.
    """
    done, judged = cell.done(), set() if again else cell.judged()
    missing = {
        identity: {key for key in done if (*key, identity) not in judged}
        for identity in map(judge_identity, judges)
    }
    if not any(missing.values()):
        return 0
    by_id = {record.id: record.sample() for record in samples}
    n_judged = 0
    with cell.writer(writer_name) as writer:
        async with unwrapped_error_group(), asyncio.TaskGroup() as group:
            queue = JudgeQueue(group, concurrency=concurrency, is_over=is_over)
            for trajectory in cell.trajectories():
                # lets signal handlers run: a judge may never await anything
                await asyncio.sleep(0)
                if is_over():
                    break
                key = (trajectory.sample_id, trajectory.repeat)
                lacking = [judge for judge in judges if key in missing[judge_identity(judge)]]
                if lacking:
                    sample = _sample_of(by_id, trajectory)
                    await queue.judge(writer, sample, trajectory, lacking)
                    n_judged += 1
    return n_judged


@asynccontextmanager
async def unwrapped_error_group() -> AsyncIterator[None]:
    """Raise the first MedevalError of an exception group instead of the group."""
    try:
        yield
    except* MedevalError as errors:
        raise _first(errors) from None


def _first(errors: BaseExceptionGroup[MedevalError]) -> MedevalError:
    error = errors.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error


def _sample_of(samples: dict[str, Sample], trajectory: Trajectory) -> Sample:
    if trajectory.sample_id not in samples:
        raise RecordError(
            f"the run has a trajectory of sample {trajectory.sample_id!r}, but no such sample",
            hint="samples/<benchmark>.jsonl was changed: restore it from a copy",
        )
    return samples[trajectory.sample_id]


def _judge_failure(graded: Graded) -> FailureRecord:
    return FailureRecord(
        sample_id=graded.verdict.sample_id,
        repeat=graded.verdict.repeat,
        kind="judge",
        try_number=1,
        error=graded.verdict.reason,
        traceback=graded.failure or "",
        when=now(),
    )
