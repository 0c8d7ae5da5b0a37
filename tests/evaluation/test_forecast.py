"""The time left is right within a fifth after the first tenth; costs are told by cell."""

import csv
import heapq
import itertools
import math
import random
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from medeval.evaluation.conversation import Conversation, Kind
from medeval.evaluation.estimate import Earlier, earlier_runs
from medeval.evaluation.forecast import TOLD_EVERY_S, Forecast, Foresight
from medeval.evaluation.order import Order
from medeval.evaluation.profile import Parts
from medeval.evaluation.run import carry_out
from medeval.evaluation.workers.messages import Conversations
from medeval.models.scripted import ScriptedModel
from tests.evaluation.test_run import Told, planned, small
from tests.medeval_processes import MedevalMain, Serve
from tests.small_benchmark import play, write_benchmark, write_pair
from tests.stub_server import StubServer

FREE, AVAILABLE = Kind("chart", "free"), Kind("chart", "available")
LONG, SHORT = Kind("long", "free"), Kind("short", "free")
Job = tuple[Kind, float]


class Clock:
    """Time that passes when a test says so."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


class Played:
    """A forecast beside a run that is played: one engine a checkpoint, `n_at_once` of them."""

    def __init__(
        self,
        jobs: Mapping[str, Sequence[Job]],
        places: int,
        start_s: float = 0.0,
        n_at_once: int = 1,
    ) -> None:
        self.clock = Clock()
        waiting = {name: Counter(kind for kind, _ in each) for name, each in jobs.items()}
        self.forecast = Forecast(waiting, n_at_once, self.clock)
        self.seen: list[tuple[float, float | None]] = []
        self._jobs = {name: list(enumerate(each)) for name, each in jobs.items()}
        self._to_start = list(jobs)
        self._start_s = start_s
        self._places = places
        self._numbers = itertools.count()
        self._events: list[tuple[float, int, str, Conversation | None, float]] = []
        for _ in range(n_at_once):
            self._start()
        while self._events:
            self._next()

    def _start(self) -> None:
        if self._to_start:
            self._push(self._to_start.pop(0), None, self._start_s)

    def _push(self, name: str, conversation: Conversation | None, seconds: float) -> None:
        event = (self.clock.now + seconds, next(self._numbers), name, conversation, seconds)
        heapq.heappush(self._events, event)

    def _begin(self, name: str) -> None:
        if self._jobs[name]:
            number, (kind, seconds) = self._jobs[name].pop(0)
            conversation = Conversation(name, kind, number)
            self.forecast.begun(conversation)
            self._push(name, conversation, seconds)

    def _next(self) -> None:
        self.clock.now, _, name, conversation, seconds = heapq.heappop(self._events)
        if conversation is None:
            self.forecast.engine_ready(name, seconds)
            for _ in range(self._places):
                self._begin(name)
            return
        self.forecast.ended(conversation, seconds)
        self._begin(name)
        if not any(event[2] == name for event in self._events):
            self._start()
        is_asked = (len(self.seen) + 1) % 20 == 0
        self.seen.append((self.clock.now, self.forecast.left_s() if is_asked else None))

    def error_at(self, share: float) -> float:
        return error_at(self.seen, share)


def error_at(seen: Sequence[tuple[float, float | None]], share: float) -> float:
    """The forecast's error as a share of what was left, after a share of all conversations."""
    moment, left = seen[round(len(seen) * share) - 1]
    assert left is not None
    really = seen[-1][0] - moment
    return (left - really) / really


def in_order(*parts: tuple[Kind, int, float], places: int) -> list[Job]:
    """Jobs in the order of a walk that knows from the first how long each kind takes."""
    order = Order(
        {kind.benchmark: (n, iter([(kind, seconds)] * n)) for kind, n, seconds in parts}, places
    )
    for kind, _, seconds in parts:
        order.ended(kind.benchmark, seconds)
    return list(order)


def drawn(seed: int, spread: float, *parts: tuple[Kind, int, float], places: int) -> list[Job]:
    """The same, with seconds from a lognormal distribution."""
    source = random.Random(seed)
    return [
        (kind, mean * math.exp(source.gauss(-(spread**2) / 2, spread)))
        for kind, mean in in_order(*parts, places=places)
    ]


@pytest.mark.parametrize("places", [1, 8, 64])
@pytest.mark.parametrize("n_checkpoints", [1, 5])
@pytest.mark.parametrize("start_s", [0.0, 30.0])
def test_the_time_left_is_right_within_a_fifth_after_the_first_tenth(
    places: int, n_checkpoints: int, start_s: float
) -> None:
    each = in_order((FREE, 1600, 2.0), (LONG, 600, 9.0), (SHORT, 200, 0.5), places=places)
    jobs = {str(number): each for number in range(n_checkpoints)}
    assert abs(Played(jobs, places, start_s).error_at(0.1)) < 0.2


def test_conversations_of_any_length_are_foreseen_as_well() -> None:
    """In most of eight runs: chance makes a tenth of them longer or shorter than the rest."""
    parts = ((FREE, 900, 2.0), (LONG, 900, 6.0))
    runs = [Played({"one": drawn(seed, 0.7, *parts, places=32)}, 32) for seed in range(8)]
    for share in (0.1, 0.5, 0.8):
        errors = sorted(abs(played.error_at(share)) for played in runs)
        assert errors[5] < 0.2


@pytest.mark.parametrize("ratio", [0.5, 1.2, 2.0])
def test_two_checkpoints_side_by_side_are_over_when_the_slower_is(ratio: float) -> None:
    jobs = {
        name: drawn(1, 0.5, (FREE, 400, mean), (LONG, 100, 4 * mean), places=8)
        for name, mean in (("one", 1.0), ("two", ratio))
    }
    played = Played(jobs, 8, n_at_once=2)
    for share in (0.1, 0.3, 0.5, 0.7):
        assert abs(played.error_at(share)) < 0.2


def test_of_three_checkpoints_for_two_workers_the_third_waits_for_the_first_that_is_free() -> None:
    jobs = {name: [(FREE, seconds)] * 200 for name, seconds in (("a", 1.0), ("b", 3.0), ("c", 2.0))}
    played = Played(jobs, 8, start_s=20.0, n_at_once=2)
    for share in (0.1, 0.3, 0.7, 0.8):
        assert abs(played.error_at(share)) < 0.2


def test_a_checkpoint_of_which_none_has_ended_is_foreseen_by_the_one_beside_it() -> None:
    clock = Clock()
    forecast = Forecast({"one": {FREE: 40}, "two": {FREE: 20}}, 2, clock)
    forecast.engine_ready("one", 0.0)
    forecast.begun(Conversation("one", FREE, 0))
    play_through(forecast, clock, "two", *[(FREE, 2.0)] * 10)
    assert forecast.left_s() == pytest.approx(40 * 2.0, rel=0.1)


def test_a_second_checkpoint_that_is_slower_is_known_for_it_soon() -> None:
    """At first it is taken for as fast as the first, which then is a sixth of the rest missed."""
    jobs = {
        name: drawn(seed, 0.5, (FREE, 400, mean), (LONG, 100, 4 * mean), places=8)
        for seed, (name, mean) in enumerate((("one", 1.0), ("two", 1.2)))
    }
    played = Played(jobs, 8)
    assert -0.25 < played.error_at(0.5) < 0.0
    assert abs(played.error_at(0.6)) < 0.15
    assert abs(played.error_at(0.9)) < 0.15


def test_what_is_seen_of_a_slower_checkpoint_tells_of_its_other_benchmarks() -> None:
    clock = Clock()
    forecast = Forecast({name: {FREE: 40, LONG: 40} for name in ("one", "two")}, clock=clock)
    for kind in (FREE, LONG):
        play_through(forecast, clock, "one", *[(kind, 4.0 if kind == LONG else 1.0)] * 40)
    play_through(forecast, clock, "two", *[(FREE, 2.0)] * 40)
    assert forecast.left_s() == pytest.approx(40 * 8.0, rel=0.1), "not 40 * 4 as with the first"


def play_through(forecast: Forecast, clock: Clock, checkpoint: str, *jobs: Job) -> None:
    """Conversations of a checkpoint, one after the other."""
    forecast.engine_ready(checkpoint, 0.0)
    for number, (kind, seconds) in enumerate(jobs):
        forecast.begun(Conversation(checkpoint, kind, number))
        clock.now += seconds
        forecast.ended(Conversation(checkpoint, kind, number), seconds)


@pytest.mark.parametrize(
    ("ended", "waiting", "expected"),
    [
        ([(FREE, 4.0)], {FREE: 20}, 80.0),
        ([(FREE, 4.0), (FREE, 6.0)], {FREE: 30}, 150.0),
        ([(FREE, 4.0), (AVAILABLE, 8.0)], {AVAILABLE: 20, FREE: 10}, 200.0),
        # the arm's mean, and that of all where the arm has none
        ([(FREE, 4.0), (AVAILABLE, 8.0)], {SHORT: 20}, 80.0),
        ([(FREE, 4.0), (FREE, 6.0)], {Kind("short", "other"): 20}, 100.0),
        # the benchmark takes twice as long in the one arm, and so in the other
        ([(FREE, 4.0), (SHORT, 1.0), (AVAILABLE, 8.0)], {Kind("short", "available"): 10}, 32.0),
        ([(FREE, 0.0)], {FREE: 2}, 0.0),
    ],
)
def test_what_is_still_to_begin_takes_what_its_kind_took_or_others_alike(
    ended: list[Job], waiting: dict[Kind, int], expected: float
) -> None:
    clock = Clock()
    whole = Counter(waiting) + Counter(kind for kind, _ in ended)
    forecast = Forecast({"one": whole}, clock=clock)
    assert forecast.left_s() is None
    forecast.engine_ready("one", 3.0)
    assert forecast.left_s() is None
    play_through(forecast, clock, "one", *ended)
    assert forecast.left_s() == pytest.approx(expected, rel=0.1, abs=0.01)


def test_a_benchmark_of_which_none_has_ended_takes_longer_than_those_under_way_have() -> None:
    clock = Clock()
    forecast = Forecast({"one": {SHORT: 10, LONG: 40}}, clock=clock)
    for number in range(4):
        forecast.begun(Conversation("one", LONG, number))
    play_through(forecast, clock, "one", *[(SHORT, 1.0)] * 10)
    left_s = forecast.left_s()
    assert left_s is not None
    assert left_s > 36 / 5 * 10.0


def test_a_conversation_that_fails_is_no_longer_waited_for() -> None:
    clock = Clock()
    forecast = Forecast({"one": {FREE: 42}}, clock=clock)
    play_through(forecast, clock, "one", *[(FREE, 4.0)] * 30)
    forecast.begun(Conversation("one", FREE, 30))
    clock.now += 1.0
    forecast.ended(Conversation("one", FREE, 30), None)
    assert forecast.left_s() == pytest.approx(11 * 4.0, rel=0.1)
    forecast.skipped(Conversation("one", FREE, 31))
    assert forecast.left_s() == pytest.approx(10 * 4.0, rel=0.1)
    forecast.stopped("one", FREE)
    assert forecast.left_s() == 0.0


@pytest.mark.parametrize("share", [0.6, 0.7, 0.8])
def test_a_data_set_sorted_by_length_is_foreseen_once_a_checkpoint_has_shown_it(
    share: float,
) -> None:
    jobs = {name: [(FREE, 1.0)] * 150 + [(FREE, 3.0)] * 150 for name in ("one", "two")}
    played = Played(jobs, 4)
    assert abs(played.error_at(share)) < 0.1


def test_parts_of_a_data_set_that_differ_by_chance_are_not_told_apart() -> None:
    source = random.Random(1)
    parts = Parts(320)
    for number in range(320):
        parts.add(number, source.expovariate(1.0))
    assert parts.profile(1.0).seen_and_left([20, *[0] * 15]) == pytest.approx((1.0, 1.0), abs=0.1)
    assert Parts(15).profile(1.0).ratios == ()
    assert Parts(320).profile(1.0).seen_and_left([0] * 16) == (1.0, 1.0)


def test_what_will_not_begin_any_more_is_not_waited_for() -> None:
    clock = Clock()
    forecast = Forecast({"one": {FREE: 40}, "two": {FREE: 40, LONG: 40}}, clock=clock)
    play_through(forecast, clock, "one", *[(FREE, 2.0)] * 30)
    both_s = forecast.left_s()
    forecast.stopped("two", LONG)
    forecast.stopped("nobody", LONG)
    left_s = forecast.left_s()
    assert both_s is not None and left_s is not None
    assert left_s == pytest.approx(50 * 2.0, rel=0.1)
    assert left_s < both_s


def test_samples_that_fail_before_they_begin_leave_what_is_under_way_as_it_was() -> None:
    clock = Clock()
    forecast = Forecast({"one": {FREE: 100}}, clock=clock)
    foresight = Foresight(Told(), forecast)
    worker = Conversations(foresight)
    foresight.engine_ready("one", 0.0)
    for round_ in range(20):
        pair = [Conversation("one", FREE, 4 * round_ + place) for place in range(2)]
        for one in pair:
            worker.begin(one)
        clock.now += 4.0
        for one in pair:
            worker.advance(one, seconds=4.0)
            foresight.skip(Conversation("one", FREE, one.number + 2))
    assert forecast.n_waiting == 20
    assert forecast.left_s() == pytest.approx(20 / 2 * 4.0, rel=0.15)


def test_conversations_that_are_lost_with_their_worker_wait_again() -> None:
    clock = Clock()
    forecast = Forecast({"one": {FREE: 5}}, clock=clock)
    foresight = Foresight(Told(), forecast)
    foresight.engine_ready("one", 0.0)
    worker = Conversations(foresight)
    worker.begin(Conversation("one", FREE, 0))
    clock.now = 4.0
    worker.advance(Conversation("one", FREE, 0), seconds=4.0)
    worker.begin(Conversation("one", FREE, 1))
    clock.now = 100.0
    worker.lose()
    assert forecast.left_s() == pytest.approx(16.0, rel=0.2)
    worker.lose()
    assert forecast.n_waiting == 4


def test_what_is_under_way_tells_of_long_ones_before_they_end() -> None:
    """Of two places one is busy for 50 s with the same, while the other ends one each second."""
    clock = Clock()
    forecast = Forecast({"one": {FREE: 151}}, clock=clock)
    forecast.begun(Conversation("one", FREE, 150))
    play_through(forecast, clock, "one", *[(FREE, 1.0)] * 50)
    left_s = forecast.left_s()
    assert left_s is not None
    assert 90 < left_s < 120, "100 of 2 s each, two at once"


def test_the_last_conversations_take_longer_the_more_of_them_are_under_way() -> None:
    left = []
    for n in (1, 4, 64):
        clock = Clock()
        forecast = Forecast({"one": {FREE: n + 40}}, clock=clock)
        play_through(forecast, clock, "one", *[(FREE, 1.0), (FREE, 9.0)] * 20)
        for number in range(n):
            forecast.begun(Conversation("one", FREE, 40 + number))
        left.append(forecast.left_s() or 0.0)
    assert left[0] == pytest.approx(3.0, rel=0.1), "as likely shorter as longer"
    assert left[0] < left[1] < left[2]


def test_the_start_of_each_further_engine_is_waited_for() -> None:
    clock = Clock()
    forecast = Forecast({name: {FREE: 20} for name in ("one", "two", "three")}, clock=clock)
    forecast.engine_ready("one", 30.0)
    for number in range(20):
        forecast.begun(Conversation("one", FREE, number))
        clock.now += 2.0
        forecast.ended(Conversation("one", FREE, number), 2.0)
    assert forecast.left_s() == pytest.approx(40 * 2.0 + 2 * 30.0, rel=0.05)


@settings(max_examples=50)
@given(
    seconds=st.lists(st.floats(0, 1e6), min_size=1, max_size=30),
    failed=st.sets(st.integers(0, 29)),
    skipped=st.integers(0, 40),
    n_at_once=st.integers(1, 3),
)
@example(seconds=[2.2250738585072014e-308, 56.0], failed=set(), skipped=0, n_at_once=1)
def test_the_time_left_is_never_negative_and_always_a_number(
    seconds: list[float], failed: set[int], skipped: int, n_at_once: int
) -> None:
    clock = Clock()
    forecast = Forecast({name: {FREE: 20, LONG: 5} for name in "abc"}, n_at_once, clock)
    for number, took in enumerate(seconds):
        conversation = Conversation("ab"[number % 2], (FREE, LONG)[number % 3 == 0], number)
        forecast.begun(conversation)
        clock.now += took / 2
        forecast.ended(conversation, None if number in failed else took)
        left_s = forecast.left_s()
        assert left_s is None or 0.0 <= left_s < math.inf
    for number in range(skipped):
        forecast.skipped(Conversation("abc"[number % 3], FREE, number))
        left_s = forecast.left_s()
        assert left_s is None or 0.0 <= left_s < math.inf


def test_what_is_foreseen_is_passed_on_before_the_step_it_belongs_to() -> None:
    told, clock = Told(), Clock()
    foresight = Foresight(told, Forecast({"one": {FREE: 2}}, clock=clock))
    foresight.engine_ready("one", 1.0)
    foresight.advance(Conversation("one", FREE, 0), seconds=1.0)
    clock.now += 1
    foresight.advance(Conversation("one", FREE, 1), seconds=None)
    foresight.tell("a word")
    assert told.expected == [2]
    assert told.scored == {True: 1, False: 1}
    assert [left is None for _, left in told.foreseen] == [False, False]
    assert told.messages == ["a word"]


def test_the_time_left_is_told_no_more_often_than_people_can_read_it() -> None:
    told, clock = Told(), Clock()
    foresight = Foresight(told, Forecast({"one": {FREE: 1000}}, clock=clock))
    for number in range(1000):
        clock.now += TOLD_EVERY_S / 100
        foresight.advance(Conversation("one", FREE, number), seconds=TOLD_EVERY_S / 100)
    assert told.scored == {True: 1000}
    assert 9 <= len(told.foreseen) <= 11


def test_a_time_that_is_far_off_is_told_once_a_second() -> None:
    told, clock = Told(), Clock()
    foresight = Foresight(told, Forecast({"one": {FREE: 10000}}, clock=clock))
    for number in range(100):
        clock.now += 0.1
        foresight.advance(Conversation("one", FREE, number), seconds=10.0)
    assert 9 <= len(told.foreseen) <= 11


class Halting(Forecast):
    """As on a machine that stands still for a while whenever the time left is worked out."""

    def left_s(self) -> float | None:
        assert isinstance(self.clock, Clock)
        self.clock.now += 0.2
        return super().left_s()


def test_a_machine_that_stands_still_does_not_keep_the_time_left_from_being_told() -> None:
    told, clock = Told(), Clock()
    foresight = Foresight(told, Halting({"one": {FREE: 10000}}, clock=clock))
    for number in range(100):
        clock.now += 0.1
        foresight.advance(Conversation("one", FREE, number), seconds=10.0)
    assert len(told.foreseen) >= 9


def test_a_real_run_is_foreseen_from_its_first_conversation_to_its_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """How well, is measured where a machine may be slow: tests/perf/forecast_error.py."""
    monkeypatch.setattr("medeval.evaluation.forecast.TOLD_EVERY_S", 0.0)
    monkeypatch.setattr("medeval.evaluation.forecast.TOLD_EVERY_SHARE", 0.0)
    monkeypatch.setattr("medeval.evaluation.forecast.LARGEST_SHARE", math.inf)
    names = (str(write_benchmark(tmp_path, 40)), str(write_benchmark(tmp_path, 10, name="more")))
    write_pair(tmp_path)
    plan, told = planned(tmp_path, concurrency=4, benchmarks=names), Told()
    carry_out(plan, lambda _: ScriptedModel(play, latency_s=0.01), told)
    foreseen = [seconds for _, seconds in told.foreseen if seconds is not None]
    assert len(foreseen) == 100
    assert all(seconds > 0.0 for seconds in foreseen[:50])
    assert min(foreseen) >= 0.0
    assert foreseen[-1] == 0.0


def test_benchmarks_are_spread_evenly_over_a_walk_and_the_largest_begins(tmp_path: Path) -> None:
    small_one = write_benchmark(tmp_path, 5, name="more")
    small(tmp_path, 20)
    plan = planned(tmp_path, concurrency=1, benchmarks=(str(small_one), str(tmp_path / "small.py")))
    model = ScriptedModel(play)
    carry_out(plan, lambda _: model, Told())
    run = tmp_path / "run"
    assert "Question 0?" in model.requests[0].messages[-1].text
    ends = [path.stat().st_mtime_ns for path in sorted(run.glob("cells/*/*/*/*/trajectories*"))]
    assert len(ends) == 4
    colours = [request.images[0].sha256 for request in model.requests]
    twice = [sha256 for sha256, n in Counter(colours).items() if n == 6]
    places = sorted({colours.index(sha256) for sha256 in twice})
    assert len(twice) == 5, "the five that both benchmarks have"
    assert places[-1] > 10, "they do not all come first"


def test_the_summary_tells_what_each_cell_took(
    tmp_path: Path, medeval_main: MedevalMain, serve: Serve, capsys: pytest.CaptureFixture[str]
) -> None:
    write_benchmark(tmp_path, 4)
    write_pair(tmp_path)
    server = serve(StubServer(latency_s=0.05))
    arguments: list[object] = [
        *("run", "--model", "stub", "--base-url", server.base_url, "--concurrency", 2),
        *("--benchmarks", tmp_path / "small.py", "--pairs", tmp_path / "small_pair.py"),
    ]
    assert medeval_main(*arguments, "--output-dir", tmp_path / "run") == 0
    told = capsys.readouterr().err
    with (tmp_path / "run/tables/summary.csv").open() as file:
        free, available = csv.DictReader(file)
    assert (free["trajectories"], free["prompt_tokens"], free["completion_tokens"]) == (
        "4",
        "400",
        "40",
    )
    assert (available["prompt_tokens"], available["cached_tokens"]) == ("800", "320")
    assert float(free["seconds"]) >= 4 * 0.05
    # twelve requests of 0.05 s each, two conversations at most at once
    engine_s = float(free["engine_seconds"]) + float(available["engine_seconds"])
    seconds = float(free["seconds"]) + float(available["seconds"])
    assert seconds / 2 <= engine_s <= seconds
    assert f"cost: 1,200 tokens read, 120 written, {engine_s:.1f} engine-seconds; by" in told
    assert engine_s >= 12 * 0.05 / 2

    assert medeval_main(*arguments, "--output-dir", tmp_path / "next", "--dry-run") == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[2].split()[3:7] == ["4", "0", "4", "440"]
    assert shown[-1].split()[:5] == ["all", "8", "0", "8", "1,320"]
    assert medeval_main(*arguments, "--output-dir", tmp_path / "a/b", "--dry-run") == 0
    assert capsys.readouterr().out.count("unknown") == 6

    for path in (tmp_path / "run").glob("cells/*/*/*/free/trajectories*"):
        older = re.sub(r'"engine_seconds":[^,}]+', '"engine_seconds":null', path.read_text())
        path.write_text(older)
    assert medeval_main(*arguments, "--output-dir", tmp_path / "run") == 0
    assert "cost: 1,200 tokens read, 120 written; by cell" in capsys.readouterr().err


def test_estimates_come_from_all_runs_beside_and_skip_tables_of_older_versions(
    tmp_path: Path,
) -> None:
    columns = "benchmark,protocol,trajectories,prompt_tokens,completion_tokens,engine_seconds\n"
    for name, text in {
        "one": f"{columns}chart,free,10,1000,100,5\n",
        "two": f"{columns}chart,free,30,3000,300,55\nchart,available,0,,,\n",
        "old": "benchmark,protocol,n\nchart,free,10\n",
    }.items():
        (tmp_path / name / "tables").mkdir(parents=True)
        (tmp_path / name / "tables/summary.csv").write_text(text)
    earlier = Earlier(earlier_runs(tmp_path / "two"))
    estimate = earlier.estimate(FREE, 8)
    assert (estimate.tokens, estimate.engine_s) == (8 * 110, 8 * 1.5)
    assert earlier.estimate(AVAILABLE, 8).tokens is None
    assert len(earlier_runs(tmp_path / "two")) == 3
