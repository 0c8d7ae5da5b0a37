"""Evaluates the steps of a training run as it writes them, until the run is stopped."""

import asyncio
import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Final

from medeval.errors import UsageError
from medeval.evaluation.interrupt import Interrupt
from medeval.evaluation.misfits import MisfitError
from medeval.evaluation.plan import Plan, finished_steps
from medeval.evaluation.run import RunReport
from medeval.models.checkpoints import Checkpoint, series_of
from medeval.models.model_folder import UnfinishedError
from medeval.store.run_folder import RunFolder

# Seconds between two looks at the folders. A step whose files are the same in both is finished.
LOOK_EVERY_S: Final = 3.0
SIGNAL_LATENCY_S: Final = 0.1

# A folder's files, each with its size in bytes and its time of change in nanoseconds.
Files = frozenset[tuple[str, int, int]]


def watch(
    plan: Plan,
    evaluate: Callable[[Plan, Interrupt], RunReport],
    interrupt: Interrupt,
    tell: Callable[[str], None],
    *,
    look_every_s: float = LOOK_EVERY_S,
) -> RunReport:
    """Evaluate the baseline, and each step of the plan's folders once it is finished, in order.

    Ends when it is interrupted, or after the last of --steps. `evaluate` carries out a plan with
    the new steps alone; its engine ends before the next look. A step that cannot run is named and
    left out. Returns all its reports as one. Raises UsageError if a folder is gone, or if one of
    the first checkpoints cannot run.
    """
    watcher = _Watcher(plan, tell)
    reports: list[RunReport] = []
    baseline = plan.baseline
    with interrupt.between_tasks():
        while interrupt.reason is None:
            steps = watcher.look()
            if steps or baseline is not None:
                part = replace(plan, checkpoints=tuple(steps), baseline=baseline)
                try:
                    reports.append(evaluate(part, interrupt))
                except MisfitError as error:
                    if not reports:
                        raise
                    watcher.leave_out(error)
                baseline = None
            if watcher.is_over or interrupt.reason is not None:
                break
            interrupt.tell = lambda message: None  # nothing is in flight
            watcher.tell_waiting()
            asyncio.run(_pause(interrupt, look_every_s, plan.options.time_limit))
    return _joined(plan, reports, interrupt)


class _Watcher:
    """Looks for new steps. It returns each once, and says once why another is not taken yet."""

    def __init__(self, plan: Plan, tell: Callable[[str], None]) -> None:
        self._plan = plan
        self._tell = tell
        self._known: set[str] = set()
        self._last: set[str] = set()
        self._files: dict[str, Files | None] = {}
        self._told: set[tuple[str, bool]] = set()
        self._is_waiting = False

    @property
    def is_over(self) -> bool:
        """Whether all of --steps were returned; False without --steps."""
        options = self._plan.options
        return options.steps is not None and all(
            f"{series_of(argument)}/{step}" in self._known
            for argument in options.checkpoints
            for step in options.steps
        )

    def look(self) -> list[Checkpoint]:
        """The steps, by number, that became finished since the last look."""
        found, left_out = finished_steps(self._plan, known=self._known)
        now = {step.id: _files(Path(step.location)) for step in found}
        new = [step for step in found if now[step.id] and now[step.id] == self._files.get(step.id)]
        self._files = now
        self._last = {step.id for step in new}
        self._known |= self._last
        for step, reason in left_out.items():
            self._tell_once(step, reason)
        if new:
            self._is_waiting = False
        return new

    def leave_out(self, misfit: MisfitError) -> None:
        """Say why steps cannot run. The next look returns the others of the same look again."""
        self._tell(str(misfit))
        self._known -= self._last - misfit.checkpoints

    def tell_waiting(self) -> None:
        """Say, once after each step, that the next one is awaited."""
        if not self._is_waiting:
            folders = ", ".join(self._plan.options.checkpoints)
            self._tell(f"waiting for new steps in {folders}; Ctrl-C ends the run")
            self._is_waiting = True

    def _tell_once(self, step: Checkpoint, reason: UsageError) -> None:
        is_written = isinstance(reason, UnfinishedError)
        if (step.id, is_written) not in self._told:
            self._told.add((step.id, is_written))
            self._tell(f"{step.id} waits: {reason.message if is_written else reason}")


def _files(folder: Path) -> Files | None:
    """The files of a model's folder; None while they change."""
    try:
        with os.scandir(folder) as entries:
            stats = [(entry.name, entry.stat()) for entry in entries if entry.is_file()]
    except OSError:
        return None
    return frozenset((name, stat.st_size, stat.st_mtime_ns) for name, stat in stats)


async def _pause(interrupt: Interrupt, seconds: float, time_limit_s: float | None) -> None:
    """Wait, or return early if the run is interrupted."""
    end = time.monotonic() + seconds
    with suppress(asyncio.CancelledError), interrupt.covering(time_limit_s):
        while interrupt.reason is None and time.monotonic() < end:
            await asyncio.sleep(min(SIGNAL_LATENCY_S, seconds))


def _joined(plan: Plan, reports: list[RunReport], interrupt: Interrupt) -> RunReport:
    return RunReport(
        folder=RunFolder(plan.output_dir),
        summaries=[summary for report in reports for summary in report.summaries],
        unscored=sum(report.unscored for report in reports),
        stopped={name: why for report in reports for name, why in report.stopped.items()},
        interruption=interrupt.reason,
        options=plan.options,
    )
