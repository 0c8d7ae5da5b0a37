"""What tables and outcomes need of a cell's trajectories and samples, in tens of bytes each."""

import json
import math
from array import array
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import get_args

from medeval.store.packed import SampleKey, SampleKeys, Table, packed_text, unpacked_text
from medeval.store.records import SampleRecord
from medeval.types.trajectory import StopReason
from medeval.types.verdict import VerdictStatus

STATUSES: Sequence[VerdictStatus] = get_args(VerdictStatus)
STOPS: Sequence[StopReason] = get_args(StopReason)


@dataclass(frozen=True, slots=True, kw_only=True)
class Labels:
    """What outcomes and aggregates need of a sample."""

    id: str
    options: Sequence[str]
    targets: tuple[str, ...]
    groups: Mapping[str, str]
    cluster: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What one trajectory came to under one judge: all that outcomes and tables need of it."""

    sample_id: str
    repeat: int
    status: VerdictStatus
    score: float | None
    judge: str
    answer: str | None
    stop: StopReason
    called: bool
    attempted: int
    executed: int
    observed: int


class HeldResults(Collection[Result]):
    """Results in the order they were added, each sample and repeat once; made anew when read."""

    def __init__(self, results: Iterable[Result] = ()) -> None:
        self.repeats: Sequence[int] = ()
        self._keys = SampleKeys()
        # judges and answers, which many results have in common
        self._texts = Table()
        self._kinds = tuple(array("b") for _ in range(3))
        self._numbers = tuple(array("i") for _ in range(5))
        self._scores = array("d")
        for result in results:
            self._add(result)

    @classmethod
    def of(cls, results: Iterable[Result]) -> "HeldResults":
        """The results, held so if they are not yet."""
        return results if isinstance(results, HeldResults) else cls(results)

    def _add(self, result: Result) -> None:
        place = self._keys.add((result.sample_id, result.repeat))
        assert place == len(self), "a sample has one result a repeat"
        if result.repeat not in self.repeats:
            self.repeats = sorted([*self.repeats, result.repeat])
        kinds = (STATUSES.index(result.status), STOPS.index(result.stop), result.called)
        for column, kind in zip(self._kinds, kinds, strict=True):
            column.append(kind)
        answer = -1 if result.answer is None else self._texts.add(packed_text(result.answer))
        judge = self._texts.add(packed_text(result.judge))
        numbers = (answer, judge, result.attempted, result.executed, result.observed)
        for column, number in zip(self._numbers, numbers, strict=True):
            column.append(number)
        self._scores.append(math.nan if result.score is None else result.score)

    def __len__(self) -> int:
        return len(self._scores)

    def __iter__(self) -> Iterator[Result]:
        return (self._at(place, key) for place, key in enumerate(self._keys))

    def __contains__(self, result: object) -> bool:
        return isinstance(result, Result) and self.get((result.sample_id, result.repeat)) == result

    @property
    def n_decided(self) -> int:
        """How many have a score."""
        return sum(not math.isnan(score) for score in self._scores)

    def decided(self) -> Iterator[tuple[Result, float]]:
        """Those that have a score, each with it."""
        return ((result, result.score) for result in self if result.score is not None)

    def get(self, key: SampleKey) -> Result | None:
        """The result of a sample and repeat, None where there is none."""
        place = self._keys.place(key)
        return None if place is None else self._at(place, key)

    def _at(self, place: int, key: SampleKey) -> Result:
        sample_id, repeat = key
        status, stop, called = (column[place] for column in self._kinds)
        answer, judge, attempted, executed, observed = (column[place] for column in self._numbers)
        score = self._scores[place]
        return Result(
            sample_id=sample_id,
            repeat=repeat,
            status=STATUSES[status],
            score=None if math.isnan(score) else score,
            judge=unpacked_text(self._texts[judge]),
            answer=None if answer < 0 else unpacked_text(self._texts[answer]),
            stop=STOPS[stop],
            called=bool(called),
            attempted=attempted,
            executed=executed,
            observed=observed,
        )


class HeldLabels(Mapping[str, Labels]):
    """The labels of a benchmark's samples by id, in the order of the samples."""

    def __init__(self, samples: Iterable[SampleRecord]) -> None:
        self._ids = Table()
        # many samples have all but their ids in common
        self._contents = Table()
        self._numbers = array("i")
        self.has_groups = False
        cluster_names, clusters = Table(), array("i")
        for sample in samples:
            self.has_groups = self.has_groups or bool(sample.groups)
            content = json.dumps([sample.options, sample.targets, sample.groups, sample.cluster])
            place = self._ids.add(packed_text(sample.id))
            self._numbers[place : place + 1] = array("i", [self._contents.add(content.encode())])
            name = sample.cluster and packed_text(sample.cluster)
            clusters[place : place + 1] = array("i", [cluster_names.add(name) if name else -1])
        if len(cluster_names):
            for place, sample_id in enumerate(self._ids):
                if clusters[place] < 0:
                    clusters[place] = cluster_names.add(sample_id)
            self._clusters: Sequence[int] = clusters
        else:
            self._clusters = range(len(self._ids))

    def __len__(self) -> int:
        return len(self._ids)

    def __iter__(self) -> Iterator[str]:
        return map(unpacked_text, self._ids)

    def __getitem__(self, sample_id: str) -> Labels:
        return self._at(self._place(sample_id), sample_id)

    def labels(self) -> Iterator[Labels]:
        """The labels of each sample."""
        return (self._at(place, sample_id) for place, sample_id in enumerate(self))

    def _at(self, place: int, sample_id: str) -> Labels:
        options, targets, groups, cluster = json.loads(self._contents[self._numbers[place]])
        return Labels(
            id=sample_id, options=options, targets=tuple(targets), groups=groups, cluster=cluster
        )

    def cluster(self, sample_id: str) -> int:
        """The number of a sample's cluster; a sample without one is its own."""
        return self._clusters[self._place(sample_id)]

    def _place(self, sample_id: str) -> int:
        place = self._ids.place(packed_text(sample_id))
        if place is None:
            raise KeyError(sample_id)
        return place
