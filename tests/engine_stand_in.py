"""What looks like vLLM's asynchronous engine from this process, and says what it is told to."""

import sys
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from types import ModuleType, SimpleNamespace
from typing import Any, NamedTuple

import pytest


class EngineDeadError(Exception):
    """vLLM's name for an engine that is no more."""


@dataclass
class Orders:
    """What the engines of a test do; `prompts` and `calls` are what they were given.

    `n_held` is how many images the prompts still held when the replies to them began. `say` gives
    the ids of a reply and the string it stopped at, if any. `dies_at` are the numbers of the
    requests over all lives at which an engine dies, `refuses` of those that fail alone. `read`
    gives the ids that are read for those of a prompt. `adapters` are those that replies were asked
    of, and `unused` what of an adapter is not applied.
    """

    say: Callable[[Mapping[str, Any]], tuple[list[int], str | None]]
    dies_at: set[int] = field(default_factory=set)
    refuses: set[int] = field(default_factory=set)
    start_error: Exception | None = None
    compared: dict[str, Any] | None = field(default_factory=lambda: {"compared": 3, "telling": 2})
    compare_error: Exception | None = None
    reload_error: Exception | None = None
    is_reset: bool = True
    knows_connectors: bool = True
    max_model_len: int = 512
    read: Callable[[list[int]], list[int]] = list
    unused: list[str] = field(default_factory=list)
    adapters: list[Any] = field(default_factory=list)
    prompts: list[Mapping[str, Any]] = field(default_factory=list)
    sampling: list[Any] = field(default_factory=list)
    calls: list[tuple[str, Any]] = field(default_factory=list)
    started_with: list[dict[str, Any]] = field(default_factory=list)
    n_closed: int = 0
    n_held: int = 0


class Engine:
    """The part of AsyncLLM that is used, for one life."""

    orders: Orders

    def __init__(self, configuration: "EngineArguments") -> None:
        if self.orders.start_error is not None:
            raise self.orders.start_error
        self.orders.started_with.append(configuration.given)
        self.errored = False
        self.model_config = configuration.model_config
        self.model_config.max_model_len = self.orders.max_model_len

    @classmethod
    def from_vllm_config(
        cls, configuration: "EngineArguments", *, disable_log_stats: bool
    ) -> "Engine":
        assert disable_log_stats
        return cls(configuration)

    async def add_request(self, _: str, prompt: Mapping[str, Any], sampling: Any) -> int:
        images = {name: list(shown) for name, shown in prompt.get("multi_modal_data", {}).items()}
        self.orders.prompts.append({**prompt, "multi_modal_data": images})
        self.orders.sampling.append(sampling)
        return len(self.orders.prompts) - 1

    async def generate(
        self, prompt: Mapping[str, Any], sampling: Any, request_id: str, *, lora_request: Any
    ) -> AsyncIterator[Any]:
        number = await self.add_request(request_id, prompt, sampling)
        self.orders.adapters.append(lora_request)
        self.orders.n_held += sum(map(len, prompt.get("multi_modal_data", {}).values()))
        if number in self.orders.dies_at or self.errored:
            self.errored = True
            raise EngineDeadError("killed")
        if number in self.orders.refuses:
            raise ValueError("too odd")
        read = self.orders.read(list(prompt["prompt_token_ids"]))
        if len(read) > self.orders.max_model_len:
            raise ValueError(
                f"The decoder prompt (length {len(read)}) is longer than the maximum model length"
            )
        ids, stop = self.orders.say(prompt)
        reason = "length" if len(ids) >= sampling.max_tokens else "stop"
        output = SimpleNamespace(
            token_ids=ids[: sampling.max_tokens], finish_reason=reason, stop_reason=stop
        )
        yield SimpleNamespace(outputs=[output], prompt_token_ids=read, num_cached_tokens=7)

    async def add_lora(self, adapter: Any) -> bool:
        self.orders.calls.append(("add_lora", adapter.lora_path))
        return True

    async def collective_rpc(
        self, method: str, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> list[Any]:
        self.orders.calls.append((method, kwargs or args))
        if method == "reload_weights" and self.orders.reload_error is not None:
            raise self.orders.reload_error
        if method == "medeval_compare_weights" and self.orders.compare_error is not None:
            raise self.orders.compare_error
        if method == "medeval_unused_adapter_weights":
            return [self.orders.unused]
        return [self.orders.compared]

    async def reset_mm_cache(self) -> None:
        self.orders.calls.append(("reset_mm_cache", None))

    async def reset_encoder_cache(self) -> None:
        self.orders.calls.append(("reset_encoder_cache", None))

    async def reset_prefix_cache(self, **given: bool) -> bool:
        if given and not self.orders.knows_connectors:
            raise TypeError("unexpected keyword argument 'reset_connector'")
        self.orders.calls.append(("reset_prefix_cache", given))
        return self.orders.is_reset

    def shutdown(self) -> None:
        self.orders.n_closed += 1


class EngineArguments:
    """As AsyncEngineArgs refuses what it does not know; its own engine's configuration."""

    def __init__(self, **given: Any) -> None:
        if "flux" in given:
            raise TypeError("unexpected keyword argument 'flux'")
        self.given = given

    def create_engine_config(self) -> "EngineArguments":
        import transformers

        self.model_config = SimpleNamespace(
            dtype="torch.float32",
            hf_config=transformers.AutoConfig.from_pretrained(self.given["model"]),
            is_multimodal_model=True,
        )
        return self


class LoRARequest(NamedTuple):
    """An adapter, as vLLM is asked for it."""

    lora_name: str
    lora_int_id: int
    lora_path: str


def install(monkeypatch: pytest.MonkeyPatch, orders: Orders) -> None:
    """Put modules with vLLM's names in place for the length of a test."""
    engine = type("OrderedEngine", (Engine,), {"orders": orders})
    contents: dict[str, dict[str, object]] = {
        "vllm": {"__version__": "0.0", "SamplingParams": SimpleNamespace},
        "vllm.sampling_params": {"RequestOutputKind": SimpleNamespace(FINAL_ONLY="final")},
        "vllm.lora": {},
        "vllm.lora.request": {"LoRARequest": LoRARequest},
        "vllm.engine": {},
        "vllm.engine.arg_utils": {"AsyncEngineArgs": EngineArguments},
        "vllm.v1": {},
        "vllm.v1.engine": {},
        "vllm.v1.engine.async_llm": {"AsyncLLM": engine},
        "vllm.v1.engine.exceptions": {"EngineDeadError": EngineDeadError},
        "vllm.distributed": {"get_tensor_model_parallel_rank": lambda: 0},
    }
    made = {name: ModuleType(name) for name in contents}
    for name, module in made.items():
        module.__dict__.update(contents[name])
        parent, _, own = name.rpartition(".")
        if parent:
            setattr(made[parent], own, module)
        monkeypatch.setitem(sys.modules, name, module)
