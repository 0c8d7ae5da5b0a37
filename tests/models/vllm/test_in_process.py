"""The engine in this process, vLLM's part played by a stand-in; test_vllm.py has the real one."""

import asyncio
import os
import shutil
import sys
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from medeval.errors import FatalModelError, ModelError, UsageError
from medeval.evaluation.engines import SharedEngines, end_engines, model_opener
from medeval.evaluation.plan import resolve
from medeval.evaluation.plan_file import read_options
from medeval.models.base import Reply
from medeval.models.chat_template import ChatTemplate
from medeval.models.vllm.engine import engine_plan, engine_slot
from medeval.models.vllm.lora import ModelFolder
from medeval.models.vllm.supervisor import EngineSlot, SupervisedModel
from medeval.tools.base import ToolSchema
from medeval.types.trajectory import Message, Text
from tests.engine_stand_in import Orders, install
from tests.managed_servers import write_adapter
from tests.small_benchmark import write_benchmark
from tests.tiny_checkpoints import random_checkpoint, request

TOOL = ToolSchema(name="crop", description="", parameters={"type": "object"})


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_checkpoint(tmp_path_factory.mktemp("vllm"), "qwen2_5_vl")


@pytest.fixture(scope="module")
def image_id(checkpoint: Path) -> int:
    import transformers

    return int(transformers.AutoConfig.from_pretrained(checkpoint).image_token_id)


@pytest.fixture(scope="module")
def template(checkpoint: Path) -> ChatTemplate:
    import transformers

    return ChatTemplate.from_folder(checkpoint, transformers.AutoConfig.from_pretrained(checkpoint))


@pytest.fixture
def orders(monkeypatch: pytest.MonkeyPatch, template: ChatTemplate) -> Orders:
    given = Orders(say=lambda _: ([*template.text_ids("blue"), template.end_id or 0], None))
    install(monkeypatch, given)
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name in ("PYTHONPATH", "VLLM_LOGGING_CONFIG_PATH", "VLLM_WORKER_MULTIPROCESSING_METHOD"):
        monkeypatch.setenv(name, os.environ.get(name, ""))
    return given


def with_model(
    checkpoint: Path, ask: Callable[[SupervisedModel], Coroutine[Any, Any, Any]], **arguments: Any
) -> Any:
    async def run() -> Any:
        slot = engine_slot(engine_plan(arguments, checkpoint.parent / "logs"))
        model = SupervisedModel(checkpoint, slot)
        await model.start()
        try:
            return await ask(model)
        finally:
            await model.close()
            await slot.aclose()

    return asyncio.run(run())


def test_a_prompt_has_one_placeholder_an_image_and_each_image_its_hash(
    checkpoint: Path, orders: Orders, image_id: int
) -> None:
    asked = request("What is it?", n_images=2, top_k=4, seed=11, temperature=0.5)
    reply: Reply = with_model(checkpoint, lambda model: model.generate(asked))
    prompt = orders.prompts[-1]
    assert list(prompt["prompt_token_ids"]).count(image_id) == 2
    assert prompt["multi_modal_uuids"] == {"image": [image.sha256 for image in asked.images]}
    assert [one.size for one in prompt["multi_modal_data"]["image"]] == [(60, 60), (100, 60)]
    assert orders.n_held == 0
    assert (reply.text, reply.finish, reply.usage.cached_tokens) == ("blue", "stop", 7)
    sampling = orders.sampling[-1]
    assert (sampling.temperature, sampling.top_k, sampling.seed) == (0.5, 4, 11)
    assert orders.started_with[0]["worker_extension_cls"].endswith("WeightCheck")
    assert orders.n_closed == 1


def test_a_later_turn_extends_the_ids_of_the_last(checkpoint: Path, orders: Orders) -> None:
    async def talk(model: SupervisedModel) -> None:
        first = request("What is it?")
        reply = await model.generate(first)
        more = (
            *first.messages,
            Message(role="assistant", content=(Text(reply.text),)),
            Message(role="user", content=(Text("Sure?"),)),
        )
        await model.generate(replace(first, messages=more, history=reply.history))

    with_model(checkpoint, talk)
    earlier, later = (list(prompt["prompt_token_ids"]) for prompt in orders.prompts[-2:])
    assert later[: len(earlier)] == earlier
    assert len(later) > len(earlier)
    assert orders.sampling[-1].seed is None


def test_a_placeholder_that_the_model_wrote_does_not_come_back(
    checkpoint: Path, orders: Orders, template: ChatTemplate, image_id: int
) -> None:
    orders.say = lambda _: ([image_id, *template.text_ids("blue")], "ue")
    reply: Reply = with_model(checkpoint, lambda model: model.generate(request()))
    assert reply.history is not None
    assert reply.history.ids.count(image_id) == 1
    assert reply.text == "blue"


def test_native_calls_are_split_from_the_text(
    checkpoint: Path, orders: Orders, template: ChatTemplate
) -> None:
    call = 'Look. <tool_call>\n{"name": "crop", "arguments": {}}\n</tool_call>'
    orders.say = lambda _: ([*template.text_ids(call), template.end_id or 0], None)
    asked = request(n_images=0, tools=(TOOL,), max_tokens=200)
    reply: Reply = with_model(checkpoint, lambda model: model.generate(asked))
    assert reply.finish == "tool_calls"
    assert [one.name for one in reply.native_calls] == ["crop"]


def test_a_prompt_that_vllm_finds_too_long_for_the_context_is_a_result(
    checkpoint: Path, orders: Orders
) -> None:
    orders.max_model_len = 60
    asked = request("word " * 60)
    reply: Reply = with_model(checkpoint, lambda model: model.generate(asked))
    assert (reply.text, reply.finish) == ("", "context")


@pytest.mark.parametrize(("read", "told"), [(lambda ids: [*ids, 1], 0), (lambda ids: ids[1:], 1)])
def test_a_prompt_that_vllm_encodes_anew_is_reported(
    read: Callable[[list[int]], list[int]], told: int, checkpoint: Path, orders: Orders
) -> None:
    orders.read = read

    async def ask(model: SupervisedModel) -> tuple[str, ...]:
        await model.generate(request())
        return model.notes()

    assert sum("encodes prompts anew" in note for note in with_model(checkpoint, ask)) == told


def test_what_was_in_flight_when_the_engine_died_is_asked_of_the_next(
    checkpoint: Path, orders: Orders
) -> None:
    orders.dies_at = {3}

    async def ask(model: SupervisedModel) -> tuple[list[Reply], tuple[str, ...]]:
        replies = await asyncio.gather(*(model.generate(request(f"{n}?")) for n in range(6)))
        return replies, model.notes()

    replies, notes = with_model(checkpoint, ask)
    assert [reply.text for reply in replies] == ["blue"] * 6
    assert len(orders.started_with) == 2
    assert "the engine died 1 times; requests in flight were sent again" in notes


def test_a_request_that_vllm_refuses_leaves_the_engine_alive(
    checkpoint: Path, orders: Orders
) -> None:
    orders.refuses = {1}
    with pytest.raises(ModelError, match="refuses a request: ValueError: too odd"):
        with_model(checkpoint, lambda model: model.generate(request()))
    assert len(orders.started_with) == 1


def kin(checkpoint: Path, folder: Path, *, seed: int = 5) -> Path:
    """A checkpoint that differs in the values of its weights alone."""
    other = random_checkpoint(folder / f"kin-{seed}", "qwen2_5_vl", seed)
    for path in checkpoint.iterdir():
        if path.suffix != ".safetensors":
            shutil.copy(path, other / path.name)
    return other


def one_after_the_other(*folders: ModelFolder | Path, **arguments: Any) -> list[SupervisedModel]:
    given = [one if isinstance(one, ModelFolder) else ModelFolder(one) for one in folders]

    async def run() -> list[SupervisedModel]:
        slot = engine_slot(engine_plan(arguments, given[0].loaded.parent / "logs", given))
        models = [SupervisedModel(one.path, slot, one.base) for one in given]
        for model in models:
            await model.start()
            await model.generate(request())
            await model.close()
        await slot.aclose()
        return models

    return asyncio.run(run())


def test_adapters_are_swapped_on_one_loaded_base(
    checkpoint: Path, orders: Orders, tmp_path: Path
) -> None:
    adapters = [
        write_adapter(tmp_path / f"adapter-{value}", value=value, rank=20) for value in (1, 2)
    ]
    models = one_after_the_other(
        ModelFolder(adapters[0], checkpoint), ModelFolder(checkpoint),
        ModelFolder(adapters[1], checkpoint),
    )  # fmt: skip
    (started,) = orders.started_with
    assert (started["model"], started["max_lora_rank"]) == (str(checkpoint), 32)
    assert "enable_tower_connector_lora" not in started
    asked = [one and one.lora_path for one in orders.adapters]
    # each start has a warm-up before the first reply
    assert asked == [str(adapters[0]), str(adapters[0]), None, str(adapters[1])]
    assert len({model.identity()["weights"] for model in models}) == 3
    assert not any(model.notes() != models[0].notes() for model in models)


def test_an_adapter_that_vllm_does_not_apply_whole_is_refused(
    checkpoint: Path, orders: Orders, tmp_path: Path
) -> None:
    orders.unused = ["visual.blocks.0.attn.qkv"]
    adapter = write_adapter(tmp_path / "adapter", part="visual.blocks.0")
    with pytest.raises(
        FatalModelError, match=r"leaves 1 modules .* first 'visual\.blocks"
    ) as caught:
        one_after_the_other(ModelFolder(adapter, checkpoint))
    assert "merge the adapter" in str(caught.value.hint)
    assert orders.started_with[0]["enable_tower_connector_lora"] is True
    assert orders.n_closed == 1


def test_an_adapter_after_another_model_starts_cold(
    checkpoint: Path, orders: Orders, tmp_path: Path
) -> None:
    adapter = ModelFolder(write_adapter(tmp_path / "adapter"), checkpoint)
    _, second = one_after_the_other(kin(checkpoint, tmp_path), adapter)
    assert len(orders.started_with) == orders.n_closed == 2
    assert any("not reloaded in an engine for adapters" in note for note in second.notes())


def test_the_next_checkpoint_of_a_kind_is_loaded_into_the_living_engine(
    checkpoint: Path, orders: Orders, tmp_path: Path
) -> None:
    other = kin(checkpoint, tmp_path)
    first, second = one_after_the_other(checkpoint, other)
    assert len(orders.started_with) == orders.n_closed == 1
    reload = next(given for method, given in orders.calls if method == "reload_weights")
    assert reload == {"weights_path": str(other), "is_checkpoint_format": True}
    assert {"reset_mm_cache", "reset_encoder_cache"} <= {method for method, _ in orders.calls}
    resets = [given for method, given in orders.calls if method == "reset_prefix_cache"]
    assert resets == [{"reset_connector": True}]
    different = {
        name for name, value in first.identity().items() if second.identity()[name] != value
    }
    assert different == {"weights"}
    assert second.notes() == first.notes()


@pytest.mark.parametrize(
    ("trouble", "told"),
    [
        ({"compare_error": ValueError("'norm' is not what the file holds")}, "'norm' is not what"),
        (
            {"compared": {"compared": 1, "telling": 0}},
            "proves that the engine holds the new weights",
        ),
        ({"compared": {}}, "proves that the engine holds the new weights"),
        ({"compared": None}, "proves that the engine holds the new weights"),
        ({"is_reset": False}, "cached from the old weights"),
        ({"knows_connectors": False}, "unexpected keyword argument 'reset_connector'"),
        ({"reload_error": RuntimeError("no method")}, "cannot be reloaded: no method"),
    ],
)
def test_a_reload_that_is_not_sure_is_told_and_made_a_cold_start(
    trouble: Mapping[str, Any], told: str, checkpoint: Path, orders: Orders, tmp_path: Path
) -> None:
    for name, value in trouble.items():
        setattr(orders, name, value)
    _, second = one_after_the_other(checkpoint, kin(checkpoint, tmp_path))
    assert len(orders.started_with) == orders.n_closed == 2
    assert any(told in note and "started anew" in note for note in second.notes())


def test_a_checkpoint_of_another_kind_starts_cold(
    checkpoint: Path, orders: Orders, tmp_path: Path
) -> None:
    other = kin(checkpoint, tmp_path)
    (other / "preprocessor_config.json").write_text(
        (other / "preprocessor_config.json").read_text() + " "
    )
    _, second = one_after_the_other(checkpoint, other)
    assert len(orders.started_with) == 2
    assert any("more than its weights' values" in note for note in second.notes())


def test_a_quantization_among_vllms_own_arguments_starts_cold(
    checkpoint: Path, orders: Orders, tmp_path: Path
) -> None:
    given = {"engine_args": {"quantization": "fp8"}}
    _, second = one_after_the_other(checkpoint, kin(checkpoint, tmp_path), **given)
    assert len(orders.started_with) == orders.n_closed == 2
    assert any("quantized weights are not reloaded" in note for note in second.notes())


def test_without_reload_each_checkpoint_starts_cold(
    checkpoint: Path, orders: Orders, tmp_path: Path
) -> None:
    one_after_the_other(checkpoint, kin(checkpoint, tmp_path), reload_weights=False)
    assert len(orders.started_with) == orders.n_closed == 2


@pytest.mark.parametrize(
    ("error", "arguments", "told"),
    [
        (RuntimeError("CUDA out of memory"), {}, "out of memory"),
        (RuntimeError("cosmic rays"), {}, "cosmic rays"),
        (None, {"engine_args": {"flux": 1}}, "does not take an argument"),
    ],
)
def test_an_engine_that_does_not_start_says_why(
    error: Exception | None,
    arguments: Mapping[str, Any],
    told: str,
    checkpoint: Path,
    orders: Orders,
) -> None:
    orders.start_error = error
    with pytest.raises(FatalModelError, match=told):
        with_model(checkpoint, lambda model: model.generate(request()), **arguments)


def test_an_engine_that_does_not_answer_is_ended(checkpoint: Path, orders: Orders) -> None:
    orders.dies_at = {0}
    with pytest.raises(FatalModelError, match="does not answer"):
        with_model(checkpoint, lambda model: model.generate(request()))
    assert orders.n_closed == 1


def test_without_vllm_the_backend_says_how_to_get_it(checkpoint: Path) -> None:
    if "vllm" in sys.modules:
        pytest.skip("this Python has vLLM")
    with pytest.raises(FatalModelError, match="cannot be imported") as caught:
        with_model(checkpoint, lambda model: model.generate(request()))
    assert "medeval[vllm]" in str(caught.value.hint)


def plan(checkpoint: Path, tmp_path: Path, **more: Any) -> Any:
    values = {
        "model": (f"m={checkpoint}",),
        "benchmarks": (str(write_benchmark(tmp_path)),),
        "backend": "vllm",
        "output_dir": str(tmp_path / "run"),
        **more,
    }
    return resolve(read_options(None, values))


def test_an_argument_that_the_engine_does_not_take_is_refused(
    checkpoint: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="--model-args has 'tool_call_parser'"):
        model_opener(plan(checkpoint, tmp_path, model_args={"tool_call_parser": "x"}))


def test_a_processor_from_elsewhere_is_seen_as_the_checkpoints_own(
    checkpoint: Path, orders: Orders, tmp_path: Path
) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    for name in ("config.json", "model.safetensors", "generation_config.json"):
        shutil.copy(checkpoint / name, bare / name)
    opener = model_opener(plan(bare, tmp_path, processor=str(checkpoint)))
    assert isinstance(opener, SharedEngines)

    async def ask() -> Reply:
        model = opener(plan(bare, tmp_path).checkpoints[0])
        await model.start()
        try:
            return await model.generate(request())
        finally:
            await model.close()
            await end_engines(opener)

    assert asyncio.run(ask()).text == "blue"
    linked = Path(orders.started_with[0]["model"])
    assert linked != bare
    assert not linked.exists()


def test_a_slot_that_keeps_nothing_ends_what_it_is_given() -> None:
    class Noted:
        closed = False

        async def close(self) -> None:
            self.closed = True

    async def launch(_: ModelFolder) -> Any:
        raise AssertionError("nothing is launched")

    async def give() -> bool:
        engine: Any = Noted()
        await EngineSlot(launch).give(engine)
        return bool(engine.closed)

    assert asyncio.run(give())
