"""Predictions made elsewhere: lines in, verdicts out, and mistakes named by line and field."""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import medeval
from medeval.errors import DataError
from medeval.evaluation.loader import load
from medeval.scoring.judge import Judge
from medeval.scoring.predictions import score_lines
from medeval.types.definition import Loaded, Source
from medeval.types.sample import Sample
from medeval.types.trajectory import Answer
from medeval.types.verdict import Grade

EXACT = load("exact_match", Judge)


def scored(*lines: Mapping[str, Any], judge: Loaded[Judge] = EXACT) -> list[dict[str, Any]]:
    return [line.model_dump() for line in score_lines(lines, judge)]


def judge(grade: Any, *reads: str) -> Loaded[Judge]:
    value = Judge(name="mine", metric="m", grade=grade, reads=reads)
    return Loaded(value, Source(Path("mine.py"), "0" * 64))


def test_a_verdict_line_is_named_by_its_id_or_its_number() -> None:
    lines = scored(
        {"id": "a", "answer": "Blue.", "targets": ["blue"]},
        {"answer": "red", "targets": ["blue"]},
        {"id": 0, "answer": "blue", "targets": ["blue"]},
    )
    assert [(line["id"], line["verdict"], line["score"]) for line in lines] == [
        ("a", "correct", 1.0), ("2", "incorrect", 0.0), ("0", "correct", 1.0),
    ]  # fmt: skip
    identity = f"exact_match#{EXACT.source.sha256[:8]}"
    assert lines[0] == {
        "id": "a", "verdict": "correct", "score": 1.0, "extracted": "blue", "reason": "",
        "judge": identity,
    }  # fmt: skip


@pytest.mark.parametrize("answer", [None, "", "  \n"])
def test_a_prediction_without_an_answer_is_incorrect(answer: str | None) -> None:
    (line,) = scored({"answer": answer, "targets": ["blue"]})
    assert (line["verdict"], line["score"]) == ("incorrect", 0.0)
    assert line["reason"] == "no answer: no_answer"


def test_an_empty_label_is_undecided() -> None:
    (line,) = scored({"answer": "blue", "targets": []})
    assert (line["verdict"], line["score"]) == ("undecided", None)


def test_every_field_of_a_sample_reaches_the_judge() -> None:
    seen: list[tuple[Sample, Answer]] = []

    def grade(sample: Sample, answer: Answer) -> Grade:
        seen.append((sample, answer))
        return Grade(score=1.0)

    frame = {"name": "relative", "width": 1.0, "height": 1.0}
    box = {"left": 0.1, "top": 0.2, "right": 0.3, "bottom": 0.4, "frame": frame}
    line = {
        "id": "a", "answer": " B ", "reply": "It is B", "question": "Which?", "targets": ["B"],
        "options": ["x", "y"], "instruction": "Letter.", "groups": {"kind": "easy"},
        "metadata": {"n": [1, None]}, "cluster": "c", "chance": 0.5, "transform": "rotated",
        "target_boxes": [box], "unknown": "ignored",
    }  # fmt: skip
    scored(line, judge=judge(grade, "target_boxes", "chance", "metadata"))
    ((sample, answer),) = seen
    assert (answer.text, answer.reply, answer.how_found) == ("B", "It is B", "given")
    for name in ("question", "instruction", "groups", "metadata", "cluster", "chance", "transform"):
        assert getattr(sample, name) == line[name]
    assert (sample.targets, sample.options) == (("B",), ("x", "y"))
    assert sample.target_boxes[0].right == 0.3


def test_the_reply_is_the_answer_where_none_is_given() -> None:
    lines = scored({"answer": "B"}, judge=judge(lambda _, a: Grade(score=float(a.reply == "B"))))
    assert lines[0]["score"] == 1.0


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({"targets": ["x"]}, "line 2 has no 'answer', which judge 'exact_match' reads; "
         "it has: targets"),
        ({"answer": "x"}, "line 2 has no 'targets', which judge 'exact_match' reads; "
         "it has: answer"),
        ({}, "line 2 has no 'answer', which judge 'exact_match' reads; it has: nothing"),
        ({"answer": 3, "targets": []}, "line 2: 'answer': Input should be a valid string, got 3"),
        ({"answer": "x", "targets": "x"}, "line 2: 'targets': Input should be a valid tuple, "
         "got 'x'"),
        ({"answer": "x", "targets": ["x", 3]}, "line 2: 'targets.1': Input should be a valid "
         "string, got 3"),
    ],
)  # fmt: skip
def test_a_line_that_cannot_be_judged_is_named_with_its_field(
    line: dict[str, Any], message: str
) -> None:
    results = score_lines([{"answer": "x", "targets": ["x"]}, line], EXACT)
    assert next(results).verdict == "correct"
    with pytest.raises(DataError) as refused:
        next(results)
    assert refused.value.message == message


def test_lines_are_judged_one_by_one_as_they_come() -> None:
    def endless() -> Any:
        while True:
            yield {"answer": "x", "targets": ["x"]}

    results = score_lines(endless(), EXACT)
    assert [next(results).id for _ in range(3)] == ["1", "2", "3"]


def test_an_async_judge_keeps_one_event_loop_over_all_lines() -> None:
    loops = set()

    async def grade(*_: object) -> Grade:
        loops.add(asyncio.get_running_loop())
        return Grade(score=1.0)

    scored({"answer": "x"}, {"answer": "y"}, judge=judge(grade))
    assert len(loops) == 1


def test_the_same_from_python() -> None:
    lines = medeval.score([{"answer": "19.0", "targets": ["19.4"]}], "relaxed_accuracy")
    assert [(line["verdict"], line["id"]) for line in lines] == [("correct", "1")]
