"""Worker processes make the records of a single process, even if some of them die."""

import os
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from subprocess import Popen

import pytest

import medeval
from medeval.errors import UsageError
from medeval.evaluation.plan import resolve
from medeval.evaluation.plan_file import PlanFile
from medeval.evaluation.workers.devices import devices_of, gpu_groups, worker_environment
from medeval.evaluation.workers.pool import options_of_worker
from medeval.models.hardware import usable_cpus
from tests.evaluation.test_kill_and_resume import lines
from tests.medeval_processes import MedevalMain, Serve, run_medeval, start_medeval, stub_process
from tests.small_benchmark import scripted, write_benchmark, write_pair
from tests.stub_server import StubServer

N_SAMPLES = 12
MODELS = ("a", "b", "c", "d")
Capture = pytest.CaptureFixture[str]


def asked(
    folder: Path, server: StubServer, name: str, *more: object, models: Sequence[str] = MODELS
) -> list[object]:
    write_benchmark(folder, N_SAMPLES)
    write_pair(folder)
    flags = [item for model in models for item in ("--model", model)]
    return [
        *("run", *flags, "--base-url", server.base_url),
        *("--benchmarks", folder / "small.py", "--pairs", folder / "small_pair.py"),
        *("--output-dir", folder / name, "--concurrency", 4, *more),
    ]


def served(serve: Serve, latency_s: float = 0.0) -> StubServer:
    return serve(StubServer(models=MODELS, latency_s=latency_s))


def records(run: Path, kind: str) -> list[str]:
    """The lines of all writers, by cell."""
    found = lines(run, f"cells/*/*/*/*/{kind}.*.jsonl")
    return sorted(line.replace(line.split(" ")[0].rpartition("/")[2], "") for line in found)


def workers_of(process: "Popen[str]") -> list[int]:
    """The process ids of a command's workers."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return [
        int(pid)
        for pid in children
        if b"medeval.evaluation.workers.process"
        in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    ]


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def n_done(run: Path) -> int:
    paths = run.glob("cells/*/*/*/*/trajectories.*.jsonl")
    return sum(path.read_bytes().count(b"\n") for path in paths)


def await_done(process: "Popen[str]", run: Path, n: int) -> None:
    """Wait until a running command has made a number of trajectories."""
    while n_done(run) < n:
        assert process.poll() is None, process.stderr and process.stderr.read()
        time.sleep(0.02)


@contextmanager
def at_work(arguments: list[object], run: Path, n: int = 8) -> Iterator["Popen[str]"]:
    """The running command, after it has made a number of trajectories."""
    with start_medeval(*arguments) as process:
        try:
            await_done(process, run, n)
            yield process
        finally:
            process.kill()


def test_two_workers_leave_the_records_of_a_local_run(
    tmp_path: Path, medeval_main: MedevalMain, serve: Serve, capsys: Capture
) -> None:
    server = served(serve)
    assert medeval_main(*asked(tmp_path, server, "local")) == 0
    table = capsys.readouterr().out
    assert medeval_main(*asked(tmp_path, server, "run", "--workers", 2)) == 0
    seen = capsys.readouterr()
    assert seen.out == table
    assert f"{2 * N_SAMPLES * len(MODELS)}/{2 * N_SAMPLES * len(MODELS)}" in seen.err
    for kind in ("trajectories", "verdicts"):
        assert records(tmp_path / "run", kind) == records(tmp_path / "local", kind)
    for pattern in ("samples/*.jsonl", "outcomes/*/*/*/*.jsonl"):
        assert lines(tmp_path / "run", pattern) == lines(tmp_path / "local", pattern)
    writers = {path.name for path in (tmp_path / "run").glob("cells/*/*/*/*/trajectories.*")}
    assert writers == {"trajectories.1.jsonl", "trajectories.2.jsonl"}
    assert server.requests == 2 * 3 * N_SAMPLES * len(MODELS)

    requests = server.requests
    assert medeval_main(*asked(tmp_path, server, "run", "--workers", 2)) == 0
    assert server.requests == requests, "a second start has nothing to do"


def test_what_a_killed_worker_leaves_another_does_and_nothing_is_lost_or_twice(
    tmp_path: Path, serve: Serve
) -> None:
    server = served(serve, latency_s=0.1)
    with at_work(asked(tmp_path, server, "run", "--workers", 2), tmp_path / "run") as process:
        os.kill(workers_of(process)[0], signal.SIGKILL)
        _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert "ended with SIGKILL at" in errors
    assert "another worker takes over" in errors
    check_complete(tmp_path / "run")


@pytest.mark.parametrize("more", [(), ("--workers", 2)], ids=["alone", "workers"])
def test_a_server_that_is_killed_and_comes_back_costs_no_sample(
    more: tuple[object, ...], tmp_path: Path
) -> None:
    check_a_restarted_server_costs_no_sample(tmp_path, *more)


def check_a_restarted_server_costs_no_sample(folder: Path, *more: object) -> None:
    """Kill the server once a run has made eight trajectories, and start it again."""
    models = [item for model in MODELS for item in ("--model", model)]
    with ExitStack() as until_killed:
        url = until_killed.enter_context(stub_process("--latency", 0.05, *models))
        port = int(url.removesuffix("/v1").rpartition(":")[2])
        arguments = asked(folder, StubServer(port=port), "run", *more)
        with at_work(arguments, folder / "run") as process:
            until_killed.close()
            before = n_done(folder / "run")
            with stub_process("--port", port, *models):
                _, errors = process.communicate(timeout=120)
    assert before < 2 * N_SAMPLES * len(MODELS)
    assert process.returncode == 0, errors
    assert not list((folder / "run").glob("cells/**/failures.jsonl"))
    check_complete(folder / "run")


def test_workers_lost_one_after_the_other_cost_a_checkpoint_nothing_while_it_goes_on(
    tmp_path: Path, serve: Serve
) -> None:
    server = served(serve, latency_s=0.15)
    more = ("--workers", 1, "--concurrency", 2)
    arguments = asked(tmp_path, server, "run", *more, models=MODELS[:1])
    with at_work(arguments, tmp_path / "run", n=2) as process:
        for _ in range(3):
            before = n_done(tmp_path / "run")
            os.kill(next(iter(await_workers(process))), signal.SIGKILL)
            await_done(process, tmp_path / "run", before + 2)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert errors.count("another worker takes over") == 3
    trajectories = medeval.load_run(tmp_path / "run").trajectories
    assert len(trajectories) == n_done(tmp_path / "run") == 2 * N_SAMPLES


def await_workers(process: "Popen[str]") -> list[int]:
    while not (workers := workers_of(process)):
        time.sleep(0.02)
    return workers


def check_complete(run: Path) -> None:
    trajectories = medeval.load_run(run).trajectories
    assert len(trajectories) == n_done(run) == 2 * N_SAMPLES * len(MODELS)
    assert not trajectories.duplicated(["checkpoint", "protocol", "sample_id"]).any()
    assert len(medeval.load_run(run).outcomes) == N_SAMPLES * len(MODELS)


@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 3), ("SIGINT", 130)])
def test_a_signal_drains_the_workers_and_the_run_resumes(
    name: str, code: int, tmp_path: Path, serve: Serve
) -> None:
    server = served(serve, latency_s=0.2)
    arguments = asked(tmp_path, server, "run", "--workers", 2)
    with at_work(arguments, tmp_path / "run") as process:
        # a scheduler signals every process of a job, and more than once is as once
        for worker in workers_of(process):
            os.kill(worker, signal.SIGTERM)
        process.send_signal(getattr(signal, name))
        _, errors = process.communicate(timeout=60)
    assert process.returncode == code, errors
    assert 8 <= n_done(tmp_path / "run") < 2 * N_SAMPLES * len(MODELS)
    assert not list((tmp_path / "run").glob("cells/**/failures.jsonl"))
    assert server.in_flight == 0, "all that was in flight was waited for"
    server.latency_s = 0
    resumed = run_medeval(*arguments)
    assert resumed.returncode == 0, resumed.stderr
    check_complete(tmp_path / "run")
    assert server.requests == 3 * N_SAMPLES * len(MODELS)


def test_a_time_limit_drains_the_workers(
    tmp_path: Path, medeval_main: MedevalMain, serve: Serve, capsys: Capture
) -> None:
    server = served(serve, latency_s=0.3)
    more = ("--workers", 2, "--time-limit", 4)
    assert medeval_main(*asked(tmp_path, server, "run", *more)) == 3
    assert "time limit: finishing the samples in flight" in capsys.readouterr().err
    assert n_done(tmp_path / "run") < 2 * N_SAMPLES * len(MODELS)


def test_workers_end_with_whoever_started_them(tmp_path: Path, serve: Serve) -> None:
    server = served(serve, latency_s=0.2)
    arguments = asked(tmp_path, server, "run", "--workers", 2)
    with at_work(arguments, tmp_path / "run") as process:
        workers = workers_of(process)
        process.kill()
        process.communicate(timeout=10)
    assert workers
    deadline = time.monotonic() + 20
    while any(map(is_running, workers)):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    server.latency_s = 0
    assert run_medeval(*arguments).returncode == 0
    check_complete(tmp_path / "run")


def test_a_checkpoint_that_kills_its_workers_is_given_up_and_the_others_go_on(
    tmp_path: Path, serve: Serve
) -> None:
    """The engine of one checkpoint ends the whole process, as when memory runs out."""
    server = served(serve)
    arguments = asked(tmp_path, server, "run", "--workers", 2)
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\n"
        "if 'medeval.evaluation.workers.process' in sys.orig_argv:\n"
        "    import os\n"
        "    from medeval.models.openai.client import OpenAIModel\n"
        "    start = OpenAIModel.start\n"
        "    async def fatal(model):\n"
        "        await start(model)\n"
        "        if model.identity()['model'] == 'b':\n"
        "            print('no memory left', file=sys.stderr, flush=True)\n"
        "            os._exit(9)\n"
        "    OpenAIModel.start = fatal\n"
    )
    path = f"{tmp_path}{os.pathsep}{Path(medeval.__file__).parents[1]}"
    process = run_medeval(*arguments, pythonpath=path)
    assert process.returncode == 1, process.stderr
    assert "b x small x free stopped: 2 workers were lost at it" in process.stderr
    assert "ended with exit code 9 at b" in process.stderr
    assert "no memory left" in process.stderr
    assert n_done(tmp_path / "run") == 2 * N_SAMPLES * (len(MODELS) - 1)


def test_a_cell_that_stops_in_a_worker_is_reported(
    tmp_path: Path, medeval_main: MedevalMain, serve: Serve, capsys: Capture
) -> None:
    server = serve(StubServer(models=MODELS[:3]))
    assert medeval_main(*asked(tmp_path, server, "run", "--workers", 2)) == 1
    seen = capsys.readouterr()
    assert "stopped: d x small x free: 'd' was asked for" in seen.err
    assert len(medeval.load_run(tmp_path / "run").outcomes) == 3 * N_SAMPLES


def test_gpus_are_dealt_out_in_groups(tmp_path: Path) -> None:
    assert gpu_groups(2, None, environment={}, driver=tmp_path) == [None, None]
    assert gpu_groups(2, None, environment={"CUDA_VISIBLE_DEVICES": "3,1"}) == ["3", "1"]
    for name in range(4):
        (tmp_path / str(name)).mkdir()
    assert gpu_groups(2, 2, environment={}, driver=tmp_path) == ["0,1", "2,3"]
    with pytest.raises(UsageError, match="3 workers with 2 GPUs each need 6, but there are 4"):
        gpu_groups(3, 2, environment={}, driver=tmp_path)


def test_workers_share_the_cpus_unless_told_how_many_they_have() -> None:
    backend = "transformers"
    assert worker_environment(None, 1, backend, {"HOME": "/"}) == {"HOME": "/"}
    half = {"OMP_NUM_THREADS": str(max(1, usable_cpus() // 2))}
    assert worker_environment("0,1", 2, backend, {}) == {**half, "CUDA_VISIBLE_DEVICES": "0,1"}
    assert worker_environment(None, 10**6, backend, {}) == {"OMP_NUM_THREADS": "1"}
    told = {"OMP_NUM_THREADS": "7", "CUDA_VISIBLE_DEVICES": "0,1"}
    assert worker_environment("1", 2, backend, told) == {**told, "CUDA_VISIBLE_DEVICES": "1"}


@pytest.mark.parametrize("backend", ["vllm", "vllm-server", "openai"])
def test_engines_that_choose_their_threads_themselves_are_not_told(backend: str) -> None:
    assert worker_environment("1", 2, backend, {}) == {"CUDA_VISIBLE_DEVICES": "1"}


def plan(folder: Path, **options: object) -> PlanFile:
    write_benchmark(folder, 2)
    write_pair(folder)
    return PlanFile.model_validate(
        {
            "model": ["m"],
            "base_url": "http://127.0.0.1:1",
            "benchmarks": [str(folder / "small.py")],
            "pairs": [str(folder / "small_pair.py")],
            **options,
        }
    )


def test_options_of_workers_are_refused_where_they_cannot_be_meant(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no workers"):
        devices_of(resolve(plan(tmp_path, gpus_per_worker=2)))
    assert devices_of(resolve(plan(tmp_path, workers=2))) == [None, None], "the server's GPUs"
    with pytest.raises(UsageError, match="its own server for the judges"):
        served = plan(tmp_path, workers=2, judge_model=str(tmp_path), judge_backend="vllm-server")
        devices_of(resolve(served))
    with pytest.raises(UsageError, match="leave out open_model, or workers"):
        medeval.run(**plan(tmp_path, workers=2).model_dump(), open_model=scripted)


def test_a_worker_gets_its_share_of_the_judges_and_no_limits_of_its_own(tmp_path: Path) -> None:
    resolved = resolve(
        plan(tmp_path, workers=4, judge_max_calls=10, fresh=True, time_limit=5, output_dir="x")
    )
    options = options_of_worker(resolved, 4)
    assert (options["judge_concurrency"], options["judge_max_calls"]) == (8, 2)
    assert (options["fresh"], options["time_limit"], options["workers"]) == (False, None, None)
    assert Path(options["output_dir"]) == Path("x").resolve()
