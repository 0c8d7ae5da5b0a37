"""The content of run.json: each start of medeval on a run folder, and the definitions used."""

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
    """One start of medeval on the run folder: its plan and the versions used.

    `created` is ISO 8601 in UTC. `git_commit` is that of medeval's checkout, None if it does not
    run from one. `extra` has engine arguments and versions.
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
    """A used definition file: its path, for people, and the name of its copy in the run folder."""

    __pydantic_config__ = STRICT

    kind: DefinitionKind
    name: str
    path: str
    sha256: str
    copy_name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RowsFile:
    """A file from which samples were read."""

    __pydantic_config__ = STRICT

    name: str
    sha256: str | None = None
    size_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchmarkRecord:
    """Where a benchmark's samples came from.

    `revision` is the commit that was read, None if the source has none. `count` is the number of
    samples read, `expected_count` the published number or None. `pairing` says how trajectories of
    the same sample are matched: by its id, or, in imported logs without ids, by its position.
    `aggregate`, `suite` and `cluster_size` come from the definition: how the official score is
    computed, with which benchmarks it is averaged, and how many samples share a cluster.
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
        """A note with the number of rows and the published number; empty if they are equal."""
        if self.expected_count in (None, self.count):
            return ""
        return f"{self.count:,} rows, {self.expected_count:,} published"


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """The meaning of a judge's scores, and the lowest score of a correct answer."""

    __pydantic_config__ = FINITE

    name: str
    correct_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """The content of run.json: every session of the run, and what all of them together used.

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
        """The record with the sessions and definitions of a later one added.

        If both have a benchmark, its judge and origin are those of the later record.
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
