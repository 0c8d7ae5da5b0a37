"""A pool of worker processes on this machine, each with its own engine and GPUs.

A worker runs `python -m medeval.evaluation.workers.process` and appends to the run folder under
its own name. It reads names of checkpoints from stdin and writes reports to stdout, one JSON object
a line. If a worker dies, another one finishes its checkpoint.
"""

import asyncio
import json
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from medeval.errors import ModelError
from medeval.evaluation.cell import Cell, n_missing
from medeval.evaluation.checkpoint import Group
from medeval.evaluation.interrupt import Interrupt, Interruption
from medeval.evaluation.plan import Plan
from medeval.evaluation.plan_file import PlanFile
from medeval.evaluation.progress import Progress
from medeval.evaluation.workers.devices import devices_of, worker_environment
from medeval.evaluation.workers.messages import WorkerMessage, pass_on
from medeval.models.checkpoints import Checkpoint
from medeval.store.files import make_folder
from medeval.store.keys import LOGS

# A checkpoint is given up after this many lost workers, in a row without a new trajectory or in
# all: it would end the other workers too.
MAX_LOST_IN_A_ROW = 2
MAX_LOST = 10
MAX_MESSAGE_BYTES = 1 << 24
# The time in which a worker without further checkpoints has to end its engine.
CLOSE_TIMEOUT_S = 60.0


class WorkerLostError(ModelError):
    """A worker ended, or was asked to end, before its checkpoint was done."""


class Worker(Protocol):
    """A process with an engine, on this or another machine, that brings checkpoints up to date."""

    async def evaluate(self, group: Group) -> None:
        """Bring a checkpoint up to date; raises WorkerLostError if it is not finished."""
        ...

    def end(self, reason: Interruption) -> None:
        """Ask the worker to finish the samples in flight and start no other."""
        ...

    async def close(self) -> None:
        """End the worker after its last checkpoint."""
        ...

    def kill(self) -> None:
        """End the worker at once."""
        ...


class WorkerFactory(Protocol):
    """Starts workers, at most `n_workers` at once."""

    n_workers: int

    async def start(self, index: int) -> Worker:
        """Start a worker; `index` counts from 0. Raises WorkerLostError if that fails."""
        ...


async def run_in_workers(
    plan: Plan, groups: Sequence[Group], progress: Progress, interrupt: Interrupt
) -> None:
    """Bring checkpoints up to date in local workers, until the run is interrupted."""
    await run_pool(LocalWorkerFactory(plan, progress), groups, plan, progress, interrupt)


async def run_pool(
    factory: WorkerFactory,
    groups: Sequence[Group],
    plan: Plan,
    progress: Progress,
    interrupt: Interrupt,
) -> None:
    """Bring checkpoints up to date in a factory's workers, until the run is interrupted."""
    pool = _Pool(factory, _WaitingGroups(groups), progress)
    interrupt.pass_on = pool.end
    try:
        with interrupt.covering(plan.options.time_limit):
            async with asyncio.TaskGroup() as tasks:
                for index in range(min(factory.n_workers, len(groups))):
                    tasks.create_task(pool.work(index))
    except asyncio.CancelledError:
        if interrupt.reason is None:
            raise
    finally:
        await pool.kill()


class _WaitingGroups:
    """The queue of checkpoints, the largest first; that of a lost worker comes back."""

    def __init__(self, groups: Sequence[Group]) -> None:
        by_size = sorted(groups, key=lambda group: -sum(map(n_missing, group[1])))
        self._waiting = deque(by_size)
        self._n_taken = 0
        self._changed = asyncio.Condition()
        self.is_over = False

    async def take(self) -> Group | None:
        """The next checkpoint; None if no other can come."""
        async with self._changed:
            await self._changed.wait_for(lambda: self.is_over or self._waiting or not self._n_taken)
            if self.is_over or not self._waiting:
                return None
            self._n_taken += 1
            return self._waiting.popleft()

    async def give_back(self, group: Group, *, is_done: bool) -> None:
        """Mark a taken checkpoint as done, or queue it for another worker."""
        async with self._changed:
            self._n_taken -= 1
            if not is_done:
                self._waiting.appendleft(group)
            self._changed.notify_all()

    async def close(self) -> None:
        """Return no further checkpoint."""
        self.is_over = True
        async with self._changed:
            self._changed.notify_all()


@dataclass(slots=True)
class _Pool:
    """The running workers, and the number of workers that each checkpoint has lost."""

    factory: WorkerFactory
    waiting: _WaitingGroups
    progress: Progress
    workers: dict[int, Worker] = field(default_factory=dict)
    losses: dict[int, "_Losses"] = field(default_factory=dict)
    closing: set[asyncio.Task[None]] = field(default_factory=set)

    def end(self, reason: Interruption) -> None:
        """Ask every worker to finish its samples in flight."""
        for worker in self.workers.values():
            worker.end(reason)
        self.closing.add(asyncio.ensure_future(self.waiting.close()))

    async def kill(self) -> None:
        """End every worker at once."""
        while self.workers:
            _, worker = self.workers.popitem()
            worker.kill()
            await worker.close()

    async def work(self, index: int) -> None:
        """Evaluate waiting checkpoints in one worker; a lost worker is replaced."""
        while (group := await self.waiting.take()) is not None:
            try:
                if index not in self.workers:
                    self.workers[index] = await self.factory.start(index)
                await self.workers[index].evaluate(group)
            except WorkerLostError as error:
                if index in self.workers:
                    await self.workers.pop(index).close()
                await self.waiting.give_back(group, is_done=self._is_given_up(group, str(error)))
            else:
                await self.waiting.give_back(group, is_done=True)
        if index in self.workers:
            await self.workers[index].close()
            del self.workers[index]

    def _is_given_up(self, group: Group, reason: str) -> bool:
        checkpoint, cells = group
        if self.waiting.is_over:
            return True
        # by identity: the parts of a checkpoint are counted separately
        losses = self.losses.setdefault(id(cells), _Losses())
        losses.add(cells)
        if losses.in_a_row < MAX_LOST_IN_A_ROW and losses.in_all < MAX_LOST:
            self.progress.tell(f"{checkpoint.id}: {reason}; another worker takes over")
            return False
        for cell in cells:
            cell.stop(f"{losses.in_all} workers were lost at it: {reason}", self.progress)
        return True


@dataclass(slots=True)
class _Losses:
    """The number of workers lost at a checkpoint, or at a part of one.

    `n_missing` is the number of trajectories missing at the last loss.
    """

    in_all: int = 0
    in_a_row: int = 0
    n_missing: int | None = None

    def add(self, cells: Sequence[Cell]) -> None:
        """Count one more loss; without a new trajectory, it is in a row with the last one."""
        missing = sum(n_missing(cell, cell.folder.done()) for cell in cells)
        self.in_all += 1
        self.in_a_row = self.in_a_row + 1 if missing == self.n_missing else 1
        self.n_missing = missing


class LocalWorkerFactory:
    """Starts worker processes on this machine."""

    def __init__(self, plan: Plan, progress: Progress) -> None:
        self.n_workers = plan.options.workers or 1
        self._plan = plan
        self._progress = progress
        self._devices = devices_of(plan)
        make_folder(plan.output_dir / LOGS)

    async def start(self, index: int) -> Worker:
        """Start a process in its own session, so that only this process gets Ctrl-C."""
        name, devices = str(index + 1), self._devices[index]
        log = self._plan.output_dir / LOGS / f"worker-{name}.log"
        with log.open("ab") as errors:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                *("-m", "medeval.evaluation.workers.process"),
                stdin=PIPE,
                stdout=PIPE,
                stderr=errors,
                limit=MAX_MESSAGE_BYTES,
                start_new_session=True,
                env=worker_environment(devices, self.n_workers, self._plan.backend),
            )
        worker = LocalWorker(name, process, log, self._progress)
        worker.send({"options": options_of_worker(self._plan, self.n_workers), "writer": name})
        return worker


def options_of_worker(plan: Plan, n_workers: int) -> dict[str, Any]:
    """The plan's options for each of `n_workers`: the same folder, a share of the judge calls."""
    options = plan.options
    calls = options.judge_max_calls
    own: dict[str, Any] = {
        "output_dir": str(plan.output_dir.resolve()),
        "fresh": False,
        "time_limit": None,
        "workers": None,
        "cluster": None,
        "gpus_per_worker": None,
        "judge_concurrency": max(1, options.judge_concurrency // n_workers),
        "judge_max_calls": None if calls is None else max(1, calls // n_workers),
    }
    return PlanFile.model_validate({**options.model_dump(), **own}).model_dump(mode="json")


class LocalWorker:
    """One worker process on this machine."""

    def __init__(self, name: str, process: Process, log: Path, progress: Progress) -> None:
        self._name = name
        self._process = process
        self._log = log
        self._progress = progress

    def send(self, message: WorkerMessage) -> None:
        """Send a message to the process, unless it has ended."""
        assert self._process.stdin is not None
        if not self._process.stdin.is_closing():
            self._process.stdin.write(json.dumps(message).encode() + b"\n")

    async def evaluate(self, group: Group) -> None:
        """Bring a checkpoint up to date in the process, and pass on its reports."""
        checkpoint, _ = group
        self.send({"evaluate": checkpoint.id})
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            message = json.loads(line)
            if "ended" in message:
                if message["interrupted"]:
                    raise WorkerLostError(f"worker {self._name} was asked to end")
                return
            if "stopped" in message:
                for cell in group[1]:
                    cell.stopped = message["stopped"].get(cell.name, cell.stopped)
            else:
                pass_on(message, self._progress)
        raise WorkerLostError(await self._loss_message(checkpoint))

    async def _loss_message(self, checkpoint: Checkpoint) -> str:
        code = await self._process.wait()
        lines = self._log.read_text(errors="replace").split("\n")
        last_line = next((line.strip() for line in reversed(lines) if line.strip()), "nothing")
        cause = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return (
            f"worker {self._name} ended with {cause} at {checkpoint.id} ({self._log}: {last_line})"
        )

    def end(self, reason: Interruption) -> None:
        """Ask the process to finish the samples in flight."""
        self.send({"end": reason})

    async def close(self) -> None:
        """Wait until the process ends, and kill it after `CLOSE_TIMEOUT_S` seconds."""
        self.send({"done": True})
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await self._process.wait()
        except TimeoutError:
            self.kill()

    def kill(self) -> None:
        """End the process and every process that it started."""
        if self._process.returncode is None:
            try:
                os.killpg(self._process.pid, signal.SIGKILL)
            except ProcessLookupError:
                return
