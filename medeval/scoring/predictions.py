"""Judges predictions that other programs made: prediction lines in, verdict lines out."""

import asyncio
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from medeval.errors import DataError
from medeval.scoring.grade import grade_answer
from medeval.scoring.judge import Judge
from medeval.scoring.judge_model import JudgeClient
from medeval.types.definition import Loaded
from medeval.types.geometry import Box
from medeval.types.sample import Sample
from medeval.types.trajectory import Answer
from medeval.types.verdict import VerdictStatus


class Prediction(BaseModel):
    """An answer with the sample fields that judges read; other keys of a line are ignored.

    `answer` is None where the model gave none. `reply` is the whole reply, for judges that
    read it.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    answer: str | None
    question: str = ""
    targets: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    instruction: str = ""
    groups: dict[str, str] = {}
    metadata: dict[str, Any] = {}
    cluster: str | None = None
    chance: float | None = None
    transform: str | None = None
    target_boxes: tuple[Box, ...] = ()
    id: str | int | None = None
    reply: str | None = None


class ScoredLine(BaseModel):
    """One verdict on a prediction; `id` is the prediction's, or its line number as text.

    `judge_failed` is True where the verdict is undecided because the judge or its endpoint failed;
    it is not written out.
    """

    id: str
    verdict: VerdictStatus
    score: float | None
    extracted: str | None
    reason: str
    judge: str
    judge_failed: bool = Field(default=False, exclude=True)


def score_lines(
    lines: Iterable[Mapping[str, Any]],
    judge: Loaded[Judge],
    *,
    client: JudgeClient | None = None,
    concurrency: int = 1,
) -> Iterator[ScoredLine]:
    """Judge predictions, in order; up to `concurrency` at once where the judge asks a model.

    `client` connects the judge to its model; where that does not answer, the verdict is undecided
    and says so. Raises DataError, with the line's number counted from 1, where a line lacks a
    field that the judge reads, or where a field has the wrong type.
    """
    numbered = (
        (_prediction(line, number, judge.value), number)
        for number, line in enumerate(lines, start=1)
    )
    # one event loop for all lines, so that a judge may keep its connections open
    with asyncio.Runner() as runner:
        if client is None or not judge.value.needs_endpoint:
            for prediction, number in numbered:
                yield runner.run(_score(prediction, number, judge))
            return
        opening = client.open()
        runner.run(opening.__aenter__())
        try:
            yield from _score_concurrently(runner, numbered, judge, concurrency)
        finally:
            runner.run(opening.__aexit__(None, None, None))


def _score_concurrently(
    runner: asyncio.Runner,
    numbered: Iterable[tuple[Prediction, int]],
    judge: Loaded[Judge],
    concurrency: int,
) -> Iterator[ScoredLine]:
    """The verdicts in order; up to `concurrency` predictions are judged at once."""
    tasks: deque[asyncio.Task[ScoredLine]] = deque()
    loop = runner.get_loop()

    async def first() -> ScoredLine:
        return await tasks.popleft()

    for prediction, number in numbered:
        tasks.append(loop.create_task(_score(prediction, number, judge)))
        if len(tasks) == concurrency:
            yield runner.run(first())
    while tasks:
        yield runner.run(first())


def _prediction(line: Mapping[str, Any], number: int, judge: Judge) -> Prediction:
    missing = [name for name in ("answer", *judge.reads) if name not in line]
    if missing:
        raise DataError(
            f"line {number} has no {missing[0]!r}, which judge {judge.name!r} reads; "
            f"it has: {', '.join(map(str, line)) or 'nothing'}"
        )
    try:
        return Prediction.model_validate(line)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise DataError(
            f"line {number}: {field!r}: {first['msg']}, got {first['input']!r}"
        ) from error


async def _score(prediction: Prediction, number: int, judge: Loaded[Judge]) -> ScoredLine:
    sample = Sample(
        id=str(number if prediction.id is None else prediction.id),
        question=prediction.question,
        images=(),
        targets=prediction.targets,
        options=prediction.options,
        instruction=prediction.instruction,
        groups=prediction.groups,
        metadata=prediction.metadata,
        cluster=prediction.cluster,
        chance=prediction.chance,
        transform=prediction.transform,
        target_boxes=prediction.target_boxes,
    )
    graded = await grade_answer(sample, _answer(prediction), "no_answer", judge)
    return ScoredLine(
        id=sample.id,
        verdict=graded.verdict.status,
        score=graded.verdict.score,
        extracted=graded.verdict.extracted,
        reason=graded.verdict.reason,
        judge=graded.verdict.judge,
        judge_failed=graded.failure is not None,
    )


def _answer(prediction: Prediction) -> Answer | None:
    text = (prediction.answer or "").strip()
    if not text:
        return None
    return Answer(text=text, how_found="given", reply=prediction.reply or prediction.answer or text)
