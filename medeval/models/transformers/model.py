"""A local checkpoint in this process, run by Hugging Face transformers on a CPU or one GPU.

Whatever transformers loads is run by its own `generate`, on its own processor's inputs, in batches
padded on the left. Reasoning between `<think>` and `</think>` stays in a reply's text; some servers
separate it.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any, Final, Literal

from medeval.errors import FatalModelError, TransientModelError, UsageError
from medeval.models.base import Reply, Request, TokenHistory
from medeval.models.generation import (
    defaults_notes,
    end_token_ids,
    generation_defaults,
    split_native_calls,
)
from medeval.models.transformers.batcher import Batcher, run_in_halves
from medeval.models.transformers.kept_base import KeptBase
from medeval.models.weights import read_configuration, weight_files, weight_fingerprint
from medeval.tools.calls.find import ends_at_stop
from medeval.types.sample import JsonValue
from medeval.types.trajectory import FinishReason, NativeCall, Usage

if TYPE_CHECKING:
    import torch

    from medeval.models.transformers.loading import LoadedModel
    from medeval.models.transformers.processor import ChatProcessor, Prompt
    from medeval.models.transformers.sampling import RowEnd, RowSettings
    from medeval.models.transformers.shared_start import SharedStarts

DType = Literal["auto", "float32", "bfloat16", "float16"]

MAX_BATCH_SIZE: Final = 32
INSTALL_HINT: Final = "pip install 'medeval[transformers]'"


@dataclass(frozen=True, slots=True)
class Row:
    """A request that is ready for a batch."""

    request: Request
    prompt: "Prompt"
    settings: "RowSettings"


@dataclass(frozen=True, slots=True)
class _Engine:
    """Everything that a started model needs."""

    loaded: "LoadedModel"
    processor: "ChatProcessor"
    starts: "SharedStarts"
    end_ids: frozenset[int]
    max_model_len: int
    defaults: Mapping[str, Any]
    identity: Mapping[str, JsonValue]


class TransformersModel:
    """A checkpoint in a local directory, of any model type that transformers loads.

    Requests run in batches of at most `max_batch_size`. A reply does not depend on the other
    requests, except for rounding: each has its own sampling settings, limits and seeded
    generator. Settings that a request leaves open come from the checkpoint's
    generation_config.json, as in vLLM.

    `dtype` "auto" is bf16 on a GPU and float32 on a CPU; `device` None is a GPU where there is
    one. `processor_path` is the folder of the tokenizer, chat template and image processor, None
    for the checkpoint's own. `min_pixels` and `max_pixels` override the image processor's bounds
    on an image's area, `image_processor` any of its settings by name. `max_model_len` bounds prompt
    and reply together, in tokens; None is the checkpoint's own limit. `attention` is a name of an
    attention implementation of transformers, None for the model's default. Where `path` is the
    folder of a LoRA adapter, `base` is that of its base model, which `kept_base` keeps loaded.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        base: str | Path | None = None,
        kept_base: KeptBase | None = None,
        dtype: DType = "auto",
        device: str | None = None,
        max_batch_size: int = MAX_BATCH_SIZE,
        processor_path: str | Path | None = None,
        trust_remote_code: bool = False,
        max_model_len: int | None = None,
        min_pixels: int | None = None,
        max_pixels: int | None = None,
        image_processor: Mapping[str, Any] | None = None,
        attention: str | None = None,
    ) -> None:
        self._path = Path(path)
        self._base = None if base is None else Path(base)
        self._kept_base = kept_base or KeptBase()
        self._dtype = dtype
        self._device = device
        self._model_path = self._base or self._path
        self._processor_path = Path(processor_path or self._model_path)
        self._trust_remote_code = trust_remote_code
        self._max_model_len = max_model_len
        bounds = {"min_pixels": min_pixels, "max_pixels": max_pixels}
        given = {name: value for name, value in bounds.items() if value is not None}
        self._image_settings = {**(image_processor or {}), **given}
        self._attention = attention
        self._engine: _Engine | None = None
        self._halt = Event()
        self._preparer = ThreadPoolExecutor(1, thread_name_prefix="medeval-prepare")
        if max_batch_size < 1:
            raise UsageError(f"max_batch_size is {max_batch_size}; a batch has at least 1 row")
        self._batcher = Batcher[Row, Reply](
            self._run, max_size=max_batch_size, length=lambda row: len(row.prompt.ids)
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
            device, self._engine = self._engine.loaded.device, None
            _release(device)

    def identity(self) -> Mapping[str, JsonValue]:
        """The engine, versions, dtype, device kind, attention, file hashes and image settings."""
        return dict(self._started().identity)

    def notes(self) -> tuple[str, ...]:
        """What prompts are like, and the settings taken from generation_config.json."""
        engine = self._engine
        if engine is None:
            return ()
        return (*engine.processor.notes(), *defaults_notes(engine.defaults))

    def _started(self) -> _Engine:
        if self._engine is None or self._halt.is_set():
            state = "is closed" if self._halt.is_set() else "was not started"
            raise FatalModelError(f"the model {str(self._path)!r} {state}")
        return self._engine

    def load_processor(self) -> "tuple[Any, ChatProcessor]":
        """The configuration and all that makes prompts, without the weights.

        Raises FatalModelError where a part is missing, or where no class generates text with it.
        """
        _check_installed()

        from medeval.models.transformers.loading import auto_class, load_config, quiet
        from medeval.models.transformers.processor import ChatProcessor

        with quiet():
            config = load_config(self._model_path, trust_remote_code=self._trust_remote_code)
            auto_class(getattr(config, "thinker_config", config))
            return config, ChatProcessor(
                self._processor_path,
                config,
                settings=self._image_settings,
                trust_remote_code=self._trust_remote_code,
            )

    def _load(self) -> _Engine:
        configuration = read_configuration(self._model_path)
        weight_files(self._model_path)
        config, processor = self.load_processor()

        from medeval.models.transformers.loading import load_model, quiet
        from medeval.models.transformers.shared_start import SharedStarts

        with quiet():
            load = partial(
                load_model,
                self._model_path,
                config,
                dtype=self._dtype,
                device=self._device,
                attention=self._attention,
                trust_remote_code=self._trust_remote_code,
                pad_id=processor.template.pad_id,
            )
            loaded = load() if self._base is None else self._adapted(self._base, load)
            _try_prompt(loaded, processor)
        defaults = generation_defaults(self._model_path)
        end_ids = end_token_ids(self._model_path, configuration, processor.template.end_id)
        longest = getattr(config.get_text_config(), "max_position_embeddings", None)
        max_model_len = self._max_model_len or int(longest or 32768)
        identity: dict[str, JsonValue] = {
            **loaded.identity,
            **processor.identity(),
            "weights": weight_fingerprint(self._path, self._base),
            "max_model_len": max_model_len,
            "end_token_ids": list[JsonValue](sorted(end_ids)),
            "generation_defaults": dict(defaults),
        }
        return _Engine(
            loaded=loaded,
            processor=processor,
            starts=SharedStarts(loaded, processor),
            end_ids=end_ids,
            max_model_len=max_model_len,
            defaults=defaults,
            identity=identity,
        )

    def _adapted(self, base: Path, load: "Callable[[], LoadedModel]") -> "LoadedModel":
        """The base with the adapter; it is kept for the next adapter only if it stays as it is."""
        from medeval.models.transformers.adapters import changes_base, put_adapter

        loaded = self._kept_base.take(base, load)
        is_kept = False
        try:
            put_adapter(loaded.model, self._path)
            is_kept = not changes_base(self._path)
        finally:
            if not is_kept:
                self._kept_base.clear()
        return loaded

    def _run(self, rows: list[Row]) -> list[Reply | Exception]:
        """Run one batch in the worker thread; while memory runs out, run its halves."""
        import torch

        engine = self._started()
        results = run_in_halves(
            self._generate,
            rows,
            exhausted=torch.OutOfMemoryError,
            release=lambda: _release(engine.loaded.device),
        )
        if self._halt.is_set():
            return [TransientModelError("the model was closed while it generated") for _ in rows]
        return [_as_transient(result) for result in results]

    def _generate(self, rows: list[Row]) -> list[Reply]:
        """The replies of the rows, in one batch, or one for each number of images."""
        if not self._started().processor.wide:
            return self._generate_together(rows)
        alike: dict[int, list[Row]] = {}
        for row in rows:
            alike.setdefault(row.prompt.n_images, []).append(row)
        made = {
            id(row): reply
            for some in alike.values()
            for row, reply in zip(some, self._generate_together(some), strict=False)
        }
        return [made[id(row)] for row in rows if id(row) in made]

    def _generate_together(self, rows: list[Row]) -> list[Reply]:
        """The replies of one batch; fewer than rows only where the model was closed meanwhile."""
        import torch

        from medeval.models.transformers.sampling import RowEnds

        engine = self._started()
        settings = [row.settings for row in rows]
        template = engine.processor.template
        ends = RowEnds(
            settings,
            end_ids=engine.end_ids,
            special=template.special_ids,
            decode=template.decode,
            halt=self._halt,
        )
        with torch.inference_mode():
            prompts = [row.prompt for row in rows]
            inputs = engine.loaded.inputs(engine.processor.batch(prompts))
            inputs = engine.starts.applied(prompts, inputs)
            width = inputs["input_ids"].shape[1]
            output = engine.loaded.model.generate(
                **inputs,
                max_new_tokens=max(one.max_tokens for one in settings),
                logits_processor=self._logits_processors(rows, width),
                stopping_criteria=[ends],
            )
        return [
            self._reply(row, ids[: end.n_tokens], end)
            for row, end, ids in zip(rows, ends.ends, output[:, width:].tolist(), strict=True)
            if end is not None
        ]

    def _logits_processors(self, rows: Sequence[Row], width: int) -> list[Any]:
        """What chooses each row's next token, given all ids and scores of shape (rows, tokens)."""
        from medeval.models.transformers.sampling import RowSampler

        prompts = [row.prompt.ids for row in rows]
        device = self._started().loaded.device
        return [RowSampler([row.settings for row in rows], prompts, width, device)]

    def _reply(self, row: Row, written: list[int], end: "RowEnd") -> Reply:
        """The reply that the ids `written` make, of which the last is an end token at an end."""
        request, prompt = row.request, row.prompt
        processor = self._started().processor
        said = written[:-1] if end.reason == "end" else written
        text = ends_at_stop(processor.template.decode(said), request.stop)
        calls: tuple[NativeCall, ...] = ()
        if request.tools:
            text, calls = split_native_calls(text, len(request.messages))
        finish: FinishReason = "length" if end.reason == "length" else "stop"
        states = prompt.followed_by(processor.template.without_placeholders(said))
        return Reply(
            text=text,
            finish="tool_calls" if calls else finish,
            native_calls=calls,
            usage=Usage(prompt_tokens=len(prompt.ids), completion_tokens=end.n_tokens),
            history=TokenHistory(states.ids, len(request.messages) + 1, states),
            model_sizes=processor.model_sizes(prompt),
        )


def _try_prompt(loaded: "LoadedModel", processor: "ChatProcessor") -> None:
    """Generate one token for a prompt, with an image if possible.

    Raises FatalModelError where the model cannot take what its processor makes.
    """
    import torch

    [prompt, *_] = processor.probes(1)
    try:
        with torch.inference_mode():
            loaded.model.generate(**loaded.inputs(processor.batch([prompt])), max_new_tokens=1)
    except (RuntimeError, ValueError, TypeError, LookupError) as error:
        raise FatalModelError(
            f"the model cannot take what its processor makes: {error}",
            hint="processor and model may belong to different models, or a setting of "
            "--model-args image_processor may not suit the model",
        ) from error


def _check_installed() -> None:
    try:
        import torch
        import transformers  # noqa: F401
    except ImportError as error:
        raise FatalModelError(
            f"the transformers backend cannot be imported: {error}", hint=INSTALL_HINT
        ) from error
    del torch


def _prepare(engine: _Engine, request: Request) -> Row:
    """A request's prompt and settings; `max_tokens` is below 1 where the prompt does not fit."""
    from medeval.models.transformers.processor import Prompt

    processor, history = engine.processor, request.history
    if history is None:
        prompt = processor.opening(request.messages, request.images, request.tools)
    else:
        earlier = history.states if isinstance(history.states, Prompt) else Prompt(history.ids)
        prompt = processor.extension(
            earlier, history.n_messages, request.messages, request.images, request.tools
        )
    room = engine.max_model_len - len(prompt.ids)
    return Row(request, prompt, _settings(request, room, engine.defaults))


def _settings(request: Request, room: int, defaults: Mapping[str, Any]) -> "RowSettings":
    from medeval.models.transformers.sampling import RowSettings

    sampling = request.sampling

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


def _as_transient(result: Reply | Exception) -> Reply | Exception:
    if isinstance(result, Reply):
        return result
    return TransientModelError(
        f"out of memory for one request alone: {result}",
        hint="lower max_tokens, max_model_len or max_pixels, or use a larger device",
    )


def _release(device: "torch.device") -> None:
    import gc

    import torch

    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
