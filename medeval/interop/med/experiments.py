"""The experiment names of a run's series, chosen so that MED's scripts find the baselines."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from medeval.interop.med.layout import BASELINES, RESULTS, benchmark_name, step_name
from medeval.interop.med.paired import PairedCell, PairedRun
from medeval.store.keys import BASELINE

logger = logging.getLogger(__name__)

DEFAULT_FAMILY: Final = next(iter(BASELINES))


@dataclass(frozen=True, slots=True, kw_only=True)
class Experiment:
    """A series as an experiment; `name` is its path below `evals`."""

    name: str
    series: str
    is_baseline: bool = False

    def folder(self, cell: PairedCell) -> str:
        """The folder of a cell's files, relative to the one that holds `evals`."""
        step = [] if self.is_baseline or cell.step is None else [step_name(cell.step)]
        return "/".join(["evals", self.name, *step, benchmark_name(cell.benchmark)])

    def results_name(self, cell: PairedCell) -> str:
        """The path of a cell's scores, as the original's script writes it into its table."""
        return cell.results_name or f"{self.folder(cell)}/{RESULTS}"

    @property
    def csv_name(self) -> str:
        """The path of the experiment's table, as the original's script chooses it."""
        return f"evals/{self.name}/{self.name.rsplit('/', 1)[-1]}_results.csv"


def experiments(run: PairedRun, *, family: str | None = None) -> list[Experiment]:
    """The run's series as experiments, baselines first.

    The original's scripts find the baseline of an experiment by the prefix of its name. So a series
    that shares the run's baseline gets the prefix `family` if its name has none, and the baseline
    is written to the folder that belongs to that prefix. A series with a step 0 of its own keeps
    it.
    """
    steps: dict[str, set[int | None]] = {}
    for cell in run.cells:
        steps.setdefault(cell.series, set()).add(cell.step)
    if BASELINE not in steps:
        return [Experiment(name=series, series=series) for series in steps]
    sharing = [series for series in steps if series != BASELINE and _shares(steps[series])]
    names = {series: _with_prefix(series, family or _family(sharing)) for series in sharing}
    prefixes = {_prefix(name) for name in names.values()} or {family or DEFAULT_FAMILY}
    places = [place for prefix, place in BASELINES.items() if prefix in prefixes]
    others = {
        series: _without_prefix(series)
        for series in steps
        if series != BASELINE and series not in names
    }
    for series, name in (names | others).items():
        if name != series:
            logger.warning("series %s is written as experiment %s", series, name)
    return [
        *(Experiment(name=place, series=BASELINE, is_baseline=True) for place in places),
        *(Experiment(name=name, series=series) for series, name in (names | others).items()),
    ]


def _shares(steps: set[int | None]) -> bool:
    return 0 not in steps and steps != {None}


def _prefix(name: str) -> str | None:
    return next((prefix for prefix in BASELINES if name.startswith(prefix)), None)


def _family(series: Sequence[str]) -> str:
    """The first prefix among the series' names, else the first in the original's table."""
    return next((prefix for name in series if (prefix := _prefix(name))), DEFAULT_FAMILY)


def _with_prefix(series: str, family: str) -> str:
    return series if _prefix(series) else f"{family}_{series}"


def _without_prefix(series: str) -> str:
    """A name without a prefix, for a series that has a step 0 of its own or no steps."""
    return f"series_{series}" if _prefix(series) else series


def start_of(run: PairedRun, experiment: Experiment) -> Mapping[str, PairedCell]:
    """By benchmark, the cell whose tool-free answers split the samples in the original's table.

    It is the shared baseline's, else that of the experiment's earliest step.
    """
    own = run.of(experiment.series)
    has_baseline = _shares({cell.step for cell in own}) and bool(run.of(BASELINE))
    cells = run.of(BASELINE) if has_baseline and not experiment.is_baseline else own
    return dict(_earliest(cells))


def _earliest(cells: Sequence[PairedCell]) -> Iterator[tuple[str, PairedCell]]:
    for cell in sorted(cells, key=lambda cell: -(cell.step or 0)):
        yield cell.benchmark, cell
