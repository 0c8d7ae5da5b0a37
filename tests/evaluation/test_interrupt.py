import asyncio
import os
import shutil
import signal
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from subprocess import Popen
from typing import Any

import pytest
from aiohttp import web

import medeval
from medeval.evaluation.interrupt import Interrupt, Interruption
from medeval.models.base import Request
from medeval.models.checkpoints import Checkpoint
from medeval.models.scripted import ScriptedModel
from tests.medeval_processes import MedevalMain, Serve, run_medeval, start_medeval
from tests.small_benchmark import play, png, scripted, write_benchmark, write_judge, write_pair
from tests.stub_server import StubServer

N_SAMPLES = 30


def arguments(folder: Path, server: StubServer, *more: object) -> list[object]:
    write_benchmark(folder, N_SAMPLES)
    write_pair(folder)
    return [
        *("run", "--model", "stub", "--base-url", server.base_url),
        *("--benchmarks", folder / "small.py", "--pairs", folder / "small_pair.py"),
        *("--output-dir", folder / "run", "--concurrency", 4, *more),
    ]


def wait_until_in_flight(process: Popen[str], server: StubServer) -> None:
    while server.in_flight < 4:
        assert process.poll() is None, process.stderr and process.stderr.read()
        time.sleep(0.02)


def n_trajectories(folder: Path) -> int:
    paths = (folder / "run").glob("cells/*/*/*/*/trajectories.0.jsonl")
    return sum(path.read_bytes().count(b"\n") for path in paths)


@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 3)])
def test_a_signal_drains_what_is_in_flight_and_the_rest_resumes(
    name: str, code: int, tmp_path: Path, serve: Serve
) -> None:
    server = serve(StubServer(latency_s=0.3))
    asked = arguments(tmp_path, server)
    with start_medeval(*asked) as process:
        wait_until_in_flight(process, server)
        process.send_signal(getattr(signal, name))
        output, errors = process.communicate(timeout=60)
    assert process.returncode == code, errors
    assert f"{name}: finishing the samples in flight" in errors
    assert f"ended early ({name}); the same command resumes" in errors
    assert "available" in output, "the table of what is done"
    drained = n_trajectories(tmp_path)
    assert 4 <= drained < 2 * N_SAMPLES
    assert not list((tmp_path / "run").glob("cells/**/failures.jsonl"))

    server.latency_s = 0
    resumed = run_medeval(*asked)
    assert resumed.returncode == 0, resumed.stderr
    assert n_trajectories(tmp_path) == 2 * N_SAMPLES
    assert server.requests == 3 * N_SAMPLES, "nothing was asked twice"


def test_a_second_interrupt_ends_at_once(tmp_path: Path, serve: Serve) -> None:
    server = serve(StubServer(faults=lambda *_: "hang"))
    with start_medeval(*arguments(tmp_path, server)) as process:
        wait_until_in_flight(process, server)
        process.send_signal(signal.SIGINT)
        with pytest.raises(TimeoutError):
            wait_for_end(process, 1.0)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    assert n_trajectories(tmp_path) == 0

    server.faults = ()
    assert run_medeval(*arguments(tmp_path, server)).returncode == 0
    assert n_trajectories(tmp_path) == 2 * N_SAMPLES


def wait_for_end(process: Popen[str], seconds: float) -> None:
    """Raises TimeoutError if the process still runs after the timeout."""
    deadline = time.monotonic() + seconds
    while process.poll() is None:
        if time.monotonic() > deadline:
            raise TimeoutError
        time.sleep(0.02)


def test_a_time_limit_drains_and_exits_with_3(
    tmp_path: Path,
    medeval_main: MedevalMain,
    serve: Serve,
    capsys: pytest.CaptureFixture[str],
) -> None:
    import_module("openai")  # it takes longer than the limit
    server = serve(StubServer(latency_s=0.2))
    asked = arguments(tmp_path, server)
    assert medeval_main(*asked, "--time-limit", 0.5) == 3
    assert "ended early (time limit); the same command resumes" in capsys.readouterr().err
    assert 4 <= n_trajectories(tmp_path) < 2 * N_SAMPLES
    server.latency_s = 0
    assert medeval_main(*asked) == 0
    assert server.requests == 3 * N_SAMPLES


HEAVY = """
from medeval import Benchmark, EvalProtocol, HubRows, PixelBudget, Sample

BUDGET = PixelBudget(min_px=784, max_px=784, factor=28)
FREE = EvalProtocol(name="free", user="$question", call_syntax="hermes", pixel_budget=BUDGET)
AGAIN = EvalProtocol(name="again", user="$question", call_syntax="hermes", pixel_budget=BUDGET)
HEAVY = Benchmark(
    name="heavy",
    title="drawn for tests",
    rows=HubRows("nobody/files", split="test"),
    to_sample=lambda row: Sample(
        id=f"s{row.index}", question="?", images=(row.image("image"),), targets=("A",)
    ),
    judge="exact_match",
)
"""


def heavy_png(n_bytes: int) -> bytes:
    """A small image in a large file, which stays in memory during its conversations."""
    whole, padding = png(), b"prVt" + bytes(n_bytes)
    checksum = zlib.crc32(padding).to_bytes(4)
    return b"".join([whole[:-12], n_bytes.to_bytes(4), padding, checksum, whole[-12:]])


@dataclass(kw_only=True)
class Gate(StubServer):
    """A server that answers only after its gate is open."""

    is_open: bool = False

    async def _work(self, request: web.Request, index: int, raw: bytes) -> web.StreamResponse:
        while not self.is_open:
            await asyncio.sleep(0.01)
        return await super()._work(request, index, raw)


def heavy(folder: Path, server: StubServer) -> list[object]:
    """A run of 8 conversations in which two images, of two conversations each, fill the memory."""
    path, images = folder / "heavy.py", folder / "images"
    if not images.exists():
        path.write_text(HEAVY)
        images.mkdir()
        (images / "large.png").write_bytes(heavy_png(60 << 20))
        (images / "rows.jsonl").write_text('{"image": "large.png"}\n' * 4)
    return [
        *("run", "--model", "stub", "--base-url", server.base_url, "--concurrency", 8),
        *("--benchmarks", path, "--protocols", f"{path}::free,{path}::again"),
        *("--data-dir", images, "--output-dir", folder / "run"),
    ]


def messages_at_interrupt(process: Popen[str]) -> str:
    """The messages of an interrupted run, which ends only after the gate is opened."""
    assert process.stderr is not None
    for line in process.stderr:
        if "finishing the samples in flight" in line:
            return line
    raise AssertionError("the run ended by itself")


@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 3)])
def test_what_waits_for_room_for_its_image_is_not_begun_once_a_signal_came(
    name: str, code: int, tmp_path: Path, serve: Serve
) -> None:
    server = Gate(answers=("A",))
    serve(server)
    with start_medeval(*heavy(tmp_path, server)) as process:
        while server.in_flight < 4:
            assert process.poll() is None, process.stderr and process.stderr.read()
            time.sleep(0.02)
        time.sleep(0.3)
        assert server.in_flight == 4, "8 could be, but 4 wait for room"
        process.send_signal(getattr(signal, name))
        assert name in messages_at_interrupt(process)
        server.is_open = True
        process.communicate(timeout=60)
    assert process.returncode == code
    check_drained_and_resumed(tmp_path, server)


def test_what_waits_for_room_for_its_image_is_not_begun_after_the_time_limit(
    tmp_path: Path, serve: Serve
) -> None:
    """The run is repeated with more time if a busy machine has not started within the limit."""
    for seconds in (4, 12, 36):
        server = Gate(answers=("A",))
        serve(server)
        asked = heavy(tmp_path, server)
        with start_medeval(*asked, "--time-limit", seconds) as process:
            assert "time limit" in messages_at_interrupt(process)
            n_begun, server.is_open = server.in_flight, True
            process.communicate(timeout=60)
        assert process.returncode == 3
        if n_begun == 4:
            break
        shutil.rmtree(tmp_path / "run")
    check_drained_and_resumed(tmp_path, server)


def check_drained_and_resumed(folder: Path, server: StubServer) -> None:
    """The samples in flight are recorded, and the same command makes the rest: each once."""
    assert n_trajectories(folder) == server.requests == 4
    assert not list((folder / "run").glob("cells/**/failures.jsonl"))
    resumed = run_medeval(*heavy(folder, server))
    assert resumed.returncode == 0, resumed.stderr
    assert n_trajectories(folder) == server.requests == 8
    trajectories = medeval.load_run(folder / "run").trajectories
    assert not trajectories.duplicated(["protocol", "sample_id"]).any()


def test_a_time_limit_counts_from_the_start_of_the_command() -> None:
    interrupt = Interrupt()
    time.sleep(0.06)

    async def work() -> None:
        with interrupt.covering(0.05):
            await asyncio.sleep(0.01)
            assert interrupt.reason == "time limit"

    asyncio.run(work())


def test_a_signal_before_the_first_request_ends_with_3_and_the_run_resumes(
    tmp_path: Path, serve: Serve
) -> None:
    server = serve(StubServer())
    asked = arguments(tmp_path, server)
    slow = (
        (tmp_path / "small.py").read_text().replace("    buffer", "    time.sleep(0.2)\n    buffer")
    )
    (tmp_path / "small.py").write_text(f"import time\n{slow}")
    with start_medeval(*asked) as process:
        while not list((tmp_path / "run").glob("samples/.*.lock")):
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 3, errors
    assert "SIGTERM: nothing was in flight; the same command resumes" in errors
    assert not list((tmp_path / "run/samples").glob("*.tmp"))
    assert run_medeval(*arguments(tmp_path, server)).returncode == 0


def test_an_interrupted_fresh_run_resumes_without_fresh(
    tmp_path: Path,
    medeval_main: MedevalMain,
    serve: Serve,
    capsys: pytest.CaptureFixture[str],
) -> None:
    server = serve(StubServer(latency_s=0.2))
    asked = arguments(tmp_path, server, "--time-limit", 0.1)
    assert medeval_main(*asked, "--fresh") == 3
    assert "the same command without --fresh resumes" in capsys.readouterr().err


def told_of(*reasons: Interruption) -> tuple[Interruption | None, list[str]]:
    messages: list[str] = []
    interrupt = Interrupt()
    interrupt.tell = messages.append
    for reason in reasons:
        interrupt.ask(reason)
    return interrupt.reason, messages


def test_the_first_reason_holds_and_is_told_once() -> None:
    reason, messages = told_of("SIGTERM", "SIGINT", "time limit")
    assert reason == "SIGTERM"
    assert messages == ["SIGTERM: finishing the samples in flight; once more to drop them"]
    assert told_of("time limit")[1] == ["time limit: finishing the samples in flight"]


def test_a_second_signal_cancels_the_work_and_a_time_limit_does_not() -> None:
    interrupt = Interrupt()

    async def work() -> None:
        with interrupt.covering(0.05):
            await asyncio.sleep(0.1)
            assert interrupt.reason == "time limit"
            interrupt.ask("time limit")
            await asyncio.sleep(0.01)
            os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.sleep(30)

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(work())
    assert interrupt.reason == "time limit"


def test_signals_are_left_alone_outside_the_main_thread_and_after_the_work() -> None:
    async def work() -> None:
        with Interrupt().covering(None):
            await asyncio.sleep(0)

    before = signal.getsignal(signal.SIGTERM)
    asyncio.run(work())
    assert signal.getsignal(signal.SIGTERM) is before

    with ThreadPoolExecutor(1) as executor:
        executor.submit(asyncio.run, work()).result()
    assert signal.getsignal(signal.SIGTERM) is before


def stop_this_process(_: object = None) -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def test_no_further_checkpoint_is_begun(tmp_path: Path) -> None:
    write_benchmark(tmp_path, 2)
    write_pair(tmp_path)
    opened = []

    def stopping(request: Request) -> str:
        stop_this_process()
        return play(request)

    def open_model(checkpoint: Checkpoint) -> ScriptedModel:
        opened.append(checkpoint.id)
        return ScriptedModel(stopping, latency_s=0.01)

    run = medeval.run(
        model=["first", "second"],
        benchmarks=tmp_path / "small.py",
        pairs=tmp_path / "small_pair.py",
        output_dir=tmp_path / "run",
        concurrency=1,
        open_model=open_model,
    )
    assert opened == ["first"]
    assert list(run.trajectories.checkpoint) == ["first"]


def test_judging_what_lacks_a_verdict_can_be_interrupted(tmp_path: Path) -> None:
    judge = write_judge(tmp_path)
    write_benchmark(tmp_path, 6, judge=judge)
    write_pair(tmp_path)
    plan: dict[str, Any] = {
        "model": "m",
        "benchmarks": tmp_path / "small.py",
        "pairs": tmp_path / "small_pair.py",
        "output_dir": tmp_path / "run",
        "open_model": scripted,
    }
    medeval.run(**plan, defer_grading=True)
    stopping = judge.read_text().replace("    return", "    os.kill(os.getpid(), 15)\n    return")
    judge.write_text(f"import os\n{stopping}")
    begun = medeval.run(**plan, defer_grading=False)
    assert 0 < len(begun.verdicts) < 12
    write_judge(tmp_path)
    assert len(medeval.run(**plan).outcomes) == 6
