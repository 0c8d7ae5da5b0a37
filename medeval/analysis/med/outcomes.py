"""The outcomes of one pair along one series, as compact columns for each checkpoint."""

from array import array
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from medeval.errors import RecordError

if TYPE_CHECKING:
    from medeval.types.outcome import OutcomeRecord

CalledBy = Literal["called", "attempted", "executed", "observed"]
Step = int | None

VERDICT_CODES: Mapping[bool | None, int] = {True: 1, False: 0, None: -1}

MOST_IDS_SHOWN = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class PlainOutcome:
    """The fields of an outcome that are analysed, for outcomes from a frame."""

    sample_id: str
    groups: dict[str, str]
    cluster: str | None
    repeat: int
    free_correct: bool | None
    available_correct: bool | None
    called: bool
    calls_attempted: int
    calls_executed: int
    calls_observed: int
    judge: str


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Columns:
    """The outcomes of one checkpoint on one benchmark; every array has shape (n_outcomes,).

    `sample` indexes the benchmark's ids. `free` and `available` are 1 for correct, 0 for
    incorrect and -1 for undecided. `attempted`, `executed` and `observed` count calls in the
    available arm.
    """

    sample: NDArray[np.int32]
    repeat: NDArray[np.int32]
    free: NDArray[np.int8]
    available: NDArray[np.int8]
    called: NDArray[np.int8]
    attempted: NDArray[np.int32]
    executed: NDArray[np.int32]
    observed: NDArray[np.int32]

    def called_by(self, rule: CalledBy) -> NDArray[np.bool_]:
        """Whether each outcome called a tool: as recorded, or at least one call of a kind."""
        column: NDArray[Any] = getattr(self, rule)
        return column > 0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class BenchmarkOutcomes:
    """A benchmark's samples, and their outcomes at each step that has any.

    `clusters` gives each sample's cluster as a code; a sample without one is a cluster of its own.
    `metric` says what correct means under `judge`. `rows` is empty, or says how the number of rows
    differs from the published one.
    """

    name: str
    judge: str
    metric: str
    rows: str
    ids: tuple[str, ...]
    clusters: NDArray[np.int32]
    groups: tuple[Mapping[str, str], ...]
    steps: Mapping[Step, Columns]


@dataclass(frozen=True, slots=True, kw_only=True)
class MissingOutcomes:
    """A checkpoint without outcomes on a benchmark, and the reason as far as the run shows it."""

    step: Step
    benchmark: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SeriesOutcomes:
    """All outcomes of one pair along one series.

    `steps` are in order, over all benchmarks; (None,) for a single model. `missing` lists every
    step and benchmark without outcomes.
    """

    series: str
    pair: str
    steps: tuple[Step, ...]
    benchmarks: Mapping[str, BenchmarkOutcomes]
    missing: tuple[MissingOutcomes, ...]


class _ColumnsBuilder:
    """Collects outcomes in about 25 bytes each."""

    def __init__(self) -> None:
        self._verdicts = tuple(array("b") for _ in range(3))
        self._numbers = tuple(array("i") for _ in range(5))

    def append(self, code: int, outcome: "OutcomeRecord | PlainOutcome") -> None:
        free, available, called = self._verdicts
        free.append(VERDICT_CODES[outcome.free_correct])
        available.append(VERDICT_CODES[outcome.available_correct])
        called.append(outcome.called)
        sample, repeat, attempted, executed, observed = self._numbers
        sample.append(code)
        repeat.append(outcome.repeat)
        attempted.append(outcome.calls_attempted)
        executed.append(outcome.calls_executed)
        observed.append(outcome.calls_observed)

    def columns(self) -> Columns:
        free, available, called = (np.array(each, dtype=np.int8) for each in self._verdicts)
        sample, repeat, attempted, executed, observed = (
            np.array(each, dtype=np.int32) for each in self._numbers
        )
        return Columns(
            sample=sample,
            repeat=repeat,
            free=free,
            available=available,
            called=called,
            attempted=attempted,
            executed=executed,
            observed=observed,
        )


class BenchmarkCollector:
    """Collects a benchmark's outcomes, checkpoint by checkpoint."""

    def __init__(self, name: str, metric: str = "share correct", rows: str = "") -> None:
        self.name = name
        self.metric = metric
        self.rows = rows
        self._codes: dict[str, int] = {}
        self._clusters: list[str | None] = []
        self._groups: list[Mapping[str, str]] = []
        self._known_groups: dict[tuple[tuple[str, str], ...], Mapping[str, str]] = {}
        self._steps: dict[Step, Columns] = {}
        self._judges: dict[str, Step] = {}

    def expect(self, sample_id: str, cluster: str | None, groups: Mapping[str, str]) -> int:
        """The code of a sample that should have outcomes.

        Raises RecordError where it was seen with another cluster or other groups.
        """
        code = self._codes.setdefault(sample_id, len(self._codes))
        if code == len(self._groups):
            self._clusters.append(cluster)
            key = tuple(sorted(groups.items()))
            self._groups.append(self._known_groups.setdefault(key, dict(groups)))
        elif self._clusters[code] != cluster or self._groups[code] != groups:
            raise RecordError(
                f"sample {sample_id!r} of benchmark {self.name!r} has cluster "
                f"{self._clusters[code]!r} and groups {dict(self._groups[code])!r} at one step, "
                f"cluster {cluster!r} and groups {dict(groups)!r} at another",
                hint="the checkpoints were evaluated on different data; analyse them apart",
            )
        return code

    def add(self, step: Step, outcomes: Iterable["OutcomeRecord | PlainOutcome"]) -> None:
        """Add a checkpoint's outcomes.

        Raises RecordError, with the ids, where a sample and repeat come twice.
        """
        rows = _ColumnsBuilder()
        for outcome in outcomes:
            rows.append(self.expect(outcome.sample_id, outcome.cluster, outcome.groups), outcome)
            self._judges.setdefault(outcome.judge, step)
        columns = rows.columns()
        if len(columns.sample):
            self._refuse_duplicates(step, columns)
            self._steps[step] = columns

    def _refuse_duplicates(self, step: Step, columns: Columns) -> None:
        order = np.lexsort((columns.repeat, columns.sample))
        samples, repeats = columns.sample[order], columns.repeat[order]
        twice = (samples[1:] == samples[:-1]) & (repeats[1:] == repeats[:-1])
        if twice.any():
            ids = tuple(self._codes)
            seen = [ids[code] for code in dict.fromkeys(samples[1:][twice].tolist())]
            raise RecordError(
                f"benchmark {self.name!r} at {step_name(step)} has more than one outcome for "
                f"{shown_ids(seen)}",
                hint="`medeval grade` rebuilds the outcomes from trajectories and verdicts",
            )

    def collected(self) -> BenchmarkOutcomes:
        """The benchmark's outcomes. Raises RecordError where its judge differs between steps."""
        if len(self._judges) > 1:
            seen = ", ".join(f"{judge!r} ({step_name(at)})" for judge, at in self._judges.items())
            raise RecordError(
                f"benchmark {self.name!r} was scored by different judges: {seen}",
                hint="score all of it with one judge: `medeval grade --judge NAME --again`",
            )
        own = {name: code for code, name in enumerate(dict.fromkeys(filter(None, self._clusters)))}
        clusters = [
            own[cluster] if cluster else len(own) + code
            for code, cluster in enumerate(self._clusters)
        ]
        return BenchmarkOutcomes(
            name=self.name,
            judge=next(iter(self._judges), ""),
            metric=self.metric,
            rows=self.rows,
            ids=tuple(self._codes),
            clusters=np.array(clusters, dtype=np.int32),
            groups=tuple(self._groups),
            steps=self._steps,
        )


def series_outcomes(
    series: str,
    pair: str,
    benchmarks: Iterable[BenchmarkOutcomes],
    begun: Mapping[tuple[Step, str], str],
) -> SeriesOutcomes:
    """The outcomes of one pair along one series, from those of its benchmarks.

    `begun` maps each step and benchmark that was evaluated to the reason it may lack outcomes.

    Raises RecordError where steps are mixed with a checkpoint that has none.
    """
    by_name = {benchmark.name: benchmark for benchmark in benchmarks}
    found = {step for benchmark in by_name.values() for step in benchmark.steps}
    steps = found | {step for step, _ in begun}
    if None in steps and len(steps) > 1:
        raise RecordError(
            f"series {series!r} mixes a checkpoint without a step with steps "
            f"{sorted(step for step in steps if step is not None)!r}",
            hint="give every checkpoint its step, or each its own series",
        )
    ordered = tuple(sorted(steps, key=lambda step: -1 if step is None else step))
    missing = tuple(
        MissingOutcomes(step=step, benchmark=name, reason=begun.get((step, name), "no outcomes"))
        for step in ordered
        for name, benchmark in by_name.items()
        if step not in benchmark.steps
    )
    return SeriesOutcomes(
        series=series, pair=pair, steps=ordered, benchmarks=by_name, missing=missing
    )


def rows_marks(outcomes: SeriesOutcomes, benchmarks: Iterable[str]) -> str:
    """The `rows` of those benchmarks whose number of rows differs from the published one."""
    found = [outcomes.benchmarks[name] for name in benchmarks]
    return "; ".join(f"{each.name}: {each.rows}" for each in found if each.rows)


def step_name(step: Step) -> str:
    """A step as people read it."""
    return "its only checkpoint" if step is None else f"step {step}"


def shown_ids(ids: Iterable[str]) -> str:
    """How many sample ids there are, and the first few of them."""
    listed = list(ids)
    shown = ", ".join(map(repr, listed[:MOST_IDS_SHOWN]))
    more = ", ..." if len(listed) > MOST_IDS_SHOWN else ""
    return f"{len(listed)} sample{'s' if len(listed) != 1 else ''}: {shown}{more}"
