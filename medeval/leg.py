"""One checkpoint's part of a run: what it took so far, and how long its rest will take."""

import itertools
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from medeval.conversation import Kind
from medeval.durations import ASSUMED_LOG_VARIANCE, Durations, Expected, Start, last_end_s
from medeval.order import LAST_STRETCH

# What was expected of a kind, by another checkpoint's, counts as so many conversations.
PRIOR: Final = 6.0

# What counts of how many were under way with each beginning or end after it: some 100 tell.
RECENT: Final = 0.99

# Those that begin in a while, or have begun, stand for each other in groups of about a sixth.
N_GROUPS: Final = 6


@dataclass(slots=True)
class Leg:
    """One checkpoint's part of a run: what is waiting or under way, and what took how long.

    `expected` is what its conversations took, once none is left.
    """

    waiting: Counter[Kind]
    seen: dict[Kind, Durations] = field(default_factory=dict)
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
            self.seen[kind] = Durations()
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
        own_s, before_s, n = 0.0, 0.0, 0.0
        for kind, seen in self.seen.items():
            if kind in before:
                count = seen.count(seen.log_sd(before[kind]))
                own_s += seen.time_s(now)
                before_s += count * before[kind].mean_s
                n += count
        some_s = PRIOR * before_s / n if n else 1.0
        ratio = (own_s + some_s) / (before_s + some_s) if before_s else 1.0
        found: dict[Kind, Expected] = {}
        for kind in kinds:
            expected = self._expected(kind, before.get(kind), ratio, now)
            if expected is not None:
                found[kind] = expected
        if not found:
            return found
        known = dict(found)
        for kind in kinds:
            if kind not in known:
                found[kind] = likened(kind, self.seen, known, now)
        if self.is_over:
            self.expected = found
        return found

    def _expected(
        self, kind: Kind, before: Expected | None, ratio: float, now: float
    ) -> Expected | None:
        seen = self.seen.get(kind)
        if seen is None:
            return before and Expected(ratio * before.mean_s, before.log_sd)
        log_sd = seen.log_sd(before)
        count = seen.count(log_sd)
        if before is not None:
            prior_s = PRIOR * ratio * before.mean_s
            return Expected((seen.time_s(now) + prior_s) / (count + PRIOR), log_sd)
        if seen.n_ended:
            return Expected(seen.time_s(now) / count, log_sd)
        return None

    def work_s(self, expected: Mapping[Kind, Expected]) -> float:
        """What all takes, one after the other, of which none has begun."""
        return sum(n * expected[kind].mean_s for kind, n in self.waiting.items() if n > 0)

    def rest_s(self, expected: Mapping[Kind, Expected], places: float, now: float) -> float:
        """Until its last conversation has ended, as they begin in the order of a walk."""
        starts = self._under_way(expected, now)
        to_begin = {kind: n for kind in expected if (n := self.n_to_begin(kind))}
        return last_end_s([*starts, *_to_begin(to_begin, expected, places)])

    def _under_way(self, expected: Mapping[Kind, Expected], now: float) -> list[Start]:
        starts = []
        for kind, seen in self.seen.items():
            if kind in expected:
                behind = sorted(now - began_at for began_at in seen.began_at.values())
                size = -(-len(behind) // N_GROUPS)
                for index in range(0, len(behind), size or 1):
                    some = behind[index : index + size]
                    starts.append(Start(len(some), -sum(some) / len(some), expected[kind]))
        return starts


def _to_begin(
    waiting: Mapping[Kind, int], expected: Mapping[Kind, Expected], places: float
) -> list[Start]:
    """When what is waiting will begin: first some of all, and the longest first at the end."""
    work_s = {kind.benchmark: 0.0 for kind in waiting}
    number = Counter[str]()
    for kind, n in waiting.items():
        work_s[kind.benchmark] += n * expected[kind].mean_s / places
        number[kind.benchmark] += n
    whole_s = sum(work_s.values())
    means = {name: work_s[name] * places / n for name, n in number.items()}
    stretch_s = min(whole_s, LAST_STRETCH * max(means.values(), default=0.0))
    share = stretch_s / whole_s if whole_s else 1.0
    from_s = whole_s - stretch_s
    starts = []
    for kind, n in waiting.items():
        if share < 1.0:
            starts += _spread(n * (1 - share), 0.0, from_s, expected[kind])
    for name in sorted(means, key=lambda name: -means[name]):
        until_s = from_s + share * work_s[name]
        for kind, n in waiting.items():
            if kind.benchmark == name:
                starts += _spread(n * share, from_s, until_s, expected[kind])
        from_s = until_s
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
    kind: Kind, seen: Mapping[Kind, Durations], known: Mapping[Kind, Expected], now: float
) -> Expected:
    """What is expected of a kind of which none has ended: the mean of its arm, or of all.

    That is as much more for a benchmark as its other arms tell, where one of those has ended, and
    at least twice what those under way have behind them: they are halfway on average.
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
    own = seen.get(kind, Durations())
    least_s = 2 * own.time_s(now) / max(1, len(own.began_at))
    return Expected(max(least_s, ratio * of_arm_s(kind.protocol)), math.sqrt(ASSUMED_LOG_VARIANCE))
