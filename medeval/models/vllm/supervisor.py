"""An engine that is restarted when it dies, and reused for the next checkpoint."""

import asyncio
import os
import threading
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Protocol

from medeval.errors import FatalModelError, ModelError, TransientModelError
from medeval.models.base import Reply, Request
from medeval.models.vllm.lora import ModelFolder
from medeval.models.vllm.process import EngineDiedError
from medeval.types.sample import JsonValue

# After so many deaths without a reply between them, the checkpoint or the machine is at fault.
MAX_DEATHS_IN_A_ROW = 3
# A request that was in flight at so many deaths may be what kills the engine.
MAX_DEATHS_OF_A_REQUEST = 3


class Engine(Protocol):
    """A running engine with one checkpoint's weights."""

    async def generate(self, request: Request) -> Reply:
        """Generate one turn; raises EngineDiedError where the engine has died."""
        ...

    async def swap(self, folder: ModelFolder) -> None:
        """Take another checkpoint's weights or adapter; raises ModelError where that fails."""
        ...

    async def close(self) -> None:
        """End the engine; may be called more than once."""
        ...

    def identity(self) -> Mapping[str, JsonValue]:
        """All that can change a reply, as in `Model.identity`."""
        ...

    def notes(self) -> tuple[str, ...]:
        """Notes to report once."""
        ...


Launch = Callable[[ModelFolder], Awaitable[Engine]]
Following = Mapping[ModelFolder, ModelFolder]


class EngineSlot:
    """Starts engines, and with `keep` holds one between two checkpoints.

    `following` maps a checkpoint to the next one, whose files are read ahead.
    """

    def __init__(
        self, launch: Launch, *, keep: bool = False, following: Following | None = None
    ) -> None:
        self._launch = launch
        self._keep = keep
        self._following = dict(following or {})
        self._waiting: Engine | None = None

    async def take(self, folder: ModelFolder) -> tuple[Engine, str | None]:
        """An engine with a checkpoint's weights, and a note to report, or None."""
        waiting, self._waiting = self._waiting, None
        note = None
        if waiting is not None:
            try:
                await waiting.swap(folder)
            except ModelError as error:
                note = f"the engine was started anew: {error.message}"
                await waiting.close()
            except BaseException:
                await waiting.close()
                raise
            else:
                self._prepare_next(folder)
                return waiting, None
        engine = await self._launch(folder)
        self._prepare_next(folder)
        return engine, note

    def _prepare_next(self, folder: ModelFolder) -> None:
        if folder in self._following:
            read_ahead(self._following[folder].path)

    async def give(self, engine: Engine) -> None:
        """Take back an engine whose checkpoint is done, to keep it or to close it."""
        if self._keep and self._waiting is None:
            self._waiting = engine
        else:
            await engine.close()

    async def aclose(self) -> None:
        """Close the kept engine, if any."""
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            await waiting.close()


class SupervisedModel:
    """A checkpoint on an engine that may die: requests in flight are sent to the next engine.

    `base` is the base model's folder where `path` is that of a LoRA adapter.
    Gives up on a request that was in flight at `MAX_DEATHS_OF_A_REQUEST` deaths, and on the
    checkpoint after `MAX_DEATHS_IN_A_ROW` without a reply between them.
    """

    def __init__(self, path: Path, slot: EngineSlot, base: Path | None = None) -> None:
        self._folder = ModelFolder(path, base)
        self._slot = slot
        self._engine: Engine | None = None
        self._reviving = asyncio.Lock()
        self._deaths = 0
        self._deaths_in_a_row = 0
        self._broken: FatalModelError | None = None
        self._identity: Mapping[str, JsonValue] = {}
        self._told: list[str] = []

    async def start(self) -> None:
        """Start an engine, or load the weights into the last checkpoint's."""
        if self._engine is None:
            self._engine, note = await self._slot.take(self._folder)
            self._identity = dict(self._engine.identity())
            self._told += [] if note is None else [note]

    async def generate(self, request: Request) -> Reply:
        """Generate one turn; where the engine dies, generate it on the next one."""
        for _ in range(MAX_DEATHS_OF_A_REQUEST):
            engine = await self._living()
            try:
                reply = await engine.generate(request)
            except EngineDiedError as error:
                death = error
                await self._revive(engine, error)
            else:
                self._deaths_in_a_row = 0
                return reply
        raise TransientModelError(
            f"the engine died {MAX_DEATHS_OF_A_REQUEST} times during a request: {death.message}",
            hint=death.hint,
        )

    async def _living(self) -> Engine:
        async with self._reviving:
            if self._broken is not None:
                raise self._broken
            if self._engine is None:
                raise FatalModelError(
                    f"the model {str(self._folder.path)!r} was not started, or is closed"
                )
            return self._engine

    async def _revive(self, dead: Engine, error: EngineDiedError) -> None:
        """Start the next engine, once for all requests that found the dead one."""
        async with self._reviving:
            if self._engine is not dead:
                return
            self._engine = None
            await dead.close()
            self._deaths += 1
            self._deaths_in_a_row += 1
            if self._deaths_in_a_row >= MAX_DEATHS_IN_A_ROW:
                self._broken = FatalModelError(
                    f"the engine died {self._deaths_in_a_row} times in a row: {error.message}",
                    hint=error.hint,
                )
                return
            try:
                self._engine, _ = await self._slot.take(self._folder)
            except ModelError as failure:
                self._broken = FatalModelError(
                    f"the engine died and did not start again: {failure.message}",
                    hint=failure.hint,
                )

    async def close(self) -> None:
        """Give the engine back, to be kept for the next checkpoint or closed."""
        async with self._reviving:
            engine, self._engine = self._engine, None
            if engine is not None:
                self._told += engine.notes()
                await self._slot.give(engine)

    def identity(self) -> Mapping[str, JsonValue]:
        """The engine's identity when it was started."""
        return dict(self._identity)

    def notes(self) -> tuple[str, ...]:
        """The deaths of the engine, restarts after a failed swap, and the engine's own notes."""
        died = (
            ()
            if not self._deaths
            else (f"the engine died {self._deaths} times; requests in flight were sent again",)
        )
        engine = () if self._engine is None else self._engine.notes()
        return tuple(dict.fromkeys((*died, *self._told, *engine)))


BLOCK_BYTES = 2**23


def read_ahead(directory: Path) -> threading.Thread:
    """Read a checkpoint's weight files into the file cache, in a thread; errors are ignored."""
    thread = threading.Thread(
        target=_read_files, args=(directory,), name="medeval-read-ahead", daemon=True
    )
    thread.start()
    return thread


def _read_files(directory: Path) -> None:
    # the data is discarded: only the system's file cache matters
    buffer = bytearray(BLOCK_BYTES)
    for path in sorted(directory.glob("*.safetensors")):
        try:
            with path.open("rb", buffering=0) as file:
                if hasattr(os, "posix_fadvise"):
                    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_SEQUENTIAL)
                while file.readinto(buffer):
                    pass
        except OSError:
            return
