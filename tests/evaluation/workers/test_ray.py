"""Two workers on a local Ray make the records of a local run, even if a worker is lost."""

import importlib.util
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

import medeval
from tests.evaluation.test_kill_and_resume import lines
from tests.evaluation.workers.test_pool import (
    MODELS,
    N_SAMPLES,
    asked,
    at_work,
    check_a_restarted_server_costs_no_sample,
    check_complete,
    n_done,
)
from tests.medeval_processes import Serve, run_medeval
from tests.stub_server import StubServer

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="ray is not installed"
)
ON_RAY = ("--cluster", "ray", "--workers", 2)


@pytest.fixture
def mark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The entry in the environment that marks the processes of this test."""
    monkeypatch.setenv("MEDEVAL_TEST_MARK", str(tmp_path))
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    return f"MEDEVAL_TEST_MARK={tmp_path}"


def actors(mark: str) -> Iterator[int]:
    """The processes of this test's workers."""
    for path in Path("/proc").glob("[0-9]*"):
        try:
            title = (path / "cmdline").read_bytes()
            if b"ray::RemoteEvaluation" in title and mark.encode() in (
                path / "environ"
            ).read_bytes().split(b"\0"):
                yield int(path.name)
        except OSError:
            continue


def test_two_workers_on_ray_leave_the_records_of_a_local_run(
    tmp_path: Path, serve: Serve, mark: str
) -> None:
    server = serve(StubServer(models=MODELS))
    local = run_medeval(*asked(tmp_path, server, "local", "--keep-images", 3))
    assert local.returncode == 0, local.stderr
    done = run_medeval(*asked(tmp_path, server, "run", "--keep-images", 3, *ON_RAY))
    assert done.returncode == 0, done.stderr
    assert done.stdout == local.stdout
    for pattern in (
        "samples/*.jsonl",
        "cells/*/*/*/*/*.0.jsonl",
        "outcomes/*/*/*/*.jsonl",
    ):
        assert lines(tmp_path / "run", pattern) == lines(tmp_path / "local", pattern), pattern
    kept = [{path.name for path in (tmp_path / r / "images").iterdir()} for r in ("run", "local")]
    assert kept[0] == kept[1]
    assert server.requests == 2 * 3 * N_SAMPLES * len(MODELS)


def test_what_a_lost_worker_leaves_another_does_and_nothing_is_lost_or_twice(
    tmp_path: Path, serve: Serve, mark: str
) -> None:
    server = serve(StubServer(models=MODELS, latency_s=0.3))
    arguments = asked(tmp_path, server, "run", *ON_RAY)
    with at_work(arguments, tmp_path / "run", n=8) as process:
        os.kill(next(actors(mark)), signal.SIGKILL)
        _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert "another worker takes over" in errors
    check_complete(tmp_path / "run")


def test_a_server_that_is_killed_and_comes_back_costs_workers_on_ray_no_sample(
    tmp_path: Path, mark: str
) -> None:
    check_a_restarted_server_costs_no_sample(tmp_path, *ON_RAY)


def test_a_checkpoint_survives_the_loss_of_all_its_workers_at_once(
    tmp_path: Path, serve: Serve, mark: str
) -> None:
    server = serve(StubServer(models=MODELS, latency_s=0.3))
    arguments = asked(tmp_path, server, "run", *ON_RAY, models=MODELS[:1])
    with at_work(arguments, tmp_path / "run", n=4) as process:
        lost = list(actors(mark))
        for actor in lost:
            os.kill(actor, signal.SIGKILL)
        _, errors = process.communicate(timeout=120)
    assert len(lost) == 2
    assert process.returncode == 0, errors
    assert len(medeval.load_run(tmp_path / "run").trajectories) == 2 * N_SAMPLES
    assert n_done(tmp_path / "run") == 2 * N_SAMPLES


def test_a_signal_drains_the_workers_on_ray_and_a_single_checkpoint_is_shared(
    tmp_path: Path, serve: Serve, mark: str
) -> None:
    server = serve(StubServer(models=MODELS, latency_s=0.3))
    arguments = asked(tmp_path, server, "run", *ON_RAY, models=MODELS[:1])
    with at_work(arguments, tmp_path / "run", n=4) as process:
        assert len(list(actors(mark))) == 2, "both have a part of the one checkpoint"
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 3, errors
    assert 4 <= n_done(tmp_path / "run") < 2 * N_SAMPLES
    server.latency_s = 0
    resumed = run_medeval(*arguments)
    assert resumed.returncode == 0, resumed.stderr
    assert len(medeval.load_run(tmp_path / "run").outcomes) == N_SAMPLES
    assert server.requests == 3 * N_SAMPLES
