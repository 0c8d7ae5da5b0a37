"""One managed server for checkpoint after checkpoint, and a cold start where that is in doubt."""

import asyncio
import errno
import json
import os
import signal
import socket
import stat
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from medeval import load_run
from medeval.errors import FatalModelError, ModelError, UsageError
from medeval.models.base import Model
from medeval.models.openai.client import OpenAIModel
from medeval.models.vllm import address as server_address
from medeval.models.vllm.address import LONGEST_SOCKET_PATH, ServerAddress
from medeval.models.vllm.controls import ServerControls
from medeval.models.vllm.server import server_plan, server_slot
from medeval.models.vllm.supervisor import SupervisedModel
from tests.managed_servers import Orders, command, flag, lives, server_pid, write_checkpoint
from tests.medeval_processes import MedevalMain
from tests.small_benchmark import write_benchmark, write_pair
from tests.stub_server import StubServer
from tests.tiny_checkpoints import request
from tests.vllm_stand_in import running_on

QUICK = {"max_retries": 1, "retry_wait_s": 0.05, "start_timeout_s": 30}


@pytest.fixture
def series(tmp_path: Path) -> list[Path]:
    """Three checkpoints that differ in the values of their weights alone."""
    return [write_checkpoint(tmp_path / f"step-{value}", value=value) for value in (1, 2, 3)]


def swept(
    checkpoints: Sequence[Path],
    *,
    between: Callable[[], object] = lambda: None,
    **arguments: Any,
) -> list[tuple[str, Model]]:
    """What each checkpoint says, one after the other on one slot, and its model."""

    async def run() -> list[tuple[str, Model]]:
        plan = server_plan({**QUICK, **arguments}, checkpoints[0].parent / "logs")
        slot = server_slot(plan)
        models = [SupervisedModel(one, slot) for one in checkpoints]
        said = []
        try:
            for model in models:
                await model.start()
                try:
                    said.append((await model.generate(request())).text)
                finally:
                    await model.close()
                between()
        finally:
            await slot.aclose()
        return list(zip(said, models, strict=True))

    return asyncio.run(run())


def answers(sweep: Sequence[tuple[str, Model]]) -> list[str]:
    return [text.removeprefix("<answer>").removesuffix("</answer>") for text, _ in sweep]


def notes(sweep: Sequence[tuple[str, Model]]) -> list[tuple[str, ...]]:
    return [model.notes() for _, model in sweep]


def test_one_server_takes_checkpoint_after_checkpoint(series: list[Path], stand_in: Orders) -> None:
    folder = stand_in(tells_weights=True)
    warm = swept(series)
    assert answers(warm) == ["1", "2", "3"]
    assert lives(folder) == 1
    assert notes(warm) == [(), (), ()]
    resets = [(folder / f"reset-{number}").read_text() for number in range(2)]
    assert resets == ["reset_external=true"] * 2
    assert "medeval_vllm_worker.WeightCheck" in command(folder, 0)
    cold = swept(series, reload_weights=False)
    assert answers(cold) == ["1", "2", "3"]
    assert lives(folder) == 4
    assert "--worker-extension-cls" not in command(folder, 1)
    for (_, here), (_, there) in zip(warm, cold, strict=True):
        assert here.identity() == there.identity()
    weights = {model.identity()["weights"] for _, model in warm}
    assert len(weights) == 3


@pytest.mark.parametrize(
    ("orders", "told"),
    [
        (
            {"stale": True},
            "weights cannot be reloaded: '/collective_rpc' got status 500: 'w' is not new",
        ),
        ({"keeps_prefixes": True}, "cached from the old weights"),
        ({"resets_silently": True}, "cached from the old weights"),
        ({"reload_ends": True}, "'/collective_rpc' got no answer"),
        ({"lacks": ["/collective_rpc"]}, "'/collective_rpc' got status 404"),
        ({"lacks": ["/reset_encoder_cache"]}, "'/reset_encoder_cache' got status 404"),
        ({"old": True}, "this vLLM is too old to reload weights over a private socket"),
    ],
)
def test_a_reload_that_is_not_sure_is_told_and_made_a_cold_start(
    orders: dict[str, Any], told: str, series: list[Path], stand_in: Orders
) -> None:
    folder = stand_in(tells_weights=True, **orders)
    sweep = swept(series[:2])
    assert answers(sweep) == ["1", "2"]
    assert lives(folder) == 2
    first, (second,) = notes(sweep)
    assert first == ()
    assert second.startswith("the engine was started anew: ")
    assert told in second


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"quantization": "fp8"}, "quantized weights are not reloaded"),
        ({"engine_args": {"quantization": "fp8"}}, "quantized weights are not reloaded"),
        ({"port": 0}, "a server on a port, which others can reach, does not reload weights"),
    ],
)
def test_arguments_that_rule_a_reload_out_are_told(
    arguments: dict[str, Any], told: str, series: list[Path], stand_in: Orders
) -> None:
    folder = stand_in(tells_weights=True)
    if "port" in arguments:
        arguments = {"port": ServerAddress.on_port(None).port}
    sweep = swept(series[:2], **arguments)
    assert answers(sweep) == ["1", "2"]
    assert notes(sweep) == [(), (f"the engine was started anew: {told}",)]
    assert "--worker-extension-cls" not in command(folder, 0)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("config.json", {"model_type": "qwen2_5_vl", "quantization_config": {"bits": 4}}),
        ("config.json", {"model_type": "x", "text_config": {"quantization_config": {"bits": 4}}}),
        ("hf_quant_config.json", {"quantization": {}}),
    ],
)
def test_checkpoints_that_are_quantized_themselves_are_told_and_start_cold(
    name: str, told: dict[str, Any], series: list[Path], stand_in: Orders
) -> None:
    folder = stand_in(tells_weights=True)
    for checkpoint in series[:2]:
        (checkpoint / name).write_text(json.dumps(told))
    sweep = swept(series[:2])
    assert answers(sweep) == ["1", "2"]
    assert lives(folder) == 2
    cause = "quantized weights are not reloaded"
    assert notes(sweep) == [(), (f"the engine was started anew: {cause}",)]


@pytest.mark.parametrize("name", ["chat_template.jinja", "tokenizer.model", "modeling_own.py"])
def test_a_checkpoint_of_another_kind_starts_cold(
    name: str, series: list[Path], stand_in: Orders
) -> None:
    folder = stand_in(tells_weights=True)
    (series[1] / name).write_text("other")
    sweep = swept(series)
    assert answers(sweep) == ["1", "2", "3"]
    assert lives(folder) == 3
    assert all("more than its weights' values" in told[0] for told in notes(sweep)[1:])


def test_another_architecture_starts_cold_and_the_next_of_its_kind_does_not(
    series: list[Path], stand_in: Orders, tmp_path: Path
) -> None:
    folder = stand_in(tells_weights=True)
    wide = [write_checkpoint(tmp_path / f"wide-{value}", shape=4, value=value) for value in (7, 8)]
    sweep = swept([series[0], *wide])
    assert answers(sweep) == ["1", "7", "8"]
    assert lives(folder) == 2
    assert [len(told) for told in notes(sweep)] == [0, 1, 0]
    assert [flag(folder, life, "--model") for life in (0, 1)] == [str(series[0]), str(wide[0])]


def test_a_server_that_dies_after_a_reload_comes_back_with_the_weights_it_had_taken(
    series: list[Path], stand_in: Orders
) -> None:
    # a warm-up and a reply of the first checkpoint, then the second's only request
    folder = stand_in(tells_weights=True, dies_at=[2])
    sweep = swept(series[:2])
    assert answers(sweep) == ["1", "2"]
    assert lives(folder) == 2
    assert flag(folder, 1, "--model") == str(series[1])
    assert sweep[1][1].identity()["weights"] != sweep[0][1].identity()["weights"]
    assert notes(sweep)[1] == ("the engine died 1 times; requests in flight were sent again",)


def test_a_server_that_died_while_it_waited_is_told_and_replaced(
    series: list[Path], stand_in: Orders
) -> None:
    folder = stand_in(tells_weights=True)

    def kill() -> None:
        if lives(folder) == 1:
            os.kill(server_pid(folder), signal.SIGKILL)

    sweep = swept(series[:2], between=kill)
    assert answers(sweep) == ["1", "2"]
    assert lives(folder) == 2
    assert "weights cannot be reloaded" in notes(sweep)[1][0]


def test_a_guard_that_is_killed_takes_its_server_along_and_leaves_no_socket(
    series: list[Path], stand_in: Orders
) -> None:
    folder = stand_in(tells_weights=True)

    def kill() -> None:
        if lives(folder) == 1:
            os.kill(server_pid(folder, guard=True), signal.SIGKILL)

    assert answers(swept(series[:2], between=kill)) == ["1", "2"]
    assert lives(folder) == 2
    assert not any(Path(flag(folder, life, "--uds")).parent.exists() for life in (0, 1))


def test_the_socket_is_in_a_folder_that_this_user_alone_may_enter(
    series: list[Path], stand_in: Orders
) -> None:
    folder = stand_in()
    seen = []

    def look() -> None:
        place = Path(flag(folder, 0, "--uds"))
        seen.append((place.is_socket(), stat.S_IMODE(place.parent.stat().st_mode)))

    swept(series, between=look)
    assert seen == [(True, 0o700)] * 3
    assert not Path(flag(folder, 0, "--uds")).parent.exists()


def test_another_user_gets_no_further_than_the_folder(series: list[Path], stand_in: Orders) -> None:
    if os.getuid() != 0:
        pytest.skip("only root can take another user's place")
    folder = stand_in()
    found: list[int] = []

    def try_as_another() -> None:
        found.append(os.waitstatus_to_exitcode(_as_another(Path(flag(folder, 0, "--uds")))))

    swept(series[:1], between=try_as_another)
    assert found == [errno.EACCES]


def _as_another(place: Path) -> int:
    """The status of a process of the user "nobody" that connects: an error's number, or 0."""
    child = os.fork()
    if not child:
        code = 0
        try:
            os.setgid(65534)
            os.setuid(65534)
            with socket.socket(socket.AF_UNIX) as one:
                one.connect(str(place))
        except OSError as error:
            code = error.errno or 255
        finally:
            os._exit(code)
    return os.waitpid(child, 0)[1]


def test_a_folder_for_temporary_files_with_a_long_name_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = tmp_path / ("x" * LONGEST_SOCKET_PATH)
    deep.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(deep))
    address = ServerAddress.private()
    assert address.socket is not None
    try:
        with socket.socket(socket.AF_UNIX) as one:
            one.bind(str(address.socket))
    finally:
        address.clear()
    assert not address.socket.parent.exists()
    assert not list(deep.iterdir())


def test_a_folder_for_temporary_files_that_takes_no_socket_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = tmp_path / ("x" * LONGEST_SOCKET_PATH)
    monkeypatch.setattr(tempfile, "tempdir", str(deep))
    # as on a system that takes no path as long as we think
    monkeypatch.setattr(server_address, "LONGEST_SOCKET_PATH", 10**4)
    for is_there in (False, True):
        if is_there:
            deep.mkdir()
        with pytest.raises(FatalModelError, match="cannot create a server's socket") as caught:
            ServerAddress.private()
        assert {"TMPDIR=FOLDER", "port=PORT"} <= set(str(caught.value.hint).split())
    assert not list(deep.iterdir())


def test_no_socket_stays_where_a_server_does_not_start(
    series: list[Path], stand_in: Orders
) -> None:
    folder = stand_in(say="cosmic rays")
    with pytest.raises(ModelError, match="cosmic rays"):
        swept(series)
    assert not Path(flag(folder, 0, "--uds")).parent.exists()


def test_a_run_over_a_series_has_one_server_and_the_records_of_cold_ones(
    series: list[Path],
    stand_in: Orders,
    tmp_path: Path,
    medeval_main: MedevalMain,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_benchmark(tmp_path, 3)
    write_pair(tmp_path)

    def recorded(name: str, arguments: str, *models: Path) -> tuple[list[Any], list[Any]]:
        run = tmp_path / name
        flags = [item for one in models for item in ("--model", one)]
        assert medeval_main(
            "run", *flags, "--backend", "vllm-server", "--benchmarks", tmp_path / "small.py",
            "--pairs", tmp_path / "small_pair.py", "--output-dir", run, "--model-args",
            f"max_retries=1,retry_wait_s=0.05,{arguments}",
        ) == 0  # fmt: skip
        trajectories = load_run(run).trajectories
        keys = ["checkpoint", "protocol", "sample_id", "answer"]
        cells = sorted(run.glob("cells/**/cell.json"))
        fingerprints = [json.loads(path.read_text())["fingerprint"] for path in cells]
        assert fingerprints
        return trajectories[keys].sort_values(keys).to_numpy().tolist(), fingerprints

    folder = stand_in(tells_weights=True)
    warm = recorded("warm", "reload_weights=true", *series)
    assert lives(folder) == 1
    assert "anew" not in capsys.readouterr().err
    assert recorded("cold", "reload_weights=false", *series) == warm
    assert lives(folder) == 4
    stand_in(stale=True)
    recorded("doubted", "reload_weights=true", *series[:2])
    told = capsys.readouterr().err
    assert "step-2: the engine was started anew: weights cannot be reloaded: " in told


def test_the_next_checkpoint_is_read_ahead_while_a_server_has_another(
    series: list[Path], stand_in: Orders
) -> None:
    stand_in()
    # whoever reads it waits until there is a writer; a writer is let in only while someone reads
    pipe = series[1] / "ahead.safetensors"
    os.mkfifo(pipe)

    async def run() -> None:
        plan = server_plan(QUICK, series[0].parent / "logs")
        slot = server_slot(plan, {series[0]: series[1]})
        model = SupervisedModel(series[0], slot)
        await model.start()
        try:
            async with asyncio.timeout(60):
                while not _is_read(pipe):
                    await asyncio.sleep(0.05)
        finally:
            await model.close()
            await slot.aclose()

    asyncio.run(run())


def _is_read(pipe: Path) -> bool:
    try:
        os.close(os.open(pipe, os.O_WRONLY | os.O_NONBLOCK))
    except OSError as error:
        assert error.errno == errno.ENXIO
        return False
    return True


def test_a_judges_server_takes_no_weights(tmp_path: Path) -> None:
    plan = server_plan({"python": sys.executable}, tmp_path, flag="--judge-args", judges=True)
    assert "--worker-extension-cls" not in plan.command(tmp_path, ServerAddress.on_port(1))
    assert plan.environment()["VLLM_SERVER_DEV_MODE"] == "0"
    with pytest.raises(UsageError, match="--judge-args has 'reload_weights'"):
        server_plan({"reload_weights": True}, tmp_path, flag="--judge-args", judges=True)


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (web.Response(status=500, text='{"error": {"message": "no method"}}'), "500: no method"),
        (web.Response(status=500, text="Internal Server Error"), "500: Internal Server Error"),
        (web.Response(text="fine"), None),
        (web.Response(text="[]"), None),
        (None, "got no answer: TimeoutError"),
    ],
)
def test_controls_that_do_not_work_say_so(answer: web.Response | None, told: str | None) -> None:
    async def respond(_: web.Request) -> web.Response:
        await asyncio.sleep(0 if answer else 60)
        return answer or web.Response()

    async def ask() -> bool:
        application = web.Application()
        application.router.add_post("/reset_prefix_cache", respond)
        runner = web.AppRunner(application, shutdown_timeout=0.1)
        await runner.setup()
        address = ServerAddress.private()
        await web.UnixSite(runner, str(address.socket)).start()
        try:
            return await ServerControls(address.url, timeout_s=0.5).reset_prefix_cache(
                reset_connector=True
            )
        finally:
            await runner.cleanup()
            address.clear()

    if told is None:
        assert asyncio.run(ask()) is False
    else:
        with pytest.raises(ModelError, match=told):
            asyncio.run(ask())


def test_a_server_on_a_socket_is_asked_like_any_other_and_named_by_its_path() -> None:
    address = ServerAddress.private()
    assert address.socket is not None

    async def ask(socket: Path) -> str:
        model = OpenAIModel(model="stub", base_url=address.url, max_retries=0)
        async with running_on(StubServer(answer="blue"), socket):
            await model.start()
            try:
                return (await model.generate(request())).text
            finally:
                await model.close()

    try:
        assert asyncio.run(ask(address.socket)) == "blue"
        gone = OpenAIModel(model="stub", base_url=address.url, max_retries=0)
        with pytest.raises(ModelError, match=str(address.socket)):
            asyncio.run(gone.start())
    finally:
        address.clear()
