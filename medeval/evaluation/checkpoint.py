"""Brings checkpoints up to date: makes missing trajectories, on an engine, and judges them."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import filterfalse

from medeval.data.dataset import BenchmarkSamples
from medeval.errors import ModelError, RecordError
from medeval.evaluation.cell import Cell, cell_fields, is_complete, refusal_of
from medeval.evaluation.engines import concurrency_of, end_engines
from medeval.evaluation.interrupt import Interrupt
from medeval.evaluation.plan import Plan, PlannedBenchmark, cell_key
from medeval.evaluation.progress import Progress
from medeval.evaluation.sample_loop import SampleLoop
from medeval.images.cache import ImageCache
from medeval.models.base import Model
from medeval.models.checkpoints import Checkpoint
from medeval.models.hardware import usable_cpus
from medeval.scoring.judge_model import open_judge_model
from medeval.scoring.judging import judge_cell
from medeval.store.run_folder import CellFolder, RunFolder

OpenModel = Callable[[Checkpoint], Model]
Group = tuple[Checkpoint, Sequence[Cell]]


def cells_of(
    folder: RunFolder, plan: Plan, samples: Mapping[str, BenchmarkSamples]
) -> dict[Checkpoint, list[Cell]]:
    """The cells of a plan, by checkpoint."""
    cells: dict[Checkpoint, list[Cell]] = {}
    for checkpoint, planned, protocol in plan.cells():
        cell_folder = folder.cell(cell_key(checkpoint, planned.name, protocol.value.name))
        cells.setdefault(checkpoint, []).append(
            Cell(
                checkpoint=checkpoint,
                planned=planned,
                samples=samples[planned.name],
                protocol=protocol,
                folder=cell_folder,
                repeats=plan.options.repeats,
                done=set() if plan.options.fresh else cell_folder.done(),
            )
        )
    return cells


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Brings checkpoints of a plan up to date, in one process, one after the other.

    This process appends to cells under the name `writer`. It first judges earlier trajectories
    that have no verdict, unless `judges_earlier` is false.
    """

    plan: Plan
    folder: RunFolder
    progress: Progress
    interrupt: Interrupt
    writer: str = "0"
    judges_earlier: bool = True
    image_cache: ImageCache | None = None

    async def run(
        self, groups: AsyncIterator[Group], open_model: OpenModel, *, connects_judges: bool
    ) -> None:
        """Bring each of the `groups` up to date, until the run is interrupted.

        With `connects_judges`, first connect to the judges' model; raises FatalModelError, before
        any engine starts, if that fails.
        """
        # these threads read, draw and resize images; more threads than processors are slower
        threads = ThreadPoolExecutor(max(2, usable_cpus()), thread_name_prefix="medeval")
        asyncio.get_running_loop().set_default_executor(threads)
        try:
            with self.interrupt.covering(self.plan.options.time_limit):
                client, tell = self.plan.judge_client, self.progress.tell
                async with (
                    nullcontext()
                    if client is None
                    else open_judge_model(
                        client, self.folder.path, tell, at_once=connects_judges, writer=self.writer
                    )
                ):
                    async for checkpoint, group in groups:
                        if self.interrupt.reason is None:
                            await self._evaluate(checkpoint, group, open_model)
        except asyncio.CancelledError:
            if self.interrupt.reason is None:
                raise
        finally:
            await end_engines(open_model)

    async def _evaluate(
        self, checkpoint: Checkpoint, cells: Sequence[Cell], open_model: OpenModel
    ) -> None:
        """Bring a checkpoint's cells up to date; the engine starts only if a cell is incomplete."""
        for cell in cells:
            refusal = refusal_of(self.plan, cell)
            if refusal is not None:
                cell.stop(refusal, self.progress)
        if self.judges_earlier:
            await self._judge_earlier(cells)
        if self.interrupt.reason is not None:
            return
        if all(cell.stopped is not None or is_complete(cell) for cell in cells):
            return
        model = open_model(checkpoint)
        try:
            await model.start()
            for cell in cells:
                self._claim(cell, model)
            await self._make_trajectories([cell for cell in cells if cell.stopped is None], model)
        except ModelError as error:
            for cell in filterfalse(is_complete, cells):
                cell.stop(str(error), self.progress)
        finally:
            await model.close()
            for note in model.notes():
                self.progress.tell(f"{checkpoint.id}: {note}")

    async def _make_trajectories(self, cells: Sequence[Cell], model: Model) -> None:
        options = self.plan.options
        await SampleLoop(
            folder=self.folder,
            cells=cells,
            model=model,
            progress=self.progress,
            interrupt=self.interrupt,
            seed=options.seed,
            concurrency=concurrency_of(self.plan),
            keep_images=options.keep_images,
            defer_grading=options.defer_grading,
            judge_concurrency=options.judge_concurrency,
            writer_name=self.writer,
            image_cache=self.image_cache,
        ).run()

    def _claim(self, cell: Cell, model: Model) -> None:
        if cell.stopped is not None:
            return
        fields = {**cell_fields(self.plan, cell), "model": dict(model.identity())}
        recorded: dict[str, object] = {
            "backend": self.plan.backend,
            "concurrency": concurrency_of(self.plan),
            "base_url": self.plan.options.base_url,
            "repeats": self.plan.options.repeats,
            "samples": len(cell.samples.ids),
            "location": cell.checkpoint.location,
        }
        if cell.checkpoint.base is not None:
            recorded["base"] = cell.checkpoint.base
        if cell.checkpoint.hub_commits:
            recorded["hub_commits"] = list(cell.checkpoint.hub_commits)
        if self.plan.options.shard is not None:
            recorded["shard"] = self.plan.options.shard
        try:
            cell.folder.claim(fields, recorded)
        except RecordError as error:
            cell.stop(str(error), self.progress)

    async def judge_cells_outside_the_plan(self, groups: Iterable[Group]) -> None:
        """Judge the other cells of the plan's benchmarks in the run folder, too."""
        benchmarks = {benchmark.name: benchmark for benchmark in self.plan.benchmarks}
        planned_cells = {cell.folder.key for _, group in groups for cell in group}
        for key in self.folder.cells():
            if key.benchmark in benchmarks and key not in planned_cells:
                await self._judge(self.folder.cell(key), benchmarks[key.benchmark])

    async def _judge_earlier(self, cells: Sequence[Cell]) -> None:
        for cell in cells:
            if cell.done:
                await self._judge(cell.folder, cell.planned)

    async def _judge(self, cell: CellFolder, planned: PlannedBenchmark) -> None:
        if not self.plan.options.defer_grading:
            await judge_cell(
                cell,
                self.folder.samples(planned.name),
                planned.judges,
                is_over=lambda: self.interrupt.reason is not None,
                concurrency=self.plan.options.judge_concurrency,
                writer_name=self.writer,
            )
