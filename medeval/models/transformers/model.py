"""A local checkpoint in this process, run by Hugging Face transformers on a CPU or one GPU.

Reasoning between `<think>` and `</think>` stays in a reply's text; some servers separate it.
"""

import asyncio
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any, Final, Literal

from medeval.errors import FatalModelError, TransientModelError
from medeval.models.base import Reply, Request, Sampling, TokenHistory
from medeval.models.generation import end_token_ids, generation_defaults, split_native_calls
from medeval.models.transformers.batcher import Batcher, run_in_halves
from medeval.models.weights import read_configuration, weight_files, weight_fingerprint
from medeval.tools.calls.find import ends_at_stop
from medeval.types.sample import JsonValue
from medeval.types.trajectory import FinishReason, NativeCall, Usage

if TYPE_CHECKING:
    from medeval.models.processor import ChatProcessor, Prompt
    from medeval.models.transformers.conversation_cache import ConversationStates, KeptStates
    from medeval.models.transformers.kv_cache import SharedStarts
    from medeval.models.transformers.sampling import RowEnd, RowSettings

DType = Literal["auto", "float32", "bfloat16", "float16"]

MAX_BATCH_SIZE: Final = 32
# The share of a row's cached tokens that counts towards its length. Every row of a batch has room
# for the longest start: without this share, a later turn with 16,000 cached tokens could be batched
# with 31 first turns, each of which would take as much memory. A quarter bounds that, and costs
# almost nothing where turns batch well (6.7 s against 6.6 s).
KNOWN_SHARE: Final = 0.25
INSTALL_HINT: Final = "pip install 'medeval[transformers]'"


@dataclass(frozen=True, slots=True)
class _Row:
    """A request that is ready for a batch."""

    request: Request
    prompt: "Prompt"
    settings: "RowSettings"
    kept: "KeptStates | None"

    @property
    def length(self) -> int:
        """The number of the prompt's new tokens, and a share of its cached ones."""
        known = self.kept.n_tokens if self.kept else 0
        return len(self.prompt.ids) - known + int(KNOWN_SHARE * known)


@dataclass(frozen=True, slots=True)
class _Engine:
    """Everything that a started model needs."""

    model: Any
    starts: "SharedStarts"
    conversations: "ConversationStates"
    processor: "ChatProcessor"
    device: Any
    end_ids: frozenset[int]
    max_model_len: int
    defaults: Mapping[str, Any]
    identity: Mapping[str, JsonValue]


class TransformersModel:
    """A Qwen-VL checkpoint (Qwen2-VL, Qwen2.5-VL, Qwen3-VL) in a local directory.

    Requests run in batches of at most `max_batch_size`. A reply does not depend on the other
    requests, except for rounding: each has its own sampling settings, limits and seeded
    generator. Settings that a request leaves open come from the checkpoint's
    generation_config.json, as in vLLM.

    `dtype` "auto" is bf16 on a GPU and float32 on a CPU; `device` None is a GPU where there is
    one. `processor_path` is the folder of the tokenizer, chat template and image processor, None
    for the checkpoint's own. `min_pixels` and `max_pixels` override the processor's bounds on an
    image's area. `max_model_len` bounds prompt and reply together, in tokens; None is the
    checkpoint's own limit.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        dtype: DType = "auto",
        device: str | None = None,
        max_batch_size: int = MAX_BATCH_SIZE,
        processor_path: str | Path | None = None,
        trust_remote_code: bool = False,
        max_model_len: int | None = None,
        min_pixels: int | None = None,
        max_pixels: int | None = None,
        attention: str | None = None,
        kept_bytes: int | None = None,
    ) -> None:
        self._path = Path(path)
        self._dtype = dtype
        self._device = device
        self._processor_path = self._path if processor_path is None else Path(processor_path)
        self._trust_remote_code = trust_remote_code
        self._max_model_len = max_model_len
        self._pixel_bounds = (min_pixels, max_pixels)
        self._attention = attention
        self._kept_bytes = kept_bytes
        self._engine: _Engine | None = None
        self._halt = Event()
        self._preparer = ThreadPoolExecutor(1, thread_name_prefix="medeval-prepare")
        self._batcher = Batcher[_Row, Reply](
            self._run, max_size=max_batch_size, length=lambda row: row.length
        )

    async def start(self) -> None:
        """Load the checkpoint; raises FatalModelError where that fails."""
        if self._engine is None:
            loop = asyncio.get_running_loop()
            self._engine = await loop.run_in_executor(self._preparer, self._load)

    async def generate(self, request: Request) -> Reply:
        """Generate one turn; a later turn extends the ids of `request.history`."""
        engine = self._started()
        loop = asyncio.get_running_loop()
        with self._batcher.announced():
            row = await loop.run_in_executor(self._preparer, _prepare, engine, request)
        if row.settings.max_tokens < 1:
            usage = Usage(prompt_tokens=len(row.prompt.ids), completion_tokens=0)
            return Reply(text="", finish="context", usage=usage)
        return await self._batcher.submit(row)

    async def close(self) -> None:
        """Stop generating and free the memory."""
        self._halt.set()
        await self._batcher.close()
        await asyncio.to_thread(self._preparer.shutdown, wait=True, cancel_futures=True)
        if self._engine is not None:
            device, self._engine = self._engine.device, None
            _release(device)

    def identity(self) -> Mapping[str, JsonValue]:
        """The engine, versions, dtype, device kind, attention, file hashes and pixel bounds."""
        return dict(self._started().identity)

    def notes(self) -> tuple[str, ...]:
        """The settings taken from generation_config.json, to report once."""
        if self._engine is None or not self._engine.defaults:
            return ()
        shown = ", ".join(f"{name}={value!r}" for name, value in self._engine.defaults.items())
        return (f"from generation_config.json, where the protocol is silent: {shown}",)

    def _started(self) -> _Engine:
        if self._engine is None or self._halt.is_set():
            state = "is closed" if self._halt.is_set() else "was not started"
            raise FatalModelError(f"the model {str(self._path)!r} {state}")
        return self._engine

    def _load(self) -> _Engine:
        configuration = read_configuration(self._path)
        weight_files(self._path)
        _check_installed()
        model_type = _supported_type(configuration, self._path)

        from medeval.models.processor import ChatProcessor
        from medeval.models.transformers.conversation_cache import (
            ConversationStates,
            default_max_bytes,
        )
        from medeval.models.transformers.kv_cache import SharedStarts
        from medeval.models.transformers.loading import load_model, quiet

        with quiet():
            processor = ChatProcessor(
                self._processor_path,
                model_type,
                min_pixels=self._pixel_bounds[0],
                max_pixels=self._pixel_bounds[1],
                trust_remote_code=self._trust_remote_code,
            )
            loaded = load_model(
                self._path,
                dtype=self._dtype,
                device=self._device,
                attention=self._attention,
                trust_remote_code=self._trust_remote_code,
            )
        defaults = generation_defaults(self._path)
        end_ids = end_token_ids(self._path, configuration, processor.end_id)
        text = configuration.get("text_config") or configuration
        longest = int(text.get("max_position_embeddings") or 32768)
        max_model_len = self._max_model_len or longest
        identity: dict[str, JsonValue] = {
            **loaded.identity,
            **processor.identity(),
            "weights": weight_fingerprint(self._path),
            "max_model_len": max_model_len,
            "end_token_ids": list[JsonValue](sorted(end_ids)),
            "generation_defaults": dict(defaults),
        }
        kept_bytes = self._kept_bytes
        return _Engine(
            model=loaded.model,
            starts=SharedStarts(loaded.model),
            conversations=ConversationStates(
                default_max_bytes(loaded.device) if kept_bytes is None else kept_bytes
            ),
            processor=processor,
            device=loaded.device,
            end_ids=end_ids,
            max_model_len=max_model_len,
            defaults=defaults,
            identity=identity,
        )

    def _run(self, rows: list[_Row]) -> list[Reply | Exception]:
        """Run one batch in the worker thread; while memory runs out, run its halves."""
        import torch

        engine = self._started()
        results = run_in_halves(
            lambda some: _generate_in_room(engine, some, self._halt),
            rows,
            exhausted=torch.OutOfMemoryError,
            release=lambda: _release(engine.device),
        )
        if self._halt.is_set():
            return [TransientModelError("the model was closed while it generated") for _ in rows]
        return [_as_transient(result) for result in results]


def _check_installed() -> None:
    try:
        import torch
        import transformers  # noqa: F401
    except ImportError as error:
        raise FatalModelError(
            f"the transformers backend cannot be imported: {error}", hint=INSTALL_HINT
        ) from error
    del torch


def _supported_type(configuration: Mapping[str, Any], path: Path) -> str:
    from medeval.models.processor import PROCESSORS

    model_type = configuration.get("model_type")
    if model_type not in PROCESSORS:
        raise FatalModelError(
            f"{str(path)!r} is a {model_type!r}; the transformers backend runs "
            f"{', '.join(PROCESSORS)}",
            hint="serve it with vLLM and use --backend openai",
        )
    return str(model_type)


def _prepare(engine: _Engine, request: Request) -> _Row:
    """A request's prompt and settings; `max_tokens` is below 1 where the prompt does not fit."""
    processor, history = engine.processor, request.history
    if history is None:
        prompt = processor.opening(request.messages, request.images, request.tools)
    else:
        prompt = processor.extension(
            history.ids, history.n_messages, request.messages, request.images, request.tools
        )
    room = engine.max_model_len - len(prompt.ids)
    settings = _settings(request, room, engine.defaults)
    return _Row(request, prompt, settings, engine.conversations.found(history))


def _settings(request: Request, room: int, defaults: Mapping[str, Any]) -> "RowSettings":
    from medeval.models.transformers.sampling import RowSettings

    sampling: Sampling = request.sampling

    def chosen(asked: float | None, name: str, otherwise: float) -> float:
        return float(asked if asked is not None else defaults.get(name, otherwise))

    return RowSettings(
        seed=request.seed,
        temperature=sampling.temperature,
        top_p=chosen(sampling.top_p, "top_p", 1.0),
        top_k=int(chosen(sampling.top_k, "top_k", 0)),
        repetition_penalty=chosen(sampling.repetition_penalty, "repetition_penalty", 1.0),
        presence_penalty=sampling.presence_penalty or 0.0,
        max_tokens=min(sampling.max_tokens, room),
        stop=request.stop,
    )


def _generate_in_room(engine: _Engine, rows: list[_Row], halt: Event) -> list[Reply]:
    """Generate; where memory runs out, drop other conversations' states and try once more."""
    import torch

    try:
        return _generate(engine, rows, halt)
    except torch.OutOfMemoryError:
        if not engine.conversations.drop(but=[row.kept for row in rows if row.kept]):
            raise
    _release(engine.device)
    return _generate(engine, rows, halt)


def _generate(engine: _Engine, rows: list[_Row], halt: Event) -> list[Reply]:
    import torch

    from medeval.models.transformers.batch import BatchInputs
    from medeval.models.transformers.sampling import RowEnds, RowSampler

    settings = [row.settings for row in rows]
    prompts = [row.prompt for row in rows]
    ends = RowEnds(
        settings,
        end_ids=engine.end_ids,
        special=engine.processor.special_ids,
        decode=engine.processor.decode,
        halt=halt,
    )
    with torch.inference_mode():
        batch = BatchInputs(prompts, [row.kept for row in rows], engine.starts, engine.processor)
        cache = batch.cache()
        ids = [prompt.ids for prompt in prompts]
        output = engine.model.generate(
            **batch.tensors(engine.model),
            past_key_values=cache,
            max_new_tokens=max(row.max_tokens for row in settings),
            logits_processor=[RowSampler(settings, ids, batch.width, engine.device)],
            stopping_criteria=[ends],
        )
        for kept in (row.kept for row in rows if row.kept is not None):
            # the batch's cache has a copy
            kept.drop()
        replies = []
        for index, (row, end) in enumerate(zip(rows, ends.ends, strict=True)):
            if end is None:
                continue
            n_said = end.n_tokens - (end.reason == "end")
            said = output[index, batch.width : batch.width + n_said].tolist()
            last = row.request.is_last
            states = None if last else batch.keep(engine.conversations, cache, index, said)
            replies.append(_reply(engine.processor, row, said, end, states))
    return replies


def _reply(
    processor: "ChatProcessor",
    row: _Row,
    said: list[int],
    end: "RowEnd",
    states: "KeptStates | None",
) -> Reply:
    request, prompt = row.request, row.prompt
    text = ends_at_stop(processor.decode(said), request.stop)
    calls: tuple[NativeCall, ...] = ()
    if request.tools:
        text, calls = split_native_calls(text, len(request.messages))
    # a placeholder that the model wrote has no image, so it is left out of the ids
    kept = [token for token in said if token not in processor.placeholder_ids]
    finish: FinishReason = "length" if end.reason == "length" else "stop"
    return Reply(
        text=text,
        finish="tool_calls" if calls else finish,
        native_calls=calls,
        usage=Usage(prompt_tokens=len(prompt.ids), completion_tokens=end.n_tokens),
        history=TokenHistory((*prompt.ids, *kept), len(request.messages) + 1, states),
        model_sizes=tuple(image.size for image in prompt.images),
    )


def _as_transient(result: Reply | Exception) -> Reply | Exception:
    if isinstance(result, Reply):
        return result
    return TransientModelError(
        f"out of memory for one request alone: {result}",
        hint="lower max_tokens, max_model_len or max_pixels, or use a larger device",
    )


def _release(device: Any) -> None:
    import gc

    import torch

    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
