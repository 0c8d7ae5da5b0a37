"""Requests at once: as many as a server takes, and no fewer."""

import asyncio
import math
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

import medeval
from medeval.errors import ModelError, OverloadedModelError, TransientModelError
from medeval.models.base import Model
from medeval.models.openai.client import OpenAIModel
from medeval.models.openai.concurrency import AFTER_REFUSAL, AFTER_TIME_OUT, AdaptiveConcurrency
from medeval.models.openai.pool import ServerPool
from tests.medeval_processes import MedevalMain, Serve
from tests.small_benchmark import write_benchmark, write_pair
from tests.stub_server import StubServer, running
from tests.tiny_checkpoints import request

End = Literal["answer", "refusal", "time-out", "other error", "cancel"]
ENDS: tuple[End, ...] = ("answer", "refusal", "time-out", "other error", "cancel")


def error(how: End) -> ModelError:
    if how == "other error":
        return TransientModelError("dropped")
    overloaded = OverloadedModelError(how)
    overloaded.__cause__ = TimeoutError() if how == "time-out" else None
    return overloaded


@dataclass
class Requests:
    """Requests, each ended by hand; `sent` are those that a server would see."""

    concurrency: AdaptiveConcurrency
    sent: list["asyncio.Future[None]"] = field(default_factory=list)
    tasks: list["asyncio.Task[None]"] = field(default_factory=list)
    most: int = 0

    async def ask(self, n: int = 1) -> None:
        self.tasks += [asyncio.create_task(self.concurrency.send(self._attempt)) for _ in range(n)]
        await self.settle()

    async def _attempt(self) -> None:
        end = asyncio.get_running_loop().create_future()
        self.sent.append(end)
        try:
            await end
        finally:
            self.sent.remove(end)

    async def end(self, how: End, at: int = 0) -> None:
        """End one that is under way; a cancelled one may wait as well."""
        if how == "cancel" and self.tasks:
            self.tasks[at % len(self.tasks)].cancel()
        elif how == "answer" and self.sent:
            self.sent[at % len(self.sent)].set_result(None)
        elif self.sent:
            self.sent[at % len(self.sent)].set_exception(error(how))
        await self.settle()

    async def round_trip(self, how: End = "answer") -> None:
        """End all that are under way, one after the other, and ask as many anew."""
        ending = list(self.sent)
        for end in ending:
            if how == "answer":
                end.set_result(None)
            else:
                end.set_exception(error(how))
        await self.ask(len(ending))

    async def settle(self) -> None:
        self.most = max(self.most, len(self.tasks))
        for _ in range(4):
            await asyncio.sleep(0)
        for task in [task for task in self.tasks if task.done()]:
            self.tasks.remove(task)
            if not task.cancelled():
                task.exception()


def at(concurrency: AdaptiveConcurrency, act: Callable[[Requests], Awaitable[None]]) -> None:
    async def run() -> None:
        requests = Requests(concurrency)
        await act(requests)
        for task in requests.tasks:
            task.cancel()
        await requests.settle()
        assert concurrency.in_flight == 0

    asyncio.run(run())


@given(st.lists(st.tuples(st.integers(0, 6), st.sampled_from(ENDS), st.integers(0, 50))))
def test_the_limit_is_at_least_one_at_most_what_was_asked_and_used_up(
    steps: Sequence[tuple[int, End, int]],
) -> None:
    concurrency = AdaptiveConcurrency()

    async def act(requests: Requests) -> None:
        for n, how, which in steps:
            await requests.ask(n)
            before = concurrency.in_flight
            await requests.end(how, which)
            waiting = len(requests.tasks) - concurrency.in_flight
            assert len(requests.sent) == concurrency.in_flight
            assert concurrency.limit >= 1
            assert concurrency.limit == math.inf or concurrency.limit <= requests.most
            assert concurrency.in_flight <= max(before, concurrency.limit)
            assert not waiting or concurrency.in_flight >= concurrency.limit
            assert concurrency.is_full == (concurrency.in_flight >= concurrency.limit)

    at(concurrency, act)


@given(st.integers(1, 80), st.sampled_from(["refusal", "time-out"]))
def test_requests_that_fail_together_lower_the_limit_once(n: int, how: End) -> None:
    concurrency = AdaptiveConcurrency()
    share = AFTER_REFUSAL if how == "refusal" else AFTER_TIME_OUT

    async def act(requests: Requests) -> None:
        await requests.ask(n)
        await requests.round_trip(how)
        assert concurrency.limit == max(1, int(n * share))
        await requests.round_trip(how)
        assert concurrency.limit == max(1, int(max(1, int(n * share)) * share))

    at(concurrency, act)


@given(st.integers(2, 80), st.integers(1, 8))
def test_a_server_that_is_well_again_is_soon_sent_all(n: int, n_failures: int) -> None:
    concurrency = AdaptiveConcurrency()

    async def act(requests: Requests) -> None:
        await requests.ask(n)
        for _ in range(n_failures):
            await requests.round_trip("time-out")
        round_trips = 0
        while concurrency.limit < n:
            before = concurrency.limit
            await requests.round_trip()
            assert concurrency.limit >= before
            round_trips += 1
            assert round_trips <= 16

    at(concurrency, act)


@pytest.mark.parametrize("bound", [1, 2, 3, 5, 9, 20, 40, 60])
def test_a_server_that_refuses_above_a_bound_is_kept_busy_and_refuses_few(bound: int) -> None:
    concurrency = AdaptiveConcurrency()
    n_answers, n_busy = 300, 0

    async def act(requests: Requests) -> None:
        nonlocal n_busy
        await requests.ask(64)
        backing_off = 0
        for _ in range(n_answers):
            while refused := requests.sent[bound:]:
                for end in refused:
                    end.set_exception(error("refusal"))
                backing_off += len(refused)
                await requests.settle()
            n_busy += len(requests.sent)
            requests.sent[0].set_result(None)
            # one that was answered asks again, and one that was refused
            await requests.ask(1 + (backing_off > 0))
            backing_off -= backing_off > 0

    at(concurrency, act)
    assert n_busy >= 0.9 * bound * n_answers
    assert concurrency.n_refused <= 64 + 0.7 * n_answers / bound


def test_requests_go_in_order_and_one_that_gives_up_wastes_no_turn() -> None:
    concurrency = AdaptiveConcurrency()

    async def act(requests: Requests) -> None:
        await requests.ask(4)
        await requests.end("time-out")
        assert concurrency.limit == 2
        await requests.ask(3)
        waiting = requests.tasks[3:]
        await requests.end("answer")
        assert concurrency.in_flight == 2
        # its turn comes, and it gives up, in one step: the next one goes
        waiting[0].cancel()
        requests.sent[0].set_result(None)
        await requests.settle()
        assert concurrency.in_flight == 2
        requests.sent[0].set_result(None)
        requests.tasks[-1].cancel()
        await requests.settle()

    at(concurrency, act)


def test_the_turn_of_a_request_that_gives_up_goes_to_the_next() -> None:
    concurrency = AdaptiveConcurrency()

    async def act(requests: Requests) -> None:
        await requests.ask(2)
        await requests.end("refusal")
        assert concurrency.limit == 1
        await requests.ask(2)
        requests.sent[0].set_result(None)
        # it is the waiting request's turn, but it has not run yet
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        requests.tasks[1].cancel()
        await requests.settle()
        assert concurrency.in_flight == 1
        assert len(requests.sent) == 1

    at(concurrency, act)


def test_what_does_not_adapt_is_counted_all_the_same() -> None:
    concurrency = AdaptiveConcurrency(adapts=False)

    async def act(requests: Requests) -> None:
        assert concurrency.note() is None
        await requests.ask(3)
        await requests.round_trip("refusal")
        await requests.end("time-out")
        assert concurrency.limit == math.inf
        assert not concurrency.is_full

    at(concurrency, act)
    assert concurrency.note() == "refused 3 requests and left 1 request without an answer in time"


async def asked(model: Model, n: int, concurrency: int = 32) -> list[str]:
    """The texts of n replies, so many at once; raises where one is not given."""
    numbers = iter(range(n))
    texts: list[str] = []

    async def work() -> None:
        for number in numbers:
            texts.append((await model.generate(request(f"{number}?"))).text)

    await model.start()
    try:
        await asyncio.gather(*(work() for _ in range(concurrency)))
    finally:
        await model.close()
    return texts


def replies(
    model: Callable[[list[str]], Model], *servers: StubServer, n: int = 300
) -> tuple[list[str], Model]:
    async def run() -> tuple[list[str], Model]:
        async with AsyncExitStack() as stack:
            for server in servers:
                await stack.enter_async_context(running(server))
            made = model([server.base_url for server in servers])
            return await asked(made, n), made

    return asyncio.run(run())


def one(urls: list[str], *, adaptive: bool = True) -> OpenAIModel:
    return OpenAIModel(
        model="stub", base_url=urls[0], retry_wait_s=0.01, max_retries=20, adaptive=adaptive
    )


def test_a_server_that_refuses_requests_above_a_bound_refuses_fewer() -> None:
    fixed, adaptive = (StubServer(room=6, latency_s=0.05, keep=False) for _ in range(2))
    texts, _ = replies(lambda urls: one(urls, adaptive=False), fixed, n=100)
    again, model = replies(one, adaptive, n=100)
    assert sorted(texts) == sorted(again)
    assert len(again) == 100
    # a busy machine slows the client down, so that the fixed one is refused less as well
    assert adaptive.refused * 3 < fixed.refused * 2
    (note,) = model.notes()
    assert note.startswith(f"the server of 'stub' refused {adaptive.refused} requests; ")
    assert note.endswith("of 32")


def test_a_server_that_is_well_gets_all_requests_at_once() -> None:
    server = StubServer(latency_s=0.1, keep=False)
    _, model = replies(one, server, n=96)
    assert server.most_in_flight == 32
    assert model.notes() == ()


def test_requests_without_an_answer_in_time_make_those_at_once_fewer() -> None:
    # four at a time are done in time, and 32 are not
    server = StubServer(latency_s=0.1, places=4, keep=False)

    def model(urls: list[str]) -> OpenAIModel:
        return OpenAIModel(
            model="stub", base_url=urls[0], timeout_s=0.4, retry_wait_s=0.01, max_retries=9
        )

    texts, asked_model = replies(model, server, n=64)
    assert len(texts) == 64
    assert "without an answer in time; concurrency went down to" in asked_model.notes()[0]


def test_of_several_servers_each_is_sent_what_it_takes() -> None:
    small, large = StubServer(room=3, latency_s=0.03), StubServer(room=24, latency_s=0.03)

    def model(urls: list[str]) -> ServerPool:
        clients = [OpenAIModel(model="stub", base_url=url, max_retries=0, name=url) for url in urls]
        return ServerPool(clients, max_tries=6, first_rest_s=0.2)

    texts, asked_model = replies(model, small, large, n=400)
    assert len(texts) == 400
    answered = [server.requests - server.refused for server in (small, large)]
    assert answered[1] > 2.5 * answered[0] > 0
    # busy with others is not ill: neither was left alone
    assert not any("left alone" in note for note in asked_model.notes())
    assert small.refused < 100


def test_a_run_scores_every_sample_and_tells_how_far_concurrency_went_down(
    tmp_path: Path,
    medeval_main: MedevalMain,
    serve: Serve,
    capsys: pytest.CaptureFixture[str],
) -> None:
    server = serve(StubServer(room=4, latency_s=0.02))
    arguments = [
        *("run", "--model", "stub", "--base-url", server.base_url, "--concurrency", 24),
        *("--benchmarks", write_benchmark(tmp_path, 40), "--pairs", write_pair(tmp_path)),
        *("--model-args", "retry_wait_s=0.02", "--output-dir", tmp_path / "run"),
    ]
    assert medeval_main(*arguments) == 0
    assert "refused " in (told := capsys.readouterr().err)
    assert "of 24" in told
    assert len(medeval.load_run(tmp_path / "run").outcomes) == 40
    assert server.requests - server.refused == 40 * 3
