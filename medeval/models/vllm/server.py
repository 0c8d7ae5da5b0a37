"""A vLLM server that a run starts, watches and ends; requests go through the OpenAI client.

It listens on a port of the loopback interface, which every user of the machine and any page in
their browsers can reach. All requests but /health therefore need a key, random and known only to
the environments of this process and of the server. vLLM's development mode, whose requests call any
method of the workers, is off, and so are requests that load adapters. So each whole checkpoint has
a server of its own; adapters of one base share a server, which is started with all.
"""

import asyncio
import json
import os
import secrets
import shutil
import socket
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from medeval.errors import FatalModelError, ModelError, TransientModelError, UsageError
from medeval.images.picture import made_picture
from medeval.models.base import Reply, Request, Sampling
from medeval.models.openai.client import OpenAIModel
from medeval.models.vllm.arguments import EngineArguments
from medeval.models.vllm.lora import ModelFolder, adapters_on, changes_vision, lora_arguments
from medeval.models.vllm.process import EngineDiedError, ServerProcess
from medeval.models.vllm.reload import with_worker
from medeval.models.vllm.supervisor import EngineSlot, Following
from medeval.models.weights import kept_file_hashes, weight_fingerprint
from medeval.types.sample import JsonValue
from medeval.types.trajectory import ImageRef, Message, Text

PYTHON_VARIABLE = "MEDEVAL_VLLM_PYTHON"
SERVER_MODULE = "vllm.entrypoints.openai.api_server"
# The model's name on the server, whatever its folder is called.
SERVED_NAME = "model"
WARM_UP_EDGE_PX = 256
CONTENT_FORMAT = "chat_template_content_format"
# Where this process keeps the key of the servers that it starts.
KEY_VARIABLE = "MEDEVAL_SERVER_KEY"
# The server's check of it.
KEY_CHECK = "medeval_vllm_key.KeyForAll"
# vLLM's switches for requests that nobody sends.
SWITCHED_OFF = {"VLLM_SERVER_DEV_MODE": "0", "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "0"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerArguments:
    """How a server is started and called.

    `python` is a Python that has vLLM, None for the one in MEDEVAL_VLLM_PYTHON, or else our own.
    A server that is not ready after `start_timeout_s` seconds is given up. The other arguments are
    those of any OpenAI-compatible server.
    """

    python: str | None = None
    start_timeout_s: float = 1800.0
    timeout_s: float = 3600.0
    max_retries: int = 5
    retry_wait_s: float = 0.5
    extra_body: Mapping[str, JsonValue] = field(default_factory=dict)

    @classmethod
    def names(cls) -> list[str]:
        """The names that `--model-args` may hold."""
        return [one.name for one in fields(cls)]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerPlan:
    """How to start a server: its arguments, its log, and all checkpoints that it may be given."""

    engine: EngineArguments
    server: ServerArguments
    log_folder: Path
    folders: tuple[ModelFolder, ...] = ()

    def environment(self) -> dict[str, str]:
        """The environment variables of the server."""
        os.environ.setdefault(KEY_VARIABLE, secrets.token_urlsafe())
        return {
            **os.environ,
            **SWITCHED_OFF,
            "VLLM_API_KEY": os.environ[KEY_VARIABLE],
            "PYTHONPATH": with_worker(os.environ.get("PYTHONPATH", "")),
        }

    def served_names(self, folder: ModelFolder) -> dict[Path, str]:
        """The name on the server of a checkpoint's whole model, and of each adapter of it."""
        adapters = adapters_on(folder.loaded, (*self.folders, folder))
        names = {path: f"{SERVED_NAME}-{index}" for index, path in enumerate(adapters, start=1)}
        return {folder.loaded: SERVED_NAME, **names}

    def command(self, folder: ModelFolder, port: int) -> list[str]:
        """The command line that serves a checkpoint. Raises FatalModelError without a Python."""
        asked = self.server.python or os.environ.get(PYTHON_VARIABLE) or sys.executable
        python = shutil.which(asked)
        if python is None:
            raise FatalModelError(
                f"no Python {asked!r} to run vLLM with",
                hint=f"name one that has vLLM: --model-args python=PATH or {PYTHON_VARIABLE}",
            )
        # last, so that other arguments cannot override model and address
        own = ["--model", str(folder.loaded), "--served-model-name", SERVED_NAME]
        own += ["--host", "127.0.0.1", "--port", str(port), "--middleware", KEY_CHECK]
        return [
            python, "-m", SERVER_MODULE, *self._adapter_flags(folder), *self.engine.flags(), *own
        ]  # fmt: skip

    def _adapter_flags(self, folder: ModelFolder) -> list[str]:
        names = self.served_names(folder)
        adapters = [path for path in names if path != folder.loaded]
        if not adapters:
            return []
        for path in filter(changes_vision, adapters):
            raise FatalModelError(
                f"the adapter {str(path)!r} changes more than the language model, of which vLLM's "
                "server may leave parts out without an error",
                hint="--backend vllm checks what is left out; --backend transformers takes all",
            )
        rank = lora_arguments(adapters)["max_lora_rank"]
        modules = [json.dumps({"name": names[path], "path": str(path)}) for path in adapters]
        return ["--enable-lora", "--max-lora-rank", str(rank), "--lora-modules", *modules]


class VLLMServer:
    """One running vLLM server, and its client."""

    def __init__(
        self, folder: ModelFolder, process: ServerProcess, client: OpenAIModel, plan: ServerPlan
    ) -> None:
        self._process = process
        self._client = client
        self._plan = plan
        self._names = plan.served_names(folder)
        self._identity = _identity(folder, client, plan)
        self._is_closed = False

    @classmethod
    async def launch(cls, folder: ModelFolder, plan: ServerPlan) -> "VLLMServer":
        """Start a server and check that it answers; raises FatalModelError where it does not."""
        port = _free_port()
        process = await ServerProcess.start(
            plan.command(folder, port),
            port=port,
            log=_log(plan, folder),
            environment=plan.environment(),
        )
        client = _client(process.url, folder, plan)
        try:
            await process.await_health(plan.server.start_timeout_s)
            await client.start()
            server = cls(folder, process, client, plan)
            await server._warm_up()
        except BaseException:
            await client.close()
            await process.close()
            raise
        return server

    async def _warm_up(self) -> None:
        """Send a first request, which takes longer than later ones; without an image if refused."""
        try:
            try:
                await self.generate(warm_up_request())
            except TransientModelError:
                raise
            except ModelError:
                await self.generate(warm_up_request(sees_pictures=False))
        except EngineDiedError:
            raise self._process.failure("ended at its first request") from None
        except TransientModelError as error:
            raise FatalModelError(
                f"the server runs, but does not answer: {error.message}",
                hint=f"see its log, {str(self._process.log)!r}",
            ) from error

    async def generate(self, request: Request) -> Reply:
        """Generate one turn; raises EngineDiedError as soon as the server ends."""
        asking = asyncio.create_task(self._client.generate(request))
        try:
            await asyncio.wait({asking, self._process.ended}, return_when=asyncio.FIRST_COMPLETED)
            if asking.done():
                return await self._checked(asking)
            raise self._death()
        finally:
            if not asking.done():
                asking.cancel()
                await asyncio.wait({asking})

    async def _checked(self, asking: "asyncio.Task[Reply]") -> Reply:
        try:
            return asking.result()
        except ModelError as error:
            # another request may have found the server dead and closed the client
            is_gone = self._is_closed or not self._process.is_running
            if is_gone or (
                isinstance(error, TransientModelError) and not await self._process.is_healthy()
            ):
                raise self._death() from error
            raise

    def _death(self) -> EngineDiedError:
        failure = self._process.failure("ended during a request")
        return EngineDiedError(failure.message, hint=failure.hint)

    async def swap(self, folder: ModelFolder) -> None:
        """Ask for another checkpoint that is served; raises ModelError where it is not."""
        if folder.path not in self._names or not await self._process.is_healthy():
            raise ModelError("the server does not have the checkpoint, or has ended")
        # the last checkpoint's client holds notes that do not concern this one
        client = _client(self._process.url, folder, self._plan)
        await client.start()
        await self._client.close()
        self._client = client
        self._identity = _identity(folder, client, self._plan)

    async def close(self) -> None:
        """End the server."""
        self._is_closed = True
        await self._client.close()
        await self._process.close()

    def identity(self) -> Mapping[str, JsonValue]:
        """The checkpoint's weights, vLLM's version, and the arguments that shape a reply."""
        return dict(self._identity)

    def notes(self) -> tuple[str, ...]:
        """The client's notes."""
        return self._client.notes()


def server_slot(plan: ServerPlan, following: Following | None = None) -> EngineSlot:
    """A slot with one server for each whole checkpoint, and for all adapters of a base."""

    async def launch(folder: ModelFolder) -> VLLMServer:
        return await VLLMServer.launch(folder, plan)

    has_adapters = any(folder.base is not None for folder in plan.folders)
    return EngineSlot(launch, keep=has_adapters, following=following)


def _free_port() -> int:
    """A port of the loopback interface on which nobody listens now."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def _client(url: str, folder: ModelFolder, plan: ServerPlan) -> OpenAIModel:
    server = plan.server
    return OpenAIModel(
        model=plan.served_names(folder)[folder.path],
        base_url=url,
        # a hosted server's key must not be sent to this one
        api_key_variable=KEY_VARIABLE,
        timeout_s=server.timeout_s,
        max_retries=server.max_retries,
        retry_wait_s=server.retry_wait_s,
        extra_body=server.extra_body,
    )


def _log(plan: ServerPlan, folder: ModelFolder) -> Path:
    """The log file of a checkpoint's servers, one per checkpoint and process of medeval."""
    name = "-".join(folder.path.resolve().parts[-3:]).strip("/")
    return plan.log_folder / f"vllm-{name}.{os.getpid()}.log"


def _identity(folder: ModelFolder, client: OpenAIModel, plan: ServerPlan) -> dict[str, JsonValue]:
    told = client.identity()
    return {
        "engine": "vllm-server",
        "engine_version": told["server_version"],
        "max_model_len": told["max_model_len"],
        "extra_body": told["extra_body"],
        "weights": weight_fingerprint(folder.path, folder.base),
        "files": kept_file_hashes(folder.loaded),
        "arguments": plan.engine.shaping(),
    }


def warm_up_request(*, sees_pictures: bool = True) -> Request:
    """A request for two tokens, with a small image if `sees_pictures`."""
    from PIL import Image

    edge = WARM_UP_EDGE_PX
    picture = made_picture(Image.new("RGB", (edge, edge), (90, 120, 150)), budget=None)
    content = (ImageRef(0), Text("Hello.")) if sees_pictures else (Text("Hello."),)
    return Request(
        messages=(Message(role="user", content=content),),
        images=(picture.sent_image,) if sees_pictures else (),
        sampling=Sampling(max_tokens=2),
        seed=0,
    )


def server_plan(
    given: Mapping[str, Any],
    log_folder: Path,
    *,
    folders: Sequence[ModelFolder] = (),
    flag: str = "--model-args",
    judges: bool = False,
) -> ServerPlan:
    """The plan of the arguments in `flag`; raises UsageError for an unknown one.

    A server that `judges` gets only text. Any other passes messages to the template as lists of
    parts unless the arguments say otherwise: where vLLM finds no loop over the parts in a template,
    it joins them with line breaks, which no model was trained with.
    """
    known = [*EngineArguments.names(), *ServerArguments.names()]
    for name in given:
        if name not in known:
            raise UsageError(
                f"{flag} has {name!r}, which the vllm-server backend does not know",
                hint=f"known: {', '.join(known)}; engine_args takes any other of vLLM",
            )
    of_server = {name: value for name, value in given.items() if name in ServerArguments.names()}
    of_engine = {name: value for name, value in given.items() if name not in of_server}
    if not judges and CONTENT_FORMAT not in of_engine.get("engine_args", {}):
        of_engine.setdefault(CONTENT_FORMAT, "openai")
    return ServerPlan(
        engine=EngineArguments(**of_engine),
        server=ServerArguments(**of_server),
        log_folder=log_folder,
        folders=tuple(folders),
    )
