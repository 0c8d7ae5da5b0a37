"""A worker on a machine that cannot reach the run folder: it sends each line that it writes.

It works in a temporary run folder; the process that started it copies each line into the run
folder.
"""

import asyncio
import json
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medeval.evaluation.cell import Cell
from medeval.evaluation.checkpoint import Evaluation, Group, cells_of
from medeval.evaluation.engines import model_opener
from medeval.evaluation.interrupt import Interrupt, Interruption
from medeval.evaluation.plan import resolve
from medeval.evaluation.plan_file import PlanFile
from medeval.evaluation.workers.messages import WorkerMessage, WorkerProgress
from medeval.images.cache import ImageCache
from medeval.scoring.judge_replies import FILES
from medeval.store.keys import SampleKey
from medeval.store.run_folder import RunFolder

KINDS = ("trajectories", "verdicts", "failures")


@dataclass(slots=True)
class _Tail:
    """Reads the lines added to files since the last read; `ends` has the offsets in bytes."""

    ends: dict[Path, int] = field(default_factory=dict)

    def new_lines(self, path: Path) -> list[bytes]:
        """The whole lines added to a file since the last call."""
        if not path.exists():
            return []
        with path.open("rb") as file:
            file.seek(self.ends.get(path, 0))
            lines = [line for line in file if line.endswith(b"\n")]
        self.ends[path] = self.ends.get(path, 0) + sum(map(len, lines))
        return lines

    def is_new(self, path: Path) -> bool:
        """Whether this is the first call for a file."""
        is_known = path in self.ends
        self.ends.setdefault(path, 0)
        return not is_known


class RemoteEvaluation:
    """Evaluates checkpoints of a plan, which is given as its options, and yields messages."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        self._scratch = tempfile.TemporaryDirectory(prefix="medeval-")
        given = {**options, "output_dir": self._scratch.name}
        self._plan = resolve(PlanFile.model_validate(given))
        self._folder = RunFolder(self._plan.output_dir)
        self._image_cache = ImageCache.of_run(Path(options["output_dir"]))
        samples = {
            planned.name: planned.samples(self._plan.options) for planned in self._plan.benchmarks
        }
        groups = cells_of(self._folder, self._plan, samples)
        self._groups = {checkpoint.id: (checkpoint, cells) for checkpoint, cells in groups.items()}
        self._interrupt = Interrupt(listens=False)
        self._messages: asyncio.Queue[WorkerMessage] = asyncio.Queue()
        self._tail = _Tail()

    def end(self, reason: Interruption) -> None:
        """Finish the samples in flight and start no other."""
        if self._interrupt.reason is None:
            self._interrupt.ask(reason)

    async def evaluate(
        self, name: str, done: Mapping[str, Sequence[SampleKey]]
    ) -> AsyncIterator[WorkerMessage]:
        """Bring a checkpoint's cells up to date; `done` has the finished trajectories by cell."""
        checkpoint, all_cells = self._groups[name]
        cells = [cell for cell in all_cells if cell.name in done]
        for cell in cells:
            cell.done, cell.stopped = set(done[cell.name]), None
        work = asyncio.create_task(self._work((checkpoint, cells)))
        work.add_done_callback(lambda _: self._messages.put_nowait({"over": True}))
        while "over" not in (message := await self._messages.get()):
            for line in (*self._written(cells), message):
                yield line
        work.result()
        for line in self._written(cells):
            yield line
        stopped = {cell.name: cell.stopped for cell in cells if cell.stopped}
        yield {"ended": name, "stopped": stopped, "interrupted": self._interrupt.reason is not None}

    async def _work(self, group: Group) -> None:
        async def only_group() -> AsyncIterator[Group]:
            yield group

        evaluation = Evaluation(
            self._plan,
            self._folder,
            WorkerProgress(self._messages.put_nowait),
            self._interrupt,
            judges_earlier=False,
            image_cache=self._image_cache,
        )
        await evaluation.run(only_group(), model_opener(self._plan), connects_judges=False)

    def _written(self, cells: Sequence[Cell]) -> Iterator[WorkerMessage]:
        """The records written since the last call: claims before lines, trajectories first."""
        for cell in cells:
            path = cell.folder.path
            if (path / "cell.json").exists() and self._tail.is_new(path / "cell.json"):
                record = json.loads((path / "cell.json").read_bytes())
                yield {"claim": cell.name, "fields": record["fields"], "all": record["recorded"]}
            for kind in KINDS:
                file = f"{kind}.jsonl" if kind == "failures" else f"{kind}.0.jsonl"
                for line in self._tail.new_lines(path / file):
                    yield {"cell": cell.name, "kind": kind, "line": line}
        for image in sorted((self._folder.path / "images").glob("[!.]*")):
            if self._tail.is_new(image):
                yield {"image": image.name, "data": image.read_bytes()}
        for replies in self._folder.path.glob(FILES):
            for line in self._tail.new_lines(replies):
                yield {"reply": line}
