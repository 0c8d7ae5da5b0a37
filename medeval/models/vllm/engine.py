"""vLLM's asynchronous engine, driven from this process with token ids and images.

The chat template is applied here, once per turn; a later turn extends the ids of the last, so that
its prefix is in the engine's cache. The engine identifies images by their hash, and prepares and
encodes each one once for all turns, arms and benchmarks.
"""

import asyncio
import gc
import json
import os
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medeval.errors import FatalModelError, ModelError, UsageError
from medeval.models.base import Reply, Request, Sampling, TokenHistory
from medeval.models.generation import generation_defaults, split_native_calls
from medeval.models.vllm.arguments import SERVER_ALONE, EngineArguments
from medeval.models.vllm.process import EngineDiedError, explained
from medeval.models.vllm.reload import WORKER_EXTENSION, WORKER_FOLDER, LoadedWeights, with_worker
from medeval.models.vllm.server import warm_up_request
from medeval.models.vllm.supervisor import EngineSlot
from medeval.models.weights import kept_file_hashes, read_configuration, weight_fingerprint
from medeval.tools.calls.find import ends_at_stop
from medeval.types.sample import JsonValue
from medeval.types.trajectory import FinishReason, NativeCall, Usage

if TYPE_CHECKING:
    from medeval.models.vllm.prompts import PlacedPrompt, TokenPrompts

INSTALL_HINT = "pip install 'medeval[vllm]', or --backend vllm-server with the Python that has it"
# Engine processes are spawned: a fork of a process with threads may hang.
SETTINGS = {"VLLM_WORKER_MULTIPROCESSING_METHOD": "spawn", "VLLM_NO_USAGE_STATS": "1"}


@dataclass(frozen=True, slots=True, kw_only=True)
class EnginePlan:
    """How to start an engine: its arguments, its log, and whether it reloads weights."""

    engine: EngineArguments
    log_folder: Path
    start_timeout_s: float = 1800.0
    reload_weights: bool = True

    @property
    def log(self) -> Path:
        """The log file of this process's engines."""
        return self.log_folder / f"vllm.{os.getpid()}.log"


class VLLMEngine:
    """One running vLLM engine, with one checkpoint's weights at a time."""

    def __init__(self, path: Path, plan: EnginePlan, engine: Any, prompts: "TokenPrompts") -> None:
        self._weights = LoadedWeights(path)
        self._plan = plan
        self._engine = engine
        self._prompts = prompts
        self._defaults = generation_defaults(path)
        self._max_model_len = int(engine.model_config.max_model_len)
        self._preparer = ThreadPoolExecutor(1, thread_name_prefix="medeval-prepare")
        self._numbers = count()

    @classmethod
    async def launch(cls, path: Path, plan: EnginePlan) -> "VLLMEngine":
        """Start an engine and check that it answers; raises FatalModelError where it does not."""
        _prepare_environment(plan.log)
        log_start = plan.log.stat().st_size
        try:
            # vLLM keeps import errors, whose frames would keep alive what their thread returns
            model_type = await asyncio.to_thread(_checked_type, path)
            # starting it blocks
            started = await asyncio.to_thread(_load, path, model_type, plan)
        except FatalModelError:
            raise
        except Exception as error:
            what = "vLLM's engine did not start"
            cause = f"{type(error).__name__}: {error}"
            _append(plan.log, cause)
            raise explained(what, plan.log, log_start, otherwise=cause) from error
        engine = cls(path, plan, *started)
        try:
            async with asyncio.timeout(plan.start_timeout_s):
                await engine._engine.collective_rpc("medeval_end_with", args=(os.getpid(),))
                await engine.generate(warm_up_request())
        except (ModelError, TimeoutError) as error:
            await engine.close()
            cause = f"{type(error).__name__}: {error}"
            what = "the engine started, but does not answer"
            raise explained(what, plan.log, log_start, otherwise=cause) from error
        except BaseException:
            await engine.close()
            raise
        return engine

    async def generate(self, request: Request) -> Reply:
        """Generate one turn; raises EngineDiedError where the engine has died."""
        self._living()
        loop = asyncio.get_running_loop()
        prompt, images = await loop.run_in_executor(self._preparer, self._prepare, request)
        room = self._max_model_len - prompt.n_tokens
        if room < 1:
            usage = Usage(prompt_tokens=prompt.n_tokens, completion_tokens=0)
            return Reply(text="", finish="context", usage=usage)
        inputs: dict[str, Any] = {"prompt_token_ids": list(prompt.ids)}
        if images:
            inputs["multi_modal_data"] = {"image": images}
            inputs["multi_modal_uuids"] = {"image": [one.sha256 for one in _shown(request)]}
        output = await self._generate(inputs, self._sampling(request, room))
        return self._reply(request, prompt, output)

    def _prepare(self, request: Request) -> "tuple[PlacedPrompt, list[Any]]":
        from medeval.models.vllm.prompts import lazy_picture

        prompts, history = self._prompts, request.history
        if history is None:
            prompt = prompts.opening(request.messages, request.images, request.tools)
        else:
            prompt = prompts.extension(
                history.ids, history.n_messages, request.messages, request.images, request.tools
            )
        return prompts.placed(prompt), [lazy_picture(image) for image in _shown(request)]

    async def _generate(self, inputs: dict[str, Any], sampling: Any) -> Any:
        from vllm.v1.engine.exceptions import EngineDeadError

        engine, outputs = self._living(), list[Any]()
        try:
            replies = engine.generate(inputs, sampling, str(next(self._numbers)))
            async for output in replies:
                outputs.append(output)
        except EngineDeadError as error:
            raise EngineDiedError(f"vLLM's engine died: {error}", hint=self._log_hint) from error
        except Exception as error:
            if engine.errored:
                raise EngineDiedError("vLLM's engine died", hint=self._log_hint) from error
            cause = error.__cause__ or error
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

    def _sampling(self, request: Request, room: int) -> Any:
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
            max_tokens=min(asked.max_tokens, room),
            stop=list(request.stop),
            include_stop_str_in_output=True,
            output_kind=RequestOutputKind.FINAL_ONLY,
            **(self._defaults | chosen),
        )

    def _reply(self, request: Request, prompt: "PlacedPrompt", output: Any) -> Reply:
        written = output.outputs[0]
        ids = list(written.token_ids)
        by_token = written.finish_reason == "stop" and not isinstance(written.stop_reason, str)
        said = ids[:-1] if by_token and ids else ids
        text = ends_at_stop(self._prompts.decode(said), request.stop)
        calls: tuple[NativeCall, ...] = ()
        if request.tools:
            text, calls = split_native_calls(text, len(request.messages))
        # a placeholder that the model wrote has no image, so it is left out of the ids
        kept = [token for token in said if token not in self._prompts.placeholder_ids]
        finish: FinishReason = "length" if written.finish_reason == "length" else "stop"
        return Reply(
            text=text,
            finish="tool_calls" if calls else finish,
            native_calls=calls,
            usage=Usage(
                prompt_tokens=len(output.prompt_token_ids or ()),
                completion_tokens=len(ids),
                cached_tokens=output.num_cached_tokens,
            ),
            history=TokenHistory(ids=(*prompt.ids, *kept), n_messages=len(request.messages) + 1),
            model_sizes=prompt.sizes,
        )

    async def swap(self, path: Path) -> None:
        """Load and verify another checkpoint's weights; raises ModelError where that fails."""
        hindrance = self._plan.engine.hindrance()
        if hindrance or not self._plan.reload_weights:
            raise ModelError(hindrance or "weights are not reloaded in this engine")
        await self._weights.replace(path, self._engine)

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
            "max_model_len": self._max_model_len,
            "weights": weight_fingerprint(self._weights.path),
            "files": kept_file_hashes(self._weights.path),
            "generation_defaults": dict(self._defaults),
            "arguments": shaping,
            **self._prompts.identity(),
        }

    def notes(self) -> tuple[str, ...]:
        """The settings taken from generation_config.json, to report once."""
        if not self._defaults:
            return ()
        shown = ", ".join(f"{name}={value!r}" for name, value in self._defaults.items())
        return (f"from generation_config.json, where the protocol is silent: {shown}",)


def engine_slot(plan: EnginePlan, following: Mapping[Path, Path] | None = None) -> EngineSlot:
    """A slot with one engine for all checkpoints, one after the other."""

    async def launch(path: Path) -> VLLMEngine:
        return await VLLMEngine.launch(path, plan)

    return EngineSlot(launch, keep=plan.reload_weights, following=following)


def _shown(request: Request) -> list[Any]:
    """The images of a request in the order in which its messages show them."""
    from medeval.types.trajectory import ImageRef

    return [
        request.images[part.image]
        for message in request.messages
        for part in message.content
        if isinstance(part, ImageRef)
    ]


def _checked_type(path: Path) -> str:
    """The model's type; imports vLLM. Raises FatalModelError where either is unsupported."""
    model_type = str(read_configuration(path).get("model_type"))
    try:
        import vllm.engine.arg_utils
        import vllm.v1.engine.async_llm  # noqa: F401

        import medeval.models.vllm.prompts  # noqa: F401
        from medeval.models.processor import PROCESSORS
    except ImportError as error:
        raise FatalModelError(f"vLLM cannot be imported: {error}", hint=INSTALL_HINT) from error
    if model_type not in PROCESSORS:
        raise FatalModelError(
            f"{str(path)!r} is a {model_type!r}; the vllm backend runs {', '.join(PROCESSORS)}",
            hint="--backend vllm-server runs all that vLLM does",
        )
    return model_type


def _load(path: Path, model_type: str, plan: EnginePlan) -> "tuple[Any, TokenPrompts]":
    import vllm.engine.arg_utils
    from vllm.v1.engine.async_llm import AsyncLLM

    from medeval.models.vllm.prompts import TokenPrompts

    prompts = TokenPrompts(
        path,
        model_type,
        min_pixels=plan.engine.min_pixels,
        max_pixels=plan.engine.max_pixels,
        trust_remote_code=bool(plan.engine.trust_remote_code),
    )
    arguments: dict[str, Any] = {
        "worker_extension_cls": WORKER_EXTENSION,
        "disable_log_stats": True,
        "use_tqdm_on_load": False,
        **plan.engine.keywords(),
        "model": str(path),
    }
    try:
        chosen = vllm.engine.arg_utils.AsyncEngineArgs(**arguments)
    except TypeError as error:
        raise FatalModelError(
            f"vLLM does not take an argument: {error}", hint="see engine_args in --model-args"
        ) from error
    return _letting_go(AsyncLLM).from_engine_args(chosen), prompts


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


def engine_plan(given: Mapping[str, Any], log_folder: Path) -> EnginePlan:
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
    return EnginePlan(engine=EngineArguments(**of_engine), log_folder=log_folder, **of_run)
