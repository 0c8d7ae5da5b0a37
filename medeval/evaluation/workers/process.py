"""A worker process, `python -m medeval.evaluation.workers.process`, started by the pool.

Its stdin says, one JSON line each: the plan's options and this writer's name; then checkpoints to
evaluate, `end` to finish what is in flight, `done` when there is nothing more. Where stdin ends,
whoever started it is gone, and it drops what is in flight.
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
from medeval.evaluation.plan import PlanFile, resolve
from medeval.evaluation.workers.messages import Message, Reporting
from medeval.images.cache import PreparedImages
from medeval.models.checkpoints import Checkpoint
from medeval.store.run_folder import RunFolder


class Orders:
    """What this process was told to evaluate, as it is told."""

    def __init__(
        self,
        groups: Mapping[Checkpoint, Sequence[Cell]],
        interrupt: Interrupt,
        reporting: Reporting,
    ) -> None:
        self._groups = {checkpoint.id: (checkpoint, cells) for checkpoint, cells in groups.items()}
        self._interrupt = interrupt
        self._reporting = reporting
        self._names: asyncio.Queue[str | None] = asyncio.Queue()

    async def hear(self, reader: asyncio.StreamReader) -> None:
        """Act on messages to the end of stdin."""
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
        """Finish what is in flight; who asks again means the same, for a scheduler asks us all."""
        if self._interrupt.reason is None:
            self._interrupt.ask(reason)
            self._names.put_nowait(None)

    async def groups(self) -> AsyncIterator[Group]:
        """Each checkpoint with its cells; the one before is done when the next is asked for."""
        while (name := await self._names.get()) is not None:
            checkpoint, cells = self._groups[name]
            for cell in cells:
                cell.done = cell.folder.done()
            yield checkpoint, cells
            self._report(name, cells)

    def _report(self, name: str, cells: Sequence[Cell]) -> None:
        stopped = {cell.name: cell.stopped for cell in cells if cell.stopped}
        if stopped:
            self._reporting.say({"stopped": stopped})
        self._reporting.say({"ended": name, "interrupted": self._interrupt.reason is not None})


async def _work(reporting: Reporting) -> None:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=1 << 24)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    first = json.loads(await reader.readline())
    plan = resolve(PlanFile.model_validate(first["options"]))
    folder = RunFolder(plan.output_dir)
    samples = {planned.name: planned.samples(plan.options) for planned in plan.benchmarks}
    interrupt = Interrupt(_silent, listens=False)
    orders = Orders(cells_of(folder, plan, samples), interrupt, reporting)
    loop.add_signal_handler(signal.SIGTERM, orders.end_once)
    evaluation = Evaluation(
        plan,
        folder,
        reporting,
        interrupt,
        writer=first["writer"],
        prepared=PreparedImages.of_run(folder.path),
    )
    hearing = asyncio.ensure_future(orders.hear(reader))
    try:
        await evaluation.run(orders.groups(), model_opener(plan), asks_judges=False)
    finally:
        hearing.cancel()


def _silent(message: str) -> None:
    """Whoever asked has told people so already."""


def main() -> None:
    """Work; whatever an engine prints goes to the log, for stdout is ours."""
    lines = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def say(message: Message) -> None:
        lines.write(json.dumps(message) + "\n")
        lines.flush()

    asyncio.run(_work(Reporting(say)))


if __name__ == "__main__":
    main()
