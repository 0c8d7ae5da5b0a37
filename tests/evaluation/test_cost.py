"""Each cell's cost is in the summary, and later runs are estimated from it."""

import csv
import math
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medeval.evaluation.cost import EarlierCosts, EngineTime
from tests.medeval_processes import MedevalMain, Serve
from tests.small_benchmark import write_benchmark, write_pair
from tests.stub_server import StubServer


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@given(st.lists(st.tuples(st.floats(0, 1e4), st.integers(0, 9))))
def test_the_parts_of_all_conversations_add_up_to_the_time_in_which_any_was_under_way(
    events: list[tuple[float, int]],
) -> None:
    clock = Clock()
    engine = EngineTime(clock)
    under_way: list[float] = []
    parts: list[float] = []
    busy_s = 0.0
    for pause_s, choice in [*events, *((1.0, 9) for _ in events)]:
        clock.now += pause_s
        busy_s += pause_s if under_way else 0.0
        if choice < 5:
            under_way.append(engine.begin())
        elif under_way:
            parts.append(engine.end(under_way.pop(choice % len(under_way))))
    parts += [engine.end(begun) for begun in under_way]
    assert all(part >= 0 for part in parts)
    assert math.fsum(parts) == pytest.approx(busy_s, rel=1e-9, abs=1e-6)


def test_one_that_is_alone_for_a_while_has_all_of_that_time() -> None:
    clock = Clock()
    engine = EngineTime(clock)
    long = engine.begin()
    clock.now += 10
    short = engine.begin()
    clock.now += 4
    assert engine.end(short) == 2.0
    clock.now += 1
    assert engine.end(long) == 13.0
    clock.now += 50
    assert engine.end(engine.begin()) == 0.0


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
    earlier = EarlierCosts.near(tmp_path / "two")
    estimate = earlier.estimate("chart", "free", 8)
    assert (estimate.tokens, estimate.engine_s) == (8 * 110, 8 * 1.5)
    assert earlier.estimate("chart", "available", 8).tokens is None
