import asyncio

import pytest

from medeval.errors import FatalModelError
from medeval.models.base import Model, Reply, Request, Sampling
from medeval.models.scripted import Script, ScriptedModel
from medeval.types.trajectory import Message, Text


def request(text: str = "What?") -> Request:
    return Request(
        messages=(Message(role="user", content=(Text(text),)),),
        images=(),
        sampling=Sampling(),
        seed=0,
    )


def test_a_sequence_is_consumed_in_order_and_texts_end_by_themselves() -> None:
    cut = Reply(text="half", finish="length")
    model = ScriptedModel(["one", cut])

    async def ask() -> list[Reply]:
        return [await model.generate(request()) for _ in range(2)]

    assert asyncio.run(ask()) == [Reply(text="one", finish="stop"), cut]


def test_a_script_that_has_run_out_stops_the_cell() -> None:
    with pytest.raises(FatalModelError, match="has 0 replies"):
        asyncio.run(ScriptedModel([]).generate(request()))


def test_a_function_sees_the_request_and_may_return_either_form() -> None:
    def respond(asked: Request) -> str | Reply:
        text = asked.messages[-1].text
        return text.upper() if text == "loud" else Reply(text=text, finish="refused")

    model = ScriptedModel(respond, latency_s=0.001)
    assert asyncio.run(model.generate(request("loud"))).text == "LOUD"
    assert asyncio.run(model.generate(request("no"))).finish == "refused"
    assert [asked.messages[-1].text for asked in model.requests] == ["loud", "no"]


def test_what_the_function_raises_propagates() -> None:
    def respond(asked: Request) -> str:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        asyncio.run(ScriptedModel(respond).generate(request()))


def test_concurrent_requests_get_the_replies_in_the_order_of_their_arrival() -> None:
    model = ScriptedModel([str(index) for index in range(20)], latency_s=0.001)

    async def ask() -> list[Reply]:
        return await asyncio.gather(*(model.generate(request()) for _ in range(20)))

    assert [reply.text for reply in asyncio.run(ask())] == [str(index) for index in range(20)]


@pytest.mark.parametrize("script", [["a"], lambda _: "a"])
def test_it_is_a_model(script: Script) -> None:
    model: Model = ScriptedModel(script)

    async def live() -> None:
        await model.start()
        await model.generate(request())
        await model.close()
        await model.close()

    asyncio.run(live())
    assert dict(model.identity()) == {"engine": "scripted"}
    assert model.notes() == ()
