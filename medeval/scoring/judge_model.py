"""The model that judges ask: its server, its budget of calls and its kept replies."""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from weakref import WeakValueDictionary

from medeval.errors import FatalModelError, ModelError, UsageError
from medeval.models.base import Model, Reply, Request, Sampling
from medeval.scoring.grade import judge_identity
from medeval.scoring.judge import Judge
from medeval.scoring.judge_prompt import Inquiry
from medeval.scoring.judge_replies import JudgeReplies, JudgeReplyRecord, file_name, reply_key
from medeval.store.keys import LOGS
from medeval.types.definition import Loaded
from medeval.types.sample import JsonValue
from medeval.types.trajectory import Message, Role, Text, Usage
from medeval.types.verdict import Grade

if TYPE_CHECKING:
    from medeval.models.vllm.server import ServerPlan

# The seed that CharXiv's script sends; with temperature 0 it should not matter.
SEED = 42
# Arguments of OpenAIModel that have command-line flags of their own.
OWN_FLAGS = frozenset({"model", "base_url", "api_key_variable", "name"})
JudgeBackend = Literal["openai", "vllm-server"]
# The server counts as down after so many failures in a row, each after the model's own retries.
MAX_FAILURES_IN_A_ROW = 20


class JudgeClient:
    """Sends inquiries to a model, whose `name` becomes part of the judges' identities.

    Without a `model`, only kept replies are used. `max_calls` bounds the calls while the client is
    open. Of equal inquiries only one is in flight, and none is sent after a reply with a verdict.
    The caller bounds how many inquiries are in flight.

    `serve` makes a model that runs on this machine; its argument is the folder for the logs. The
    model starts with the first inquiry and is closed with the client.
    """

    def __init__(
        self,
        name: str,
        model: Model | None,
        *,
        max_calls: int | None = None,
        serve: Callable[[Path], Model] | None = None,
    ) -> None:
        self.name = name
        self._model = model
        self._serve = serve
        self._max_calls = max_calls
        self._replies = JudgeReplies()
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._starting = asyncio.Lock()
        self._started = False
        self._broken: FatalModelError | None = None
        self._failures_in_a_row = 0
        self.calls = 0
        self.from_kept = 0
        self.usage = Usage()

    def bound(self, judge: Loaded[Judge]) -> Loaded[Judge]:
        """The judge with this model to ask; a judge that asks none is returned unchanged."""
        if not judge.value.needs_endpoint:
            return judge
        named = Loaded(judge.value.bound(self.name, _refuse), judge.source)
        ask = partial(self.ask, judge_identity(named))
        return Loaded(judge.value.bound(self.name, ask), judge.source)

    @asynccontextmanager
    async def open(self, replies: Path | None = None) -> AsyncIterator[None]:
        """Open the client and close its model at the end; `replies` is the file for kept replies.

        Without it, replies are kept in memory.
        """
        if self._serve is not None:
            folder = Path(tempfile.gettempdir()) / "medeval" if replies is None else replies.parent
            self._model = self._serve(folder / LOGS)
        with JudgeReplies(replies) as self._replies:
            try:
                yield
            finally:
                if self._model is not None:
                    await self._model.close()
                self._started = False

    async def start(self) -> None:
        """Connect to the model, once; raises FatalModelError where that fails."""
        async with self._starting:
            if self._started:
                return
            if self._broken is not None:
                raise self._broken
            if self._model is None:
                self._broken = FatalModelError(
                    f"no server is given for the judge's model {self.name!r}",
                    hint="name its server: --judge-base-url URL, or --judge-backend vllm-server",
                )
                raise self._broken
            try:
                await self._model.start()
            except ModelError as error:
                self._broken = FatalModelError(
                    f"the judge's model cannot be reached: {error.message}",
                    hint=error.hint
                    if self._serve is not None
                    else "check --judge-model, --judge-base-url and the judge's key",
                )
                raise self._broken from error
            self._started = True

    async def ask(self, judge: str, inquiry: Inquiry) -> Grade:
        """The grade read from a kept reply or a new one; a new reply with a verdict is kept.

        Raises ModelError where there is no reply.
        """
        key = reply_key(judge, inquiry)
        async with self._locks.setdefault(key, asyncio.Lock()):
            kept = self._replies.get(key)
            if kept is not None:
                self.from_kept += 1
                return inquiry.ruling.read(kept)
            reply = await self._call(inquiry)
            grade = inquiry.ruling.read(reply.text) if reply.text else _without_text(reply)
            if grade.score is not None:
                self._replies.keep(_record(key, judge, reply))
            return grade

    async def _call(self, inquiry: Inquiry) -> Reply:
        await self.start()
        if self._broken is not None:
            raise self._broken
        if self._max_calls is not None and self.calls >= self._max_calls:
            raise FatalModelError(
                f"the judge's budget of {self._max_calls} calls is spent",
                hint="raise --judge-max-calls, then run the same command again",
            )
        assert self._model is not None, "a started client has a model"
        self.calls += 1
        try:
            reply = await self._model.generate(_request(inquiry))
        except ModelError as error:
            self._count_failure(error)
            raise
        self._failures_in_a_row = 0
        self.usage += reply.usage
        return reply

    def _count_failure(self, error: ModelError) -> None:
        """Give up after many failures in a row; a single failure may concern only its prompt."""
        self._failures_in_a_row += 1
        if self._failures_in_a_row >= MAX_FAILURES_IN_A_ROW:
            self._broken = FatalModelError(
                f"the judge's endpoint failed {self._failures_in_a_row} times in a row: "
                f"{error.message}",
                hint=error.hint,
            )

    def notes(self) -> tuple[str, ...]:
        """The numbers of calls, tokens and kept replies used, and the model's own notes."""
        if not self.calls and not self.from_kept:
            return ()
        tokens = ", ".join(
            f"{count:,} {kind} tokens"
            for kind, count in (
                ("prompt", self.usage.prompt_tokens),
                ("completion", self.usage.completion_tokens),
            )
            if count is not None
        )
        spent = f" ({tokens})" if tokens else ""
        calls = f"judge {self.name}: {self.calls:,} calls{spent}, {self.from_kept:,} replies kept"
        return (calls, *(self._model.notes() if self._model is not None else ()))


@asynccontextmanager
async def open_judge_model(
    client: JudgeClient,
    folder: Path,
    tell: Callable[[str], None],
    *,
    at_once: bool = False,
    writer: str = "0",
) -> AsyncIterator[None]:
    """Open the judges' model of the run in `folder`; pass its notes to `tell` at the end.

    With `at_once` it connects before the body runs, and raises FatalModelError where that fails.
    """
    async with client.open(folder / file_name(writer)):
        if at_once:
            await client.start()
        yield
        for note in client.notes():
            tell(note)


async def _refuse(inquiry: Inquiry) -> Grade:
    raise AssertionError("this judge only serves to compute its identity")


def _request(inquiry: Inquiry) -> Request:
    texts: tuple[tuple[Role, str], ...] = (("system", inquiry.system), ("user", inquiry.prompt))
    return Request(
        messages=tuple(Message(role=role, content=(Text(text),)) for role, text in texts if text),
        images=(),
        sampling=Sampling(temperature=0.0, max_tokens=inquiry.max_tokens),
        seed=SEED,
    )


def _without_text(reply: Reply) -> Grade:
    return Grade(score=None, reason=f"the judge replied nothing (it stopped by {reply.finish!r})")


def _record(key: str, judge: str, reply: Reply) -> JudgeReplyRecord:
    return JudgeReplyRecord(
        key=key,
        judge=judge,
        text=reply.text,
        prompt_tokens=reply.usage.prompt_tokens,
        completion_tokens=reply.usage.completion_tokens,
    )


def open_client(
    *,
    name: str,
    base_url: str | None,
    api_key_variable: str,
    max_calls: int | None,
    arguments: Mapping[str, JsonValue],
    backend: JudgeBackend = "openai",
) -> JudgeClient:
    """The client of the model `name` on the OpenAI-compatible server at `base_url`.

    Without `base_url`, the client uses only kept replies. With the backend vllm-server, `name` is
    `[NAME=]DIR`, a model's folder, and a server is started for it. Raises UsageError for an
    argument that the backend does not know.
    """
    if backend == "vllm-server":
        if base_url is not None:
            raise UsageError(
                "--judge-base-url names a server, and --judge-backend vllm-server starts another",
                hint="leave one out",
            )
        return _serve_client(name, max_calls, arguments)
    if base_url is None:
        return JudgeClient(name, None, max_calls=max_calls)
    from medeval.models.openai.client import OpenAIModel

    known = [item for item in signature(OpenAIModel).parameters if item not in OWN_FLAGS]
    for argument in arguments:
        if argument not in known:
            raise UsageError(
                f"--judge-args has {argument!r}, which the client does not know",
                hint=f"known: {', '.join(known)}",
            )
    given: dict[str, object] = dict(arguments)
    model = OpenAIModel(
        model=name,
        base_url=base_url,
        api_key_variable=api_key_variable,
        name=f"{name} (judge)",
        **given,  # type: ignore[arg-type]
    )
    return JudgeClient(name, model, max_calls=max_calls)


def _serve_client(
    model: str, max_calls: int | None, arguments: Mapping[str, JsonValue]
) -> JudgeClient:
    """The client of a model in a folder, `[NAME=]DIR`; a vLLM server is started for it.

    Raises UsageError where there is no such folder, or where the server does not know an argument.
    """
    from medeval.models.vllm.server import server_plan, server_slot
    from medeval.models.vllm.supervisor import SupervisedModel

    name, separator, given = model.partition("=")
    folder = Path(given if separator else model).resolve()
    if not folder.is_dir():
        raise UsageError(
            f"no model folder {str(folder)!r} to serve the judge from",
            hint="--judge-model [NAME=]DIR, or --judge-base-url URL for a server that runs",
        )

    def plan(logs: Path) -> "ServerPlan":
        return server_plan(arguments, logs, flag="--judge-args", judges=True)

    plan(Path(LOGS))  # raises UsageError for an unknown argument before anything starts
    return JudgeClient(
        name if separator else folder.name,
        None,
        max_calls=max_calls,
        serve=lambda logs: SupervisedModel(folder, server_slot(plan(logs))),
    )
