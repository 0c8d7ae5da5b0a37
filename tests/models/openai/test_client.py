import asyncio
import base64
import contextlib
import json
import logging
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from medeval.errors import (
    FatalModelError,
    ModelError,
    OverloadedModelError,
    TransientModelError,
)
from medeval.images.request_image import FileImage
from medeval.models.base import Model, Reply, Request, Sampling
from medeval.models.openai.client import OpenAIModel
from medeval.models.openai.connection import retry_after_s
from medeval.tools.base import ToolSchema
from medeval.types.trajectory import ImageRef, Message, NativeCall, Text, Usage
from tests.stub_server import (
    CONTEXT_MESSAGE,
    ROOM_MESSAGE,
    Body,
    StubServer,
    error_body,
    running,
)

STUB = Path(__file__).parents[2] / "stub_server.py"
IMAGE = FileImage(
    data=bytes(range(256)) * 4, media_type="image/png", sha256="0" * 64, width_px=8, height_px=8
)


def url_of(image: FileImage) -> str:
    return f"data:{image.media_type};base64,{base64.b64encode(image.encoded()).decode()}"


CROP = ToolSchema(
    name="crop",
    description="Crop.",
    parameters={
        "type": "object",
        "properties": {
            "image": {"type": "integer", "minimum": 0},
            "bbox": {"type": "array", "items": {"type": "number"}},
            "label": {"type": "string"},
            "bold": {"type": "boolean"},
            "kind": {"enum": ["zoom"]},
        },
    },
)
ARGUMENTS = {"image": 0, "bbox": [200, 200, 800, 800], "label": "detail", "bold": False}


def request(text: str = "What?", **changes: Any) -> Request:
    opening = (Message(role="user", content=(ImageRef(0), Text(text))),)
    values: dict[str, Any] = {"messages": opening, "sampling": Sampling(), "seed": 7, **changes}
    return Request(images=(IMAGE,), **values)


@contextlib.asynccontextmanager
async def connected(server: StubServer, **options: Any) -> AsyncIterator[OpenAIModel]:
    """A model on a server that runs, with waits that suit a test."""
    values: dict[str, Any] = {"model": "stub", "retry_wait_s": 0.001, "max_retries": 2, **options}
    async with running(server):
        model = OpenAIModel(base_url=server.base_url, **values)
        await model.start()
        try:
            yield model
        finally:
            await model.close()


def ask(server: StubServer, asked: Request | None = None, **options: Any) -> Reply:
    async def once() -> Reply:
        async with connected(server, **options) as model:
            return await model.generate(asked or request())

    return asyncio.run(once())


def started(server: StubServer, **options: Any) -> OpenAIModel:
    """A model that has been started and closed again."""

    async def once() -> OpenAIModel:
        async with connected(server, **options) as model:
            return model

    return asyncio.run(once())


def refusal(message: str, status: int = 400, **fields: object) -> web.Response:
    return web.Response(status=status, text=error_body(message, **fields))


def without(names: Sequence[str], message: str) -> Callable[[int, Body], web.Response | None]:
    """A server that refuses the named settings, one after another."""

    def respond(index: int, body: Body) -> web.Response | None:
        for name in names:
            if name in body:
                return refusal(message.replace("NAME", name), param=name)
        return None

    return respond


def test_a_request_and_its_reply_cross_the_wire_whole() -> None:
    server = StubServer()
    reply = ask(server, request(stop=("</answer>",)), extra_body={"top_k": 3})
    assert reply.text in {f"<answer>{letter}</answer>" for letter in "ABCD"}
    assert reply.finish == "stop"
    assert reply.usage == Usage(prompt_tokens=100, completion_tokens=10, cached_tokens=40)
    (body,) = server.bodies
    assert body["model"] == "stub"
    assert body["top_k"] == 3
    assert body["messages"][0]["content"][0]["image_url"]["url"] == url_of(IMAGE)
    assert int(server.headers[0]["Content-Length"]) == len(json.dumps(body))


def test_it_is_a_model() -> None:
    model: Model = started(StubServer())
    assert dict(model.identity()) == {
        "engine": "openai",
        "model": "stub",
        "server_version": "1.2.3",
        "max_model_len": 4096,
        "extra_body": {},
    }
    assert model.notes() == ()


def test_a_hermes_prompt_gets_a_call_and_then_an_answer() -> None:
    tools = f"<tools>\n{json.dumps(CROP.as_json())}\n</tools>"
    system = Message(role="system", content=(Text(tools),))
    opening = (system, *request().messages)
    first = ask(StubServer(), request(messages=opening, stop=("</tool_call>",)))
    assert first.text.startswith("<tool_call>\n")
    assert first.text.endswith("</tool_call>")
    said = Message(role="assistant", content=(Text(first.text),))
    seen = Message(role="user", content=(Text("<tool_response>"), ImageRef(0)))
    assert "<answer>" in ask(StubServer(), request(messages=(*opening, said, seen))).text


def test_native_calls_come_apart_from_the_text_and_go_back() -> None:
    first = ask(StubServer(), request(tools=(CROP,)))
    arguments = json.dumps({**ARGUMENTS, "kind": "zoom"})
    call = NativeCall(id="call_1", name="crop", arguments=arguments)
    assert first == Reply(text="", finish="tool_calls", native_calls=(call,), usage=first.usage)
    said = Message(role="assistant", content=(), native_calls=first.native_calls)
    seen = Message(role="tool", content=(Text("here"), ImageRef(0)), call_id="call_1")
    server = StubServer()
    second = request(messages=(*request().messages, said, seen), tools=(CROP,))
    assert "<answer>" in ask(server, second).text
    assert server.bodies[0]["messages"][1]["tool_calls"][0]["function"]["name"] == "crop"


@pytest.mark.parametrize(
    "fault",
    ["429", "500", "503", "garbage", "empty_choices", "no_message", "drop"],
)
def test_a_failure_that_passes_is_repeated(fault: str) -> None:
    undisturbed = ask(StubServer())
    server = StubServer(faults=[fault, fault])
    assert ask(server) == undisturbed
    assert server.requests == 3


@pytest.mark.parametrize(
    ("fault", "cause"),
    [
        ("429", "HTTP 429: Rate limit reached"),
        ("500", "HTTP 500: Internal server error"),
        ("garbage", "an answer that holds no reply"),
        ("empty_choices", '"choices": []'),
        ("no_message", "an answer that holds no reply"),
        ("drop", "ServerDisconnectedError"),
        ("hang", "no answer in time"),
    ],
)
def test_a_failure_that_stays_is_transient_with_its_cause(fault: str, cause: str) -> None:
    server = StubServer(faults=lambda index, body: fault)
    with pytest.raises(TransientModelError) as caught:
        ask(server, max_retries=1, timeout_s=0.5 if fault == "hang" else 60)
    assert cause in caught.value.message
    assert "(tried 2 times)" in caught.value.message
    assert server.requests == 2


@pytest.mark.parametrize(("fault", "is_overload"), [("drop", False), ("hang", True), ("429", True)])
def test_a_lost_connection_is_no_overload(fault: str, is_overload: bool) -> None:
    server = StubServer(faults=[fault])
    with pytest.raises(TransientModelError) as caught:
        ask(server, max_retries=0, timeout_s=0.5 if fault == "hang" else 60)
    assert isinstance(caught.value, OverloadedModelError) == is_overload


def test_no_retries_means_one_try() -> None:
    server = StubServer(faults=["500"])
    with pytest.raises(TransientModelError, match="tried 1 times"):
        ask(server, max_retries=0)
    assert server.requests == 1


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        ("400", "HTTP 400: messages: at least one image is unreadable"),
        ("401", "HTTP 401: Incorrect API key provided"),
        ("403", "HTTP 403: You may not use this model"),
        ("404", "HTTP 404: The model `other` does not exist."),
        ("422", "HTTP 422: temperature: Input should be at most 2"),
        ("html", "HTTP 200: <html>hello</html>"),
    ],
)
def test_a_refusal_that_stands_stops_the_cell_at_once(fault: str, text: str) -> None:
    server = StubServer(faults=[fault])
    with pytest.raises(FatalModelError) as caught:
        ask(server)
    assert text in caught.value.message
    assert server.requests == 1


def test_a_web_page_between_replies_is_a_failure_that_passes() -> None:
    server = StubServer(faults=["ok", "html"])
    replies, _ = several(server, request(), 2)
    assert replies[0] == replies[1]
    assert server.requests == 3


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (
            500,
            "image input is not supported - hint: if this is unexpected, you may need to provide "
            "the mmproj",
        ),
        (400, "stub is not a multimodal model"),
    ],
)
def test_a_model_without_images_stops_the_cell_at_once_and_says_so(
    status: int, message: str
) -> None:
    server = StubServer(respond=lambda *_: refusal(message, status))
    with pytest.raises(FatalModelError) as caught:
        ask(server, request(stop=("</a>",)))
    assert message in caught.value.message
    assert (
        caught.value.hint == "serve a model that takes images; llama.cpp takes them with --mmproj"
    )
    assert server.requests == 1


@pytest.mark.parametrize("path", ["/api", "/v1/v1"])
def test_a_wrong_path_stops_the_cell_at_once_with_the_address_that_was_asked(path: str) -> None:
    async def once() -> None:
        async with running(StubServer()) as server:
            model = OpenAIModel(model="stub", base_url=server.base_url.replace("/v1", path))
            await model.start()
            try:
                await model.generate(request())
            finally:
                await model.close()

    with pytest.raises(FatalModelError, match="HTTP 404") as caught:
        asyncio.run(once())
    assert caught.value.hint is not None
    assert f"{path}/chat/completions: is --base-url right?" in caught.value.hint


def test_an_exhausted_quota_and_a_redirect_stop_the_cell_at_once() -> None:
    quota = StubServer(respond=lambda *_: refusal("No quota", 429, code="insufficient_quota"))
    with pytest.raises(FatalModelError, match="No quota"):
        ask(quota)
    moved = StubServer(
        respond=lambda *_: web.Response(status=302, headers={"Location": "/elsewhere"})
    )
    with pytest.raises(FatalModelError, match="HTTP 302"):
        ask(moved)


@pytest.mark.parametrize("status", [200, 400, 500])
def test_a_prompt_that_is_too_long_is_a_result(status: int) -> None:
    server = StubServer(respond=lambda *_: refusal(CONTEXT_MESSAGE, status, code=400))
    assert ask(server) == Reply(text="", finish="context")
    assert server.requests == 1


def test_a_prompt_that_fits_takes_the_room_that_is_left() -> None:
    server = StubServer(respond=without(["max_tokens"], ROOM_MESSAGE))

    async def twice() -> tuple[list[Reply], tuple[str, ...]]:
        async with connected(server) as model:
            return [await model.generate(request()) for _ in range(2)], model.notes()

    replies, notes = asyncio.run(twice())
    assert [reply.finish for reply in replies] == ["stop", "stop"]
    assert ["max_tokens" in body for body in server.bodies] == [True, False, True, False]
    assert len(notes) == 1
    assert "took the room there was" in notes[0]


def test_a_prompt_that_does_not_fit_without_max_tokens_either_is_too_long() -> None:
    server = StubServer(respond=lambda *_: refusal(ROOM_MESSAGE))

    async def once() -> tuple[Reply, tuple[str, ...]]:
        async with connected(server) as model:
            return await model.generate(request()), model.notes()

    assert asyncio.run(once()) == (Reply(text="", finish="context"), ())
    assert server.requests == 2


def test_a_bound_the_user_asked_for_is_not_lifted() -> None:
    server = StubServer(respond=lambda *_: refusal(ROOM_MESSAGE))
    assert ask(server, extra_body={"max_completion_tokens": 9}).finish == "context"
    (body,) = server.bodies
    assert body["max_completion_tokens"] == 9
    assert "max_tokens" not in body


def test_a_filtered_prompt_and_a_refusal_are_results() -> None:
    filtered = StubServer(respond=lambda *_: refusal("Filtered.", code="content_filter"))
    assert ask(filtered) == Reply(text="", finish="refused")


def test_settings_a_server_does_not_take_are_left_out_and_told_once() -> None:
    names = ["top_k", "repetition_penalty", "include_stop_str_in_output"]
    server = StubServer(respond=without(names, "Unknown parameter: 'NAME'."))
    sampling = Sampling(top_k=4, repetition_penalty=1.1)
    asked = request(sampling=sampling, stop=("</answer>",))

    async def together() -> tuple[list[Reply], tuple[str, ...]]:
        async with connected(server, name="policy") as model:
            await model.generate(asked)
            replies = await asyncio.gather(*(model.generate(asked) for _ in range(3)))
            return replies, model.notes()

    replies, notes = asyncio.run(together())
    assert server.requests == 4 + 3
    assert not set(names) & set(server.bodies[-1])
    assert server.bodies[-1]["stop"] == ["</answer>"]
    assert [reply.finish for reply in replies] == ["stop"] * 3
    assert not replies[0].text.endswith("</answer>"), "a stop string was invented"
    assert len(notes) == 3
    assert notes[0].startswith("the server of 'policy' does not take 'top_k'; it is left out")


def several(server: StubServer, asked: Request, n: int = 3) -> tuple[list[Reply], tuple[str, ...]]:
    """The replies to one request sent again and again, and the client's notes."""

    async def once() -> tuple[list[Reply], tuple[str, ...]]:
        async with connected(server) as model:
            return [await model.generate(asked) for _ in range(n)], model.notes()

    return asyncio.run(once())


def completion(text: str) -> web.Response:
    choice = {"message": {"content": text}, "finish_reason": "length"}
    return web.json_response({"choices": [choice]})


def breaks(index: int, body: Body) -> web.Response:
    """As "transformers serve" 5.24 does for a processor of images."""
    if "stop" in body:
        return web.Response(status=500, text="Internal Server Error")
    return completion("<answer>A</answer> and on")


TOO_MANY = "Invalid 'stop': array too long. Expected an array with maximum length 4, but got 5."


@pytest.mark.parametrize(
    ("respond", "n_refused", "reason"),
    [
        (breaks, 2, "HTTP 500: Internal Server Error"),
        (
            lambda index, body: (
                refusal(TOO_MANY, param="stop") if "stop" in body else breaks(index, body)
            ),
            1,
            f"HTTP 400: {TOO_MANY}",
        ),
    ],
)
def test_where_the_server_cannot_stop_the_reply_is_cut_here(
    respond: Callable[[int, Body], web.Response], n_refused: int, reason: str
) -> None:
    server = StubServer(respond=respond)
    replies, notes = several(server, request(stop=("</answer>",)))
    assert {(reply.text, reply.finish) for reply in replies} == {("<answer>A</answer>", "stop")}
    assert ["stop" in body for body in server.bodies] == [True] * n_refused + [False] * 3
    assert all("include_stop_str_in_output" not in body for body in server.bodies[n_refused:])
    (note,) = notes
    assert "does not take 'stop'; it is left out, and replies are cut here" in note
    assert reason in note


def test_many_requests_at_once_find_out_that_the_server_cannot_stop() -> None:
    server = StubServer(latency_s=0.01, respond=breaks)

    async def many() -> tuple[list[Reply], tuple[str, ...]]:
        async with connected(server) as model:
            asked = request(stop=("</answer>",))
            replies = await asyncio.gather(*(model.generate(asked) for _ in range(20)))
            return replies, model.notes()

    replies, notes = asyncio.run(many())
    assert {reply.text for reply in replies} == {"<answer>A</answer>"}
    assert len(notes) == 1
    assert 40 <= server.requests < 60


def test_a_server_that_fails_without_stop_as_well_is_asked_with_it_again() -> None:
    server = StubServer(faults=["500"] * 3)

    async def once() -> tuple[Reply, tuple[str, ...]]:
        async with connected(server, max_retries=3) as model:
            return await model.generate(request(stop=("</answer>",))), model.notes()

    reply, notes = asyncio.run(once())
    assert reply.text.endswith("</answer>")
    assert notes == ()
    assert ["stop" in body for body in server.bodies] == [True, True, False, True]


def test_a_server_that_has_answered_with_stop_is_not_suspected() -> None:
    server = StubServer(faults=["ok", "500", "500"])
    replies, notes = several(server, request(stop=("</answer>",)))
    assert notes == ()
    assert all("stop" in body for body in server.bodies)
    assert len({reply.text for reply in replies}) == 1


STREAM_ONLY = (
    "This model only support stream mode, please enable the stream parameter to access the model. "
)


def test_a_server_that_only_streams_is_asked_for_streams() -> None:
    def respond(index: int, body: Body) -> web.Response:
        if not body.get("stream"):
            return refusal(STREAM_ONLY, code="invalid_parameter_error")
        if "seed" in body:
            return refusal("Unknown parameter: 'seed'.")
        deltas: list[Body] = [{"content": "<answer>"}, {"content": "A"}]
        chunks: list[Body] = [{"delta": delta} for delta in deltas]
        events = [
            {"choices": [chunk]} for chunk in (*chunks, {"delta": {}, "finish_reason": "stop"})
        ]
        lines = [f"data: {json.dumps(event)}\n\n" for event in events]
        return web.Response(text="".join([*lines, "data: [DONE]\n\n"]))

    server = StubServer(respond=respond)
    replies, notes = several(server, request())
    assert [reply.text for reply in replies] == ["<answer>A"] * 3
    assert server.requests == 3 + 2
    assert server.bodies[-1]["stream_options"] == {"include_usage": True}
    assert "does not take requests without 'stream'; its streams are joined here" in notes[0]
    assert "'seed'; it is left out" in notes[1]


def test_a_server_that_only_streams_is_not_asked_for_ever() -> None:
    server = StubServer(respond=lambda *_: refusal(STREAM_ONLY))
    with pytest.raises(FatalModelError, match="only support stream mode"):
        ask(server)
    assert server.requests == 2


def test_images_of_tools_go_into_a_users_turn_where_the_server_wants_them_there() -> None:
    def respond(index: int, body: Body) -> web.Response | None:
        wrong = [one for one in body["messages"] if one["role"] == "tool" and one["content"] != "x"]
        message = (
            "Invalid 'messages[2]'. Image URLs are only allowed for messages with role 'user', but "
            "this message with role 'tool' contains an image URL."
        )
        return refusal(message) if wrong else None

    calls = (NativeCall(id="c1", name="crop", arguments="{}"),)
    said = Message(role="assistant", content=(), native_calls=calls)
    seen = Message(role="tool", content=(Text("x"), ImageRef(0)), call_id="c1")
    server = StubServer(respond=respond)
    _, notes = several(server, request(messages=(*request().messages, said, seen)), 2)
    assert server.requests == 3
    assert [message["role"] for message in server.bodies[-1]["messages"]] == [
        "user",
        "assistant",
        "tool",
        "user",
    ]
    assert server.bodies[-1]["messages"][-1]["content"][0]["image_url"]["url"] == url_of(IMAGE)
    assert "does not take images in a tool's message" in notes[0]


def test_many_requests_that_meet_the_same_refusal_all_go_on() -> None:
    server = StubServer(latency_s=0.01, respond=without(["seed"], "seed is not supported"))

    async def many() -> tuple[str, ...]:
        async with connected(server) as model:
            await asyncio.gather(*(model.generate(request()) for _ in range(20)))
            return model.notes()

    assert len(asyncio.run(many())) == 1
    assert server.requests == 40


def test_max_tokens_goes_out_under_its_newer_name_where_the_server_says_so() -> None:
    message = "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."
    server = StubServer(respond=without(["max_tokens"], message))

    async def once() -> tuple[str, ...]:
        async with connected(server) as model:
            await model.generate(request(sampling=Sampling(max_tokens=9)))
            return model.notes()

    (note,) = asyncio.run(once())
    assert "it is sent as 'max_completion_tokens'" in note
    assert server.bodies[1]["max_completion_tokens"] == 9
    assert "max_tokens" not in server.bodies[1]


def test_a_server_that_takes_no_bound_at_all_cannot_be_used() -> None:
    names = ["max_tokens", "max_completion_tokens"]
    server = StubServer(respond=without(names, "Unsupported parameter: 'NAME'."))
    with pytest.raises(FatalModelError, match="max_completion_tokens"):
        ask(server)
    assert server.requests == 2


def test_what_the_user_asked_for_is_never_left_out() -> None:
    server = StubServer(respond=without(["top_k"], "Unsupported parameter: 'NAME'."))
    with pytest.raises(FatalModelError, match="top_k"):
        ask(server, request(sampling=Sampling(top_k=4)), extra_body={"top_k": 8})
    assert server.requests == 1
    assert server.bodies[0]["top_k"] == 8


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("", None),
        ("0", 0.0),
        ("2.5", 2.5),
        ("-1", None),
        ("nan", None),
        ("soon", None),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0),
        ("Wed, 21 Oct 2015 07:28:00 -0000", 0.0),
    ],
)
def test_retry_after_is_read_as_seconds(header: str, expected: float | None) -> None:
    assert retry_after_s(header) == expected


def test_retry_after_may_be_a_date() -> None:
    header = format_datetime(datetime.now(UTC) + timedelta(seconds=90), usegmt=True)
    seconds = retry_after_s(header)
    assert seconds is not None
    assert 80 < seconds <= 90


def test_a_wait_the_server_asks_for_is_honoured() -> None:
    server = StubServer(faults=["429"])
    ask(server)
    first, second = server.started
    assert second - first >= 0.05


def test_a_wait_the_server_asks_for_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("medeval.models.openai.connection.MAX_RETRY_AFTER_S", 0.01)

    def respond(index: int, body: Body) -> web.Response | None:
        if index:
            return None
        return web.Response(status=503, headers={"Retry-After": "86400"}, text="later")

    began = time.monotonic()
    ask(StubServer(respond=respond))
    assert time.monotonic() - began < 30


def test_the_wait_asked_for_is_told_to_the_caller() -> None:
    server = StubServer(faults=["429"])
    with pytest.raises(TransientModelError) as caught:
        ask(server, max_retries=0)
    assert caught.value.retry_after_s == 0.05


def test_more_requests_are_in_flight_than_clients_usually_allow() -> None:
    server = StubServer(latency_s=1.0, places=1000, keep=False)

    async def many() -> None:
        async with connected(server) as model:
            await asyncio.gather(*(model.generate(request()) for _ in range(150)))

    asyncio.run(many())
    assert server.most_in_flight > 100


def test_places_bound_what_the_stub_works_on_at_once() -> None:
    server = StubServer(latency_s=0.05, places=1)

    async def two() -> float:
        async with connected(server) as model:
            began = time.monotonic()
            await asyncio.gather(*(model.generate(request()) for _ in range(2)))
            return time.monotonic() - began

    assert asyncio.run(two()) >= 0.1


def test_cancelling_ends_a_request_at_once() -> None:
    server = StubServer(faults=["hang"])

    async def cancelled() -> None:
        async with connected(server) as model:
            task = asyncio.create_task(model.generate(request()))
            while not server.requests:
                await asyncio.sleep(0.005)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    began = time.monotonic()
    asyncio.run(cancelled())
    assert time.monotonic() - began < 30


@pytest.mark.parametrize("model", ["", None])
def test_the_only_model_of_a_server_needs_no_name(model: str | None) -> None:
    server = StubServer(models=("one",))
    assert started(server, model=model).identity()["model"] == "one"


@pytest.mark.parametrize(
    ("wanted", "listed"),
    [
        ("qwen", ("models/qwen",)),
        ("qwen", ("other", "qwen")),
        ("qwen", ()),
        ("qwen", None),
    ],
)
def test_a_model_is_taken_where_the_list_does_not_speak_against_it(
    wanted: str, listed: tuple[str, ...] | None
) -> None:
    assert started(StubServer(models=listed), model=wanted).identity()["model"] == "qwen"


@pytest.mark.parametrize(
    ("wanted", "listed", "message"),
    [
        ("qwen", ("a", "b"), "'qwen' was asked for, but .* lists ['a', 'b']"),
        ("wen", ("qwen",), "lists ['qwen']"),
        (None, ("a", "b"), "a model without a name was asked for, but .* lists ['a', 'b']"),
        (None, (), "lists []"),
        (None, None, "lists []"),
    ],
)
def test_a_model_that_is_not_listed_is_refused_with_those_that_are(
    wanted: str | None, listed: tuple[str, ...] | None, message: str
) -> None:
    with pytest.raises(FatalModelError) as caught:
        started(StubServer(models=listed), model=wanted)
    assert all(part in caught.value.message for part in message.split(" .* "))
    assert caught.value.hint == "name one of the server's models with --model"


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (200, "<html></html>"),
        (200, '{"data": null}'),
        (200, "[1, {}]"),
        (403, "Missing scopes: model.read"),
        (404, ""),
        (500, "Internal Server Error"),
        (501, "not implemented"),
    ],
)
def test_a_list_of_models_that_cannot_be_read_is_no_list(status: int, text: str) -> None:
    asides = {"/v1/models": lambda: web.Response(status=status, text=text)}
    identity = started(StubServer(asides=asides)).identity()
    assert identity["model"] == "stub"
    assert identity["max_model_len"] is None


def test_a_bare_list_of_models_is_read() -> None:
    asides = {"/v1/models": lambda: web.json_response([{"id": "a"}])}
    with pytest.raises(FatalModelError, match="lists \\['a'\\]"):
        started(StubServer(asides=asides))


@pytest.mark.parametrize(
    ("status", "text"),
    [(404, "{}"), (500, ""), (200, "<html>"), (200, "[]"), (200, '{"version": 3}')],
)
def test_a_server_need_not_tell_its_version(status: int, text: str) -> None:
    asides = {"/version": lambda: web.Response(status=status, text=text)}
    assert started(StubServer(asides=asides)).identity()["server_version"] is None


def test_a_server_that_is_still_loading_is_waited_for() -> None:
    tries = iter([503, 503])

    def list_models() -> web.Response:
        status = next(tries, 200)
        return web.Response(status=status, text='{"data": [{"id": "stub"}]}')

    assert started(StubServer(asides={"/v1/models": list_models})).notes() == ()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_server_that_is_not_there_stops_the_cell_with_a_hint() -> None:
    model = OpenAIModel(
        model="stub",
        base_url=f"http://127.0.0.1:{free_port()}",
        retry_wait_s=0.001,
        max_retries=1,
    )
    with pytest.raises(FatalModelError, match="ClientConnectorError") as caught:
        asyncio.run(model.start())
    assert caught.value.hint == "is the server up, and --base-url its address?"


def test_asking_before_the_start_or_after_the_end_is_an_error() -> None:
    model = OpenAIModel(model=None, base_url="http://127.0.0.1:1")
    with pytest.raises(FatalModelError, match="before start"):
        asyncio.run(model.generate(request()))
    asyncio.run(model.close())

    async def late() -> None:
        async with connected(StubServer()) as closed:
            await closed.close()
            await closed.close()
            await closed.generate(request())

    with pytest.raises(FatalModelError, match="after close"):
        asyncio.run(late())


def test_the_key_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STUB_KEY", " s3cret\n")
    server = StubServer(keys=("s3cret",))
    assert ask(server, api_key_variable="STUB_KEY").finish == "stop"
    assert server.headers[0]["Authorization"] == "Bearer s3cret"


def test_a_server_without_keys_gets_a_placeholder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    server = StubServer()
    ask(server)
    assert server.headers[0]["Authorization"] == "Bearer EMPTY"


def test_a_wrong_key_stops_at_the_start_with_the_variable_to_set(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "wrong")
    with pytest.raises(FatalModelError, match="HTTP 401") as caught:
        ask(StubServer(keys=("right",)))
    assert caught.value.hint == "put a key that the server accepts into OPENAI_API_KEY"


@pytest.mark.parametrize("status", [400, 500])
def test_the_key_is_in_no_message_and_no_log(
    status: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "s3cret")
    server = StubServer(respond=lambda *_: refusal("key s3cret is odd", status))
    with caplog.at_level(logging.DEBUG), pytest.raises(ModelError) as caught:
        ask(server)
    assert "key [key] is odd" in caught.value.message
    assert "s3cret" not in caplog.text


def test_a_proxy_of_the_environment_does_not_take_requests_to_this_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for variable in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(variable, f"http://127.0.0.1:{free_port()}")
    for variable in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    assert ask(StubServer()).finish == "stop"


def test_a_proxy_of_the_environment_takes_requests_to_other_machines(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for variable in ("no_proxy", "NO_PROXY", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    proxy = StubServer()

    async def once() -> Reply:
        async with running(proxy):
            monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{proxy.port}")
            model = OpenAIModel(model="stub", base_url="http://outside.invalid")
            await model.start()
            try:
                return await model.generate(request())
            finally:
                await model.close()

    assert asyncio.run(once()).finish == "stop"
    assert proxy.headers[0]["Host"] == "outside.invalid"


class AzureServer(StubServer):
    """Takes chat completions on the path of the deployment "policy" as well."""

    def application(self) -> web.Application:
        self.queries: list[dict[str, str]] = []
        application = super().application()
        application.router.add_post("/openai/deployments/policy/chat/completions", self.deployed)
        return application

    async def deployed(self, request: web.Request) -> web.StreamResponse:
        self.queries.append(dict(request.query))
        return await self.chat(request)


def test_an_api_version_makes_the_server_azures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_KEY", "s3cret")
    server = AzureServer(models=None)
    reply = ask(server, model="policy", api_version="2024-10-21", api_key_variable="AZURE_KEY")
    assert reply.finish == "stop"
    assert server.queries == [{"api-version": "2024-10-21"}]
    assert server.headers[0]["api-key"] == "s3cret"
    assert "Authorization" not in server.headers[0]


def test_a_body_of_megabytes_goes_out_without_a_warning() -> None:
    image = FileImage(
        data=bytes(3_000_000), media_type="image/png", sha256="0" * 64, width_px=9, height_px=9
    )
    server = StubServer()
    asked = Request(messages=request().messages, images=(image,), sampling=Sampling(), seed=0)
    ask(server, asked)
    url = server.bodies[0]["messages"][0]["content"][0]["image_url"]["url"]
    assert url == url_of(image)


def test_the_same_request_gets_the_same_reply_from_the_stub() -> None:
    texts = {
        f"question {index}": ask(StubServer(), request(f"question {index}")).text
        for index in range(8)
    }
    assert len(set(texts.values())) > 1
    assert all(ask(StubServer(), request(text)).text == reply for text, reply in texts.items())


def test_the_stub_answers_a_fixed_text_without_reading() -> None:
    server = StubServer(answer="<answer>7</answer>")
    assert ask(server).text == "<answer>7</answer>"
    assert server.bodies == [{}]


def test_the_stub_refuses_a_model_it_does_not_have() -> None:
    server = StubServer(asides={"/v1/models": lambda: web.Response(status=404)})
    with pytest.raises(FatalModelError, match="HTTP 404"):
        ask(server, model="other")


def test_the_stub_can_take_no_seed() -> None:
    server = StubServer(faults=lambda index, body: "unsupported")
    assert ask(server).finish == "stop"
    assert ["seed" in body for body in server.bodies] == [True, False]


def test_the_stub_can_find_every_prompt_too_long() -> None:
    assert ask(StubServer(faults=lambda index, body: "context")).finish == "context"


def talk_to(base_url: str) -> Coroutine[Any, Any, list[Reply]]:
    async def talk() -> list[Reply]:
        model = OpenAIModel(model=None, base_url=base_url, retry_wait_s=0.001)
        await model.start()
        try:
            return [await model.generate(request()) for _ in range(4)]
        finally:
            await model.close()

    return talk()


def test_the_stub_runs_as_a_program_that_prints_its_address_first() -> None:
    arguments = ["--port", "0", "--latency", "0.01", "--places", "4", "--mode", "500"]
    command = [sys.executable, str(STUB), *arguments, "--fault-every", "2", "--fault-first", "4"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as program:
        try:
            assert program.stdout is not None
            base_url = program.stdout.readline().strip()
            replies = asyncio.run(talk_to(base_url))
            with urllib.request.urlopen(base_url.replace("/v1", "/stats")) as answer:
                told = json.load(answer)
        finally:
            program.kill()
    assert [reply.finish for reply in replies] == ["stop"] * 4
    assert told == {"requests": 6, "refused": 0, "most_in_flight": 1}
