"""Evaluates checkpoints, or parts of them, in workers on a Ray cluster.

Only this process writes to the run folder: workers stream their records to it. If a worker is
lost, another one makes the rest of its part.
"""

import asyncio
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from medeval.errors import RecordError, UsageError
from medeval.evaluation.cell import Cell, is_complete, refusal_of
from medeval.evaluation.checkpoint import Group
from medeval.evaluation.interrupt import Interrupt, Interruption
from medeval.evaluation.merge import MEDIA_TYPES
from medeval.evaluation.plan import Plan
from medeval.evaluation.progress import Progress
from medeval.evaluation.workers.messages import pass_on
from medeval.evaluation.workers.pool import Worker, WorkerLostError, options_of_worker, run_pool
from medeval.scoring.judge_replies import file_name
from medeval.store.cell_folder import CellWriter
from medeval.store.files import Appender
from medeval.store.keys import CellKey, SampleKey
from medeval.store.records import parse_record
from medeval.store.run_folder import RunFolder
from medeval.types.failure import FailureRecord


async def run_on_ray(
    plan: Plan,
    folder: RunFolder,
    groups: Sequence[Group],
    progress: Progress,
    interrupt: Interrupt,
) -> None:
    """Bring checkpoints up to date on a Ray cluster, until the run is interrupted.

    The cluster is the one that RAY_ADDRESS names, or one that consists of this machine.
    """
    for _, cells in groups:
        for cell in cells:
            refusal = refusal_of(plan, cell)
            if refusal is not None:
                cell.stop(refusal, progress)
    with ExitStack() as stack:
        factory = RayWorkerFactory(plan, Writer(folder, stack), progress)
        n_parts = math.ceil(factory.n_workers / len(groups))
        parts = [part for group in groups for part in _parts(group, n_parts)]
        await run_pool(factory, parts, plan, progress, interrupt)
    for _, cells in groups:
        stopped = [cell for _, part in parts for cell in part if cell.stopped]
        for cell in cells:
            cell.stopped = cell.stopped or _first_reason(cell, stopped)


def _first_reason(cell: Cell, stopped: Sequence[Cell]) -> str | None:
    return next((part.stopped for part in stopped if part.name == cell.name), None)


def _parts(group: Group, count: int) -> Iterator[Group]:
    """The unfinished ones of `count` parts of a checkpoint; a sample's arms are in one part."""
    checkpoint, cells = group
    unfinished = [cell for cell in cells if cell.stopped is None and not is_complete(cell)]
    for number in range(count):
        part = [
            replace(cell, done=_keys_outside_part(cell, number, count) | cell.done)
            for cell in unfinished
        ]
        if not all(map(is_complete, part)):
            yield checkpoint, part


def _keys_outside_part(cell: Cell, number: int, count: int) -> set[SampleKey]:
    return {
        (sample_id, repeat)
        for index, sample_id in enumerate(cell.samples.ids)
        for repeat in range(cell.repeats)
        if index % count != number
    }


@dataclass(slots=True)
class Writer:
    """Copies the lines that workers send into the run folder, as the only writer of each cell."""

    folder: RunFolder
    stack: ExitStack
    _writers: dict[CellKey, CellWriter] = field(default_factory=dict)
    _replies: Appender | None = None

    def claim(self, cell: Cell, fields: Mapping[str, Any], recorded: Sequence[Any]) -> None:
        """Claim a cell as a worker did; raises RecordError if it has other settings already."""
        for entry in recorded:
            cell.folder.claim(fields, entry)

    def copy(self, cell: Cell, kind: str, line: bytes) -> None:
        """Append a line to a cell; a failure gets its try number in the run folder."""
        key = cell.folder.key
        if key not in self._writers:
            self._writers[key] = self.stack.enter_context(cell.folder.writer())
        writer = self._writers[key]
        if kind == "failures":
            record = parse_record(FailureRecord, line, "a worker's failure")
            sample_key = (record.sample_id, record.repeat)
            cell.tries[sample_key] += 1
            writer.append_failure(replace(record, try_number=cell.tries[sample_key]))
        elif kind == "trajectories":
            writer.copy("trajectory", line)
        else:
            writer.copy("verdict", line)

    def keep_image(self, name: str, data: bytes) -> None:
        """Keep an image that a tool made."""
        path = Path(name)
        self.folder.keep_image(path.stem, MEDIA_TYPES[path.suffix], data)

    def keep_reply(self, line: bytes) -> None:
        """Keep a reply of a judge's model."""
        if self._replies is None:
            path = self.folder.path / file_name()
            self._replies = self.stack.enter_context(Appender(path))
        self._replies.append(line)


class RayWorkerFactory:
    """Starts Ray actors, each with an engine and its GPUs, anywhere in the cluster."""

    def __init__(self, plan: Plan, writer: Writer, progress: Progress) -> None:
        ray = require_ray()
        if not ray.is_initialized():
            ray.init(log_to_driver=False, include_dashboard=False)
        self._plan = plan
        self._writer = writer
        self._progress = progress
        is_server = plan.backend == "openai"
        self._gpus = plan.options.gpus_per_worker or (0 if is_server else 1)
        resources = ray.cluster_resources()
        n_gpus = resources.get("GPU", 0)
        max_workers = n_gpus // self._gpus if self._gpus else resources.get("CPU", 1)
        self.n_workers = plan.options.workers or max(1, int(max_workers))
        if self._gpus and self.n_workers > max_workers:
            raise UsageError(
                f"{self.n_workers} workers with {self._gpus} GPUs each, but the cluster has "
                f"{int(n_gpus)} GPUs",
                hint="fewer --workers or --gpus-per-worker",
            )

    async def start(self, index: int) -> Worker:
        """Start an actor; Ray waits until the cluster has room for it."""
        ray = require_ray()
        from medeval.evaluation.workers.ray_actor import RemoteEvaluation

        actor = ray.remote(RemoteEvaluation).options(num_gpus=self._gpus, num_cpus=1)
        options = options_of_worker(self._plan, self.n_workers)
        return RayWorker(str(index + 1), actor.remote(options), self._writer, self._progress)


class RayWorker:
    """One Ray actor."""

    def __init__(self, name: str, actor: Any, writer: Writer, progress: Progress) -> None:
        self._name = name
        self._actor = actor
        self._writer = writer
        self._progress = progress

    async def evaluate(self, group: Group) -> None:
        """Bring a checkpoint, or a part of it, up to date in the actor, and write its records."""
        ray = require_ray()
        checkpoint, cells = group
        by_name = {cell.name: cell for cell in cells}
        # the folder has the records of lost workers
        done = {cell.name: sorted(cell.done | cell.folder.done()) for cell in cells}
        try:
            async for reference in self._actor.evaluate.remote(checkpoint.id, done):
                message = await reference
                if "ended" in message:
                    for name, reason in message["stopped"].items():
                        by_name[name].stopped = reason
                    if message["interrupted"]:
                        raise WorkerLostError(f"worker {self._name} was asked to end")
                    return
                self._handle(message, by_name)
        except ray.exceptions.RayError as error:
            first_line = str(error).strip().split("\n")[0]
            raise WorkerLostError(
                f"worker {self._name} was lost at {checkpoint.id} "
                f"({type(error).__name__}: {first_line})"
            ) from error
        raise WorkerLostError(f"worker {self._name} stopped sending at {checkpoint.id}")

    def _handle(self, message: Mapping[str, Any], cells: Mapping[str, Cell]) -> None:
        match message:
            case {"claim": name, "fields": fields, "all": recorded}:
                try:
                    self._writer.claim(cells[name], fields, recorded)
                except RecordError as error:
                    cells[name].stop(str(error), self._progress)
            case {"cell": name, "kind": kind, "line": line}:
                if cells[name].stopped is None:
                    self._writer.copy(cells[name], kind, line)
            case {"image": name, "data": data}:
                self._writer.keep_image(name, data)
            case {"reply": line}:
                self._writer.keep_reply(line)
            case _:
                pass_on(message, self._progress)

    def end(self, reason: Interruption) -> None:
        """Ask the actor to finish the samples in flight."""
        self._actor.end.remote(reason)

    async def close(self) -> None:
        """Return the actor's GPUs to the cluster."""
        self.kill()
        await asyncio.sleep(0)

    def kill(self) -> None:
        """End the actor; Ray ends its process."""
        require_ray().kill(self._actor)


def require_ray() -> Any:
    """The ray package. Raises UsageError if it is not installed."""
    try:
        import ray
    except ImportError as error:
        raise UsageError(
            "--cluster ray needs the package ray", hint="pip install 'medeval[ray]'"
        ) from error
    return ray
