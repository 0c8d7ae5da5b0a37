"""Carries out a plan: writes the run folder, evaluates every checkpoint, reports the results."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Coroutine, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Final

from medeval.analysis.results import write_results
from medeval.analysis.summary import CellSummary
from medeval.data.dataset import BenchmarkSamples
from medeval.errors import MedevalError
from medeval.evaluation.cell import Cell, is_complete, n_missing, planned_keys, refusal_of
from medeval.evaluation.checkpoint import Evaluation, Group, OpenModel, cells_of
from medeval.evaluation.cost import EarlierCosts, Estimate
from medeval.evaluation.interrupt import Interrupt, Interruption
from medeval.evaluation.misfits import find_misfits, refuse_misfits
from medeval.evaluation.plan import Plan
from medeval.evaluation.plan_file import PlanFile
from medeval.evaluation.progress import OpenProgress
from medeval.evaluation.run_record import record_run
from medeval.evaluation.workers.devices import devices_of
from medeval.evaluation.workers.pool import run_in_workers
from medeval.evaluation.workers.ray import run_on_ray
from medeval.images.cache import FOLDER, open_cache
from medeval.scoring.grade import judge_identity
from medeval.store.run_folder import CellKey, RunFolder
from medeval.types.sample import SampleRecord
from medeval.types.trajectory import Usage

# With one checkpoint, images are cached if more than this share of them is a repetition.
MIN_REPEATED_SHARE: Final = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class RunReport:
    """How a run ended. `stopped` maps a cell to the reason why it could not continue.

    `unscored` counts samples times repeats that the plan asks for and that have no verdict by
    the primary judge, or no trajectory if grading was deferred.
    """

    folder: RunFolder
    summaries: Sequence[CellSummary]
    unscored: int
    stopped: Mapping[str, str]
    interruption: Interruption | None
    options: PlanFile

    @property
    def closing_words(self) -> str:
        """The lines below the table: why cells stopped, what is missing, the run folder."""
        reasons = {name: reason.splitlines()[0] for name, reason in self.stopped.items()}
        lines = [f"stopped: {name}: {reason.rstrip(':')}" for name, reason in reasons.items()]
        command = "the same command" + (" without --fresh" if self.options.fresh else "")
        if self.interruption is not None:
            lines.append(f"ended early ({self.interruption}); {command} resumes")
        elif self.unscored:
            lines.append(
                f"{self.unscored} unscored: failures.jsonl in each cell's folder says why; "
                f"{command} tries them again"
            )
        if self.options.defer_grading:
            lines.append(f"grading was deferred: medeval grade {self.folder.path}")
        return "\n".join([*lines, *self._cost(), f"run folder: {self.folder.path}"])

    def _cost(self) -> Iterator[str]:
        """One line with the cost of all cells together, if the engine counted tokens.

        It has no engine-seconds if some cells were made by an older version, which recorded none.
        """
        costs = [summary.cost for summary in self.summaries]
        usage = sum((cost.usage for cost in costs), Usage())
        if usage.prompt_tokens is not None and usage.completion_tokens is not None:
            parts = [f"{usage.prompt_tokens:,} tokens read", f"{usage.completion_tokens:,} written"]
            seconds = [cost.engine_s for cost in costs if cost.engine_s is not None]
            if len(seconds) == len(costs):
                parts.append(f"{sum(seconds):,.1f} engine-seconds")
            yield f"cost: {', '.join(parts)}; by cell in tables/summary.csv"

    @property
    def exit_code(self) -> int:
        """0 complete, 1 a cell stopped or too many unscored, 3 and 130 interrupted."""
        if self.interruption is not None:
            return 130 if self.interruption == "SIGINT" else 3
        return 1 if self.stopped or self.unscored > self.options.max_unscored else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class CellPreview:
    """A cell of a plan: how many trajectories are `wanted`, and how many of them are `done`.

    `refusal` is why the plan cannot continue the cell in the run folder, None if it can.
    `misfit` is why the checkpoint cannot run it, None if it can. `estimate` is the cost of the
    missing trajectories.
    """

    key: CellKey
    wanted: int
    done: int
    refusal: str | None
    misfit: MedevalError | None
    estimate: Estimate


def preview(plan: Plan) -> list[CellPreview]:
    """The state of each cell of a plan; starts no engine and writes nothing."""
    folder = RunFolder(plan.output_dir)
    samples = {planned.name: planned.samples(plan.options) for planned in plan.benchmarks}
    cells = [cell for group in cells_of(folder, plan, samples).values() for cell in group]
    earlier = EarlierCosts.near(plan.output_dir)
    misfits = find_misfits(plan, cells)
    return [
        CellPreview(
            key=cell.folder.key,
            wanted=cell.repeats * len(cell.samples.ids),
            done=cell.repeats * len(cell.samples.ids) - n_missing(cell),
            refusal=refusal_of(plan, cell),
            misfit=misfits.get(cell.folder.key),
            estimate=earlier.estimate(cell.planned.name, cell.protocol.value.name, n_missing(cell)),
        )
        for cell in cells
    ]


def carry_out(
    plan: Plan,
    open_model: OpenModel,
    open_progress: OpenProgress,
    interrupt: Interrupt | None = None,
) -> RunReport:
    """Run, resume or extend a plan in its output folder.

    `open_progress` is called once the number of missing trajectories is known. `interrupt` is one
    that several plans share. Raises UsageError, DataError or RecordError, before any engine
    starts, if the plan cannot be carried out in that folder; later failures are in the report.
    """
    interrupt = interrupt or Interrupt()
    if plan.options.workers is not None or plan.options.gpus_per_worker is not None:
        devices_of(plan)
    samples = {planned.name: planned.samples(plan.options) for planned in plan.benchmarks}
    folder = RunFolder(plan.output_dir)
    with folder.lock():
        by_checkpoint = cells_of(folder, plan, samples)
        cells = [cell for group in by_checkpoint.values() for cell in group]
        refuse_misfits(find_misfits(plan, cells))
        shares_images = _write_samples(folder, samples)
        record_run(folder, plan, samples)
        if plan.options.fresh:
            for cell in cells:
                cell.folder.clear()
        progress = open_progress(sum(map(n_missing, cells)))
        interrupt.tell = progress.tell
        n_unfinished = sum(not all(map(is_complete, group)) for group in by_checkpoint.values())
        keeps_images = n_unfinished > 1 or (n_unfinished == 1 and shares_images)
        with (
            open_cache(
                folder.path,
                is_resumable=lambda: interrupt.reason is not None and _is_any_missing(cells),
            )
            if keeps_images or (folder.path / FOLDER).is_dir()
            else nullcontext()
        ) as image_cache:
            evaluation = Evaluation(plan, folder, progress, interrupt, image_cache=image_cache)
            _run_in_event_loop(_evaluate(evaluation, list(by_checkpoint.items()), open_model))
        return RunReport(
            folder=folder,
            summaries=write_results(folder, [cell.folder.key for cell in cells]),
            unscored=sum(_n_unscored(cell, plan) for cell in cells),
            stopped={cell.name: cell.stopped for cell in cells if cell.stopped},
            interruption=interrupt.reason,
            options=plan.options,
        )


def _write_samples(folder: RunFolder, samples: Mapping[str, BenchmarkSamples]) -> bool:
    """Record all samples; returns whether enough of their images belong to another sample too."""
    images: Counter[str] = Counter()
    for name, benchmark in samples.items():
        folder.write_samples(name, _count_images(benchmark.records(), images))
    return images.total() - len(images) > MIN_REPEATED_SHARE * images.total()


def _count_images(samples: Iterable[SampleRecord], images: Counter[str]) -> Iterator[SampleRecord]:
    """Yield the samples unchanged, and count their images by SHA-256 in `images`."""
    for sample in samples:
        images.update(image.sha256 for image in sample.images if image.sha256 is not None)
        yield sample


async def _evaluate(evaluation: Evaluation, groups: Sequence[Group], open_model: OpenModel) -> None:
    """Bring all checkpoints up to date; workers, if the plan has any, do those that need an engine.

    Raises FatalModelError, before any engine starts, if the judges' model cannot be reached.
    """
    plan, local, distributed = evaluation.plan, groups, []
    if plan.options.workers is not None or plan.options.cluster is not None:
        distributed = [group for group in groups if not all(map(is_complete, group[1]))]
        local = [group for group in groups if group not in distributed]

    async def after_other_cells(some: Sequence[Group]) -> AsyncIterator[Group]:
        await evaluation.judge_cells_outside_the_plan(groups)
        for group in some:
            yield group

    await evaluation.run(
        after_other_cells(local), open_model, connects_judges=_needs_judge_model(plan, groups)
    )
    if not distributed or evaluation.interrupt.reason is not None:
        return
    if plan.options.cluster is None:
        await run_in_workers(plan, distributed, evaluation.progress, evaluation.interrupt)
        return
    await run_on_ray(
        plan, evaluation.folder, distributed, evaluation.progress, evaluation.interrupt
    )
    for cell in (cell for _, cells in distributed for cell in cells):
        cell.done = cell.folder.done()
    # a worker may have been lost between a trajectory and its verdict
    complete = [group for group in distributed if all(map(is_complete, group[1]))]
    await evaluation.run(after_other_cells(complete), open_model, connects_judges=False)


def _needs_judge_model(plan: Plan, groups: Iterable[Group]) -> bool:
    return not plan.options.defer_grading and any(
        judge.value.needs_endpoint and not is_complete(cell)
        for _, group in groups
        for cell in group
        for judge in cell.planned.judges
    )


def _run_in_event_loop(work: Coroutine[Any, Any, None]) -> None:
    """Run `work` to its end; in a thread if an event loop runs already, as in a notebook."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        asyncio.run(work)
    else:
        with ThreadPoolExecutor(1) as executor:
            executor.submit(asyncio.run, work).result()


def _is_any_missing(cells: Iterable[Cell]) -> bool:
    """Whether a trajectory is missing in the cells' folders, to which workers write as well."""
    return any(n_missing(cell, cell.folder.done()) for cell in cells)


def _n_unscored(cell: Cell, plan: Plan) -> int:
    if plan.options.defer_grading:
        scored = cell.folder.done()
    else:
        scored = cell.folder.judged_by(judge_identity(cell.planned.judges[0]))
    return sum(key not in scored for key in planned_keys(cell))
