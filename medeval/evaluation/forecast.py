"""How long a run still takes: from how long its conversations took so far, kind by kind."""

import heapq
import math
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from typing import Final, Protocol

from medeval.evaluation.conversation import Conversation, Kind
from medeval.evaluation.durations import Expected, mean_of
from medeval.evaluation.leg import Leg

# The time left is worked out no more often than people could read it, and than a hundredth of it
# passes.
TOLD_EVERY_S: Final = 0.1
TOLD_EVERY_SHARE: Final = 0.01
TOLD_AT_LEAST_EVERY_S: Final = 1.0

# Of all time, working it out may take no more than this share: CPU time, since by the clock a
# machine that stood still meanwhile would keep anything new from being told for long.
LARGEST_SHARE: Final = 0.01


class Progress(Protocol):
    """Where a run tells how far it is."""

    def expect(self, n_trajectories: int) -> None:
        """So many trajectories are to be made, over all checkpoints."""
        ...

    def left(self, seconds: float | None) -> None:
        """So long it will still take; None where nothing can be said yet."""
        ...

    def advance(self, *, scored: bool) -> None:
        """One sample is done: with a trajectory, or left unscored."""
        ...

    def tell(self, message: str) -> None:
        """Something people should read."""
        ...


class Forecast:
    """What is waiting, by checkpoint and kind, and what was learnt of how long it takes.

    `n_at_once` engines work side by side, each on one checkpoint; whichever is done takes the
    largest of those that are waiting. The time left is that until the last of them is done.
    """

    def __init__(
        self,
        waiting: Mapping[str, Mapping[Kind, int]],
        n_at_once: int = 1,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.clock = clock
        self.n_at_once = n_at_once
        sizes = Counter[Kind]()
        for each in waiting.values():
            sizes |= Counter(each)
        self._legs = {name: Leg(Counter(kinds), sizes) for name, kinds in waiting.items()}
        self._kinds = list(sizes)
        self._begun: dict[str, Leg] = {}
        self._starts_s: list[float] = []

    @property
    def n_waiting(self) -> int:
        """How many conversations have not ended."""
        return sum(leg.n_waiting for leg in self._legs.values())

    def engine_ready(self, checkpoint: str, seconds: float) -> None:
        """An engine took so long to start."""
        self._starts_s.append(seconds)
        self._leg(checkpoint)

    def begun(self, conversation: Conversation) -> None:
        """A conversation has begun."""
        leg, now = self._leg(conversation.checkpoint), self.clock()
        leg.note_places(now)
        leg.n_under_way += 1
        leg.durations(conversation.kind).began_at[conversation.number] = now

    def ended(self, conversation: Conversation, seconds: float | None) -> None:
        """A conversation that had begun took so long; None where it failed."""
        leg, now = self._leg(conversation.checkpoint), self.clock()
        seen = leg.durations(conversation.kind)
        began_at = self._leave(leg, conversation)
        leg.waiting[conversation.kind] -= 1
        if seconds is not None:
            # with what it waited for beside the model: its place was taken for as long
            took_s = seconds if began_at is None else now - began_at
            seen.took(conversation.number, took_s)

    def skipped(self, conversation: Conversation) -> None:
        """A conversation will not be: it failed before it began."""
        self._leg(conversation.checkpoint).waiting[conversation.kind] -= 1

    def dropped(self, conversation: Conversation) -> None:
        """A conversation was lost with its worker, and waits again."""
        self._leave(self._leg(conversation.checkpoint), conversation)

    def stopped(self, checkpoint: str, kind: Kind) -> None:
        """No more of a kind will begin."""
        leg = self._legs.get(checkpoint)
        if leg is not None:
            leg.waiting[kind] -= leg.n_to_begin(kind)

    def _leave(self, leg: Leg, conversation: Conversation) -> float | None:
        leg.note_places(self.clock())
        began_at = leg.durations(conversation.kind).began_at.pop(conversation.number, None)
        if began_at is not None:
            leg.n_under_way -= 1
        return began_at

    def _leg(self, checkpoint: str) -> Leg:
        """A checkpoint's, which has begun."""
        leg = self._begun.get(checkpoint)
        if leg is None:
            leg = self._begun[checkpoint] = self._legs.setdefault(
                checkpoint, Leg(Counter(), Counter())
            )
        return leg

    def left_s(self) -> float | None:
        """Seconds until the end, None before the first conversation has ended."""
        now, places = self.clock(), 1.0
        recent = deque[Mapping[Kind, Expected]](maxlen=max(1, self.n_at_once))
        known: list[tuple[Leg, Mapping[Kind, Expected]]] = []
        for leg in self._begun.values():
            places = leg.places or places
            expected = leg.expect(recent[-1] if recent else {}, self._kinds, now)
            if expected:
                recent.append(expected)
            known.append((leg, expected))
        if not recent:
            return None
        latest = mean_of(recent)
        slots = [
            leg.rest_s(expected or latest, leg.places or places, now)
            for leg, expected in known
            if not leg.is_over
        ]
        slots += [0.0] * (self.n_at_once - len(slots))
        heapq.heapify(slots)
        for rest_s in self._still_to_start(latest, places, now):
            heapq.heapreplace(slots, slots[0] + rest_s)
        return max(slots)

    def _still_to_start(
        self, expected: Mapping[Kind, Expected], places: float, now: float
    ) -> Iterator[float]:
        """How long each checkpoint takes that has not begun, as they will be dealt out."""
        legs = [leg for name, leg in self._legs.items() if name not in self._begun]
        legs = sorted((leg for leg in legs if not leg.is_over), key=lambda leg: -leg.n_waiting)
        start_s = sum(self._starts_s) / max(1, len(self._starts_s))
        last_s: float | None = None
        for leg in legs:
            work_s = leg.work_s(expected) / places
            if last_s is None:
                last_s = leg.rest_s(expected, places, now) - work_s
            yield start_s + work_s + last_s


class Foresight:
    """Passes on how far a run is, and with it how long it will still take."""

    def __init__(self, progress: Progress, forecast: Forecast) -> None:
        self._progress = progress
        self._forecast = forecast
        self._tell_at = -math.inf
        progress.expect(forecast.n_waiting)

    def at_once(self, n_engines: int) -> None:
        """So many engines work side by side."""
        self._forecast.n_at_once = n_engines

    def engine_ready(self, checkpoint: str, seconds: float) -> None:
        """A checkpoint's engine has started, and took so long."""
        self._forecast.engine_ready(checkpoint, seconds)

    def begin(self, conversation: Conversation) -> None:
        """A conversation has begun."""
        self._forecast.begun(conversation)

    def drop(self, conversation: Conversation) -> None:
        """A conversation was lost with its worker."""
        self._forecast.dropped(conversation)

    def skip(self, conversation: Conversation) -> None:
        """A sample is left unscored of which no conversation began."""
        self._forecast.skipped(conversation)
        self._progress.advance(scored=False)

    def stop(self, checkpoint: str, kind: Kind) -> None:
        """No more conversations of a kind will begin."""
        self._forecast.stopped(checkpoint, kind)

    def advance(self, conversation: Conversation, *, seconds: float | None) -> None:
        """A conversation is over, after so long; None where its sample is left unscored."""
        self._forecast.ended(conversation, seconds)
        now = self._forecast.clock()
        if now >= self._tell_at:
            began_at = time.thread_time()
            left_s = self._forecast.left_s()
            took_s = time.thread_time() - began_at
            self._progress.left(left_s)
            pause_s = min(TOLD_EVERY_SHARE * (left_s or 0.0), TOLD_AT_LEAST_EVERY_S)
            self._tell_at = now + max(TOLD_EVERY_S, pause_s, took_s / LARGEST_SHARE)
        self._progress.advance(scored=seconds is not None)

    def tell(self, message: str) -> None:
        """Something people should read."""
        self._progress.tell(message)
