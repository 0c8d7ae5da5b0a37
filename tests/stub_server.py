"""A small OpenAI-compatible server on the loopback interface, with faults on demand.

In a test: `async with running(StubServer(...)) as server:` and `server.base_url`. As a program:
`python tests/stub_server.py --port 0 --latency 0.2`; the first line on stdout is the base URL.

Replies depend on the request's content alone, so that a disturbed run and an undisturbed one
agree. A prompt that offers tools gets a call first, and an answer once the model has spoken.
"""

import argparse
import asyncio
import hashlib
import json
import re
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

Body = dict[str, Any]
Faults = Callable[[int, Body], str] | Sequence[str]

OK = "ok"
CONTEXT_MESSAGE = (
    "This model's maximum context length is 4096 tokens. However, your prompt contains 5000 input "
    "tokens, which exceeds this limit even without any output tokens. Please reduce the length of "
    "the input prompt."
)
ROOM_MESSAGE = (
    "This model's maximum context length is 4096 tokens. However, you requested 2048 output tokens "
    "and your prompt contains at least 2049 input tokens, for a total of at least 4097 tokens. "
    "Please reduce the length of the input prompt or the number of requested output tokens."
)
PARAMETER_MESSAGE = "Unsupported parameter: 'seed' is not supported with this model."


def error_body(message: str, **fields: object) -> str:
    return json.dumps({"error": {"message": message, "type": "stub_error", **fields}})


def _refusal(status: int, message: str, **fields: object) -> web.Response:
    return web.Response(
        status=status, text=error_body(message, **fields), content_type="application/json"
    )


def _reply_without(part: str) -> web.Response:
    completion = _completion({"model": "stub"}, {"content": "x"}, "stop")
    if part == "choices":
        completion["choices"] = []
    else:
        del completion["choices"][0]["message"]
    return web.json_response(completion)


FAULTS: dict[str, Callable[[], web.Response]] = {
    "429": lambda: _with_header(_refusal(429, "Rate limit reached"), "Retry-After", "0.05"),
    "500": lambda: _refusal(500, "Internal server error"),
    "503": lambda: _refusal(503, "Loading model"),
    "400": lambda: _refusal(400, "messages: at least one image is unreadable"),
    "401": lambda: _refusal(401, "Incorrect API key provided"),
    "403": lambda: _refusal(403, "You may not use this model"),
    "404": lambda: _refusal(404, "The model `other` does not exist.", code=404),
    "422": lambda: _refusal(422, "temperature: Input should be at most 2"),
    "html": lambda: web.Response(text="<html>hello</html>", content_type="text/html"),
    "garbage": lambda: web.Response(text='{"choices": [{"mess', content_type="application/json"),
    "empty_choices": lambda: _reply_without("choices"),
    "no_message": lambda: _reply_without("message"),
    "context": lambda: _refusal(400, CONTEXT_MESSAGE, param="input_tokens"),
    "unsupported": lambda: _refusal(400, PARAMETER_MESSAGE, param="seed"),
}
MODES = (OK, *FAULTS, "drop", "hang")


def _with_header(response: web.Response, name: str, value: str) -> web.Response:
    response.headers[name] = value
    return response


@dataclass(kw_only=True)
class StubServer:
    """Answers chat completions.

    `places` requests are worked on at once, each for `latency_s`; where `room` is set, a request
    beside so many others is refused with 429 instead of waiting. A conversation that offers tools
    gets `n_calls` calls before an answer, and any, where `answer` is set, as often `call`. `faults`
    names the fault of the nth chat request, counted from 0: a function, or a sequence after whose
    end all is well.
    `respond` replaces a fault's or a reply's response where it returns one. `answer` is said
    without reading the request; otherwise one of `answers` is chosen by the request's content.
    `keys` are accepted keys, empty for any. `models` None leaves out the list of models.
    `asides` replaces what is answered on "/v1/models" or "/version".
    """

    latency_s: float = 0.0
    places: int = 1000
    room: int | None = None
    faults: Faults = ()
    respond: Callable[[int, Body], web.Response | None] | None = None
    answer: str | None = None
    call: str | None = None
    n_calls: int = 1
    answers: tuple[str, ...] = ("A", "B", "C", "D")
    asides: Mapping[str, Callable[[], web.Response]] = field(default_factory=dict)
    models: tuple[str, ...] | None = ("stub",)
    version: str | None = "1.2.3"
    keys: tuple[str, ...] = ()
    port: int = 0
    bodies: list[Body] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    keep: bool = True
    requests: int = 0
    refused: int = 0
    in_flight: int = 0
    working: int = 0
    most_in_flight: int = 0
    started: list[float] = field(default_factory=list)
    ended_at: float = 0.0

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def application(self) -> web.Application:
        self._slots = asyncio.Semaphore(self.places)
        application = web.Application(client_max_size=1 << 30)
        application.router.add_post("/v1/chat/completions", self.chat)
        application.router.add_get("/v1/models", self.list_models)
        application.router.add_get("/version", self.tell_version)
        application.router.add_get("/stats", self.tell_stats)
        application.router.add_get("/timing", self.tell_timing)
        return application

    async def list_models(self, request: web.Request) -> web.Response:
        if request.path in self.asides:
            return self.asides[request.path]()
        if not self._admits(request):
            return FAULTS["401"]()
        if self.models is None:
            return web.Response(status=404, text="404: Not Found")
        listed = [{"id": name, "object": "model", "max_model_len": 4096} for name in self.models]
        return web.json_response({"object": "list", "data": listed})

    async def tell_version(self, request: web.Request) -> web.Response:
        if request.path in self.asides:
            return self.asides[request.path]()
        if self.version is None:
            return web.Response(status=404, text="404: Not Found")
        return web.json_response({"version": self.version})

    async def tell_stats(self, request: web.Request) -> web.Response:
        counts = ("requests", "refused", "most_in_flight")
        return web.json_response({name: getattr(self, name) for name in counts})

    async def tell_timing(self, request: web.Request) -> web.Response:
        """What was served since this was last asked, by the machine's monotonic clock."""
        timing = {
            "first_at": self.started[0] if self.started else 0.0,
            "last_at": self.ended_at,
            "most_in_flight": self.most_in_flight,
            "requests": len(self.started),
        }
        self.started.clear()
        self.most_in_flight = 0
        return web.json_response(timing)

    async def chat(self, request: web.Request) -> web.StreamResponse:
        index = self.requests
        self.requests += 1
        self.started.append(time.monotonic())
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            raw = await request.read()
            if self.room is not None and self.working >= self.room:
                self.refused += 1
                return _refusal(429, "Too many requests at once")
            return await self._work(request, index, raw)
        finally:
            self.in_flight -= 1
            self.ended_at = time.monotonic()

    async def _work(self, request: web.Request, index: int, raw: bytes) -> web.StreamResponse:
        self.working += 1
        try:
            async with self._slots:
                await asyncio.sleep(self.latency_s)
                return await self._answer(request, index, raw)
        finally:
            self.working -= 1

    async def _answer(self, request: web.Request, index: int, raw: bytes) -> web.StreamResponse:
        body: Body = json.loads(raw) if self.answer is None else {}
        if self.keep:
            self.bodies.append(body)
            self.headers.append(dict(request.headers))
        if not self._admits(request):
            return FAULTS["401"]()
        fault = self._fault(index, body)
        if fault == "drop":
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        if fault == "hang":
            await asyncio.sleep(3600)
        if fault != OK:
            return FAULTS[fault]()
        if self.call is not None and raw.count(b'"assistant"') < self.n_calls:
            return web.json_response(_completion(body, {"content": self.call}, "stop"))
        special = self.respond(index, body) if self.respond else None
        return special or self._complete(body)

    def _admits(self, request: web.Request) -> bool:
        key = request.headers.get("Authorization", "").removeprefix("Bearer ")
        return not self.keys or key in self.keys

    def _fault(self, index: int, body: Body) -> str:
        if callable(self.faults):
            fault = self.faults(index, body)
        else:
            fault = self.faults[index] if index < len(self.faults) else OK
        return OK if fault == "unsupported" and "seed" not in body else fault

    def _complete(self, body: Body) -> web.Response:
        if self.answer is not None:
            return web.json_response(_completion(body, {"content": self.answer}, "stop"))
        if self.models is not None and body["model"] not in self.models:
            return FAULTS["404"]()
        message, finish = reply_to(body, self.answers, self.n_calls)
        return web.json_response(_completion(body, message, finish))


def _completion(body: Body, message: Body, finish: str) -> Body:
    return {
        "id": "chatcmpl-stub",
        "object": "chat.completion",
        "created": 0,
        "model": body.get("model", "stub"),
        "choices": [
            {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": finish}
        ],
        "usage": {
            # a turn that goes on has neither its end nor the start of the next
            "prompt_tokens": 95 if body.get("continue_final_message") else 100,
            "completion_tokens": 10,
            "total_tokens": 110,
            "prompt_tokens_details": {"cached_tokens": 40},
        },
    }


def reply_to(body: Body, answers: Sequence[str], n_calls: int = 1) -> tuple[Body, str]:
    """The assistant message and finish reason for a request, a function of its content."""
    messages = body["messages"]
    spoken = sum(message["role"] == "assistant" for message in messages) >= n_calls
    schemas = body.get("tools") or []
    if schemas and not spoken:
        return {"content": None, "tool_calls": [native_call(schemas[0])]}, "tool_calls"
    offered = _tools_in_text(messages)
    if offered and not spoken:
        call = json.dumps({"name": offered["name"], "arguments": _arguments(offered)})
        return {"content": _stopped(f"<tool_call>\n{call}\n</tool_call>", body)}, "stop"
    digest = hashlib.sha256(json.dumps(messages, sort_keys=True).encode()).digest()
    chosen = answers[digest[0] % len(answers)]
    return {"content": _stopped(f"<answer>{chosen}</answer>", body)}, "stop"


def native_call(schema: Body) -> Body:
    function = schema["function"]
    arguments = json.dumps(_arguments(function))
    return {
        "id": "call_1",
        "type": "function",
        "function": {"name": function["name"], "arguments": arguments},
    }


def _tools_in_text(messages: list[Body]) -> Body | None:
    """The first tool between <tools> tags of the prompt, None where it offers none."""
    for message in messages:
        content = message["content"]
        text = content if isinstance(content, str) else json.dumps(content)
        block = re.search(r"<tools>\s*(\{.*?)\s*</tools>", text, re.DOTALL)
        if block:
            schema: Body = json.loads(block[1].splitlines()[0])
            function: Body = schema.get("function", schema)
            return function
    return None


def _arguments(function: Body) -> Body:
    """Arguments that fit a tool's schema: a box in the middle, the first image, a label."""
    parameters = function.get("parameters", {})
    properties = parameters.get("properties", {})
    required = parameters.get("required", list(properties))
    return {name: _value(properties.get(name, {})) for name in required}


def _value(schema: Body) -> object:
    if "enum" in schema:
        return schema["enum"][0]
    match schema.get("type"):
        case "array":
            return [200, 200, 800, 800]
        case "integer" | "number":
            return schema.get("minimum", 0)
        case "boolean":
            return False
        case _:
            return "detail"


def _stopped(text: str, body: Body) -> str:
    """The text as far as the first stop string, with it where the request asks for it."""
    stops = body.get("stop") or []
    found = [(text.index(stop), stop) for stop in stops if stop in text]
    if not found:
        return text
    start, stop = min(found)
    return text[: start + (len(stop) if body.get("include_stop_str_in_output") else 0)]


@asynccontextmanager
async def running(server: StubServer) -> AsyncIterator[StubServer]:
    """The server, listening while the block runs; port 0 takes a free one."""
    runner = web.AppRunner(server.application(), shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", server.port, backlog=2048)
    await site.start()
    server.port = runner.addresses[0][1]
    try:
        yield server
    finally:
        await runner.cleanup()


def _parsed(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="An OpenAI-compatible server for tests.")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--latency", type=float, default=0.0, help="seconds a reply takes")
    parser.add_argument("--places", type=int, default=1000, help="requests worked on at once")
    parser.add_argument("--room", type=int, help="refuse a request beside so many others")
    parser.add_argument("--mode", choices=MODES, default=OK, help="the fault to show")
    parser.add_argument("--fault-every", type=int, default=1, help="one request in so many")
    parser.add_argument("--fault-first", type=int, default=None, help="only so many first requests")
    parser.add_argument("--answer", help="say this, without reading the request")
    parser.add_argument("--call", help="with --answer, say this first")
    parser.add_argument("--calls", type=int, default=1, help="how many times it is said")
    parser.add_argument("--answers", default="A,B,C,D", help="what is chosen from, by content")
    parser.add_argument("--model", action="append", help="a model's name; repeatable")
    parser.add_argument("--key", action="append", default=[], help="an accepted key; repeatable")
    return parser.parse_args(arguments)


def _schedule(options: argparse.Namespace) -> Callable[[int, Body], str]:
    def fault(index: int, body: Body) -> str:
        if options.fault_first is not None and index >= options.fault_first:
            return OK
        return str(options.mode) if index % options.fault_every == 0 else OK

    return fault


async def _serve(options: argparse.Namespace) -> None:
    server = StubServer(
        port=options.port,
        latency_s=options.latency,
        places=options.places,
        room=options.room,
        faults=_schedule(options),
        answer=options.answer,
        call=options.call,
        n_calls=options.calls,
        answers=tuple(options.answers.split(",")),
        models=tuple(options.model or ["stub"]),
        keys=tuple(options.key),
        keep=False,
    )
    async with running(server):
        sys.stdout.write(f"{server.base_url}\n")
        sys.stdout.flush()
        await asyncio.Event().wait()


if __name__ == "__main__":
    try:
        asyncio.run(_serve(_parsed(sys.argv[1:])))
    except KeyboardInterrupt:
        sys.exit(130)
