"""Measure, Explain, Diagnose: the analysis of a run folder or of a frame of outcomes."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medeval.analysis.med.analysis_set import AnalysisSet, analysis_set
from medeval.analysis.med.changes import ChangeMaker
from medeval.analysis.med.curves import MEAN, populations
from medeval.analysis.med.outcomes import CalledBy, SeriesOutcomes, rows_marks, step_name
from medeval.analysis.med.read import read_frame, read_run
from medeval.analysis.med.tabulation import Tabulation
from medeval.analysis.statistics.bootstrap import Bootstrap
from medeval.analysis.statistics.rate import TableRow
from medeval.errors import UsageError
from medeval.types.run import Pairing

if TYPE_CHECKING:
    import pandas as pd

    from medeval.analysis.frames import Run
    from medeval.store.run_folder import RunFolder

RESAMPLES = 10_000

# Logs without sample ids are imported under the numbers of their lines.
LINE_NUMBER = re.compile(r"line-\d+")


@dataclass(frozen=True, kw_only=True, eq=False)
class Analysis:
    """The tables of an analysis as pandas frames, each computed when it is first read.

    Every frame has the columns `series`, `pair` and `benchmark` (a name, or `mean of benchmarks`
    where there are several), `group` where `by_group` was given, `pairing` (`id`, or
    `position` for imported logs without ids), `missing` (`none`, or `allowed` where outcomes
    are missing and that was allowed) and `rows` (empty, or what differs from the published number
    of rows: then a number is not the benchmark's). A number has its 95% interval in `<name>_low`
    and `<name>_high` and is missing where it is undefined; `note` says why a whole row is
    undefined.
    """

    tabulations: tuple[Tabulation, ...]
    sets: tuple[AnalysisSet, ...] = field(repr=False)
    called_by: CalledBy = "called"
    folder: "RunFolder | None" = field(default=None, repr=False)

    @property
    def has_drift(self) -> bool:
        """Whether any series has more than one step."""
        return any(tabulation.has_drift for tabulation in self.tabulations)

    @cached_property
    def measure(self) -> "pd.DataFrame":
        """Accuracy of both arms, gap, calls and drifts; one row a benchmark and step.

        `free`, `available` and `called` have binomial intervals, `gap`, `free_drift` and
        `available_drift` paired score intervals, `tool_drift` a bootstrap interval (by
        Newcombe's square-and-add where fewer than ten samples changed).
        `p_value` is McNemar's exact test (clusters kept whole), `q_value` the same after
        Benjamini-Hochberg over all steps and benchmarks. `minimum_detectable_gap` is the gap
        found with 80% power. `<arm>_within_variance` is over repeats.
        """
        return self._frame(Tabulation.measure)

    @cached_property
    def explain(self) -> "pd.DataFrame":
        """The four terms, gross gain, gross harm and gap; one row a benchmark and step."""
        return self._frame(Tabulation.explain)

    @cached_property
    def diagnose(self) -> "pd.DataFrame":
        """`value`, `mass`, `policy` and `quality` of each term.

        One row a benchmark, step, partition and term. `n_mass` and `n_policy` count the samples
        behind policy and quality.
        """
        return self._frame(Tabulation.diagnose)

    @cached_property
    def changes(self) -> "pd.DataFrame":
        """Each quantity's change since the baseline and since the step before.

        Raises UsageError where no series has more than one step.
        """
        self._require_drift()
        return self._frame(Tabulation.changes)

    @cached_property
    def contribution(self) -> "pd.DataFrame":
        """The tool contribution in both forms; one row a benchmark and form.

        Raises UsageError where no series has more than one step.
        """
        self._require_drift()
        return self._frame(Tabulation.contribution)

    @cached_property
    def noise_floor(self) -> "pd.DataFrame":
        """What the free arm gains and loses against itself, next to gross gain and harm.

        Raises UsageError where there are fewer than two repeats.
        """
        return self._frame(Tabulation.noise_floor)

    @cached_property
    def coverage(self) -> "pd.DataFrame":
        """How many samples each benchmark has at each step, and how many are left out."""
        return self._marked([(found, _coverage_rows(found)) for found in self.sets])

    @cached_property
    def excluded(self) -> "pd.DataFrame":
        """The samples left out of the analysis set, each with its reason and steps."""
        return self._marked([(found, _excluded_rows(found)) for found in self.sets])

    @cached_property
    def process(self) -> "dict[str, pd.DataFrame]":
        """How well the tools were used, from the trajectories of the available arms.

        By name: `process_calls`, `process_zoom` (crops against target boxes),
        `process_orientation`, `process_marks` (lines and points), `process_focus`,
        `process_misuse`, `process_tools`, `process_transitions`, and, joined to the terms,
        `process_outcomes`, `process_contrasts` and `process_quality`. A table without rows is
        left out. Each number has its interval, and in `<name>_n` the number of trajectories (or
        calls) that have it.

        Raises UsageError for an analysis of a frame, which has no trajectories.
        """
        from medeval.analysis.process.reading import read_tool_uses
        from medeval.analysis.process.tables import TABLES, process_rows

        if self.folder is None:
            raise UsageError(
                "a frame of outcomes has no trajectories to measure",
                hint="analyze the run folder",
            )
        rows = [
            process_rows(each, read_tool_uses(self.folder, each.found, self.called_by))
            for each in self.tabulations
        ]
        return {
            name: self._marked(
                [(found, each[name]) for found, each in zip(self.sets, rows, strict=True)]
            )
            for name in TABLES
            if any(each[name] for each in rows)
        }

    def _require_drift(self) -> None:
        if not self.has_drift:
            names = ", ".join(repr(found.outcomes.series) for found in self.sets)
            raise UsageError(
                f"{names}: drift and tool contribution need at least two steps of one series",
                hint="evaluate several checkpoints of a training run; accuracies, gap, terms and "
                "factors need no steps",
            )

    def _frame(self, rows_of: Callable[[Tabulation], list[TableRow]]) -> "pd.DataFrame":
        return self._marked(
            [(tabulation.found, rows_of(tabulation)) for tabulation in self.tabulations]
        )

    def _marked(self, parts: Sequence[tuple[AnalysisSet, list[TableRow]]]) -> "pd.DataFrame":
        import pandas as pd

        rows = [{**row, **_marks(found, row["benchmark"])} for found, part in parts for row in part]
        columns = list(dict.fromkeys(name for row in rows for name in row))
        notes = ["note"] if "note" in columns else []
        marks = [*notes, "pairing", "missing", "rows"]
        ordered = [name for name in columns if name not in marks] + marks
        frame = pd.DataFrame(rows, columns=ordered if rows else ["series", "pair", *marks])
        # a column without any value still gets the type of numbers
        empty = {name: float for name in frame.columns if len(frame) and frame[name].isna().all()}
        return frame.astype(empty)


def _pairing(found: AnalysisSet) -> Pairing:
    first = next(iter(found.outcomes.benchmarks.values()))
    is_numbered = all(LINE_NUMBER.fullmatch(sample_id) for sample_id in first.ids)
    return "position" if is_numbered else "id"


def _marks(found: AnalysisSet, benchmark: str) -> TableRow:
    names = found.outcomes.benchmarks if benchmark == MEAN else [benchmark]
    return {
        "pairing": _pairing(found),
        "missing": "allowed" if found.allowed_missing else "none",
        "rows": rows_marks(found.outcomes, names),
    }


def _coverage_rows(found: AnalysisSet) -> list[TableRow]:
    names = {"series": found.outcomes.series, "pair": found.outcomes.pair}
    return [
        {
            **names,
            "benchmark": item.benchmark,
            "step": item.step,
            "n": item.n,
            "samples": item.samples,
            "repeats": item.repeats,
            "missing_samples": item.missing,
            "verdicts": item.verdicts,
            "undecided_free": item.undecided_free,
            "undecided_available": item.undecided_available,
            "free_least": item.free_bounds[0],
            "free_most": item.free_bounds[1],
            "available_least": item.available_bounds[0],
            "available_most": item.available_bounds[1],
        }
        for item in found.coverage
    ]


def _excluded_rows(found: AnalysisSet) -> list[TableRow]:
    names = {"series": found.outcomes.series, "pair": found.outcomes.pair}
    return [
        {
            **names,
            "benchmark": item.benchmark,
            "sample_id": item.sample_id,
            "reason": item.reason,
            "steps": "; ".join(map(step_name, item.steps)),
        }
        for item in found.excluded
    ]


def analyze(
    source: "str | Path | Run | pd.DataFrame",
    *,
    series: str | None = None,
    pair: str | None = None,
    benchmarks: Sequence[str] | None = None,
    by_group: str | None = None,
    called_by: CalledBy = "called",
    allow_missing: bool = False,
    max_undecided: float = 0.01,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Analysis:
    """Measure, Explain and Diagnose a run.

    Parameters
    ----------
    source : path, Run or DataFrame
        A run folder, a run that was loaded, or a frame with one row an outcome and at least the
        columns `series`, `step`, `benchmark`, `pair`, `sample_id`, `free_correct`,
        `available_correct` and `called` (as `Run.outcomes`).
    series, pair, benchmarks : optional
        Which to analyse; all by default.
    by_group : str, optional
        Split each benchmark by this group of its samples; there is then no mean of benchmarks.
    called_by : {"called", "attempted", "executed", "observed"}
        What counts as having called a tool: as recorded (a call executed or rejected), or at
        least one call of the kind.
    allow_missing : bool, default False
        Analyse the samples that every step has instead of refusing; marks every table.
    max_undecided : float, default 0.01
        The share of an arm's verdicts that may be undecided; those samples are left out.
    seed, resamples : int
        Seed and number of resamples of the bootstrap and of the random swaps.

    Returns
    -------
    Analysis

    Raises
    ------
    UsageError
        A name that the source does not have, or options that contradict each other.
    RecordError
        Outcomes that are unreadable, missing, duplicate, undecided too often, or of different
        judges or settings.

    References
    ----------
    MED, arXiv 2602.01334, section 3.

    Examples
    --------
    >>> import pandas as pd
    >>> outcomes = pd.DataFrame(
    ...     {
    ...         "series": "rl",
    ...         "step": [0, 0, 0, 0, 10, 10, 10, 10],
    ...         "benchmark": "vstar",
    ...         "pair": "crop_zoom",
    ...         "sample_id": list("abcd") * 2,
    ...         "free_correct": [1, 0, 0, 1, 1, 1, 0, 0],
    ...         "available_correct": [1, 0, 0, 0, 1, 1, 1, 0],
    ...         "called": [0, 1, 1, 1, 0, 1, 1, 1],
    ...     }
    ... )
    >>> analysis = analyze(outcomes)
    >>> analysis.measure[["step", "free", "available", "gap", "tool_drift"]]
       step  free  available   gap  tool_drift
    0     0   0.5       0.25 -0.25         0.0
    1    10   0.5       0.75  0.25         0.5
    """
    if resamples < 1:
        raise UsageError(f"resamples must be at least 1, seen {resamples!r}")
    if not 0.0 <= max_undecided <= 1.0:
        raise UsageError(f"the share of undecided is between 0 and 1, seen {max_undecided!r}")
    found = tuple(
        analysis_set(
            outcomes,
            called_by=called_by,
            max_undecided=max_undecided,
            allow_missing=allow_missing,
        )
        for outcomes in _read(source, series, pair, benchmarks)
    )
    return Analysis(
        sets=found,
        tabulations=tuple(_tabulation(item, by_group, resamples, seed) for item in found),
        called_by=called_by,
        folder=_folder(source),
    )


def _tabulation(found: AnalysisSet, by_group: str | None, resamples: int, seed: int) -> Tabulation:
    bootstrap = Bootstrap(resamples=resamples, seed=seed)
    return Tabulation(
        found=found,
        populations=populations(found.curves, by_group=by_group),
        bootstrap=bootstrap,
        change_maker=ChangeMaker(bootstrap),
    )


def _folder(source: Any) -> "RunFolder | None":
    """The run folder behind a source; None for a frame."""
    from medeval.store.run_folder import RunFolder

    if isinstance(source, str | Path):
        return RunFolder.open(Path(source))
    folder = getattr(source, "folder", source)
    return folder if isinstance(folder, RunFolder) else None


def _read(
    source: Any, series: str | None, pair: str | None, benchmarks: Sequence[str] | None
) -> list[SeriesOutcomes]:
    folder = _folder(source)
    if folder is not None:
        return read_run(folder, series=series, pair=pair, benchmarks=benchmarks)
    return read_frame(source, series=series, pair=pair, benchmarks=benchmarks)
