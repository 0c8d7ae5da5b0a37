"""Whatever a judge's endpoint does, it never makes a wrong verdict."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from medeval.errors import FatalModelError, ModelError, RecordError, UsageError
from medeval.evaluation.loader import load
from medeval.scoring.grade import Graded, grade_answer, judge_identity
from medeval.scoring.judge import Judge
from medeval.scoring.judge_model import (
    MAX_FAILURES_IN_A_ROW,
    JudgeClient,
    open_client,
    open_judge_model,
)
from medeval.scoring.judge_prompt import RIGHT_OR_WRONG, Inquiry
from medeval.scoring.judge_replies import file_name
from medeval.types.definition import Loaded
from medeval.types.sample import Sample
from medeval.types.trajectory import Answer
from medeval.types.verdict import Grade
from tests.medeval_processes import Serve
from tests.stub_server import FAULTS, StubServer

MODEL = load("model", Judge)
SAMPLE = Sample(id="s", question="Which city?", images=(), targets=("Paris",))
QUICK = {"timeout_s": 0.3, "max_retries": 1, "retry_wait_s": 0.01}


def answered(text: str = "paris, france") -> Answer:
    return Answer(text=text, how_found="answer_tag", reply=text)


def client_of(server: StubServer, **changes: Any) -> JudgeClient:
    values: dict[str, Any] = {
        "name": "stub",
        "base_url": server.base_url,
        "api_key_variable": "JUDGE_KEY",
        "max_calls": None,
        "arguments": QUICK,
        **changes,
    }
    return open_client(**values)


def judged(
    client: JudgeClient,
    *answers: Answer,
    judge: Loaded[Judge] = MODEL,
    sample: Sample = SAMPLE,
    replies: Path | None = None,
) -> list[Graded]:
    async def run() -> list[Graded]:
        bound = client.bound(judge)
        async with client.open(replies):
            return [await grade_answer(sample, one, "answered", bound) for one in answers]

    return asyncio.run(run())


def refusing(_: int, body: dict[str, Any]) -> web.Response:
    reply = {"message": {"content": None, "refusal": "I cannot."}, "finish_reason": "stop"}
    return web.json_response({"choices": [reply], "model": body["model"]})


def cut_off(_: int, body: dict[str, Any]) -> web.Response:
    reply = {"message": {"content": '{"verdict": "corr'}, "finish_reason": "length"}
    return web.json_response({"choices": [reply], "model": body["model"]})


def filtering(_: int, body: dict[str, Any]) -> web.Response:
    reply = {"message": {"content": ""}, "finish_reason": "content_filter"}
    return web.json_response({"choices": [reply], "model": body["model"]})


CASES: dict[str, tuple[StubServer, str, bool, str]] = {
    "says correct": (StubServer(answer='{"verdict": "correct"}'), "correct", True, "correct"),
    "INCORRECT": (StubServer(answer="INCORRECT"), "incorrect", True, "INCORRECT"),
    "incorrect in JSON": (
        StubServer(answer='{"verdict": "incorrect"}'), "incorrect", True, "incorrect",
    ),
    "chatty": (
        StubServer(answer="The answer is correct, in the sense that it is not incorrect."),
        "undecided", True, "in the sense that",
    ),
    "both": (
        StubServer(answer='{"verdict": "correct"}{"verdict": "incorrect"}'),
        "undecided", True, "holds no verdict",
    ),
    "empty": (StubServer(answer=""), "undecided", True, "replied nothing"),
    "garbage JSON": (StubServer(answer='{"verdict": cor'), "undecided", True, '{"verdict": cor'),
    "refusal": (StubServer(respond=refusing), "undecided", True, "I cannot."),
    "filtered": (StubServer(respond=filtering), "undecided", True, "stopped by 'refused'"),
    "cut off": (StubServer(respond=cut_off), "undecided", True, '{"verdict": "corr'),
    "too long a prompt": (
        StubServer(faults=lambda *_: "context"), "undecided", True, "stopped by 'context'",
    ),
    "slow": (StubServer(faults=lambda *_: "hang"), "undecided", False, "no answer in time"),
    "drops": (StubServer(faults=lambda *_: "drop"), "undecided", False, "no reply from"),
    "busy": (StubServer(faults=lambda *_: "429"), "undecided", False, "Rate limit"),
    "fails": (StubServer(faults=lambda *_: "500"), "undecided", False, "Internal server error"),
    "a web page": (StubServer(faults=lambda *_: "html"), "undecided", False, "<html>hello</html>"),
    "torn JSON": (StubServer(faults=lambda *_: "garbage"), "undecided", False, "holds no reply"),
    "no choices": (
        StubServer(faults=lambda *_: "empty_choices"), "undecided", False, "holds no reply",
    ),
    "forbidden": (StubServer(faults=lambda *_: "403"), "undecided", False, "may not use"),
    "wrong key": (StubServer(keys=("sk-right",)), "undecided", False, "cannot be reached"),
    "another model": (StubServer(models=("other",)), "undecided", False, "lists ['other']"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_no_reply_and_no_fault_makes_a_wrong_verdict(case: str, serve: Serve) -> None:
    server, status, is_scored, reason = CASES[case]
    (graded,) = judged(client_of(serve(server)), answered())
    assert (graded.verdict.status, graded.is_scored) == (status, is_scored)
    assert (graded.verdict.score is None) == (status == "undecided")
    assert reason in graded.verdict.reason
    assert is_scored or "Traceback" in (graded.failure or "")


def test_a_server_that_is_down_leaves_the_answer_unscored() -> None:
    down = StubServer(port=1)
    (graded,) = judged(client_of(down), answered())
    assert (graded.verdict.status, graded.is_scored) == ("undecided", False)
    assert graded.verdict.reason.startswith("not judged: the judge's model cannot be reached")


def test_a_fault_that_passes_costs_a_retry_and_nothing_else(serve: Serve) -> None:
    server = serve(StubServer(faults=("500",), answer="correct"))
    (graded,) = judged(client_of(server), answered())
    assert graded.verdict.status == "correct"
    assert server.requests == 2


@pytest.mark.parametrize("answer", [None, answered(""), answered(" \n")])
def test_an_empty_answer_never_reaches_the_judge(answer: Answer | None, serve: Serve) -> None:
    server = serve(StubServer(answer="correct"))
    client = client_of(server)

    async def run() -> Graded:
        async with client.open():
            return await grade_answer(SAMPLE, answer, "no_answer", client.bound(MODEL))

    assert asyncio.run(run()).verdict.status == "incorrect"
    assert (server.requests, client.calls) == (0, 0)


def test_the_models_name_is_part_of_the_identity(serve: Serve) -> None:
    client = client_of(serve(StubServer(answer="correct")))
    (graded,) = judged(client, answered())
    assert graded.verdict.judge == f"model@stub#{MODEL.source.sha256[:8]}"
    assert judge_identity(client.bound(MODEL)) == graded.verdict.judge
    choice = load("choice", Judge)
    assert client.bound(choice) is choice


def test_what_is_sent_is_the_prompt_at_temperature_0(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JUDGE_KEY", "sk-judge")
    # a server with a fixed answer does not read what it is asked
    server = serve(StubServer(keys=("sk-judge",)))
    judged(client_of(server), answered())
    (body,) = server.bodies
    system, user = body["messages"]
    assert (system["role"], user["role"]) == ("system", "user")
    assert "paris, france" in user["content"]
    assert {key: body[key] for key in ("model", "temperature", "seed", "max_tokens")} == {
        "model": "stub", "temperature": 0.0, "seed": 42, "max_tokens": 1024,
    }  # fmt: skip


def test_the_same_question_is_asked_once_at_once_or_later(serve: Serve, tmp_path: Path) -> None:
    server = serve(StubServer(answer="incorrect", latency_s=0.05))
    client, replies = client_of(server), tmp_path / file_name()

    async def run() -> list[Graded]:
        bound = client.bound(MODEL)
        async with client.open(replies):
            return await asyncio.gather(
                *(grade_answer(SAMPLE, answered(), "answered", bound) for _ in range(5))
            )

    assert {graded.verdict.status for graded in asyncio.run(run())} == {"incorrect"}
    assert (server.requests, client.calls, client.from_kept) == (1, 1, 4)
    assert client.notes() == (
        "judge stub: 1 calls (100 prompt tokens, 10 completion tokens), 4 replies kept",
    )
    again = JudgeClient("stub", None)
    (graded,) = judged(again, answered(), replies=replies)
    assert (graded.verdict.status, again.from_kept, server.requests) == ("incorrect", 1, 1)
    (unknown,) = judged(again, answered("Lyon"), replies=replies)
    assert not unknown.is_scored
    assert "no server is given for the judge's model" in unknown.verdict.reason
    other = JudgeClient("another", None)
    (unasked,) = judged(other, answered(), replies=replies)
    assert not unasked.is_scored


def test_a_reply_without_a_verdict_is_not_kept(serve: Serve, tmp_path: Path) -> None:
    server = serve(StubServer(answer="Hm."))
    client = client_of(server)
    judged(client, answered(), answered(), replies=tmp_path / file_name())
    assert server.requests == 2
    assert not (tmp_path / file_name()).exists()


@pytest.mark.parametrize("argument", ["timeout", "model", "base_url"])
def test_an_argument_that_the_client_does_not_know_is_refused(argument: str) -> None:
    with pytest.raises(UsageError, match=f"--judge-args has '{argument}'") as caught:
        client_of(StubServer(), arguments={argument: 3})
    assert "timeout_s" in (caught.value.hint or "")


def test_a_budget_is_not_exceeded(serve: Serve) -> None:
    server = serve(StubServer(answer="correct"))
    client = client_of(server, max_calls=2)
    graded = judged(client, *(answered(f"city {number}") for number in range(4)))
    assert [one.is_scored for one in graded] == [True, True, False, False]
    assert "the judge's budget of 2 calls is spent" in graded[2].verdict.reason
    assert server.requests == 2


def test_an_endpoint_that_keeps_failing_is_given_up(serve: Serve) -> None:
    server = serve(StubServer(faults=lambda *_: "403"))
    answers = [answered(f"city {number}") for number in range(MAX_FAILURES_IN_A_ROW + 5)]
    graded = judged(client_of(server), *answers)
    assert not any(one.is_scored for one in graded)
    assert server.requests == MAX_FAILURES_IN_A_ROW
    assert "failed 20 times in a row" in graded[-1].verdict.reason


def test_connecting_at_once_refuses_an_endpoint_that_is_down(tmp_path: Path) -> None:
    client = client_of(StubServer(port=1))

    async def run() -> None:
        async with open_judge_model(client, tmp_path, lambda _: None, at_once=True):
            raise AssertionError("not reached")

    with pytest.raises(FatalModelError, match="the judge's model cannot be reached") as caught:
        asyncio.run(run())
    assert "--judge-model" in (caught.value.hint or "")


@pytest.mark.parametrize("at_once", [False, True])
def test_what_it_took_is_told_in_the_end(at_once: bool, serve: Serve, tmp_path: Path) -> None:
    client, told = client_of(serve(StubServer(answer="correct"))), list[str]()

    async def run(n: int) -> None:
        async with open_judge_model(client, tmp_path, told.append, at_once=at_once):
            for _ in range(n):
                await grade_answer(SAMPLE, answered(), "answered", client.bound(MODEL))

    asyncio.run(run(0))
    assert told == []
    asyncio.run(run(1))
    assert told == ["judge stub: 1 calls (100 prompt tokens, 10 completion tokens), 0 replies kept"]


def test_a_reply_that_cannot_be_kept_stops_the_work(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "replies").write_text("")
    client = client_of(serve(StubServer(answer="correct")))
    with pytest.raises(RecordError):
        judged(client, answered(), replies=tmp_path / "replies" / file_name())


def test_an_unbound_judge_cannot_look() -> None:
    graded = asyncio.run(grade_answer(SAMPLE, answered(), "answered", MODEL))
    assert (graded.verdict.status, graded.verdict.reason) == (
        "undecided", "this judge asks a model, and no model is given",
    )  # fmt: skip


def test_a_kept_reply_is_a_line_of_json_without_the_prompt(serve: Serve, tmp_path: Path) -> None:
    client = client_of(serve(StubServer(answer='{"verdict": "correct"}')))
    judged(client, answered(), replies=tmp_path / file_name())
    (line,) = (tmp_path / file_name()).read_text().splitlines()
    record = json.loads(line)
    assert record.pop("key")
    assert record == {
        "schema_version": 1, "judge": judge_identity(client.bound(MODEL)),
        "text": '{"verdict": "correct"}', "prompt_tokens": 100, "completion_tokens": 10,
    }  # fmt: skip


def judge_asking(ask: Callable[..., Any]) -> Loaded[Judge]:
    return Loaded(Judge(name="mine", metric="m", ask=ask), MODEL.source)


def test_a_bug_in_a_judge_that_asks_leaves_undecided(serve: Serve) -> None:
    async def ask(sample: Sample, answer: Answer, ask_model: Any) -> Grade:
        await ask_model(Inquiry(prompt="?", ruling=RIGHT_OR_WRONG))
        raise ZeroDivisionError("a bug")

    client = client_of(serve(StubServer(answer="correct")))
    (graded,) = judged(client, answered(), judge=judge_asking(ask))
    assert (graded.verdict.status, graded.is_scored) == ("undecided", True)
    assert "ZeroDivisionError" in graded.verdict.reason


def test_the_stub_knows_the_faults_of_the_table() -> None:
    assert {"429", "500", "html", "garbage", "empty_choices", "403", "context"} <= FAULTS.keys()
    assert issubclass(FatalModelError, ModelError)
