"""Checkpoints dealt out to worker processes on this machine, each with GPUs of its own.

A worker is a `python -m medeval.evaluation.workers.process` that appends to the one run folder
under a name of its own. It is told what to do on its stdin, one JSON line each, and tells what
happens on its stdout. What a worker leaves undone when it dies, another does.
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

from medeval.errors import ModelError, UsageError
from medeval.evaluation.cell import Cell, n_missing
from medeval.evaluation.checkpoint import Group
from medeval.evaluation.interrupt import Interrupt, Interruption
from medeval.evaluation.plan import Plan, PlanFile
from medeval.evaluation.workers.devices import gpu_groups, worker_environment
from medeval.evaluation.workers.messages import Conversations, Overview
from medeval.models.checkpoints import Checkpoint
from medeval.store.files import make_folder

LOGS = "logs"
# A checkpoint at which so many workers died, with nothing made in between or in all, is given up:
# it would take the rest with it.
MAX_LOST_IN_A_ROW = 2
MAX_LOST = 10
LONGEST_MESSAGE = 1 << 24
# How long a worker that has nothing more to do may take to end its engine.
CLOSING_S = 60.0


class WorkerLostError(ModelError):
    """A worker ended, or was asked to end, before its checkpoint was done."""


class Worker(Protocol):
    """A process with an engine, here or elsewhere, that brings checkpoints up to date."""

    async def evaluate(self, group: Group) -> None:
        """Bring a checkpoint up to date; raises WorkerLostError where it was not finished."""
        ...

    def end(self, reason: Interruption) -> None:
        """Ask to finish what is in flight and begin nothing more."""
        ...

    async def close(self) -> None:
        """Have it end, now that there is nothing more to do."""
        ...

    def kill(self) -> None:
        """End it at once."""
        ...


class Employer(Protocol):
    """Whoever starts workers; `places` is how many there may be at once."""

    places: int

    async def start(self, place: int) -> Worker:
        """A worker for a place, counted from 0; raises WorkerLostError where none can be had."""
        ...


async def deal_out(
    plan: Plan, groups: Sequence[Group], progress: Overview, interrupt: Interrupt
) -> None:
    """Bring checkpoints up to date in the plan's workers, until something interrupts."""
    await employ(LocalWorkers(plan, progress), groups, plan, progress, interrupt)


async def employ(
    employer: Employer,
    groups: Sequence[Group],
    plan: Plan,
    progress: Overview,
    interrupt: Interrupt,
) -> None:
    """Bring checkpoints up to date in an employer's workers, until something interrupts."""
    table = _Table(groups)
    crew = _Crew(employer, table, progress)
    n_places = min(employer.places, len(groups))
    progress.at_once(n_places)
    interrupt.pass_on = crew.end
    try:
        with interrupt.covering(plan.options.time_limit):
            async with asyncio.TaskGroup() as tasks:
                for place in range(n_places):
                    tasks.create_task(crew.fill(place))
    except asyncio.CancelledError:
        if interrupt.reason is None:
            raise
    finally:
        await crew.kill()


class _Table:
    """Where checkpoints lie until a worker takes one, the largest first; lost ones come back."""

    def __init__(self, groups: Sequence[Group]) -> None:
        by_size = sorted(groups, key=lambda group: -sum(map(n_missing, group[1])))
        self._waiting = deque(by_size)
        self._n_taken = 0
        self._changed = asyncio.Condition()
        self.is_over = False

    async def take(self) -> Group | None:
        """The next checkpoint; None once none can come any more."""
        async with self._changed:
            await self._changed.wait_for(lambda: self.is_over or self._waiting or not self._n_taken)
            if self.is_over or not self._waiting:
                return None
            self._n_taken += 1
            return self._waiting.popleft()

    async def put_down(self, group: Group, *, is_done: bool) -> None:
        """Say that a checkpoint that was taken is done, or leave it to another worker."""
        async with self._changed:
            self._n_taken -= 1
            if not is_done:
                self._waiting.appendleft(group)
            self._changed.notify_all()

    async def clear(self) -> None:
        """Let everybody who waits go."""
        self.is_over = True
        async with self._changed:
            self._changed.notify_all()


@dataclass(slots=True)
class _Crew:
    employer: Employer
    table: _Table
    progress: Overview
    at_work: dict[int, Worker] = field(default_factory=dict)
    lost: dict[int, "_Losses"] = field(default_factory=dict)
    ending: set[asyncio.Task[None]] = field(default_factory=set)

    def end(self, reason: Interruption) -> None:
        for worker in self.at_work.values():
            worker.end(reason)
        self.ending.add(asyncio.ensure_future(self.table.clear()))

    async def kill(self) -> None:
        while self.at_work:
            _, worker = self.at_work.popitem()
            worker.kill()
            await worker.close()

    async def fill(self, place: int) -> None:
        """Keep a worker in a place as long as there are checkpoints, a new one for a lost one."""
        while (group := await self.table.take()) is not None:
            try:
                if place not in self.at_work:
                    self.at_work[place] = await self.employer.start(place)
                await self.at_work[place].evaluate(group)
            except WorkerLostError as error:
                if place in self.at_work:
                    await self.at_work.pop(place).close()
                await self.table.put_down(group, is_done=self._is_given_up(group, str(error)))
            else:
                await self.table.put_down(group, is_done=True)
        if place in self.at_work:
            await self.at_work[place].close()
            del self.at_work[place]

    def _is_given_up(self, group: Group, reason: str) -> bool:
        checkpoint, cells = group
        if self.table.is_over:
            return True
        # by identity: a checkpoint's parts are lost each for itself
        losses = self.lost.setdefault(id(cells), _Losses())
        losses.add(cells)
        if losses.in_a_row < MAX_LOST_IN_A_ROW and losses.in_all < MAX_LOST:
            self.progress.tell(f"{checkpoint.id}: {reason}; another worker takes over")
            return False
        for cell in cells:
            cell.stop(f"{losses.in_all} workers were lost at it: {reason}", self.progress)
        return True


@dataclass(slots=True)
class _Losses:
    """The workers that a checkpoint, or a part of one, has cost; `left` is what they left of it."""

    in_all: int = 0
    in_a_row: int = 0
    left: int | None = None

    def add(self, cells: Sequence[Cell]) -> None:
        """Count one more, in a row with the one before where nothing was made since."""
        left = sum(n_missing(cell, cell.folder.done()) for cell in cells)
        self.in_all += 1
        self.in_a_row = self.in_a_row + 1 if left == self.left else 1
        self.left = left


class LocalWorkers:
    """Processes on this machine."""

    def __init__(self, plan: Plan, progress: Overview) -> None:
        self.places = plan.options.workers or 1
        self._plan = plan
        self._progress = progress
        self._devices = devices_of(plan)
        make_folder(plan.output_dir / LOGS)

    async def start(self, place: int) -> Worker:
        """A process of its own session, so that Ctrl-C reaches it through us alone."""
        name, devices = str(place + 1), self._devices[place]
        log = self._plan.output_dir / LOGS / f"worker-{name}.log"
        with log.open("ab") as errors:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                *("-m", "medeval.evaluation.workers.process"),
                stdin=PIPE,
                stdout=PIPE,
                stderr=errors,
                limit=LONGEST_MESSAGE,
                start_new_session=True,
                env=worker_environment(devices, self.places, self._plan.backend),
            )
        worker = LocalWorker(name, process, log, self._progress)
        worker.say({"options": options_of_worker(self._plan, self.places), "writer": name})
        return worker


def devices_of(plan: Plan) -> list[str | None]:
    """What CUDA_VISIBLE_DEVICES is in each worker; none where there are no workers.

    Raises UsageError where there are fewer GPUs than asked for. A server has GPUs of its own.
    """
    n_workers, each = plan.options.workers, plan.options.gpus_per_worker
    if plan.options.cluster is not None:
        return []
    if n_workers is None:
        if each is not None:
            raise UsageError(f"--gpus-per-worker {each}, but no workers", hint="--workers N")
        return []
    if plan.options.judge_backend == "vllm-server":
        raise UsageError(
            "each worker would start a server of its own for the judges",
            hint="--defer-grading, then medeval grade RUN --backend vllm-server",
        )
    if plan.backend == "openai" and each is None:
        return [None] * n_workers
    return gpu_groups(n_workers, each)


def options_of_worker(plan: Plan, n_workers: int) -> dict[str, Any]:
    """The plan as a worker resolves it again: in the same folder, with its share of the judge."""
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
    """One process, as its employer sees it."""

    def __init__(self, name: str, process: Process, log: Path, progress: Overview) -> None:
        self._name = name
        self._process = process
        self._log = log
        self._progress = progress
        self._conversations = Conversations(progress)

    def say(self, message: dict[str, Any]) -> None:
        """Tell the process something; one that has ended hears nothing."""
        assert self._process.stdin is not None
        if not self._process.stdin.is_closing():
            self._process.stdin.write(json.dumps(message).encode() + b"\n")

    async def evaluate(self, group: Group) -> None:
        """Have a checkpoint brought up to date, passing on what the process tells."""
        checkpoint, _ = group
        self.say({"evaluate": checkpoint.id})
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
                self._conversations.pass_on(message)
        raise WorkerLostError(await self._last_words(checkpoint))

    async def _last_words(self, checkpoint: Checkpoint) -> str:
        code = await self._process.wait()
        lines = self._log.read_text(errors="replace").split("\n")
        said = next((line.strip() for line in reversed(lines) if line.strip()), "nothing")
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return f"worker {self._name} ended with {how} at {checkpoint.id} ({self._log}: {said})"

    def end(self, reason: Interruption) -> None:
        """Have the process finish what is in flight."""
        self.say({"end": reason})

    async def close(self) -> None:
        """Wait for the process to end by itself, and no longer than that may take."""
        self._conversations.lose()
        self.say({"done": True})
        try:
            async with asyncio.timeout(CLOSING_S):
                await self._process.wait()
        except TimeoutError:
            self.kill()

    def kill(self) -> None:
        """End the process and whatever it started."""
        if self._process.returncode is None:
            try:
                os.killpg(self._process.pid, signal.SIGKILL)
            except ProcessLookupError:
                return
