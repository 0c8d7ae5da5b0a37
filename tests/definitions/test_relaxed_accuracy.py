import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medeval.evaluation.loader import load
from medeval.scoring.judge import Judge
from medeval.types.sample import Sample
from medeval.types.trajectory import Answer
from medeval.types.verdict import Grade

RELAXED_ACCURACY = load("relaxed_accuracy", Judge).value


def grade(text: str, *targets: str) -> Grade:
    sample = Sample(id="s", question="?", images=(), targets=targets)
    graded = RELAXED_ACCURACY.grade(sample, Answer(text=text, how_found="answer_tag", reply=text))
    assert isinstance(graded, Grade)
    return graded


@pytest.mark.parametrize(
    ("target", "text", "correct"),
    [
        # as the official code answers them
        ("0.6", "60%", True),
        ("60", "60%", False),
        ("60%", "60%", True),
        ("2010", "1990", True),
        ("0", "0.0", False),
        ("0", "0", True),
        ("1000", "1,000", False),
        ("5", "5.", True),
        ("Yes", "Yes.", False),
        ("[0.57, 0.21]", "[0.57,0.21]", False),
        ("nan", "nan", False),
        ("20", "21", True),
        ("20", "21.1", False),
        # what follows from its code
        ("Yes", "yes", True),
        ("5", "$5", False),
        ("20", "19", True),
        ("20", "18.9", False),
        ("-20", "-21", True),
        ("-20", "20", False),
        ("0%", "0%", True),
        ("0%", "0", False),
        ("inf", "inf", False),
        ("inf", "5", False),
        ("5", "inf", False),
        ("5", "1e999", False),
        ("5", "nan", False),
        ("5", "five", False),
        ("1,000", "1,000", True),
        ("[0.57, 0.21]", "[0.57, 0.21]", True),
        ("100%%", "1", True),
        ("1_000", "1000", True),
        ("5", "", False),
    ],
)
def test_the_rule_is_the_official_one(target: str, text: str, correct: bool) -> None:
    assert grade(text, target) == Grade(score=float(correct), extracted=text)


def test_the_answer_is_stripped_and_the_target_is_not() -> None:
    assert grade(" Yes\n", "yes").score == 1.0
    assert grade("yes", "yes ").score == 0.0


def test_the_best_of_several_targets_counts() -> None:
    assert grade("21", "no", "20").score == 1.0
    assert grade("22", "no", "20").score == 0.0


@given(st.floats(1e-3, 1e6), st.floats(-0.2, 0.2))
def test_five_percent_is_the_bound(target: float, change: float) -> None:
    answer = target * (1 + change)
    relative = abs(float(repr(answer)) - target) / target
    if not math.isclose(relative, 0.05, rel_tol=1e-9):
        assert grade(repr(answer), repr(target)).score == float(relative < 0.05)


@given(
    st.text() | st.sampled_from(["nan", "-inf", "1e999", "\x00\x1b", "9" * 100_000, "%" * 100_000]),
    st.text() | st.floats().map(str),
)
def test_any_text_gets_0_or_1(text: str, target: str) -> None:
    assert grade(text, target).score in (0.0, 1.0)
