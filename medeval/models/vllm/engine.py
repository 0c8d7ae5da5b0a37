"""vLLM's asynchronous engine, driven from this process with token ids and images.

The chat template is applied here, once per turn, with the placeholders as it writes them, which
vLLM's processor for the model replaces. A later turn extends the ids of the last, so that its
prefix is in the engine's cache. The engine identifies images by their hash, and prepares and
encodes each one once for all turns, arms and benchmarks.
"""

import asyncio
import gc
import io
import json
import os
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medeval.errors import FatalModelError, ModelError, UsageError
from medeval.models.base import Reply, Request, Sampling, TokenHistory, shown_images
from medeval.models.generation import defaults_notes, generation_defaults, split_native_calls
from medeval.models.openai.wire import CONTEXT_PATTERN
from medeval.models.vllm.arguments import SERVER_ALONE, EngineArguments
from medeval.models.vllm.lora import ModelFolder, adapters_on, lora_arguments
from medeval.models.vllm.process import EngineDiedError, explained
from medeval.models.vllm.reload import WORKER_EXTENSION, WORKER_FOLDER, LoadedWeights, with_worker
from medeval.models.vllm.server import warm_up_request
from medeval.models.vllm.supervisor import EngineSlot, Following
from medeval.models.weights import kept_file_hashes, read_configuration, weight_fingerprint
from medeval.tools.calls.find import ends_at_stop
from medeval.types.sample import JsonValue, RequestImage
from medeval.types.trajectory import FinishReason, NativeCall, Usage

if TYPE_CHECKING:
    from PIL import Image

    from medeval.models.chat_template import ChatTemplate

INSTALL_HINT = "pip install 'medeval[vllm]', or --backend vllm-server with the Python that has it"
MERGE_HINT = "merge the adapter into its base, or use --backend transformers"
# Engine processes are spawned: a fork of a process with threads may hang.
SETTINGS = {"VLLM_WORKER_MULTIPROCESSING_METHOD": "spawn", "VLLM_NO_USAGE_STATS": "1"}


@dataclass(frozen=True, slots=True, kw_only=True)
class EnginePlan:
    """How to start an engine: its arguments, its log, and whether it reloads weights.

    `folders` are all checkpoints that the engine may be given, the adapters among them.
    """

    engine: EngineArguments
    log_folder: Path
    folders: tuple[ModelFolder, ...] = ()
    start_timeout_s: float = 1800.0
    reload_weights: bool = True

    @property
    def log(self) -> Path:
        """The log file of this process's engines."""
        return self.log_folder / f"vllm.{os.getpid()}.log"

    def adapters(self, folder: ModelFolder) -> tuple[Path, ...]:
        """The adapters of the base that a checkpoint is, or is for."""
        return adapters_on(folder.loaded, (*self.folders, folder))


class VLLMEngine:
    """One running vLLM engine, with one checkpoint's weights at a time."""

    def __init__(
        self, folder: ModelFolder, plan: EnginePlan, engine: Any, template: "ChatTemplate"
    ) -> None:
        self._folder = folder
        self._weights = LoadedWeights(folder.loaded)
        self._plan = plan
        self._engine = engine
        self._template = template
        self._adapter: Any = None
        self._defaults = generation_defaults(folder.loaded)
        # the template is not for several threads at once
        self._preparer = ThreadPoolExecutor(1, thread_name_prefix="medeval-prepare")
        self._numbers = count(1)
        self._encodes_anew = False

    @classmethod
    async def launch(cls, folder: ModelFolder, plan: EnginePlan) -> "VLLMEngine":
        """Start an engine and check that it answers; raises FatalModelError where it does not."""
        _prepare_environment(plan.log)
        log_start = plan.log.stat().st_size
        try:
            # vLLM keeps import errors, whose frames would keep alive what their thread returns
            await asyncio.to_thread(_check_checkpoint, folder.loaded)
            # starting it blocks
            started = await asyncio.to_thread(_load, folder, plan)
        except FatalModelError:
            raise
        except Exception as error:
            what = "vLLM's engine did not start"
            cause = f"{type(error).__name__}: {error}"
            _append(plan.log, cause)
            raise explained(what, plan.log, log_start, otherwise=cause) from error
        engine = cls(folder, plan, *started)
        try:
            async with asyncio.timeout(plan.start_timeout_s):
                await engine._engine.collective_rpc("medeval_end_with", args=(os.getpid(),))
                await engine._take_adapter(folder)
                sees_pictures = bool(engine._engine.model_config.is_multimodal_model)
                await engine.generate(warm_up_request(sees_pictures=sees_pictures))
        except BaseException as error:
            await engine.close()
            if isinstance(error, FatalModelError) or not isinstance(
                error, (ModelError, TimeoutError)
            ):
                raise
            cause = f"{type(error).__name__}: {error}"
            what = "the engine started, but does not answer"
            raise explained(what, plan.log, log_start, otherwise=cause) from error
        return engine

    async def generate(self, request: Request) -> Reply:
        """Generate one turn; raises EngineDiedError where the engine has died."""
        self._living()
        loop = asyncio.get_running_loop()
        ids, images = await loop.run_in_executor(self._preparer, self._prepare, request)
        inputs: dict[str, Any] = {"prompt_token_ids": list(ids)}
        if images:
            inputs["multi_modal_data"] = {"image": images}
            inputs["multi_modal_uuids"] = {
                "image": [one.sha256 for one in shown_images(request.messages, request.images)]
            }
        output = await self._generate(inputs, self._sampling(request))
        if output is None:
            return Reply(text="", finish="context")
        self._living()
        return await loop.run_in_executor(self._preparer, self._reply, request, ids, output)

    def _prepare(self, request: Request) -> "tuple[tuple[int, ...], list[Image.Image]]":
        history = request.history
        if history is None:
            ids = self._template.opening_ids(request.messages, request.tools)
        else:
            ids = self._template.extension_ids(
                history.ids, history.n_messages, request.messages, request.tools
            )
        return ids, [
            _engine_image(image) for image in shown_images(request.messages, request.images)
        ]

    async def _generate(self, inputs: dict[str, Any], sampling: Any) -> Any:
        """The output; None where the prompt does not fit the context."""
        from vllm.v1.engine.exceptions import EngineDeadError

        engine, outputs = self._living(), list[Any]()
        try:
            replies = engine.generate(
                inputs, sampling, str(next(self._numbers)), lora_request=self._adapter
            )
            async for output in replies:
                outputs.append(output)
        except EngineDeadError as error:
            raise EngineDiedError(f"vLLM's engine died: {error}", hint=self._log_hint) from error
        except Exception as error:
            if engine.errored:
                raise EngineDiedError("vLLM's engine died", hint=self._log_hint) from error
            cause = error.__cause__ or error
            if CONTEXT_PATTERN.search(str(cause)):
                return None
            raise ModelError(f"vLLM refuses a request: {type(cause).__name__}: {cause}") from error
        if not outputs:
            raise EngineDiedError("vLLM's engine gave no reply", hint=self._log_hint)
        return outputs[-1]

    def _living(self) -> Any:
        """The engine; raises EngineDiedError where it was closed after its death."""
        if self._engine is None:
            raise EngineDiedError("vLLM's engine died", hint=self._log_hint)
        return self._engine

    @property
    def _log_hint(self) -> str:
        return f"see its log, {str(self._plan.log)!r}"

    def _sampling(self, request: Request) -> Any:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        asked: Sampling = request.sampling
        given = {name: getattr(asked, name) for name in ("top_p", "top_k", "repetition_penalty")}
        chosen = {name: value for name, value in given.items() if value is not None}
        return SamplingParams(
            temperature=asked.temperature,
            presence_penalty=asked.presence_penalty or 0.0,
            # a greedy reply needs no seed, and seeds slow a batch down
            seed=request.seed if asked.temperature else None,
            max_tokens=asked.max_tokens,
            stop=list(request.stop),
            include_stop_str_in_output=True,
            output_kind=RequestOutputKind.FINAL_ONLY,
            **(self._defaults | chosen),
        )

    def _reply(self, request: Request, prompt_ids: Sequence[int], output: Any) -> Reply:
        written = output.outputs[0]
        ids = list(written.token_ids)
        by_token = written.finish_reason == "stop" and not isinstance(written.stop_reason, str)
        said = ids[:-1] if by_token and ids else ids
        text = ends_at_stop(self._template.decode(said), request.stop)
        calls: tuple[NativeCall, ...] = ()
        if request.tools:
            text, calls = split_native_calls(text, len(request.messages))
        finish: FinishReason = "length" if written.finish_reason == "length" else "stop"
        read_ids = output.prompt_token_ids or ()
        asked_ids = self._template.without_placeholders(prompt_ids)
        self._encodes_anew |= not _are_in_order(asked_ids, read_ids)
        return Reply(
            text=text,
            finish="tool_calls" if calls else finish,
            native_calls=calls,
            usage=Usage(
                prompt_tokens=len(read_ids),
                completion_tokens=len(ids),
                cached_tokens=output.num_cached_tokens,
            ),
            history=TokenHistory(
                ids=(*prompt_ids, *self._template.without_placeholders(said)),
                n_messages=len(request.messages) + 1,
            ),
        )

    async def swap(self, folder: ModelFolder) -> None:
        """Take another checkpoint's weights or adapter; raises ModelError where that fails."""
        if folder.loaded != self._folder.loaded:
            if self._plan.adapters(self._folder) or self._plan.adapters(folder):
                raise ModelError("weights are not reloaded in an engine for adapters")
            hindrance = self._plan.engine.hindrance()
            if hindrance or not self._plan.reload_weights:
                raise ModelError(hindrance or "weights are not reloaded in this engine")
            await self._weights.replace(folder.path, self._engine)
        await self._take_adapter(folder)
        self._folder = folder

    async def _take_adapter(self, folder: ModelFolder) -> None:
        """Load an adapter, or none; raises FatalModelError where vLLM does not apply all of it."""
        self._adapter = None
        if folder.base is None:
            return
        from vllm.lora.request import LoRARequest

        # the name is part of the keys of vLLM's caches
        name = str(folder.path.resolve())
        adapter = LoRARequest(name, next(self._numbers), name)
        try:
            await self._engine.add_lora(adapter)
            unused = await self._engine.collective_rpc(
                "medeval_unused_adapter_weights", args=(adapter.lora_int_id,)
            )
        except Exception as error:
            raise FatalModelError(
                f"vLLM does not take the adapter {name!r}: {error}", hint=MERGE_HINT
            ) from error
        # a worker has the layers of its own stage alone
        if names := sorted(set.intersection(*map(set, unused))):
            raise FatalModelError(
                f"vLLM leaves {len(names)} modules of the adapter {name!r} out, first {names[0]!r}",
                hint=MERGE_HINT,
            )
        self._adapter = adapter

    async def close(self) -> None:
        """End the engine."""
        self._preparer.shutdown(wait=False)
        engine, self._engine = self._engine, None
        if engine is not None:
            await asyncio.to_thread(engine.shutdown)
            # otherwise it is shut down again at the interpreter's exit, with an error
            del engine
            gc.collect()

    def identity(self) -> Mapping[str, JsonValue]:
        """The checkpoint's weights, vLLM's version, and the arguments that shape a reply."""
        import vllm

        shaping = self._plan.engine.shaping()
        for name in ("tool_call_parser", "reasoning_parser"):
            shaping.pop(name, None)
        return {
            "engine": "vllm",
            "engine_version": vllm.__version__,
            "dtype": str(self._engine.model_config.dtype).removeprefix("torch."),
            "max_model_len": int(self._engine.model_config.max_model_len),
            "weights": weight_fingerprint(self._folder.path, self._folder.base),
            "files": kept_file_hashes(self._folder.loaded),
            "generation_defaults": dict(self._defaults),
            "arguments": shaping,
            "template_form": self._template.identity(),
        }

    def notes(self) -> tuple[str, ...]:
        """The settings taken from generation_config.json, and what becomes of messages."""
        notes = list(self._template.notes())
        notes += defaults_notes(self._defaults)
        if self._encodes_anew:
            notes.append(
                "vLLM's processor for this model encodes prompts anew: later turns may begin with "
                "other token ids than those generated"
            )
        return tuple(notes)


def engine_slot(plan: EnginePlan, following: Following | None = None) -> EngineSlot:
    """A slot with one engine for all checkpoints, one after the other."""

    async def launch(folder: ModelFolder) -> VLLMEngine:
        return await VLLMEngine.launch(folder, plan)

    return EngineSlot(launch, keep=plan.reload_weights, following=following)


def _engine_image(image: RequestImage) -> "Image.Image":
    """The image as vLLM takes it; a file is decoded only where the engine has not cached it."""
    from PIL import Image

    if not image.is_encoded:
        return image.pixels()
    picture = Image.open(io.BytesIO(image.encoded()))
    return picture if picture.mode == "RGB" else picture.convert("RGB")


def _are_in_order(expected: Sequence[int], ids: Sequence[int]) -> bool:
    """Whether the ids hold the expected ones in their order, with any others between them."""
    remaining = iter(ids)
    return all(one in remaining for one in expected)


def _check_checkpoint(path: Path) -> None:
    """Raise FatalModelError where there is no checkpoint, or where vLLM cannot be imported."""
    read_configuration(path)
    try:
        import vllm.engine.arg_utils
        import vllm.v1.engine.async_llm  # noqa: F401

        import medeval.models.chat_template  # noqa: F401
    except ImportError as error:
        raise FatalModelError(f"vLLM cannot be imported: {error}", hint=INSTALL_HINT) from error


def _load(folder: ModelFolder, plan: EnginePlan) -> "tuple[Any, ChatTemplate]":
    import vllm.engine.arg_utils
    from vllm.v1.engine.async_llm import AsyncLLM

    from medeval.models.chat_template import ChatTemplate

    arguments: dict[str, Any] = {
        "worker_extension_cls": WORKER_EXTENSION,
        "use_tqdm_on_load": False,
        **lora_arguments(plan.adapters(folder)),
        **plan.engine.keywords(),
        "model": str(folder.loaded),
    }
    try:
        chosen = vllm.engine.arg_utils.AsyncEngineArgs(**arguments)
    except TypeError as error:
        raise FatalModelError(
            f"vLLM does not take an argument: {error}", hint="see engine_args in --model-args"
        ) from error
    configuration = chosen.create_engine_config()
    template = ChatTemplate.from_folder(
        folder.loaded,
        configuration.model_config.hf_config,
        trust_remote_code=bool(plan.engine.trust_remote_code),
    )
    engine = _letting_go(AsyncLLM).from_vllm_config(configuration, disable_log_stats=True)
    return engine, template


def _letting_go(engine: Any) -> Any:
    """The engine class, changed to free a request's decoded images once they are prepared.

    vLLM's own keeps them until the reply is complete: 133 MB for each 8K image in flight.
    """

    class Engine(engine):  # type: ignore[misc]
        async def add_request(self, number: str, prompt: Any, *more: Any, **given: Any) -> Any:
            try:
                return await super().add_request(number, prompt, *more, **given)
            finally:
                prompt.get("multi_modal_data", {}).get("image", []).clear()

    return Engine


def _prepare_environment(log: Path) -> None:
    """Make vLLM and its processes write to the log and find the worker's module."""
    log.parent.mkdir(parents=True, exist_ok=True)
    log.touch()
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    settings = log.with_suffix(".json")
    settings.write_text(json.dumps(_logging_settings(log)))
    os.environ.setdefault("VLLM_LOGGING_CONFIG_PATH", str(settings.resolve()))
    folder = str(WORKER_FOLDER)
    if folder not in sys.path:
        sys.path.append(folder)
    os.environ["PYTHONPATH"] = with_worker(os.environ.get("PYTHONPATH", ""))


def _logging_settings(log: Path) -> dict[str, Any]:
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {
            "line": {"format": "%(asctime)s %(process)d %(levelname)s %(name)s: %(message)s"}
        },
        "handlers": {
            "file": {
                "class": "logging.FileHandler",
                "filename": str(log.resolve()),
                "formatter": "line",
            }
        },
        "loggers": {"vllm": {"handlers": ["file"], "level": "INFO", "propagate": False}},
    }


def _append(log: Path, line: str) -> None:
    with log.open("a", encoding="utf-8") as file:
        file.write(f"{line}\n")


def engine_plan(
    given: Mapping[str, Any], log_folder: Path, folders: Sequence[ModelFolder] = ()
) -> EnginePlan:
    """The plan of `--model-args`; raises UsageError for an unknown argument."""
    own = ("start_timeout_s", "reload_weights")
    known = [name for name in EngineArguments.names() if name not in SERVER_ALONE]
    for name in given:
        if name not in (*known, *own):
            raise UsageError(
                f"--model-args has {name!r}, which the vllm backend does not know",
                hint=f"known: {', '.join((*known, *own))}; engine_args takes any other of vLLM",
            )
    of_run = {name: value for name, value in given.items() if name in own}
    of_engine = {name: value for name, value in given.items() if name not in own}
    return EnginePlan(
        engine=EngineArguments(**of_engine),
        log_folder=log_folder,
        folders=tuple(folders),
        **of_run,
    )
