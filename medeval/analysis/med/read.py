"""Outcomes read from a run folder or a pandas frame, ready to be analysed."""

from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from medeval.analysis.med.outcomes import (
    BenchmarkCollector,
    PlainOutcome,
    SeriesOutcomes,
    Step,
    series_outcomes,
)
from medeval.errors import RecordError, UsageError
from medeval.store.fingerprints import CellRecord, differences
from medeval.store.run_folder import CellKey, OutcomeKey, RunFolder
from medeval.types.run import RunRecord

if TYPE_CHECKING:
    import pandas as pd

REBUILD = "`medeval grade` rebuilds outcomes from trajectories and verdicts"
# Fields of a cell's fingerprint.
SAME_IN_BOTH_ARMS = ("benchmark", "model", "seed")
SAME_AT_EVERY_STEP = ("benchmark", "protocol", "seed")
FRAME_COLUMNS = (
    "series",
    "step",
    "benchmark",
    "pair",
    "sample_id",
    "free_correct",
    "available_correct",
    "called",
)


def read_run(
    folder: RunFolder,
    *,
    series: str | None = None,
    pair: str | None = None,
    benchmarks: Collection[str] | None = None,
) -> list[SeriesOutcomes]:
    """The outcomes of every series and pair of a run, by the primary judges.

    `series`, `pair` and `benchmarks` choose among them. Raises UsageError for a name the run
    does not have; RecordError for lines that cannot be read, duplicate ids, different judges,
    and settings that differ between the arms or the checkpoints.
    """
    keys = [key for key in folder.outcome_keys() if key.judge is None]
    if not keys:
        raise RecordError(f"the run in {str(folder.path)!r} has no outcomes", hint=REBUILD)
    record, cells = folder.record(), folder.cells()
    names = {key.benchmark for key in keys} | {cell.benchmark for cell in cells}
    _known("series", series, [key.series for key in keys])
    _known("pair", pair, [key.pair for key in keys])
    for name in benchmarks or ():
        _known("benchmark", name, names)
    wanted = names if not benchmarks else set(benchmarks)
    chosen = sorted(
        {
            (key.series, key.pair)
            for key in keys
            if series in (None, key.series) and pair in (None, key.pair)
        }
    )
    return [
        _Reader(folder, record, cells, one_series, one_pair, wanted).read(keys)
        for one_series, one_pair in chosen
    ]


def _known(kind: str, name: str | None, names: Collection[str]) -> None:
    if name is not None and name not in names:
        raise UsageError(f"the run has no {kind} {name!r}; it has: {', '.join(sorted(set(names)))}")


class _Reader:
    """Reads one pair of one series of a run folder."""

    def __init__(
        self,
        folder: RunFolder,
        record: RunRecord,
        cells: list[CellKey],
        series: str,
        pair: str,
        benchmarks: Collection[str],
    ) -> None:
        self.folder = folder
        self.record = record
        self.series = series
        self.pair = pair
        self.arms = record.pairs.get(pair)
        self.cells = [
            cell
            for cell in cells
            if cell.series == series
            and cell.benchmark in benchmarks
            and self.arms is not None
            and cell.protocol in self.arms
        ]
        self.benchmarks = benchmarks

    def read(self, keys: list[OutcomeKey]) -> SeriesOutcomes:
        own = [
            key
            for key in keys
            if (key.series, key.pair) == (self.series, self.pair)
            and key.benchmark in self.benchmarks
        ]
        self._refuse_differing_settings()
        begun = self._begun()
        names = sorted({key.benchmark for key in own} | {name for _, name in begun})
        collected = []
        for name in names:
            collector = BenchmarkCollector(name, self._metric(name), self._rows(name))
            if name in self.folder.benchmarks():
                for sample in self.folder.samples(name):
                    collector.expect(sample.id, sample.cluster, sample.groups)
            for key in own:
                if key.benchmark == name:
                    outcomes = self.folder.outcomes(key.series, key.step, name, self.pair)
                    collector.add(key.step, outcomes)
            collected.append(collector.collected())
        # an empty file of outcomes shows that the checkpoint was evaluated
        empty = {(key.step, key.benchmark): "its outcomes are empty" for key in own}
        return series_outcomes(self.series, self.pair, collected, {**empty, **begun})

    def _metric(self, benchmark: str) -> str:
        metric = self.record.metrics.get(self.record.judges.get(benchmark, ""))
        if metric is None or metric.correct_at == 1.0:
            return "share correct"
        return f"share correct, {metric.name} >= {metric.correct_at:g}"

    def _rows(self, benchmark: str) -> str:
        part = self.record.benchmarks.get(benchmark)
        return "" if part is None else part.rows_mark

    def _begun(self) -> dict[tuple[Step, str], str]:
        """For each step and benchmark that was evaluated, why it may have no outcomes."""
        arms: dict[tuple[Step, str], set[str]] = {}
        for cell in self.cells:
            arms.setdefault((cell.step, cell.benchmark), set()).add(cell.protocol)
        return {
            key: self._reason(present)
            for key, present in arms.items()
            if not self._is_for_another_pair(present)
        }

    def _is_for_another_pair(self, present: set[str]) -> bool:
        """Whether only a free arm was evaluated, and another pair has the same free arm."""
        free_arms = [free for free, _ in self.record.pairs.values()]
        return len(present) == 1 and free_arms.count(*present) > 1

    def _reason(self, present: set[str]) -> str:
        absent = [arm for arm in self.arms or () if arm not in present]
        if absent:
            return f"arm {absent[0]!r} was not evaluated"
        return "no sample has a verdict in both arms"

    def _refuse_differing_settings(self) -> None:
        """Refuse arms of a checkpoint with different models, and steps with different protocols."""
        records = {
            cell: record
            for cell in self.cells
            if (record := self.folder.cell(cell).record()) is not None
        }
        first_of_checkpoint: dict[tuple[Step, str], tuple[CellKey, CellRecord]] = {}
        first_of_arm: dict[tuple[str, str], tuple[CellKey, CellRecord]] = {}
        for cell, record in records.items():
            other = first_of_checkpoint.setdefault((cell.step, cell.benchmark), (cell, record))
            _refuse_difference(other, (cell, record), SAME_IN_BOTH_ARMS)
            other = first_of_arm.setdefault((cell.protocol, cell.benchmark), (cell, record))
            _refuse_difference(other, (cell, record), SAME_AT_EVERY_STEP)


def _refuse_difference(
    first: tuple[CellKey, CellRecord],
    second: tuple[CellKey, CellRecord],
    fields: tuple[str, ...],
) -> None:
    (key, one), (other_key, other) = first, second
    found = differences(_only(one.fields, fields), _only(other.fields, fields))
    if found:
        lines = "".join(f"\n  {line}" for line in found)
        raise RecordError(
            f"{key.checkpoint!r} x {key.benchmark!r} x {key.protocol!r} and "
            f"{other_key.checkpoint!r} x {other_key.protocol!r} were evaluated with different "
            f"settings:{lines}",
            hint="evaluate one of them again with --fresh",
        )


def _only(fields: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {name: fields[name] for name in names if name in fields}


def read_frame(
    frame: "pd.DataFrame",
    *,
    series: str | None = None,
    pair: str | None = None,
    benchmarks: Collection[str] | None = None,
) -> list[SeriesOutcomes]:
    """The outcomes of every series and pair of a frame with one row an outcome.

    Needs the columns `series`, `step` (missing for a single model), `benchmark`, `pair`,
    `sample_id`, `free_correct`, `available_correct` and `called`; reads `repeat`, `cluster`,
    `groups`, `judge` and the call counts where they are there, as in `Run.outcomes`.
    Raises UsageError where a column is missing or a name is not there, RecordError as
    `read_run` does.
    """
    absent = [name for name in FRAME_COLUMNS if name not in frame.columns]
    if absent:
        raise UsageError(f"the frame of outcomes has no column {absent[0]!r}")
    if frame.empty:
        raise RecordError("the frame of outcomes is empty", hint=REBUILD)
    for kind, name in (("series", series), ("pair", pair)):
        _known(kind, name, frame[kind].unique().tolist())
    for name in benchmarks or ():
        _known("benchmark", name, frame["benchmark"].unique().tolist())
    kept = frame[frame["benchmark"].isin(list(benchmarks))] if benchmarks else frame
    return [
        _frame_series(str(one_series), str(one_pair), rows)
        for (one_series, one_pair), rows in kept.groupby(["series", "pair"], sort=True)
        if series in (None, one_series) and pair in (None, one_pair)
    ]


def _frame_series(series: str, pair: str, rows: "pd.DataFrame") -> SeriesOutcomes:
    collected = []
    for name, of_benchmark in rows.groupby("benchmark", sort=True):
        collector = BenchmarkCollector(str(name))
        for step, of_step in of_benchmark.groupby("step", sort=True, dropna=False):
            collector.add(_step(step), _frame_outcomes(of_step))
        collected.append(collector.collected())
    return series_outcomes(series, pair, collected, {})


def _step(value: Any) -> Step:
    import pandas as pd

    return None if pd.isna(value) else int(value)


def _frame_outcomes(rows: "pd.DataFrame") -> Iterator[PlainOutcome]:
    def column(name: str, default: Any) -> list[Any]:
        return list(rows[name]) if name in rows.columns else [default] * len(rows)

    called = [bool(value) for value in rows["called"]]
    counts = [
        rows[name].astype(int).tolist() if name in rows.columns else list(map(int, called))
        for name in ("calls_attempted", "calls_executed", "calls_observed")
    ]
    for position, (sample_id, groups, cluster, repeat, free, available, judge) in enumerate(
        zip(
            column("sample_id", None),
            column("groups", {}),
            column("cluster", None),
            column("repeat", 0),
            column("free_correct", None),
            column("available_correct", None),
            column("judge", ""),
            strict=True,
        )
    ):
        yield PlainOutcome(
            sample_id=str(sample_id),
            groups=groups,
            cluster=_name(cluster),
            repeat=int(repeat),
            free_correct=_verdict(free, sample_id),
            available_correct=_verdict(available, sample_id),
            called=called[position],
            calls_attempted=counts[0][position],
            calls_executed=counts[1][position],
            calls_observed=counts[2][position],
            judge=judge,
        )


def _name(value: Any) -> str | None:
    import pandas as pd

    return None if pd.isna(value) else str(value)


def _verdict(value: Any, sample_id: object) -> bool | None:
    """A verdict as frames hold it: true, false, 1, 0, or missing for undecided."""
    import pandas as pd

    if pd.isna(value):
        return None
    if value in (0, 1):
        return bool(value)
    raise RecordError(f"sample {sample_id!r}: correct is true, false or missing, seen {value!r}")
