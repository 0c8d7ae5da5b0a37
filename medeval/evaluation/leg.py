"""One checkpoint's part of a run: what it took so far, and how long its rest will take."""

import itertools
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from medeval.evaluation.conversation import Kind
from medeval.evaluation.durations import (
    ASSUMED_LOG_VARIANCE,
    LEAST_S,
    N_ASSUMED,
    N_GROUPS,
    Durations,
    Expected,
    Start,
    last_end_s,
    still_taken_s,
)
from medeval.evaluation.order import LAST_STRETCH
from medeval.evaluation.profile import Parts

# What was expected of a kind, by another checkpoint's, counts as so many conversations.
PRIOR: Final = 6.0

# What counts of how many were under way with each beginning or end after it: some 100 tell.
RECENT: Final = 0.99


@dataclass(slots=True)
class Leg:
    """One checkpoint's part of a run: what is waiting or under way, and what took how long.

    `sizes` are how many conversations of each kind there are in all, and `left` how much longer
    those take that are to begin than all. `expected` is what all took, once none is left.
    """

    waiting: Counter[Kind]
    sizes: Mapping[Kind, int]
    seen: dict[Kind, Durations] = field(default_factory=dict)
    left: dict[Kind, float] = field(default_factory=dict)
    n_under_way: int = 0
    expected: Mapping[Kind, Expected] | None = None
    _at: float | None = None
    _full_s: float = 0.0
    _full_work_s: float = 0.0

    @property
    def is_over(self) -> bool:
        """Whether none is left."""
        return not self.n_under_way and not self.n_waiting

    @property
    def n_waiting(self) -> int:
        """How many have not ended."""
        return sum(max(0, n) for n in self.waiting.values())

    @property
    def places(self) -> float | None:
        """How many were of late under way at once, while more were to begin."""
        return self._full_work_s / self._full_s if self._full_work_s else None

    def durations(self, kind: Kind) -> Durations:
        """What was seen of a kind, to be added to."""
        if kind not in self.seen:
            self.seen[kind] = Durations(Parts(self.sizes.get(kind, 0)))
        return self.seen[kind]

    def n_to_begin(self, kind: Kind) -> int:
        """How many of a kind have not begun."""
        under_way = len(self.seen[kind].began_at) if kind in self.seen else 0
        return max(0, self.waiting[kind] - under_way)

    def note_places(self, now: float) -> None:
        """Something begins or ends: until now as many were under way as since the last time."""
        is_full = self.waiting.total() > self.n_under_way
        if self._at is not None and is_full:
            passed_s = now - self._at
            self._full_s = RECENT * self._full_s + passed_s
            self._full_work_s = RECENT * self._full_work_s + self.n_under_way * passed_s
        self._at = now

    def expect(
        self, before: Mapping[Kind, Expected], kinds: Sequence[Kind], now: float
    ) -> Mapping[Kind, Expected]:
        """How long conversations take with this checkpoint; nothing where none has ended.

        Where few of a kind were seen, as long as with the checkpoint before, as much longer or
        shorter as those were that were seen.
        """
        if self.expected is not None:
            return self.expected
        ratio, usual = self._ratio(before, now), self._log_sd()
        found: dict[Kind, Expected] = {}
        for kind in kinds:
            seen = self.durations(kind)
            log_sd = seen.log_sd(before[kind].log_sd if kind in before else usual)
            if kind in before:
                of_seen, self.left[kind] = self._by_part(kind, before[kind])
                seen_s = seen.mean_s(ratio * of_seen * before[kind].mean_s, PRIOR, log_sd, now)
                found[kind] = Expected(seen_s / of_seen, log_sd, before[kind].profile)
            elif seen.n_ended:
                found[kind] = Expected(seen.mean_s(0.0, 0.0, log_sd, now), log_sd)
        known = dict(found)
        for kind in kinds if known else ():
            if kind not in known:
                found[kind] = likened(kind, self.seen, known, usual, now)
        if self.is_over:
            self.expected = found = {kind: self._profiled(kind, found[kind]) for kind in found}
        return found

    def _by_part(self, kind: Kind, before: Expected) -> tuple[float, float]:
        """How long those that have begun took with the checkpoint before, and the others."""
        seen = self.durations(kind)
        return before.profile.seen_and_left(seen.parts.begun(seen.began_at))

    def _profiled(self, kind: Kind, expected: Expected) -> Expected:
        found = self.durations(kind).parts.profile(expected.squared_cv)
        return replace(expected, profile=found if found.ratios else expected.profile)

    def _ratio(self, before: Mapping[Kind, Expected], now: float) -> float:
        """How much longer those took that were seen than with the checkpoint before."""
        own_s, before_s, n = 0.0, 0.0, 0
        for kind, seen in self.seen.items():
            if kind in before and seen.n_ended:
                n_seen = seen.n_ended + len(seen.began_at)
                log_sd = seen.log_sd(before[kind].log_sd)
                seen_s = before[kind].mean_s * self._by_part(kind, before[kind])[0]
                own_s += n_seen * seen.mean_s(seen_s, 1.0, log_sd, now)
                before_s += n_seen * seen_s
                n += n_seen
        if not before_s:
            return 1.0
        some_s = PRIOR * before_s / n
        return (own_s + some_s) / (before_s + some_s)

    def _log_sd(self) -> float:
        """How far the logarithms of the seconds of one kind are spread, over all kinds."""
        n = N_ASSUMED + sum(seen.n_ended for seen in self.seen.values())
        spread = sum(seen.spread for seen in self.seen.values())
        return math.sqrt((spread + N_ASSUMED * ASSUMED_LOG_VARIANCE) / n)

    def work_s(self, expected: Mapping[Kind, Expected]) -> float:
        """What all takes, one after the other, of which none has begun."""
        return sum(n * expected[kind].mean_s for kind, n in self.waiting.items() if n > 0)

    def rest_s(self, expected: Mapping[Kind, Expected], places: float, now: float) -> float:
        """Until its last conversation has ended, as they begin in the order of a walk."""
        starts = [
            Start(n, -behind_s, expected[kind])
            for kind, seen in self.seen.items()
            if kind in expected
            for n, behind_s in seen.behind_s(now)
        ]
        to_begin = {kind: n for kind in expected if (n := self.n_to_begin(kind))}
        expected = {
            kind: replace(each, mean_s=each.mean_s * self.left.get(kind, 1.0))
            for kind, each in expected.items()
        }
        work_s = sum(n * expected[kind].mean_s for kind, n in to_begin.items())
        if not work_s:
            return last_end_s(starts)
        until_s = work_s / places
        if starts:
            # places are free for what is to begin once what they are taken by has ended
            later = [*starts, *_to_begin(to_begin, expected, until_s)]
            taken_s = still_taken_s(starts, 0.0) - still_taken_s(later, until_s)
            until_s = max(0.0, until_s + taken_s / places)
        return last_end_s([*starts, *_to_begin(to_begin, expected, until_s)])


def _to_begin(
    waiting: Mapping[Kind, int], expected: Mapping[Kind, Expected], until_s: float
) -> list[Start]:
    """When what is waiting will begin, the last in so long: the longest first near the end."""
    work_s = {kind.benchmark: 0.0 for kind in waiting}
    number = Counter[str]()
    for kind, n in waiting.items():
        work_s[kind.benchmark] += n * expected[kind].mean_s
        number[kind.benchmark] += n
    whole_s = sum(work_s.values())
    means = {name: work_s[name] / n for name, n in number.items()}
    places = whole_s / max(until_s, LEAST_S)
    share = min(1.0, LAST_STRETCH * max(means.values()) * places / whole_s)
    from_s = until_s * (1 - share)
    starts = []
    for kind, n in waiting.items():
        if share < 1.0:
            starts += _spread(n * (1 - share), 0.0, from_s, expected[kind])
    for name in sorted(means, key=lambda name: -means[name]):
        next_s = from_s + until_s * share * work_s[name] / whole_s
        for kind, n in waiting.items():
            if kind.benchmark == name:
                starts += _spread(n * share, from_s, next_s, expected[kind])
        from_s = next_s
    return starts


def _spread(n: float, from_s: float, until_s: float, expected: Expected) -> list[Start]:
    """Beginnings spread evenly over a while, told apart the better the later they are."""
    n_groups = max(1, min(N_GROUPS, round(n)))
    cuts = [(index / n_groups) ** 2 for index in range(n_groups + 1)]
    return [
        Start(n * (late - early), until_s - (until_s - from_s) * (late + early) / 2, expected)
        for early, late in itertools.pairwise(cuts)
    ]


def likened(
    kind: Kind,
    seen: Mapping[Kind, Durations],
    known: Mapping[Kind, Expected],
    log_sd: float,
    now: float,
) -> Expected:
    """What is expected of a kind of which none has ended: the mean of its arm, or of all.

    That is as much more for a benchmark as its other arms tell, where one of those has ended; and
    longer where those under way have taken longer.
    """

    def of_arm_s(protocol: str) -> float:
        alike = [one for one in known if one.protocol == protocol] or list(known)
        n = {one: seen[one].n_ended if one in seen else 1 for one in alike}
        return sum(n[one] * known[one].mean_s for one in alike) / max(1, sum(n.values()))

    ratios = [
        expected.mean_s / of_arm_s(one.protocol)
        for one, expected in known.items()
        if one.benchmark == kind.benchmark and expected.mean_s
    ]
    ratio = sum(ratios) / len(ratios) if ratios else 1.0
    mean_s = seen[kind].mean_s(ratio * of_arm_s(kind.protocol), 1.0, log_sd, now)
    return Expected(mean_s, log_sd)
