import pytest
from hypothesis import given
from hypothesis import strategies as st

from medeval.evaluation.loader import load
from medeval.scoring.judge import Judge
from medeval.types.sample import Sample
from medeval.types.trajectory import Answer
from medeval.types.verdict import Grade

EXACT_MATCH = load("exact_match", Judge).value


def grade(text: str, *targets: str) -> Grade:
    sample = Sample(id="s", question="?", images=(), targets=targets)
    graded = EXACT_MATCH.grade(sample, Answer(text=text, how_found="answer_tag", reply=text))
    assert isinstance(graded, Grade)
    return graded


@pytest.mark.parametrize(
    ("text", "targets", "score"),
    [
        ("Red", ("red",), 1.0),
        (" the  red\ncar.", ("The red car",), 1.0),
        ("yes!", ("no", "Yes."), 1.0),
        ("red", ("blue", "green"), 0.0),
        ("the red", ("red",), 0.0),
        ("1,000", ("1000",), 0.0),
        ("", ("red",), 0.0),
        (".", ("!",), 0.0),
    ],
)
def test_case_space_and_final_punctuation_do_not_matter(
    text: str, targets: tuple[str, ...], score: float
) -> None:
    assert grade(text, *targets).score == score


def test_what_was_compared_is_told() -> None:
    assert grade(" The RED car. ", "x") == Grade(score=0.0, extracted="the red car")


@given(st.text() | st.sampled_from(["nan", "1e999", "\x00\x1b", "x" * 100_000]), st.text())
def test_any_text_gets_0_or_1_and_itself_1(text: str, target: str) -> None:
    assert grade(text, target).score in (0.0, 1.0)
    assert grade(text, target, text).score == 1.0
