"""A benchmark: where its rows come from, and how each becomes a sample."""

from collections.abc import Callable
from dataclasses import dataclass

from medeval.data.rows import Row, RowSource
from medeval.types.sample import Sample
from medeval.types.verdict import Aggregate


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """A named set of samples.

    `count` is the number of published samples, None where it is not fixed. `judge` names the
    judge that scores it officially. `chance` is the share of samples that blind guessing gets
    right, 0 to 1. `groups` are the groupings that samples carry and tables can show. `columns` are
    the columns that `to_sample` reads; they are checked before it runs. `aliases` are the names
    that other harnesses use.

    `aggregate` is the official aggregate; the benchmarks of one `suite` also have an average over
    all of their samples together. `cluster_size` is the number of samples in each cluster, None
    where there are no clusters or they differ in size. A benchmark that is not `labelled` has no
    targets: its answers get no score, and are submitted to its authors.
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
