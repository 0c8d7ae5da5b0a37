import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medeval.errors import JudgeError
from medeval.evaluation.loader import load
from medeval.scoring.answers import find_answer
from medeval.scoring.judge import Judge
from medeval.types.sample import Sample
from medeval.types.trajectory import Answer
from medeval.types.verdict import Grade

SHARED = Path(__file__).parents[3] / "shared" / "data" / "vstar"
CHOICE = load("choice", Judge).value
OPTIONS = ("rubber", "cotton", "kevlar", "leather")


def grade(text: str, *targets: str, options: tuple[str, ...] = OPTIONS) -> Grade:
    sample = Sample(id="s", question="?", images=(), targets=targets, options=options)
    graded = CHOICE.grade(sample, Answer(text=text, how_found="answer_tag", reply=text))
    assert isinstance(graded, Grade)
    return graded


@pytest.mark.parametrize(
    ("text", "target", "expected"),
    [
        ("B", "B", Grade(score=1.0, extracted="B")),
        ("(b) cotton", "B", Grade(score=1.0, extracted="B")),
        ("cotton", "B", Grade(score=1.0, extracted="B")),
        ("A", "B", Grade(score=0.0, extracted="A")),
        ("The answer is C.", "B", Grade(score=0.0, extracted="C")),
    ],
)
def test_the_letter_is_compared_with_the_target(text: str, target: str, expected: Grade) -> None:
    assert grade(text, target) == expected


@pytest.mark.parametrize("text", ["", "Because it is", "Dog", "A man", "A or B", "A. cotton", "E"])
def test_an_unreadable_answer_is_incorrect_with_its_reason(text: str) -> None:
    for target in "ABCD":
        assert grade(text, target) == Grade(
            score=0.0, extracted=None, reason="no option letter in the answer"
        )


def test_any_target_counts_and_a_target_may_be_an_options_text() -> None:
    assert grade("C", "B", "C").score == 1.0
    assert grade("B", "Cotton.").score == 1.0


def test_a_target_that_is_no_option_is_the_judges_failure() -> None:
    with pytest.raises(JudgeError, match="name no option of 4"):
        grade("B", "silk")


def test_it_reads_targets_and_options() -> None:
    assert (CHOICE.reads, CHOICE.correct_at) == (("targets", "options"), 1.0)


@given(st.text() | st.sampled_from(["nan", "1e999", "\x00", "x" * 100_000]))
def test_any_text_gets_a_score_and_no_score_without_a_letter(text: str) -> None:
    graded = grade(text, "A")
    assert graded.score in (0.0, 1.0)
    assert (graded.extracted is None) == bool(graded.reason)
    assert graded.score == float(graded.extracted == "A")


@pytest.mark.skipif(not SHARED.is_dir(), reason="no ../shared/data beside the project")
def test_it_agrees_with_the_published_correctness_wherever_it_reads_a_letter() -> None:
    lines = (SHARED / "questions.jsonl").read_text(encoding="utf-8").splitlines()
    options = {row["id"]: tuple(row["options"]) for row in map(json.loads, lines)}
    agreed = unread = 0
    with (SHARED / "deepeyes_traces.jsonl").open(encoding="utf-8") as file:
        for trace in map(json.loads, file):
            last = trace["messages"][-1]
            answer = (
                find_answer(last["content"], "answer_tag", complete=True)
                if (last["role"] == "assistant")
                else None
            )
            if answer is None:
                continue
            sample_id = f"{trace['category']}/{Path(trace['image']).stem}"
            graded = grade(answer, "A", options=options[sample_id])
            unread += graded.extracted is None
            agreed += graded.extracted is not None and graded.score == trace["acc"]
    # The 83 that name no letter write a sentence of their own, or a letter with the text of
    # another option; a model had judged them.
    assert (agreed, unread, agreed + unread) == (661, 83, 744)
