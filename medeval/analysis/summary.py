"""The table a run ends with: one row a cell, every rate with its n and interval."""

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import asdict, dataclass, field

from medeval.analysis.pairs import Result
from medeval.analysis.uncertainty import Rate, mean_rate
from medeval.costs import Cost

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


def summarize(
    name: CellName,
    results: Iterable[Result],
    *,
    expected: int,
    cluster_of: Callable[[str], Hashable],
) -> CellSummary:
    """A cell's summary; `expected` is how many trajectories it should have."""
    found = list(results)
    decided = [result for result in found if result.score is not None]
    clusters = [cluster_of(result.sample_id) for result in found]

    def share(holds: Callable[[Result], bool]) -> Rate:
        return mean_rate([float(holds(result)) for result in found], clusters)

    return CellSummary(
        checkpoint=name.checkpoint,
        series=name.series,
        step=name.step,
        benchmark=name.benchmark,
        protocol=name.protocol,
        judge=name.judge,
        score=mean_rate(
            [result.score for result in decided if result.score is not None],
            [cluster_of(result.sample_id) for result in decided],
        ),
        called=share(lambda result: result.called),
        truncated=share(lambda result: result.stop in TRUNCATED),
        unanswered=share(_is_unanswered),
        not_offered=share(lambda result: result.stop == "not_offered"),
        undecided=len(found) - len(decided),
        unscored=max(0, expected - len(found)),
    )


def _is_unanswered(result: Result) -> bool:
    return result.answer is None and result.stop not in {*TRUNCATED, "not_offered"}


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
