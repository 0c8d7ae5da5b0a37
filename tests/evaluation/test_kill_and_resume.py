import json
import random
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests.medeval_processes import (
    MedevalMain,
    Serve,
    requests_served,
    run_medeval,
    start_medeval,
    stub_process,
)
from tests.small_benchmark import write_benchmark, write_pair
from tests.stub_server import StubServer

N_KILLS = 20
N_SAMPLES = 200
# one request in the free arm, a call and an answer in the other
REQUESTS_A_SAMPLE = 3
CELLS = "cells/stub/*/small/*"
# times differ from run to run, and nothing else may
TIMES = frozenset({"seconds", "engine_seconds", "when"})


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with stub_process("--latency", 0.1, "--model", "stub", "--model", "other") as url:
        yield url


def plan(folder: Path, url: str, **flags: object) -> list[object]:
    values = {
        "model": "stub",
        "base-url": url,
        "benchmarks": folder / "small.py",
        "pairs": folder / "small_pair.py",
        "concurrency": 8,
        **flags,
    }
    return ["run", *(item for name, value in values.items() for item in (f"--{name}", value))]


def without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: without_times(item) for name, item in value.items() if name not in TIMES}
    return [without_times(item) for item in value] if isinstance(value, list) else value


def lines(folder: Path, pattern: str) -> list[str]:
    """Every line of the files with its file's name, without times, sorted."""
    return sorted(
        f"{path.relative_to(folder)} {json.dumps(without_times(json.loads(line)))}"
        for path in folder.glob(pattern)
        for line in path.read_text().splitlines()
    )


def contents(folder: Path, pattern: str) -> list[bytes]:
    return [path.read_bytes() for path in sorted(folder.glob(pattern))]


def n_trajectories(folder: Path) -> int:
    return sum(
        path.read_bytes().count(b"\n") for path in folder.glob(f"{CELLS}/trajectories.*.jsonl")
    )


def kill_in_start_up(seconds: float, arguments: list[object]) -> None:
    with start_medeval(*arguments) as process:
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(seconds)
        process.kill()


def kill_at_work(seconds: float, arguments: list[object], run: Path) -> None:
    """Kill a number of seconds after the first trajectory of this start is written."""
    before = n_trajectories(run)
    with start_medeval(*arguments) as process:
        while n_trajectories(run) == before:
            assert process.poll() is None, process.stderr and process.stderr.read()
            time.sleep(0.01)
        time.sleep(seconds)
        assert process.poll() is None, "the run was over before it was killed"
        process.kill()


def test_a_run_killed_twenty_times_ends_as_an_undisturbed_one_and_can_be_extended(
    tmp_path: Path, server: str
) -> None:
    write_benchmark(tmp_path, N_SAMPLES)
    write_pair(tmp_path)
    calm, killed = tmp_path / "calm", tmp_path / "killed"
    undisturbed = run_medeval(*plan(tmp_path, server, **{"output-dir": calm}))
    assert undisturbed.returncode == 0, undisturbed.stderr

    moments, counts = random.Random(20), [0]
    arguments = plan(tmp_path, server, **{"output-dir": killed})
    for number in range(N_KILLS):
        if number % 4 == 0:
            kill_in_start_up(moments.uniform(0.3, 1.5), arguments)
        else:
            kill_at_work(moments.uniform(0.0, 0.35), arguments, killed)
        counts.append(n_trajectories(killed))
    assert counts == sorted(counts), "a trajectory was lost"
    assert counts[-1] < 2 * N_SAMPLES, "the run was over before the last kill"
    last = run_medeval(*arguments)
    assert last.returncode == 0, last.stderr

    for pattern, n in {
        "samples/small.jsonl": N_SAMPLES,
        f"{CELLS}/trajectories.0.jsonl": 2 * N_SAMPLES,
        f"{CELLS}/verdicts.0.jsonl": 2 * N_SAMPLES,
        f"{CELLS}/failures.jsonl": 0,
        "outcomes/*/*/small/*.jsonl": N_SAMPLES,
    }.items():
        assert len(lines(killed, pattern)) == n, pattern
        assert lines(killed, pattern) == lines(calm, pattern), pattern
    assert contents(killed, f"{CELLS}/cell.json") == contents(calm, f"{CELLS}/cell.json")
    after_kills, undisturbed_one = (
        pd.read_csv(run / "tables/summary.csv").drop(columns=["seconds", "engine_seconds"])
        for run in (killed, calm)
    )
    pd.testing.assert_frame_equal(after_kills, undisturbed_one)

    extend_by_a_benchmark_and_a_checkpoint(tmp_path, server, killed)


def extend_by_a_benchmark_and_a_checkpoint(folder: Path, server: str, run: Path) -> None:
    write_benchmark(folder, 5, name="more")
    before, served = lines(run, "cells/stub/*/small/*/*.jsonl"), requests_served(server)
    both = f"{folder / 'small.py'},{folder / 'more.py'}"
    arguments = plan(folder, server, benchmarks=both, **{"output-dir": run, "limit": 3})

    done = run_medeval(*arguments, "--model", "other")
    assert done.returncode == 0, done.stderr
    # the new benchmark at the old checkpoint, and both benchmarks at the new one
    assert requests_served(server) - served == (3 + 2 * 3) * REQUESTS_A_SAMPLE
    assert lines(run, "cells/stub/*/small/*/*.jsonl") == before
    assert len(lines(run, "outcomes/*/*/*/*.jsonl")) == N_SAMPLES + 3 + 2 * 3


def test_an_extension_by_samples_and_repeats_redoes_nothing(
    tmp_path: Path, medeval_main: MedevalMain, serve: Serve
) -> None:
    write_benchmark(tmp_path, 20)
    write_pair(tmp_path)
    run, server = tmp_path / "run", serve(StubServer())
    for limit, repeats, n in ((4, 1, 4), (7, 1, 7), (7, 2, 14)):
        flags = {"limit": limit, "repeats": repeats, "output-dir": run}
        assert medeval_main(*plan(tmp_path, server.base_url, **flags)) == 0
        assert server.requests == n * REQUESTS_A_SAMPLE
        assert len(lines(run, "outcomes/*/*/small/*.jsonl")) == n
