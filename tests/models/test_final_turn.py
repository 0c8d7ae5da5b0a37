"""Servers and conversations that end with the assistant's own words."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from aiohttp import web

from medeval.errors import FatalModelError
from medeval.models.base import Reply, Request
from medeval.models.final_turn import whole_turns
from medeval.models.openai.client import OpenAIModel
from medeval.types.trajectory import ImageRef, Message, Text
from tests.stub_server import Body, StubServer, _completion, error_body, running
from tests.tiny_checkpoints import drawn_image, request

Respond = Callable[[int, Body], web.Response | None]

SAID = Message(role="assistant", content=(Text("one "),))
SHOWN = Message(
    role="assistant", content=(Text("<seen>"), ImageRef(1), Text("</seen>")), continues=True
)


def going_on(*said: Message) -> Request:
    asked = request("What?", n_images=2)
    return replace(
        asked, messages=(*asked.messages, *said), images=(drawn_image(0), drawn_image(1))
    )


def asked(
    server: StubServer, *requests: Request, **options: Any
) -> tuple[list[Reply], OpenAIModel]:
    async def run() -> tuple[list[Reply], OpenAIModel]:
        async with running(server):
            model = OpenAIModel(base_url=server.base_url, model="stub", max_retries=0, **options)
            await model.start()
            try:
                replies = await asyncio.gather(*map(model.generate, requests))
                return list(replies), model
            finally:
                await model.close()

    return asyncio.run(run())


def test_messages_that_continue_a_turn_are_one_with_it() -> None:
    more = Message(role="assistant", content=(Text("two"),), continues=True)
    turns = whole_turns((SAID, SHOWN, more, SAID))
    assert turns == (
        Message(
            role="assistant",
            content=(Text("one "), Text("<seen>"), ImageRef(1), Text("</seen>"), Text("two")),
        ),
        SAID,
    )


def test_a_turn_that_goes_on_is_sent_whole_and_left_open() -> None:
    server = StubServer()
    asked(server, going_on(SAID, SHOWN), going_on(SAID, SHOWN))
    body = server.bodies[-1]
    assert (body["continue_final_message"], body["add_generation_prompt"]) == (True, False)
    last = body["messages"][-1]
    assert [message["role"] for message in body["messages"]] == ["system", "user", "assistant"]
    assert [part.get("text", "image") for part in last["content"]] == [
        "one ", "<seen>", "image", "</seen>",
    ]  # fmt: skip
    # two questions, once a server, see to it that the settings are heeded
    assert len(server.bodies) == 4
    assert [body["max_tokens"] for body in server.bodies].count(1) == 2


def test_a_turn_that_has_ended_is_told_from_one_that_goes_on() -> None:
    server = StubServer()
    asked(server, going_on(SAID))
    body = server.bodies[-1]
    assert (body["continue_final_message"], body["add_generation_prompt"]) == (False, True)
    assert body["messages"][-1] == {"role": "assistant", "content": "one "}


def test_a_conversation_that_ends_with_the_user_says_nothing_of_turns() -> None:
    server = StubServer()
    asked(server, request("What?"))
    [body] = server.bodies
    assert not {"continue_final_message", "add_generation_prompt"} & body.keys()


def deaf(index: int, body: Body) -> web.Response:
    """A server that always goes on, or always starts anew, and says nothing."""
    return web.json_response(_completion({"model": "stub"}, {"content": "x"}, "stop"))


def uncounted(index: int, body: Body) -> web.Response:
    completion = _completion(body, {"content": "x"}, "stop")
    del completion["usage"]
    return web.json_response(completion)


def refusing(index: int, body: Body) -> web.Response:
    told = "Unrecognized request argument supplied: continue_final_message"
    return web.Response(status=400, text=error_body(told))


@pytest.mark.parametrize("said", [(SAID, SHOWN), (SAID,)], ids=["open", "closed"])
@pytest.mark.parametrize(
    ("respond", "told"),
    [
        (deaf, "treats an assistant's unfinished turn like a finished one"),
        (refusing, r"does not take \['continue_final_message'\]"),
    ],
)
def test_a_server_that_does_not_heed_the_settings_is_refused(
    respond: Respond, told: str, said: tuple[Message, ...]
) -> None:
    with pytest.raises(FatalModelError, match=told) as caught:
        asked(StubServer(respond=respond), going_on(*said))
    assert "vLLM" in (caught.value.hint or "")


def test_of_a_server_that_counts_no_tokens_people_are_told() -> None:
    replies, model = asked(StubServer(respond=uncounted), going_on(SAID, SHOWN))
    assert [reply.text for reply in replies] == ["x"]
    [note] = model.notes()
    assert "whether it obeys continue_final_message" in note
