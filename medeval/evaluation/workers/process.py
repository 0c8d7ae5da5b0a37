"""A worker process, `python -m medeval.evaluation.workers.process`, started by the pool.

It reads JSON objects from stdin, one a line: first the plan's options and its name as a writer;
then checkpoints to evaluate, `end` to finish the samples in flight, `done` after the last
checkpoint. If stdin ends, the pool is gone, and the worker drops the samples in flight.
"""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from medeval.evaluation.cell import Cell
from medeval.evaluation.checkpoint import Evaluation, Group, cells_of
from medeval.evaluation.engines import model_opener
from medeval.evaluation.interrupt import Interrupt
from medeval.evaluation.plan import resolve
from medeval.evaluation.plan_file import PlanFile
from medeval.evaluation.workers.messages import WorkerMessage, WorkerProgress
from medeval.images.cache import ImageCache
from medeval.models.checkpoints import Checkpoint
from medeval.store.run_folder import RunFolder


class Inbox:
    """The messages on stdin: the checkpoints to evaluate, one after the other."""

    def __init__(
        self,
        groups: Mapping[Checkpoint, Sequence[Cell]],
        interrupt: Interrupt,
        progress: WorkerProgress,
    ) -> None:
        self._groups = {checkpoint.id: (checkpoint, cells) for checkpoint, cells in groups.items()}
        self._interrupt = interrupt
        self._progress = progress
        self._names: asyncio.Queue[str | None] = asyncio.Queue()

    async def read(self, reader: asyncio.StreamReader) -> None:
        """Handle each message, until the end of stdin."""
        while line := await reader.readline():
            message = json.loads(line)
            if "evaluate" in message:
                self._names.put_nowait(message["evaluate"])
            elif "end" in message:
                self.end_once(message["end"])
            else:
                self._names.put_nowait(None)
                return
        self.end_once()
        self._interrupt.ask("SIGTERM")

    def end_once(self, reason: Any = "SIGTERM") -> None:
        """Finish the samples in flight; only once, as schedulers signal every process."""
        if self._interrupt.reason is None:
            self._interrupt.ask(reason)
            self._names.put_nowait(None)

    async def groups(self) -> AsyncIterator[Group]:
        """Each checkpoint with its cells; it is reported as done when the next is requested."""
        while (name := await self._names.get()) is not None:
            checkpoint, cells = self._groups[name]
            for cell in cells:
                cell.done = cell.folder.done()
            yield checkpoint, cells
            self._report(name, cells)

    def _report(self, name: str, cells: Sequence[Cell]) -> None:
        stopped = {cell.name: cell.stopped for cell in cells if cell.stopped}
        if stopped:
            self._progress.send({"stopped": stopped})
        self._progress.send({"ended": name, "interrupted": self._interrupt.reason is not None})


async def _work(progress: WorkerProgress) -> None:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=1 << 24)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    first = json.loads(await reader.readline())
    plan = resolve(PlanFile.model_validate(first["options"]))
    folder = RunFolder(plan.output_dir)
    samples = {planned.name: planned.samples(plan.options) for planned in plan.benchmarks}
    interrupt = Interrupt(listens=False)
    inbox = Inbox(cells_of(folder, plan, samples), interrupt, progress)
    loop.add_signal_handler(signal.SIGTERM, inbox.end_once)
    evaluation = Evaluation(
        plan,
        folder,
        progress,
        interrupt,
        writer=first["writer"],
        image_cache=ImageCache.of_run(folder.path),
    )
    reading = asyncio.ensure_future(inbox.read(reader))
    try:
        await evaluation.run(inbox.groups(), model_opener(plan), connects_judges=False)
    finally:
        reading.cancel()


def main() -> None:
    """Run the worker; stdout carries messages, so the output of an engine goes to the log."""
    lines = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def send(message: WorkerMessage) -> None:
        lines.write(json.dumps(message) + "\n")
        lines.flush()

    asyncio.run(_work(WorkerProgress(send)))


if __name__ == "__main__":
    main()
