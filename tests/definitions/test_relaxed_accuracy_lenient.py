"""Numbers as people write them; never stricter than the official rule."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from medeval.evaluation.loader import load
from medeval.scoring.answers import written_numbers
from medeval.scoring.judge import Judge
from medeval.types.sample import Sample
from medeval.types.trajectory import Answer
from medeval.types.verdict import Grade

LENIENT = load("relaxed_accuracy_lenient", Judge).value
OFFICIAL = load("relaxed_accuracy", Judge).value

NUMBERS = st.floats(allow_nan=False, allow_infinity=False).map(repr) | st.integers().map(str)
WRITTEN = st.builds(
    "{}{}{}{}".format,
    st.sampled_from(["", "$", "€", "-", " "]),
    NUMBERS,
    st.sampled_from(["", "%", " %"]),
    st.sampled_from(["", ".", " "]),
)


def score(judge: Judge, text: str, *targets: str) -> float | None:
    sample = Sample(id="s", question="?", images=(), targets=targets)
    graded = judge.grade(sample, Answer(text=text, how_found="answer_tag", reply=text))
    assert isinstance(graded, Grade)
    return graded.score


@pytest.mark.parametrize(
    ("target", "text", "official", "lenient"),
    [
        ("60", "60%", 0.0, 1.0),
        ("0.6", "60%", 1.0, 1.0),
        ("60%", "60", 0.0, 1.0),
        ("60%", "60%", 1.0, 1.0),
        ("0", "0.0", 0.0, 1.0),
        ("0", "0.01", 0.0, 0.0),
        ("1000", "1,000", 0.0, 1.0),
        ("1,000,000", "1000000", 0.0, 1.0),
        ("1000", "1,00", 0.0, 0.0),
        ("5", "$5", 0.0, 1.0),
        ("5", "5 €", 0.0, 1.0),
        ("5", "-$5", 0.0, 0.0),
        ("-5", "\u22125", 0.0, 1.0),
        ("5", "5.", 1.0, 1.0),
        ("Yes", "Yes.", 0.0, 1.0),
        ("Yes", " yes ", 1.0, 1.0),
        ("20", "21", 1.0, 1.0),
        ("20", "21.1", 0.0, 0.0),
        ("2010", "1990", 1.0, 1.0),
        ("nan", "nan", 0.0, 1.0),
        ("5", "five", 0.0, 0.0),
        ("5", "5 dogs", 0.0, 0.0),
    ],
)
def test_each_leniency_is_a_difference_with_a_name(
    target: str, text: str, official: float, lenient: float
) -> None:
    assert score(OFFICIAL, text, target) == official
    assert score(LENIENT, text, target) == lenient


@given(WRITTEN | st.text(), WRITTEN | st.text())
@example("0%", "0.0%")
def test_what_is_officially_correct_is_correct(target: str, text: str) -> None:
    if score(OFFICIAL, text, target) == 1.0:
        assert score(LENIENT, text, target) == 1.0


@given(
    st.text() | st.sampled_from(["$" * 100_000, "1," * 50_000, "%" * 100_000, "1e999", "\ud800"])
)
def test_no_text_breaks_the_reading(text: str) -> None:
    assert len(written_numbers(text)) <= 2
    assert score(LENIENT, text, text) == 1.0
