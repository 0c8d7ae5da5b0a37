"""Managed servers for series: one for each whole checkpoint, one for all adapters of a base."""

import asyncio
import errno
import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from medeval.errors import FatalModelError, UsageError
from medeval.models.base import Model
from medeval.models.vllm.lora import ModelFolder
from medeval.models.vllm.server import server_plan, server_slot
from medeval.models.vllm.supervisor import SupervisedModel
from tests.managed_servers import (
    Orders,
    command,
    flag,
    lives,
    server_pid,
    write_adapter,
    write_checkpoint,
)
from tests.tiny_checkpoints import request

QUICK = {"max_retries": 1, "retry_wait_s": 0.05, "start_timeout_s": 30}


@pytest.fixture
def series(tmp_path: Path) -> list[ModelFolder]:
    """Three whole checkpoints."""
    folders = [write_checkpoint(tmp_path / f"step-{value}", value=value) for value in (1, 2, 3)]
    return [ModelFolder(folder) for folder in folders]


@pytest.fixture
def adapters(tmp_path: Path) -> list[ModelFolder]:
    """A base and two adapters of it."""
    base = write_checkpoint(tmp_path / "base", value=9)
    made = [
        write_adapter(tmp_path / f"adapter-{value}", value=value, rank=rank)
        for value, rank in ((4, 8), (5, 17))
    ]
    return [ModelFolder(base), *(ModelFolder(one, base) for one in made)]


def swept(
    folders: Sequence[ModelFolder],
    *,
    known: Sequence[ModelFolder] | None = None,
    between: Callable[[], object] = lambda: None,
) -> list[tuple[str, Model]]:
    """What each checkpoint says, one after the other on one slot, and its model."""

    async def run() -> list[tuple[str, Model]]:
        logs = folders[0].path.parent / "logs"
        slot = server_slot(server_plan(QUICK, logs, folders=folders if known is None else known))
        models = [SupervisedModel(one.path, slot, one.base) for one in folders]
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


def test_each_whole_checkpoint_has_a_server_of_its_own(
    series: list[ModelFolder], stand_in: Orders
) -> None:
    folder = stand_in(tells_weights=True)
    sweep = swept(series)
    assert answers(sweep) == ["1", "2", "3"]
    assert lives(folder) == 3
    assert notes(sweep) == [(), (), ()]
    assert len({model.identity()["weights"] for _, model in sweep}) == 3
    assert "--enable-lora" not in command(folder, 0)


def test_adapters_and_their_base_share_a_server(
    adapters: list[ModelFolder], stand_in: Orders
) -> None:
    folder = stand_in(tells_weights=True)
    sweep = swept(adapters)
    assert answers(sweep) == ["9", "4", "5"]
    assert lives(folder) == 1
    assert flag(folder, 0, "--max-lora-rank") == "32"
    assert notes(sweep) == [(), (), ()]
    assert len({model.identity()["weights"] for _, model in sweep}) == 3


def test_an_adapter_that_the_server_was_not_started_with_has_it_started_anew(
    adapters: list[ModelFolder], stand_in: Orders
) -> None:
    folder = stand_in(tells_weights=True)
    sweep = swept(adapters, known=adapters[:2])
    assert answers(sweep) == ["9", "4", "5"]
    assert lives(folder) == 2
    assert "does not have the checkpoint" in notes(sweep)[2][0]


def test_a_server_that_died_while_it_waited_is_replaced(
    adapters: list[ModelFolder], stand_in: Orders
) -> None:
    folder = stand_in(tells_weights=True)

    def kill() -> None:
        if lives(folder) == 1:
            pid = server_pid(folder)
            os.kill(pid, signal.SIGKILL)

    sweep = swept(adapters[1:], between=kill)
    assert answers(sweep) == ["4", "5"]
    assert lives(folder) == 2
    assert "or has ended" in notes(sweep)[1][0]


def test_a_guard_that_is_killed_takes_its_server_along(
    adapters: list[ModelFolder], stand_in: Orders
) -> None:
    folder = stand_in(tells_weights=True)

    def kill() -> None:
        if lives(folder) == 1:
            os.kill(server_pid(folder, guard=True), signal.SIGKILL)

    assert answers(swept(adapters[1:], between=kill)) == ["4", "5"]
    assert lives(folder) == 2


@pytest.mark.parametrize(
    ("part", "is_served"),
    [
        ("layers.0", True),
        ("language_model.layers.0", True),
        ("text_model.layers.0", True),
        ("visual.blocks.0", False),
        ("vision_tower.vision_model.encoder.layers.0", False),
        ("multi_modal_projector.linear_1", False),
    ],
)
def test_an_adapter_of_more_than_the_language_model_is_not_served(
    part: str, is_served: bool, adapters: list[ModelFolder], stand_in: Orders, tmp_path: Path
) -> None:
    stand_in(tells_weights=True)
    adapter = ModelFolder(write_adapter(tmp_path / "own", value=6, part=part), adapters[0].path)
    if is_served:
        assert answers(swept([adapter])) == ["6"]
    else:
        with pytest.raises(FatalModelError, match="changes more than the language model"):
            swept([adapter])


def test_the_next_checkpoint_is_read_ahead_while_a_server_has_another(
    series: list[ModelFolder], stand_in: Orders
) -> None:
    stand_in()
    # whoever reads it waits until there is a writer; a writer is let in only while someone reads
    pipe = series[1].path / "ahead.safetensors"
    os.mkfifo(pipe)

    async def run() -> None:
        plan = server_plan(QUICK, series[0].path.parent / "logs")
        slot = server_slot(plan, {series[0]: series[1]})
        model = SupervisedModel(series[0].path, slot)
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


@pytest.mark.parametrize("argument", ["port", "reload_weights"])
def test_a_server_takes_no_port_and_no_weights(argument: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"--model-args has {argument!r}"):
        server_plan({argument: 1}, tmp_path)
