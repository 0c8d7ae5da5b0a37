"""A server that a run starts: killed, stillborn or sick, nothing is lost and nothing done twice."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

import medeval
from medeval import load_run
from medeval.errors import FatalModelError, TransientModelError, UsageError
from medeval.evaluation.engines import model_opener
from medeval.evaluation.plan import resolve
from medeval.evaluation.plan_file import read_options
from medeval.models.vllm import supervisor as living
from medeval.models.vllm.lora import ModelFolder
from medeval.models.vllm.process import is_own_port
from medeval.models.vllm.server import KEY_VARIABLE, server_plan, server_slot
from medeval.models.vllm.supervisor import SupervisedModel
from tests.managed_servers import Orders, command, flag, lives, server_pid, write_checkpoint
from tests.medeval_processes import MedevalMain
from tests.small_benchmark import scripted, write_benchmark, write_pair
from tests.tiny_checkpoints import request

N_SAMPLES = 12


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A folder that looks like a checkpoint's to those who read its headers alone."""
    return write_checkpoint(tmp_path / "checkpoint")


def model(checkpoint: Path, **arguments: Any) -> SupervisedModel:
    given = {"max_retries": 1, "retry_wait_s": 0.05, "start_timeout_s": 30, **arguments}
    return SupervisedModel(checkpoint, server_slot(server_plan(given, checkpoint.parent / "logs")))


def logs(checkpoint: Path) -> list[Path]:
    return list((checkpoint.parent / "logs").iterdir())


def ask(model: SupervisedModel, n: int) -> list[str | BaseException]:
    """What a model replies to n requests at once; started and closed."""

    async def asked() -> list[Any]:
        await model.start()
        try:
            replies = await asyncio.gather(
                *(model.generate(request(f"Number {index}?")) for index in range(n)),
                return_exceptions=True,
            )
            return [getattr(reply, "text", reply) for reply in replies]
        finally:
            await model.close()
            await model._slot.aclose()

    return asyncio.run(asked())


def test_a_server_is_started_asked_and_ended(checkpoint: Path, stand_in: Orders) -> None:
    folder = stand_in()
    started = model(checkpoint, dtype="float32", enforce_eager=True)
    replies = ask(started, 5)
    assert all(str(reply).startswith("<answer>") for reply in replies)
    (life,) = folder.glob("life-*")
    command = json.loads(life.read_text())
    assert command[command.index("--host") + 1] == "127.0.0.1"
    assert command[command.index("--dtype") + 1] == "float32"
    assert "--enforce-eager" in command
    identity = started.identity()
    assert identity["engine"] == "vllm-server"
    assert identity["arguments"] == {
        "dtype": "float32", "enforce_eager": True, "tool_call_parser": "hermes",
        "chat_template_content_format": "openai",
    }  # fmt: skip
    assert command[command.index("--chat-template-content-format") + 1] == "openai"
    assert started.notes() == ()
    assert len(logs(checkpoint)) == 1


@pytest.mark.parametrize(
    ("given", "judges", "expected"),
    [
        ({}, False, ["openai"]),
        ({"chat_template_content_format": "string"}, False, ["string"]),
        ({"engine_args": {"chat_template_content_format": "auto"}}, False, ["auto"]),
        ({}, True, []),
    ],
)
def test_messages_reach_the_template_as_lists_of_parts_unless_told_otherwise(
    checkpoint: Path, given: dict[str, Any], judges: bool, expected: list[str]
) -> None:
    plan = server_plan({"python": sys.executable, **given}, checkpoint.parent, judges=judges)
    command = plan.command(ModelFolder(checkpoint), 1)
    flags = enumerate(command, start=1)
    assert [command[at] for at, flag in flags if "content-format" in flag] == expected


def test_what_was_in_flight_when_a_server_died_is_asked_of_the_next(
    checkpoint: Path, stand_in: Orders
) -> None:
    folder = stand_in(dies_at=[4, 9])
    started = model(checkpoint)
    replies = ask(started, 8)
    assert all(str(reply).startswith("<answer>") for reply in replies)
    assert lives(folder) == 3
    assert started.notes() == ("the engine died 2 times; requests in flight were sent again",)


def test_a_server_that_runs_on_without_its_engine_is_replaced(
    checkpoint: Path, stand_in: Orders
) -> None:
    folder = stand_in(sick_at=[3])
    replies = ask(model(checkpoint), 6)
    assert all(str(reply).startswith("<answer>") for reply in replies)
    assert lives(folder) == 2


def test_a_request_that_kills_every_server_is_given_up(checkpoint: Path, stand_in: Orders) -> None:
    # each life answers its warm-up, and a neighbour in between
    stand_in(dies_at=[1, 3, 5])
    (reply,) = ask(model(checkpoint), 1)
    assert isinstance(reply, TransientModelError)
    assert "died 3 times during a request" in reply.message


def test_a_server_that_dies_in_a_row_stops_the_checkpoint(
    checkpoint: Path, stand_in: Orders, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(living, "MAX_DEATHS_IN_A_ROW", 2)
    stand_in(dies_at=[1, 3])
    (reply,) = ask(model(checkpoint), 1)
    assert isinstance(reply, FatalModelError)
    assert "died 2 times in a row" in reply.message


def test_a_server_that_does_not_start_again_stops_the_checkpoint(
    checkpoint: Path, stand_in: Orders
) -> None:
    folder = stand_in()
    started = model(checkpoint)

    async def asked() -> None:
        await started.start()
        stand_in(say="OSError: no such disk", dies_at=[1])
        try:
            await started.generate(request())
            (folder / "request-1").touch()
            os.kill(server_pid(folder), signal.SIGKILL)
            await started.generate(request())
        finally:
            await started.close()

    with pytest.raises(FatalModelError, match="did not start again") as caught:
        asyncio.run(asked())
    assert "no such disk" in caught.value.message


@pytest.mark.parametrize(
    ("words", "cause", "hint"),
    [
        ("No module named 'vllm'", "has no vLLM", "MEDEVAL_VLLM_PYTHON"),
        ("torch.OutOfMemoryError: CUDA out of memory.", "out of memory", "max_model_len"),
        ("api_server.py: error: unrecognized arguments: --flux", "refuses an argument", "log"),
        ("OSError: [Errno 98] Address already in use", "port is taken", "again"),
        ("(APIServer pid=7) KeyError: 'lm'", "it was ready: KeyError: 'lm'\n", "log"),
        (
            "OSError: no head\nRuntimeError: failed. See root cause above.",
            "OSError: no head",
            "log",
        ),
        ("ValidationError: 1 error\n  Value error, too long", "argument: Value error, too", "log"),
        ("Segmentation fault", "exit code 1", "log"),
    ],
)
def test_a_server_that_ends_before_it_is_ready_says_why(
    words: str, cause: str, hint: str, checkpoint: Path, stand_in: Orders
) -> None:
    stand_in(say=words)
    with pytest.raises(FatalModelError, match=cause) as caught:
        asyncio.run(model(checkpoint).start())
    assert words.splitlines()[0] in caught.value.message
    assert hint in str(caught.value.hint)


def test_a_server_needs_a_key_that_only_its_environment_has(
    checkpoint: Path, stand_in: Orders
) -> None:
    folder = stand_in()
    started = model(checkpoint)

    async def asked() -> list[int]:
        await started.start()
        url = f"http://127.0.0.1:{flag(folder, 0, '--port')}"
        try:
            await started.generate(request())
            async with aiohttp.ClientSession() as session:
                paths = ("/v1/models", "/collective_rpc", "/v1/load_lora_adapter")
                answers = [await session.post(f"{url}{path}", json={}) for path in paths]
                return [answer.status for answer in answers]
        finally:
            await started.close()
            await started._slot.aclose()

    assert 200 not in asyncio.run(asked())
    key = os.environ[KEY_VARIABLE]
    (log,) = logs(checkpoint)
    assert len(key) > 30
    assert key not in log.read_text()
    assert key not in " ".join(command(folder, 0))
    assert set(json.loads((folder / "switches-0").read_text()).values()) == {"0"}


def test_a_port_on_which_another_user_listens_is_not_the_servers() -> None:
    with socket.create_server(("127.0.0.1", 0)) as own:
        port = own.getsockname()[1]
        assert is_own_port(port)
    assert not is_own_port(port)
    if os.getuid() != 0:
        pytest.skip("only root can take another user's place")
    os.seteuid(65534)
    try:
        other = socket.create_server(("", 0))
    finally:
        os.seteuid(0)
    with other:
        assert not is_own_port(other.getsockname()[1])


def test_a_python_that_is_not_there_is_named(checkpoint: Path) -> None:
    with pytest.raises(FatalModelError, match="no Python '/no/python'"):
        asyncio.run(model(checkpoint, python="/no/python").start())


def test_a_server_that_takes_too_long_is_ended(checkpoint: Path, stand_in: Orders) -> None:
    stand_in()
    with pytest.raises(FatalModelError, match=r"not ready after 0\.01 s"):
        asyncio.run(model(checkpoint, start_timeout_s=0.01).start())


def test_a_model_that_is_not_started_or_closed_is_not_asked(checkpoint: Path) -> None:
    with pytest.raises(FatalModelError, match="was not started, or is closed"):
        asyncio.run(model(checkpoint).generate(request()))


def test_an_argument_that_no_server_takes_is_refused(tmp_path: Path, checkpoint: Path) -> None:
    values = {
        "model": (str(checkpoint),),
        "benchmarks": (str(write_benchmark(tmp_path)),),
        "backend": "vllm-server",
        "model_args": {"flux": 1},
    }
    with pytest.raises(UsageError, match="--model-args has 'flux'"):
        model_opener(resolve(read_options(None, values)))


def run_arguments(tmp_path: Path, *checkpoints: Path) -> list[object]:
    benchmark = write_benchmark(tmp_path, N_SAMPLES)
    models = [item for one in checkpoints for item in ("--model", one)]
    return [
        "run", *models, "--backend", "vllm-server", "--benchmarks", benchmark,
        "--pairs", write_pair(tmp_path), "--concurrency", 6, "--output-dir", tmp_path / "run",
        "--model-args", "max_retries=1,retry_wait_s=0.05",
    ]  # fmt: skip


def counted(run: Path) -> Counter[tuple[str, str]]:
    trajectories = load_run(run).trajectories
    return Counter(zip(trajectories.protocol, trajectories.sample_id, strict=True))


def test_a_run_loses_nothing_to_a_server_that_dies_twice(
    tmp_path: Path, checkpoint: Path, stand_in: Orders, medeval_main: MedevalMain
) -> None:
    folder = stand_in(dies_at=[7, 20])
    assert medeval_main(*run_arguments(tmp_path, checkpoint)) == 0
    done = counted(tmp_path / "run")
    assert len(done) == 2 * N_SAMPLES
    assert set(done.values()) == {1}
    assert lives(folder) == 3
    assert list((tmp_path / "run/logs").iterdir())


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_server_ends_with_its_run_however_that_ends(
    how: signal.Signals, tmp_path: Path, checkpoint: Path, stand_in: Orders
) -> None:
    folder = stand_in()
    process = start_medeval_on(os.environ["PYTHONPATH"], run_arguments(tmp_path, checkpoint))
    try:
        wait_until(lambda: list(folder.glob("request-*")))
        server = server_pid(folder)
        process.send_signal(how)
        process.wait(30)
    finally:
        process.kill()
        process.communicate()
    wait_until(lambda: not Path(f"/proc/{server}").exists())


def start_medeval_on(path: str, arguments: list[object]) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "medeval", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    )


def wait_until(claim: Callable[[], object], timeout_s: float = 30) -> None:
    deadline = time.monotonic() + timeout_s
    while not claim():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_local_judge_is_served_asked_and_ended(
    tmp_path: Path,
    checkpoint: Path,
    stand_in: Orders,
    medeval_main: MedevalMain,
) -> None:
    folder = stand_in(answer="correct", dies_at=[3])
    write_benchmark(tmp_path, 4)
    write_pair(tmp_path)
    run = medeval.run(
        model="m",
        benchmarks=tmp_path / "small.py",
        pairs=tmp_path / "small_pair.py",
        output_dir=tmp_path / "run",
        open_model=scripted,
    ).folder.path
    asked = ["--backend", "vllm-server", "--judge-model", f"mine={checkpoint}"]
    asked += ["--judge-args", "max_retries=1,retry_wait_s=0.05"]
    assert medeval_main("grade", run, "--judge", "model", *asked) == 0
    verdicts = [
        line for path in run.glob("cells/**/verdicts.*") for line in path.read_text().splitlines()
    ]
    assert sum('"judge":"model@mine#' in line.replace(" ", "") for line in verdicts) == 8
    assert lives(folder) == 2
    assert list((run / "logs").iterdir())


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--judge-model", "nowhere"], "no model folder"),
        (["--judge-model", ".", "--judge-args", "flux=1"], "--judge-args has 'flux'"),
        (["--judge-model", ".", "--judge-base-url", "http://127.0.0.1:9"], "starts another"),
    ],
)
def test_a_local_judge_that_cannot_be_served_is_refused_at_once(
    flags: list[str],
    message: str,
    tmp_path: Path,
    medeval_main: MedevalMain,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert medeval_main("grade", tmp_path, "--judge-backend", "vllm-server", *flags) == 2
    assert message in capsys.readouterr().err
