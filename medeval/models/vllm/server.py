"""A vLLM server that a run starts, watches and ends; requests go through the OpenAI client.

It listens on a Unix socket in a folder of mode 0700. vLLM reloads weights only in its developers'
mode, whose `/collective_rpc` calls any method of the workers without a key; on a loopback port,
every user of the machine and any page in their browsers could call it. The socket's folder keeps
them out, without a secret in command lines or logs. A server on a port, because one is requested
or because this vLLM has no `--uds`, runs without that mode and starts anew for each checkpoint.
"""

import asyncio
import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from medeval.errors import FatalModelError, ModelError, TransientModelError, UsageError
from medeval.images.picture import made_picture
from medeval.models.base import Reply, Request, Sampling
from medeval.models.openai.client import OpenAIModel
from medeval.models.vllm.address import ServerAddress
from medeval.models.vllm.arguments import EngineArguments
from medeval.models.vllm.controls import ServerControls
from medeval.models.vllm.process import (
    EngineDiedError,
    OldServerError,
    PortTakenError,
    ServerProcess,
)
from medeval.models.vllm.reload import WORKER_EXTENSION, LoadedWeights, with_worker
from medeval.models.vllm.supervisor import EngineSlot
from medeval.models.weights import kept_file_hashes, weight_fingerprint
from medeval.types.sample import JsonValue
from medeval.types.trajectory import ImageRef, Message, Text

PYTHON_VARIABLE = "MEDEVAL_VLLM_PYTHON"
SERVER_MODULE = "vllm.entrypoints.openai.api_server"
# The model's name on the server, whatever its folder is called.
SERVED_NAME = "model"
# Another program may take a free port before the server does.
PORT_TRIES = 3
WARM_UP_EDGE_PX = 256
CONTENT_FORMAT = "chat_template_content_format"
# The environment variable that enables a server's control requests.
DEVELOPERS_MODE = "VLLM_SERVER_DEV_MODE"
OLD_SERVER = "this vLLM is too old to reload weights over a private socket"
ON_A_PORT = "a server on a port, which others can reach, does not reload weights"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerArguments:
    """How a server is started and called.

    `python` is a Python that has vLLM, None for the one in MEDEVAL_VLLM_PYTHON, or else our own.
    `port` None listens on a private socket, where `reload_weights` uses one server for all
    checkpoints. A server that is not ready, or has not loaded weights, after `start_timeout_s`
    seconds is given up. The other arguments are those of any OpenAI-compatible server.
    """

    python: str | None = None
    port: int | None = None
    start_timeout_s: float = 1800.0
    reload_weights: bool = True
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
    """How to start a server: its arguments, its log, and whether its first request has an image.

    With `is_kept`, the server also serves the next checkpoint; `hindrance` says why its weights
    cannot be replaced, or is None. With `is_private`, it listens on a private socket.
    """

    engine: EngineArguments
    server: ServerArguments
    log_folder: Path
    sees_pictures: bool = True
    is_kept: bool = False
    is_private: bool = True
    hindrance: str | None = None

    @property
    def takes_weights(self) -> bool:
        """Whether the server can load the next checkpoint's weights."""
        return self.is_kept and self.hindrance is None

    def on_port(self, hindrance: str) -> "ServerPlan":
        """The same plan on a port, without reloading weights, for the reason `hindrance`."""
        return replace(self, is_private=False, hindrance=hindrance)

    def address(self) -> ServerAddress:
        """A new address for a server."""
        return (
            ServerAddress.private() if self.is_private else ServerAddress.on_port(self.server.port)
        )

    def environment(self) -> dict[str, str]:
        """The environment variables of the server."""
        if not self.takes_weights:
            return {**os.environ, DEVELOPERS_MODE: "0"}
        path = with_worker(os.environ.get("PYTHONPATH", ""))
        return {**os.environ, DEVELOPERS_MODE: "1", "PYTHONPATH": path}

    def command(self, path: Path, address: ServerAddress) -> list[str]:
        """The command line that serves a checkpoint. Raises FatalModelError without a Python."""
        asked = self.server.python or os.environ.get(PYTHON_VARIABLE) or sys.executable
        python = shutil.which(asked)
        if python is None:
            raise FatalModelError(
                f"no Python {asked!r} to run vLLM with",
                hint=f"name one that has vLLM: --model-args python=PATH or {PYTHON_VARIABLE}",
            )
        extension = ["--worker-extension-cls", WORKER_EXTENSION] if self.takes_weights else []
        # last, so that other arguments cannot override model and address
        own = ["--model", str(path), "--served-model-name", SERVED_NAME]
        if address.socket is None:
            own += ["--host", "127.0.0.1", "--port", str(address.port)]
        else:
            own += ["--uds", str(address.socket)]
        return [python, "-m", SERVER_MODULE, *extension, *self.engine.flags(), *own]


class VLLMServer:
    """One running vLLM server, and its client."""

    def __init__(
        self, path: Path, process: ServerProcess, client: OpenAIModel, plan: ServerPlan
    ) -> None:
        self._weights = LoadedWeights(path)
        self._process = process
        self._client = client
        self._plan = plan
        self._identity = _identity(path, client, plan)
        self._is_closed = False

    @classmethod
    async def launch(cls, path: Path, plan: ServerPlan) -> "VLLMServer":
        """Start a server and check that it answers; raises FatalModelError where it does not."""
        tries = PORT_TRIES if plan.server.port is None and not plan.is_private else 1
        for remaining in reversed(range(tries)):
            try:
                return await cls._launch(path, plan)
            except PortTakenError:
                if not remaining:
                    raise
        raise AssertionError("the last try returns or raises")

    @classmethod
    async def _launch(cls, path: Path, plan: ServerPlan) -> "VLLMServer":
        address = plan.address()
        try:
            process = await ServerProcess.start(
                plan.command(path, address),
                address=address,
                log=_log(plan, path),
                environment=plan.environment(),
            )
        except BaseException:
            address.clear()
            raise
        client = _client(process.url, plan)
        try:
            await process.await_health(plan.server.start_timeout_s)
            await client.start()
            server = cls(path, process, client, plan)
            await server._warm_up()
        except BaseException:
            await client.close()
            await process.close()
            raise
        return server

    async def _warm_up(self) -> None:
        """Send a first request, which takes longer than later ones."""
        try:
            await self.generate(warm_up_request(sees_pictures=self._plan.sees_pictures))
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

    async def swap(self, path: Path) -> None:
        """Load and verify another checkpoint's weights; raises ModelError where that fails."""
        if not self._plan.takes_weights:
            raise ModelError(self._plan.hindrance or "weights are not reloaded on this server")
        controls = ServerControls(self._process.url, timeout_s=self._plan.server.start_timeout_s)
        await self._weights.replace(path, controls)
        # the last checkpoint's client holds notes that do not concern this one
        client = _client(self._process.url, self._plan)
        await client.start()
        await self._client.close()
        self._client = client
        self._identity = _identity(path, client, self._plan)

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


def server_slot(plan: ServerPlan, following: Mapping[Path, Path] | None = None) -> EngineSlot:
    """A slot with one server for all checkpoints, or with one server for each."""

    async def launch(path: Path) -> VLLMServer:
        nonlocal plan
        try:
            return await VLLMServer.launch(path, plan)
        except OldServerError:
            if not plan.is_private:
                raise
            plan = plan.on_port(OLD_SERVER)
            return await VLLMServer.launch(path, plan)

    return EngineSlot(launch, keep=plan.is_kept, following=following)


def _client(url: str, plan: ServerPlan) -> OpenAIModel:
    server = plan.server
    return OpenAIModel(
        model=SERVED_NAME,
        base_url=url,
        # the server needs no key, and must not receive that of a hosted one
        api_key_variable="MEDEVAL_NO_KEY",
        timeout_s=server.timeout_s,
        max_retries=server.max_retries,
        retry_wait_s=server.retry_wait_s,
        extra_body=server.extra_body,
    )


def _log(plan: ServerPlan, path: Path) -> Path:
    """The log file of a checkpoint's servers, one per checkpoint and process of medeval."""
    name = "-".join(path.resolve().parts[-3:]).strip("/")
    return plan.log_folder / f"vllm-{name}.{os.getpid()}.log"


def _identity(path: Path, client: OpenAIModel, plan: ServerPlan) -> dict[str, JsonValue]:
    told = client.identity()
    return {
        "engine": "vllm-server",
        "engine_version": told["server_version"],
        "max_model_len": told["max_model_len"],
        "extra_body": told["extra_body"],
        "weights": weight_fingerprint(path),
        "files": kept_file_hashes(path),
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
        images=(picture.encoded,) if sees_pictures else (),
        sampling=Sampling(max_tokens=2),
        seed=0,
    )


def server_plan(
    given: Mapping[str, Any], log_folder: Path, *, flag: str = "--model-args", judges: bool = False
) -> ServerPlan:
    """The plan of the arguments in `flag`; raises UsageError for an unknown one.

    A server that `judges` gets only text. Any other passes messages to the template as lists of
    parts unless the arguments say otherwise: where vLLM finds no loop over the parts in a template,
    it joins them with line breaks, which no model was trained with.
    """
    known = [*EngineArguments.names(), *ServerArguments.names()]
    if judges:
        known.remove("reload_weights")
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
    engine = EngineArguments(**of_engine)
    plan = ServerPlan(
        engine=engine,
        server=ServerArguments(**of_server),
        log_folder=log_folder,
        sees_pictures=not judges,
        is_kept=not judges and of_server.get("reload_weights", True),
        hindrance=engine.hindrance(),
    )
    return plan if plan.server.port is None else plan.on_port(ON_A_PORT)
