"""What run.json says: each start of medeval on a run folder, and what all of them used."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from medeval.types.json import FINITE, STRICT
from medeval.types.sample import JsonObject
from medeval.types.verdict import Aggregate

Pairing = Literal["id", "position"]
DefinitionKind = Literal["benchmark", "protocol", "judge"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """One start of medeval on the run folder: what was asked, and by which versions.

    `created` is ISO 8601 in UTC. `git_commit` is that of medeval's checkout, None where it does
    not run from one. `extra` holds engine arguments and versions.
    """

    __pydantic_config__ = STRICT

    created: str
    medeval_version: str
    command: tuple[str, ...]
    plan: JsonObject
    git_commit: str | None
    python: str
    platform: str
    seed: int
    extra: JsonObject = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class DefinitionCopy:
    """A definition file that was used: the path as shown to people, and its kept copy's name."""

    __pydantic_config__ = STRICT

    kind: DefinitionKind
    name: str
    path: str
    sha256: str
    copy_name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RowsFile:
    """A file that samples were read from."""

    __pydantic_config__ = STRICT

    name: str
    sha256: str | None = None
    size_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchmarkRecord:
    """Where a benchmark's samples came from.

    `revision` is the commit that was read, None where the source has none. `count` is the
    number of samples read, `expected_count` the published number or None. `pairing` says what
    makes two trajectories one sample's: its id, or, in imported logs without ids, its position.
    `aggregate`, `suite` and `cluster_size` are the definition's: how its score is made officially,
    which benchmarks it is averaged with, and how many samples share a cluster.
    """

    __pydantic_config__ = STRICT

    origin: str
    revision: str | None
    count: int
    expected_count: int | None
    files: tuple[RowsFile, ...] = ()
    pairing: Pairing = "id"
    aggregate: Aggregate = "mean over samples"
    suite: str | None = None
    cluster_size: int | None = None

    @property
    def rows_mark(self) -> str:
        """How many rows there are and were published, where that differs; else empty."""
        if self.expected_count in (None, self.count):
            return ""
        return f"{self.count:,} rows, {self.expected_count:,} published"


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """What a judge's scores mean, and from which score on an answer is correct."""

    __pydantic_config__ = FINITE

    name: str
    correct_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """run.json: every session that worked on the run, and what all of them together used.

    `judges` maps each benchmark to the identity of its primary judge, `pairs` each pair to the
    names of its free and its available arm, `metrics` each judge identity to its metric.
    """

    __pydantic_config__ = STRICT

    sessions: tuple[Session, ...]
    definitions: tuple[DefinitionCopy, ...] = ()
    judges: Mapping[str, str] = field(default_factory=dict)
    benchmarks: Mapping[str, BenchmarkRecord] = field(default_factory=dict)
    pairs: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    metrics: Mapping[str, Metric] = field(default_factory=dict)

    def extended(self, later: "RunRecord") -> "RunRecord":
        """The record with a later one's sessions and whatever that used beyond this one.

        Where both name a benchmark, the later judge and origin hold; earlier sessions stay.
        """
        known = set(self.definitions)
        added = tuple(item for item in later.definitions if item not in known)
        return RunRecord(
            sessions=(*self.sessions, *later.sessions),
            definitions=(*self.definitions, *added),
            judges={**self.judges, **later.judges},
            benchmarks={**self.benchmarks, **later.benchmarks},
            pairs={**self.pairs, **later.pairs},
            metrics={**self.metrics, **later.metrics},
        )
