"""The table a run ends with: one row a cell, every rate with its n and interval."""

from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field

from medeval.analysis.costs import Cost
from medeval.analysis.held import Result
from medeval.analysis.statistics.uncertainty import Rate, mean_rate

TRUNCATED = frozenset({"length", "context"})


@dataclass(frozen=True, slots=True, kw_only=True)
class CellSummary:
    """One cell in numbers.

    `score` is the mean of the judge's score over decided samples. The rates are shares of all
    trajectories: `truncated` ended at a length or context limit, `not_offered` called a tool
    that was not there, `unanswered` ended without an answer for any other reason. `undecided`
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


class Summarizer:
    """Counts a cell's results as they pass by; `cluster_of` numbers a sample's cluster."""

    def __init__(self, cluster_of: Callable[[str], int]) -> None:
        self._cluster_of = cluster_of
        self._clusters, self._decided_clusters = array("q"), array("q")
        self._scores = array("d")
        self._events = [array("b") for _ in EVENTS]

    def passing(self, results: Iterable[Result]) -> Iterator[Result]:
        """The same results, each counted."""
        for result in results:
            cluster = self._cluster_of(result.sample_id)
            self._clusters.append(cluster)
            for event, happens in zip(self._events, EVENTS, strict=True):
                event.append(happens(result))
            if result.score is not None:
                self._scores.append(result.score)
                self._decided_clusters.append(cluster)
            yield result

    def summary(self, name: CellName, *, expected: int, cost: Cost) -> CellSummary:
        """The summary so far; `expected` is how many trajectories the cell should have."""
        called, truncated, unanswered, not_offered = (
            mean_rate(event, self._clusters) for event in self._events
        )
        return CellSummary(
            checkpoint=name.checkpoint,
            series=name.series,
            step=name.step,
            benchmark=name.benchmark,
            protocol=name.protocol,
            judge=name.judge,
            score=mean_rate(self._scores, self._decided_clusters),
            called=called,
            truncated=truncated,
            unanswered=unanswered,
            not_offered=not_offered,
            undecided=len(self._clusters) - len(self._scores),
            unscored=max(0, expected - len(self._clusters)),
            cost=cost,
        )


def _is_unanswered(result: Result) -> bool:
    return result.answer is None and result.stop not in {*TRUNCATED, "not_offered"}


# What the shares called, truncated, unanswered and not_offered are of.
EVENTS: Sequence[Callable[[Result], bool]] = (
    lambda result: result.called,
    lambda result: result.stop in TRUNCATED,
    _is_unanswered,
    lambda result: result.stop == "not_offered",
)


def as_columns(summaries: Sequence[CellSummary]) -> list[dict[str, object]]:
    """The summaries as flat rows for a CSV file; each rate as value, low and high."""
    rows: list[dict[str, object]] = []
    for summary in summaries:
        row: dict[str, object] = {
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
            row |= {rate_name: rate.value, f"{rate_name}_low": rate.low}
            row |= {f"{rate_name}_high": rate.high}
        row |= {"undecided": summary.undecided, "unscored": summary.unscored}
        cost = summary.cost
        row |= {"trajectories": cost.n_trajectories, **asdict(cost.usage)}
        row |= {"seconds": cost.seconds, "engine_seconds": cost.engine_s}
        rows.append(row)
    return rows
