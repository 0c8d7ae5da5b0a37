"""Opens the engine of a plan for one checkpoint."""

import inspect
import shutil
import tempfile
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medeval.errors import UsageError
from medeval.evaluation.plan import Plan
from medeval.evaluation.plan_file import Backend
from medeval.models.base import Model
from medeval.models.checkpoints import Checkpoint
from medeval.store.keys import LOGS

if TYPE_CHECKING:
    from medeval.models.vllm.lora import ModelFolder
    from medeval.models.vllm.supervisor import EngineSlot, Following

# Arguments of engines that have their own flags.
OWN_FLAGS = frozenset({"model", "base_url", "path", "processor_path", "name", "base", "kept_base"})
# The default of the client of a single server.
MAX_RETRIES = 5
# Samples in flight without --concurrency. The transformers engine needs many, to fill batches with
# samples of the same arm and turn; a server may have other clients.
CONCURRENCY: Mapping[Backend, int] = {
    "openai": 32,
    "transformers": 96,
    "vllm": 256,
    "vllm-server": 256,
}


@dataclass(frozen=True, slots=True)
class SharedEngines:
    """A function from a checkpoint to its model, whose engine may run the next checkpoint too.

    `aclose` ends the running engines.
    """

    open_model: Callable[[Checkpoint], Model]
    aclose: Callable[[], Awaitable[None]]

    def __call__(self, checkpoint: Checkpoint) -> Model:
        """The checkpoint's model, not started yet."""
        return self.open_model(checkpoint)


async def end_engines(open_model: Callable[[Checkpoint], Model]) -> None:
    """End the engines that `open_model` shares between checkpoints."""
    if isinstance(open_model, SharedEngines):
        await open_model.aclose()


def concurrency_of(plan: Plan) -> int:
    """The number of samples in flight in a process: --concurrency, or the backend's default."""
    return plan.options.concurrency or CONCURRENCY[plan.backend]


def model_opener(plan: Plan) -> Callable[[Checkpoint], Model]:
    """A function from a checkpoint to its model, not started yet.

    Raises UsageError if `--model-args` has a name that the backend does not know.
    """
    match plan.backend:
        case "transformers":
            return _transformers(plan)
        case "vllm":
            return _vllm(plan)
        case "vllm-server":
            return _vllm_server(plan)
        case _:
            return _openai(plan)


def _transformers(plan: Plan) -> SharedEngines:
    from medeval.models.transformers.kept_base import KeptBase
    from medeval.models.transformers.model import TransformersModel

    options = plan.options
    arguments = _checked(
        dict(options.model_args), _parameters(TransformersModel), f"the {plan.backend} backend"
    )
    if options.processor is not None:
        arguments["processor_path"] = Path(options.processor)
    kept = KeptBase()

    async def end() -> None:
        kept.clear()

    def open_model(checkpoint: Checkpoint) -> Model:
        if checkpoint.base is None:
            kept.clear()
        base = None if checkpoint.base is None else Path(checkpoint.base)
        return TransformersModel(Path(checkpoint.location), base=base, kept_base=kept, **arguments)

    return SharedEngines(open_model, end)


def _openai(plan: Plan) -> Callable[[Checkpoint], Model]:
    from medeval.models.openai.client import OpenAIModel

    options = plan.options
    arguments = _checked(
        dict(options.model_args), _parameters(OpenAIModel), f"the {plan.backend} backend"
    )
    urls = [url for url in str(options.base_url).split(",") if url.strip()]
    if len(urls) == 1:
        return lambda checkpoint: OpenAIModel(
            model=checkpoint.location, base_url=urls[0], **arguments
        )
    return lambda checkpoint: _server_pool(checkpoint, urls, dict(arguments))


def _server_pool(checkpoint: Checkpoint, urls: Sequence[str], arguments: dict[str, Any]) -> Model:
    """One model on several servers; the pool, not the clients, repeats failed requests."""
    from medeval.models.openai.client import OpenAIModel
    from medeval.models.openai.pool import FIRST_REST_S, ServerPool

    model = checkpoint.location
    max_retries = arguments.pop("max_retries", MAX_RETRIES)
    first_rest_s = arguments.pop("retry_wait_s", FIRST_REST_S)
    clients = [
        OpenAIModel(model=model, base_url=url, name=f"{model} at {url}", max_retries=0, **arguments)
        for url in urls
    ]
    return ServerPool(clients, max_tries=max_retries + 1, first_rest_s=first_rest_s)


def _vllm_server(plan: Plan) -> SharedEngines:
    from medeval.models.vllm.server import server_plan, server_slot

    return _supervised(
        plan,
        lambda folders, following: server_slot(
            server_plan(plan.options.model_args, plan.output_dir / LOGS, folders=folders), following
        ),
    )


def _vllm(plan: Plan) -> SharedEngines:
    from medeval.models.vllm.engine import engine_plan, engine_slot

    return _supervised(
        plan,
        lambda folders, following: engine_slot(
            engine_plan(plan.options.model_args, plan.output_dir / LOGS, folders), following
        ),
    )


def _supervised(
    plan: Plan, slot: Callable[[Sequence["ModelFolder"], "Following"], "EngineSlot"]
) -> SharedEngines:
    """The models of a plan, one after the other on the same engine."""
    from medeval.models.vllm.supervisor import SupervisedModel

    folders = _Folders(plan)
    all_folders = [folders.of(one) for one in plan.all_checkpoints]
    shared = slot(all_folders, dict(pairwise(all_folders)))

    async def end() -> None:
        await shared.aclose()
        folders.clear()

    def open_model(checkpoint: Checkpoint) -> Model:
        folder = folders.of(checkpoint)
        return SupervisedModel(folder.path, shared, folder.base)

    return SharedEngines(open_model, end)


class _Folders:
    """The folder of each checkpoint; with --processor, links to the files of both."""

    def __init__(self, plan: Plan) -> None:
        processor = plan.options.processor
        self._processor = None if processor is None else Path(processor)
        self._links: dict[Path, Path] = {}

    def of(self, checkpoint: Checkpoint) -> "ModelFolder":
        from medeval.models.vllm.lora import ModelFolder

        path = Path(checkpoint.location)
        if checkpoint.base is None:
            return ModelFolder(self._linked(path))
        return ModelFolder(path, self._linked(Path(checkpoint.base)))

    def _linked(self, folder: Path) -> Path:
        from medeval.models.weights import with_processor

        if self._processor is None:
            return folder
        if folder not in self._links:
            links = Path(tempfile.mkdtemp(prefix="medeval-"))
            self._links[folder] = with_processor(folder, self._processor, links)
        return self._links[folder]

    def clear(self) -> None:
        for links in self._links.values():
            shutil.rmtree(links, ignore_errors=True)


def _parameters(engine: Callable[..., Model]) -> list[str]:
    return [name for name in inspect.signature(engine).parameters if name not in OWN_FLAGS]


def _checked(given: dict[str, Any], known: Sequence[str], whose: str) -> dict[str, Any]:
    for name in given:
        if name not in known:
            raise UsageError(
                f"--model-args has {name!r}, which {whose} does not know",
                hint=f"known: {', '.join(known)}",
            )
    return given
