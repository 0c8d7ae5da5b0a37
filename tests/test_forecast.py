"""The time left is right within a fifth after the first tenth; costs are told by cell."""

import csv
import heapq
import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from medeval.estimates import Earlier, earlier_runs
from medeval.forecast import TOLD_EVERY_S, Forecast, Foresight, Kind
from medeval.models.scripted import ScriptedModel
from medeval.sweep import carry_out
from medeval.walk import _shares
from medeval.workers import Conversations
from tests.medeval_processes import MedevalMain, Serve
from tests.small_benchmark import play, write_benchmark, write_pair
from tests.stub_server import StubServer
from tests.test_sweep import Told, planned, small

FREE, AVAILABLE = Kind("chart", "free"), Kind("chart", "available")
LONG, SHORT = Kind("long", "free"), Kind("short", "free")


class Clock:
    """Time that passes when a test says so."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def simulated(
    jobs: Sequence[tuple[Kind, float]], places: int, start_s: float = 0.0, n_engines: int = 1
) -> list[tuple[float, float | None]]:
    """The moment at each end of a conversation, `places` at once; after a tenth, the forecast.

    Each engine does an equal part of the jobs, after its start.
    """
    clock = Clock()
    waiting = Counter(kind for kind, _ in jobs)
    forecast = Forecast(waiting, n_engines=n_engines, clock=clock)
    seen: list[tuple[float, float | None]] = []
    each = len(jobs) // n_engines
    for engine in range(n_engines):
        clock.now += start_s
        forecast.engine_ready(start_s)
        queue = list(jobs[engine * each : (engine + 1) * each])
        running: list[tuple[float, int, Kind, float]] = []
        while queue or running:
            while queue and len(running) < places:
                kind, seconds = queue.pop(0)
                forecast.begun(kind)
                heapq.heappush(running, (clock.now + seconds, len(queue), kind, seconds))
            clock.now, _, kind, seconds = heapq.heappop(running)
            forecast.ended(kind, seconds)
            is_asked = len(seen) + 1 == len(jobs) // 10
            seen.append((clock.now, forecast.left_s() if is_asked else None))
    return seen


def error_after_a_tenth(seen: Sequence[tuple[float, float | None]]) -> float:
    """The forecast's error as a share of what was left, after a tenth of all conversations."""
    moment, left = seen[len(seen) // 10 - 1]
    assert left is not None
    really = seen[-1][0] - moment
    return abs(left - really) / really


def spread(*parts: tuple[Kind, int, float]) -> list[tuple[Kind, float]]:
    """Jobs in the order of a walk: each kind spread evenly over the whole."""
    keyed = [(share, kind, seconds) for kind, n, seconds in parts for share in _shares(n)]
    return [(kind, seconds) for _, kind, seconds in sorted(keyed, key=lambda item: item[0])]


@pytest.mark.parametrize("places", [1, 8, 64])
@pytest.mark.parametrize("n_engines", [1, 5])
@pytest.mark.parametrize("start_s", [0.0, 30.0])
def test_the_time_left_is_right_within_a_fifth_after_the_first_tenth(
    places: int, n_engines: int, start_s: float
) -> None:
    each = spread((FREE, 800, 2.0), (AVAILABLE, 800, 5.0), (LONG, 300, 9.0), (SHORT, 100, 0.5))
    seen = simulated(each * n_engines, places, start_s, n_engines)
    assert error_after_a_tenth(seen) < 0.2


def test_conversations_of_any_length_are_foreseen_as_well() -> None:
    """In most of eight runs: chance makes a tenth of them longer or shorter than the rest."""
    errors = []
    for seed in range(8):
        drawn = random.Random(seed)
        jobs = [
            (kind, drawn.expovariate(1 / mean))
            for kind, mean in spread((FREE, 900, 2.0), (AVAILABLE, 900, 6.0))
        ]
        errors.append(error_after_a_tenth(simulated(jobs, 32)))
    assert sorted(errors)[5] < 0.2


def forecast_after(*ended: tuple[Kind, float], waiting: dict[Kind, int]) -> float | None:
    """Of a run, one conversation after the other, that has come so far."""
    clock = Clock()
    forecast = Forecast(Counter(waiting) + Counter(kind for kind, _ in ended), clock=clock)
    forecast.engine_ready(3.0)
    assert forecast.left_s() is None
    for kind, seconds in ended:
        forecast.begun(kind)
        clock.now += seconds
        forecast.ended(kind, seconds)
    return forecast.left_s()


@pytest.mark.parametrize(
    ("ended", "waiting", "expected"),
    [
        ([(FREE, 4.0)], {FREE: 2}, 8.0),
        ([(FREE, 4.0), (FREE, 6.0)], {FREE: 3}, 15.0),
        ([(FREE, 4.0), (AVAILABLE, 8.0)], {AVAILABLE: 2, FREE: 1}, 20.0),
        # the arm's mean, and that of all where the arm has none
        ([(FREE, 4.0), (AVAILABLE, 8.0)], {SHORT: 2}, 8.0),
        ([(FREE, 4.0), (FREE, 6.0)], {Kind("short", "other"): 2}, 10.0),
        # the benchmark takes twice as long in the one arm, and so in the other
        ([(FREE, 4.0), (SHORT, 1.0), (AVAILABLE, 8.0)], {Kind("short", "available"): 1}, 3.2),
        ([(FREE, 0.0)], {FREE: 2}, 0.0),
    ],
)
def test_what_is_still_to_begin_takes_what_its_kind_took_or_others_alike(
    ended: list[tuple[Kind, float]], waiting: dict[Kind, int], expected: float
) -> None:
    assert forecast_after(*ended, waiting=waiting) == pytest.approx(expected)


def test_a_conversation_that_fails_is_no_longer_waited_for() -> None:
    clock = Clock()
    forecast = Forecast(Counter({FREE: 3}), clock=clock)
    forecast.engine_ready(0.0)
    forecast.begun(FREE)
    clock.now = 4.0
    forecast.ended(FREE, 4.0)
    forecast.begun(FREE)
    clock.now = 5.0
    forecast.ended(FREE, None)
    assert forecast.left_s() == pytest.approx(4.0)
    forecast.skipped(FREE)
    assert forecast.left_s() == 0.0


def test_samples_that_fail_before_they_begin_leave_what_is_under_way_as_it_was() -> None:
    clock = Clock()
    forecast = Forecast(Counter({FREE: 100}), clock=clock)
    foresight = Foresight(Told(), forecast)
    worker = Conversations(foresight)
    foresight.engine_ready(0.0)
    for _ in range(20):
        for _ in range(2):
            worker.begin(FREE)
        clock.now += 4.0
        for _ in range(2):
            worker.advance(FREE, seconds=4.0)
            foresight.skip(FREE)
    assert forecast.waiting == {FREE: 20}
    assert forecast.left_s() == pytest.approx(20 / 2 * 4.0, rel=0.1)


def test_conversations_that_are_lost_with_their_worker_wait_again() -> None:
    clock = Clock()
    forecast = Forecast(Counter({FREE: 5}), clock=clock)
    foresight = Foresight(Told(), forecast)
    foresight.engine_ready(0.0)
    worker = Conversations(foresight)
    worker.begin(FREE)
    clock.now = 4.0
    worker.advance(FREE, seconds=4.0)
    worker.begin(FREE)
    clock.now = 100.0
    worker.lose()
    assert forecast.left_s() == pytest.approx(16.0)
    worker.lose()
    assert forecast.waiting == {FREE: 4}


def test_what_is_under_way_tells_of_long_ones_before_they_end() -> None:
    """Of two places one is busy for 50 s with the same, while the other ends one each second."""
    clock = Clock()
    forecast = Forecast(Counter({FREE: 101}), clock=clock)
    forecast.engine_ready(0.0)
    forecast.begun(FREE)
    for _ in range(50):
        forecast.begun(FREE)
        clock.now += 1.0
        forecast.ended(FREE, 1.0)
    left_s = forecast.left_s()
    assert left_s is not None
    assert 45 < left_s < 55, "50 of 2 s each, two at once"


def test_the_last_conversations_take_longer_the_more_of_them_are_under_way() -> None:
    clock = Clock()
    left = []
    for n in (1, 4, 64):
        forecast = Forecast(Counter({FREE: n + 2}), clock=clock)
        forecast.engine_ready(0.0)
        for seconds in (1.0, 9.0):
            forecast.begun(FREE)
            clock.now += seconds
            forecast.ended(FREE, seconds)
        for _ in range(n):
            forecast.begun(FREE)
        left.append(forecast.left_s())
    # half of all time is spent after the first 4 s of a conversation, a 92nd after the first 8.9
    assert left == pytest.approx([4.0, 7.41, 8.89], abs=0.01)


def test_a_checkpoint_that_writes_more_counts_more_than_those_before_it() -> None:
    clock = Clock()
    forecast = Forecast(Counter({FREE: 40}), n_engines=2, clock=clock)
    left = []
    for seconds in (2.0, 6.0):
        forecast.engine_ready(0.0)
        for _ in range(10):
            forecast.begun(FREE)
            clock.now += seconds
            forecast.ended(FREE, seconds)
        left.append(forecast.left_s())
    assert left == pytest.approx([30 * 2.0, 20 * (0.25 * 2.0 + 6.0) / 1.25])


def test_each_further_engine_adds_its_start_and_the_last_conversation_before_it() -> None:
    clock = Clock()
    forecast = Forecast(Counter({FREE: 40}), n_engines=2, clock=clock)
    forecast.engine_ready(30.0)
    for _ in range(10):
        forecast.begun(FREE)
        clock.now += 2.0
        forecast.ended(FREE, 2.0)
    assert forecast.left_s() == pytest.approx(30 * 2.0 + 30.0)


def test_what_is_foreseen_is_passed_on_before_the_step_it_belongs_to() -> None:
    told, clock = Told(), Clock()
    foresight = Foresight(told, Forecast(Counter({FREE: 2}), clock=clock))
    foresight.engine_ready(1.0)
    foresight.advance(FREE, seconds=1.0)
    clock.now += 1
    foresight.advance(FREE, seconds=None)
    foresight.tell("a word")
    assert told.expected == [2]
    assert told.scored == {True: 1, False: 1}
    assert [left is None for _, left in told.foreseen] == [False, False]
    assert told.messages == ["a word"]


def test_the_time_left_is_told_no_more_often_than_people_can_read_it() -> None:
    told, clock = Told(), Clock()
    foresight = Foresight(told, Forecast(Counter({FREE: 1000}), clock=clock))
    for _ in range(1000):
        clock.now += TOLD_EVERY_S / 100
        foresight.advance(FREE, seconds=1.0)
    assert told.scored == {True: 1000}
    assert 9 <= len(told.foreseen) <= 11


def test_a_real_run_is_foreseen_within_a_fifth(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once in three tries: what else a machine does in between nobody foresees."""
    monkeypatch.setattr("medeval.forecast.TOLD_EVERY_S", 0.0)
    names = (str(write_benchmark(tmp_path, 40)), str(write_benchmark(tmp_path, 10, name="more")))
    write_pair(tmp_path)
    errors: list[float] = []
    while len(errors) < 3 and min(errors, default=1.0) >= 0.2:
        folder = str(tmp_path / f"run-{len(errors)}")
        plan, told = planned(tmp_path, concurrency=4, benchmarks=names, output_dir=folder), Told()
        carry_out(plan, lambda _: ScriptedModel(play, latency_s=0.1), told)
        assert len(told.foreseen) == 100
        errors.append(error_after_a_tenth(told.foreseen))
    assert min(errors) < 0.2


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
    assert "cost: 1,200 tokens read, 120 written, " in capsys.readouterr().err
    with (tmp_path / "run/tables/summary.csv").open() as file:
        free, available = csv.DictReader(file)
    assert (free["trajectories"], free["prompt_tokens"], free["completion_tokens"]) == (
        "4",
        "400",
        "40",
    )
    assert (available["prompt_tokens"], available["cached_tokens"]) == ("800", "320")
    assert float(free["seconds"]) >= 4 * 0.05
    assert float(free["engine_seconds"]) == pytest.approx(float(free["seconds"]) / 2)

    assert medeval_main(*arguments, "--output-dir", tmp_path / "next", "--dry-run") == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[2].split()[3:7] == ["4", "0", "4", "440"]
    assert shown[-1].split()[:5] == ["all", "8", "0", "8", "1,320"]
    assert medeval_main(*arguments, "--output-dir", tmp_path / "a/b", "--dry-run") == 0
    assert capsys.readouterr().out.count("unknown") == 6


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
