"""How scores of samples become a benchmark's score, as its authors compute it.

Every function takes decided samples only. Where scores are from 0 to 1, so are the results.
"""

from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from medeval.analysis.pairs import Labels, Result
from medeval.errors import DataError
from medeval.scoring.answers import LETTERS, chosen_option
from medeval.types.verdict import Aggregate


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """A sample's score, with its groups and cluster; `choice` is the text of the chosen option."""

    sample_id: str
    score: float
    groups: Mapping[str, str] = field(default_factory=dict)
    cluster: str | None = None
    choice: str | None = None


def scored_results(results: Iterable[Result], samples: Mapping[str, Labels]) -> list[Scored]:
    """The decided results of a cell, ready to be aggregated.

    Each repeat counts as a sample of its own, and a cluster is one question at one repeat.
    """
    return [
        Scored(
            sample_id=sample.id,
            score=result.score,
            groups=sample.groups,
            cluster=f"{sample.cluster or sample.id}#{result.repeat}",
            choice=_chosen_text(result.answer, sample.options),
        )
        for result in results
        if result.score is not None
        for sample in [samples[result.sample_id]]
    ]


def _chosen_text(answer: str | None, options: Sequence[str]) -> str | None:
    """The text of the option that an answer chooses, read as the judge `choice` reads it."""
    letter = chosen_option(answer, options) if answer is not None and options else None
    return None if letter is None else options[LETTERS.index(letter)]


def mean_over_samples(scored: Collection[Scored]) -> float:
    """The plain mean. Raises DataError without a sample.

    >>> mean_over_samples([Scored(sample_id="a", score=1.0), Scored(sample_id="b", score=0.0)])
    0.5
    """
    if not scored:
        raise DataError("no decided sample to take a mean of")
    return sum(one.score for one in scored) / len(scored)


def mean_over_cycles(scored: Collection[Scored]) -> float:
    """The mean over the groups of `cycle` of each group's mean.

    With the same number of samples in each cycle this is the plain mean; HR-Bench has 200, and
    differs from it only where some are missing. Raises DataError for a sample without a cycle.
    Source: VLMEvalKit@36049f0 vlmeval/dataset/utils/hrbench.py `report_acc_hrbench`.

    >>> first = [Scored(sample_id=name, score=1.0, groups={"cycle": "0"}) for name in "ab"]
    >>> mean_over_cycles([*first, Scored(sample_id="c", score=0.0, groups={"cycle": "1"})])
    0.5
    """
    cycles = group_means(scored, "cycle")
    if not cycles:
        raise DataError("no decided sample to take a mean of")
    return sum(cycles.values()) / len(cycles)


def official_score(aggregate: Aggregate, scored: Collection[Scored]) -> float:
    """A benchmark's score in its official aggregate."""
    return (
        mean_over_cycles(scored) if aggregate == "mean over cycles" else mean_over_samples(scored)
    )


def group_scores(
    aggregate: Aggregate, scored: Collection[Scored], grouping: str
) -> dict[str, float]:
    """The official score inside each group of a grouping, sorted by group."""
    groups = _by_group(scored, grouping)
    return {group: official_score(aggregate, groups[group]) for group in sorted(groups)}


def group_means(scored: Collection[Scored], grouping: str) -> dict[str, float]:
    """The plain mean inside each group of a grouping, sorted by group.

    Raises DataError where a sample is in no group of it.
    """
    groups = _by_group(scored, grouping)
    return {group: mean_over_samples(groups[group]) for group in sorted(groups)}


def weighted_average(means: Mapping[str, tuple[float, int]]) -> float:
    """The average of benchmarks' means, each by its number of samples.

    Source: naver-ai/tablevqabench@88d0514 src/evaluate_tablevqa_dataset.py `evaluate_datasets`,
    where the four parts weigh 750, 250, 250 and 250.

    >>> weighted_average({"vwtq": (0.4, 750), "vtabfact": (0.8, 250)})
    0.5
    """
    total = sum(n for _, n in means.values())
    if not total:
        raise DataError("no decided sample to take an average of")
    return sum(mean * n for mean, n in means.values()) / total


def all_correct(scored: Collection[Scored], *, correct_at: float = 1.0, size: int = 4) -> float:
    """The share of questions whose samples are all correct, over complete clusters only.

    A cluster counts where `size` of its samples are decided. Not an official score of HR-Bench.
    Raises DataError where no cluster is complete.
    """
    clusters = _complete_clusters(scored, size)
    right = sum(all(one.score >= correct_at for one in cluster) for cluster in clusters)
    return right / len(clusters)


def letter_consistency(scored: Collection[Scored], *, size: int = 4) -> float:
    """The share of questions for which the same option was chosen under every order of the letters.

    Right or wrong does not matter. A sample that chose no option makes its question inconsistent.
    Only complete clusters count, as for `all_correct`. Not an official score of HR-Bench.
    """
    clusters = _complete_clusters(scored, size)
    consistent = sum(
        None not in (chosen := {one.choice for one in cluster}) and len(chosen) == 1
        for cluster in clusters
    )
    return consistent / len(clusters)


def _by_group(scored: Iterable[Scored], grouping: str) -> dict[str, list[Scored]]:
    groups: dict[str, list[Scored]] = {}
    for one in scored:
        if grouping not in one.groups:
            raise DataError(
                f"sample {one.sample_id!r} is in no group of {grouping!r}; "
                f"its groups: {dict(one.groups)!r}"
            )
        groups.setdefault(one.groups[grouping], []).append(one)
    return groups


def _complete_clusters(scored: Iterable[Scored], size: int) -> list[list[Scored]]:
    clusters: dict[Hashable, list[Scored]] = {}
    for one in scored:
        clusters.setdefault(one.cluster or ("alone", one.sample_id), []).append(one)
    complete = [cluster for cluster in clusters.values() if len(cluster) == size]
    if not complete:
        raise DataError(f"no question has all of its {size} samples decided")
    return complete
