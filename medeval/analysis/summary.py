"""The table that a run ends with: each cell's rates, with n and interval, and its cost."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field

from medeval.analysis.pairs import Result
from medeval.analysis.statistics.rate import Rate, TableRow, mean_rate
from medeval.types.trajectory import Trajectory, Usage

TRUNCATED = frozenset({"length", "context"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """The cost of all trajectories of a cell.

    Tokens are None where the engine did not count them. `seconds` is the sum over conversations,
    which ran at the same time. `engine_s` is the sum of the engine's time for each, None where one
    of them lacks it.
    """

    n_trajectories: int = 0
    usage: Usage = field(default_factory=Usage)
    seconds: float = 0.0
    engine_s: float | None = None


class Tally:
    """Adds up the cost of trajectories while they are iterated over."""

    def __init__(self) -> None:
        self._usage = Usage()
        self._seconds = 0.0
        self._engine_s: float | None = 0.0
        self._n = 0

    def passing(self, trajectories: Iterable[Trajectory]) -> Iterator[Trajectory]:
        """The same trajectories, each counted."""
        for trajectory in trajectories:
            self._usage += trajectory.usage
            self._seconds += trajectory.seconds
            if self._engine_s is None or trajectory.engine_seconds is None:
                self._engine_s = None
            else:
                self._engine_s += trajectory.engine_seconds
            self._n += 1
            yield trajectory

    def cost(self) -> Cost:
        """The cost so far."""
        return Cost(
            n_trajectories=self._n,
            usage=self._usage,
            seconds=self._seconds,
            engine_s=self._engine_s,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class CellSummary:
    """One cell in numbers.

    `score` is the mean of the judge's score over decided samples. The rates are shares of all
    trajectories: `truncated` ended at a length or context limit, `not_offered` called a tool that
    was not offered, `unanswered` ended without an answer for any other reason. `undecided`
    counts verdicts without a decision; `unscored` counts samples times repeats without a
    verdict. `n` of `score` leaves both out.
    """

    checkpoint: str
    series: str
    step: int | None
    benchmark: str
    protocol: str
    judge: str
    score: Rate
    called: Rate
    truncated: Rate
    unanswered: Rate
    not_offered: Rate
    undecided: int
    unscored: int
    cost: Cost = field(default_factory=Cost)


@dataclass(frozen=True, slots=True, kw_only=True)
class CellName:
    """Which cell a summary is of, and the judge whose verdicts it counts."""

    checkpoint: str
    series: str
    step: int | None
    benchmark: str
    protocol: str
    judge: str


def summarize(
    name: CellName,
    results: Sequence[Result],
    cluster_of: Callable[[str], str],
    *,
    expected: int,
    cost: Cost,
) -> CellSummary:
    """A cell in numbers, which should have `expected` trajectories.

    `cluster_of` gives the cluster of a sample.
    """
    clusters = [cluster_of(result.sample_id) for result in results]
    decided = [
        (result.score, cluster)
        for result, cluster in zip(results, clusters, strict=True)
        if result.score is not None
    ]
    called, truncated, unanswered, not_offered = (
        mean_rate([happens(result) for result in results], clusters) for happens in EVENTS
    )
    return CellSummary(
        checkpoint=name.checkpoint,
        series=name.series,
        step=name.step,
        benchmark=name.benchmark,
        protocol=name.protocol,
        judge=name.judge,
        score=mean_rate([score for score, _ in decided], [cluster for _, cluster in decided]),
        called=called,
        truncated=truncated,
        unanswered=unanswered,
        not_offered=not_offered,
        undecided=len(results) - len(decided),
        unscored=max(0, expected - len(results)),
        cost=cost,
    )


def _is_unanswered(result: Result) -> bool:
    return result.answer is None and result.stop not in {*TRUNCATED, "not_offered"}


# The events behind the shares called, truncated, unanswered and not_offered.
EVENTS: Sequence[Callable[[Result], bool]] = (
    lambda result: result.called,
    lambda result: result.stop in TRUNCATED,
    _is_unanswered,
    lambda result: result.stop == "not_offered",
)


def summary_rows(summaries: Sequence[CellSummary]) -> list[TableRow]:
    """The summaries as flat rows for a CSV file; each rate as value, low and high."""
    rows: list[TableRow] = []
    for summary in summaries:
        row: TableRow = {
            "checkpoint": summary.checkpoint,
            "series": summary.series,
            "step": summary.step,
            "benchmark": summary.benchmark,
            "protocol": summary.protocol,
            "judge": summary.judge,
            "n": summary.score.n,
        }
        for rate_name in ("score", "called", "truncated", "unanswered", "not_offered"):
            rate: Rate = getattr(summary, rate_name)
            row |= rate.columns(rate_name)
        row |= {"undecided": summary.undecided, "unscored": summary.unscored}
        cost = summary.cost
        row |= {"trajectories": cost.n_trajectories, **asdict(cost.usage)}
        row |= {"seconds": cost.seconds, "engine_seconds": cost.engine_s}
        rows.append(row)
    return rows
