"""A benchmark: where its rows come from, and how a row becomes a sample."""

from collections.abc import Callable
from dataclasses import dataclass

from medeval.data.rows import Row, RowSource
from medeval.types.sample import Sample
from medeval.types.verdict import Aggregate


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """A named set of samples.

    `count` is the number of samples the authors published, None where it is not fixed.
    `judge` is the reference of the judge that scores it officially. `chance` is the share that
    blind guessing gets right over the whole set, 0 to 1. `groups` are the groupings that
    samples carry and tables may show. `columns` are those `to_sample` reads, checked before it
    runs. `aliases` are names that other harnesses know it by.

    The official aggregate is the mean over samples unless `aggregate` says otherwise; the
    benchmarks of one `suite` also have an average over all of their samples together.
    `cluster_size` is how many samples share each cluster, None where samples stand alone or
    clusters differ in size. A benchmark that is not `labelled` has no targets: its answers get
    no score, and are submitted to its authors.
    """

    name: str
    rows: RowSource
    to_sample: Callable[[Row], Sample]
    judge: str
    title: str
    count: int | None = None
    columns: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    aggregate: Aggregate = "mean over samples"
    chance: float | None = None
    licence: str = ""
    citation: str = ""
    aliases: tuple[str, ...] = ()
    suite: str | None = None
    cluster_size: int | None = None
    labelled: bool = True
