"""A plan carried out: the run folder, every checkpoint's cells, and what they come to."""

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

from medeval.analysis.summary import CellSummary
from medeval.cell_settings import cell_fields, refusal_of
from medeval.checkpoints import Checkpoint
from medeval.engines import end_engines
from medeval.errors import ModelError, RecordError
from medeval.grading import judge_identity
from medeval.interruption import Interrupt, Interruption
from medeval.judge_client import opened
from medeval.judging import judge_cell
from medeval.models.base import Model
from medeval.plan import Plan, PlanFile, PlannedBenchmark, cell_key
from medeval.recording import record_run
from medeval.results import write_results
from medeval.samples import BenchmarkSamples
from medeval.store import CellFolder, CellKey, RunFolder
from medeval.walk import Cell, SampleKey, Walk

OpenModel = Callable[[Checkpoint], Model]


class Progress(Protocol):
    """Where a run tells how far it is."""

    def expect(self, n_trajectories: int) -> None:
        """So many trajectories are to be made, over all checkpoints."""
        ...

    def advance(self, *, scored: bool) -> None:
        """One sample is done: with a trajectory, or left unscored."""
        ...

    def tell(self, message: str) -> None:
        """Something people should read."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class RunReport:
    """How a run ended. `stopped` maps a cell to why it could not go on.

    `unscored` counts samples times repeats that the plan asks for and that have no verdict by
    the primary judge, or no trajectory where grading was deferred.
    """

    folder: RunFolder
    summaries: Sequence[CellSummary]
    unscored: int
    stopped: Mapping[str, str]
    interruption: Interruption | None
    options: PlanFile

    @property
    def closing_words(self) -> str:
        """What the table does not say: why cells stopped, what is missing, where all of it is."""
        lines = [
            f"stopped: {name}: {reason.splitlines()[0]}" for name, reason in self.stopped.items()
        ]
        again = "the same command" + (" without --fresh" if self.options.fresh else "")
        if self.interruption is not None:
            lines.append(f"ended early ({self.interruption}); {again} resumes")
        elif self.unscored:
            lines.append(
                f"{self.unscored} unscored: failures.jsonl in each cell's folder says why; "
                f"{again} tries them again"
            )
        if self.options.defer_grading:
            lines.append(f"grading was deferred: medeval grade {self.folder.path}")
        return "\n".join([*lines, f"run folder: {self.folder.path}"])

    @property
    def exit_code(self) -> int:
        """0 complete, 1 a cell stopped or too many unscored, 3 and 130 interrupted."""
        if self.interruption is not None:
            return 130 if self.interruption == "SIGINT" else 3
        return 1 if self.stopped or self.unscored > self.options.max_unscored else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class CellPreview:
    """A cell of a plan: how many trajectories it asks for, and how many are there.

    `refusal` says why what is there is not the plan's, None where it is.
    """

    key: CellKey
    wanted: int
    done: int
    refusal: str | None


def preview(plan: Plan) -> list[CellPreview]:
    """What a plan would do, without an engine and without writing anything."""
    folder = RunFolder(plan.output_dir)
    samples = {planned.name: BenchmarkSamples(planned, plan.options) for planned in plan.benchmarks}
    cells = [cell for group in _cells(folder, plan, samples).values() for cell in group]
    return [
        CellPreview(
            key=cell.folder.key,
            wanted=cell.repeats * len(cell.samples.ids),
            done=cell.repeats * len(cell.samples.ids) - _n_missing(cell),
            refusal=refusal_of(plan, cell),
        )
        for cell in cells
    ]


def carry_out(plan: Plan, open_model: OpenModel, progress: Progress) -> RunReport:
    """Run, resume or extend a plan in its output folder.

    Raises UsageError, DataError or RecordError before any engine starts where the plan cannot
    be carried out there; later failures are in the report.
    """
    samples = {planned.name: BenchmarkSamples(planned, plan.options) for planned in plan.benchmarks}
    folder = RunFolder(plan.output_dir)
    with folder.lock():
        for name, benchmark in samples.items():
            folder.write_samples(name, benchmark.records())
        record_run(folder, plan, samples)
        by_checkpoint = _cells(folder, plan, samples)
        cells = [cell for group in by_checkpoint.values() for cell in group]
        if plan.options.fresh:
            for cell in cells:
                cell.folder.clear()
        progress.expect(sum(map(_n_missing, cells)))
        work = _Work(plan, folder, progress, Interrupt(progress.tell))
        _in_own_loop(work.run(by_checkpoint, open_model))
        return RunReport(
            folder=folder,
            summaries=write_results(folder, [cell.folder.key for cell in cells]),
            unscored=sum(_n_unscored(cell, plan) for cell in cells),
            stopped={cell.name: cell.stopped for cell in cells if cell.stopped},
            interruption=work.interrupt.reason,
            options=plan.options,
        )


def _in_own_loop(work: Coroutine[Any, Any, None]) -> None:
    """Run to the end, in a thread where the caller's own event loop runs: in a notebook."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        asyncio.run(work)
    else:
        with ThreadPoolExecutor(1) as executor:
            executor.submit(asyncio.run, work).result()


def _cells(
    folder: RunFolder, plan: Plan, samples: Mapping[str, BenchmarkSamples]
) -> dict[Checkpoint, list[Cell]]:
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


def _wanted(cell: Cell) -> set[SampleKey]:
    return {(sample_id, n) for sample_id in cell.samples.ids for n in range(cell.repeats)}


def _n_missing(cell: Cell) -> int:
    return len(_wanted(cell) - cell.done)


def _n_unscored(cell: Cell, plan: Plan) -> int:
    if plan.options.defer_grading:
        return len(_wanted(cell) - cell.folder.done())
    primary = judge_identity(cell.planned.judges[0])
    judged = {(name, repeat) for name, repeat, judge in cell.folder.judged() if judge == primary}
    return len(_wanted(cell) - judged)


@dataclass(frozen=True, slots=True)
class _Work:
    """The part of a run that engines and signals have a say in."""

    plan: Plan
    folder: RunFolder
    progress: Progress
    interrupt: Interrupt

    async def run(self, cells: Mapping[Checkpoint, Sequence[Cell]], open_model: OpenModel) -> None:
        """Bring every checkpoint up to date, until something interrupts.

        Raises FatalModelError, before any engine starts, where the judges' model cannot be asked.
        """
        try:
            with self.interrupt.covering(self.plan.options.time_limit):
                async with opened(
                    self.plan.judge_client,
                    self.folder.path,
                    self.progress.tell,
                    at_once=self._will_ask_judges(cells),
                ):
                    await self._judge_cells_outside_the_plan(cells)
                    for checkpoint, group in cells.items():
                        if self.interrupt.reason is None:
                            await self._evaluate(checkpoint, group, open_model)
        except asyncio.CancelledError:
            if self.interrupt.reason is None:
                raise
        finally:
            await end_engines(open_model)

    def _will_ask_judges(self, cells: Mapping[Checkpoint, Sequence[Cell]]) -> bool:
        return not self.plan.options.defer_grading and any(
            judge.value.needs_endpoint and _n_missing(cell)
            for group in cells.values()
            for cell in group
            for judge in cell.planned.judges
        )

    async def _evaluate(
        self, checkpoint: Checkpoint, cells: Sequence[Cell], open_model: OpenModel
    ) -> None:
        """Bring a checkpoint's cells up to date, with an engine only where one is needed."""
        for cell in cells:
            refusal = refusal_of(self.plan, cell)
            if refusal is not None:
                cell.stop(refusal, self.progress)
        await self._judge_what_lacks_a_verdict(cells)
        if self.interrupt.reason is not None:
            return
        if not any(cell.stopped is None and _n_missing(cell) for cell in cells):
            return
        model = open_model(checkpoint)
        try:
            await model.start()
            for cell in cells:
                self._claim(cell, model)
            await self._walk([cell for cell in cells if cell.stopped is None], model)
        except ModelError as error:
            for cell in filter(_n_missing, cells):
                cell.stop(str(error), self.progress)
        finally:
            await model.close()
            for note in model.notes():
                self.progress.tell(f"{checkpoint.id}: {note}")

    async def _walk(self, cells: Sequence[Cell], model: Model) -> None:
        options = self.plan.options
        await Walk(
            folder=self.folder,
            cells=cells,
            model=model,
            progress=self.progress,
            interrupt=self.interrupt,
            seed=options.seed,
            concurrency=options.concurrency,
            keep_images=options.keep_images,
            defer_grading=options.defer_grading,
            judge_concurrency=options.judge_concurrency,
        ).run()

    def _claim(self, cell: Cell, model: Model) -> None:
        if cell.stopped is not None:
            return
        fields = {**cell_fields(self.plan, cell), "model": dict(model.identity())}
        recorded = {
            "backend": self.plan.backend,
            "concurrency": self.plan.options.concurrency,
            "base_url": self.plan.options.base_url,
            "repeats": self.plan.options.repeats,
            "samples": len(cell.samples.ids),
            "location": cell.checkpoint.location,
        }
        try:
            cell.folder.claim(fields, recorded)
        except RecordError as error:
            cell.stop(str(error), self.progress)

    async def _judge_cells_outside_the_plan(
        self, cells: Mapping[Checkpoint, Sequence[Cell]]
    ) -> None:
        """Bring earlier cells of the plan's benchmarks to its judges, so that one judges all."""
        planned = {benchmark.name: benchmark for benchmark in self.plan.benchmarks}
        inside = {cell.folder.key for group in cells.values() for cell in group}
        for key in self.folder.cells():
            if key.benchmark in planned and key not in inside:
                await self._judge(self.folder.cell(key), planned[key.benchmark])

    async def _judge_what_lacks_a_verdict(self, cells: Sequence[Cell]) -> None:
        for cell in cells:
            if cell.done and cell.stopped is None:
                await self._judge(cell.folder, cell.planned)

    async def _judge(self, cell: CellFolder, planned: PlannedBenchmark) -> None:
        if not self.plan.options.defer_grading:
            await judge_cell(
                cell,
                self.folder.samples(planned.name),
                planned.judges,
                is_over=lambda: self.interrupt.reason is not None,
                places=self.plan.options.judge_concurrency,
            )
