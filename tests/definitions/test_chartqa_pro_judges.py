"""ChartQAPro's relaxed correctness, as published with its slip and as lmms-eval mends it."""

from typing import Any

import pytest

from medeval.evaluation.loader import load
from medeval.scoring.judge import Judge
from medeval.types.sample import JsonValue, Sample
from medeval.types.trajectory import Answer
from medeval.types.verdict import Grade

OFFICIAL = load("chartqa_pro", Judge).value
LMMS = load("chartqa_pro_lmms", Judge).value


def scores(
    target: str, text: str, kind: str = "Factoid", years: JsonValue = None
) -> tuple[Any, Any]:
    """The score by the published rule and by lmms-eval's."""
    sample = Sample(
        id="s", question="?", images=(), targets=(target,),
        groups={"question_type": kind}, metadata={"years": years},
    )  # fmt: skip
    answer = Answer(text=text, how_found="answer_tag", reply=text)
    grades = [judge.grade(sample, answer) for judge in (OFFICIAL, LMMS)]
    assert all(isinstance(grade, Grade) for grade in grades)
    first, second = (grade.score for grade in grades if isinstance(grade, Grade))
    return first, second


@pytest.mark.parametrize(
    ("target", "text", "score"),
    [
        ("60%", "60", 1.0),
        ("60", "60 %", 1.0),
        ("60%", "0.6", 0.0),
        ("100", "105", 1.0),
        ("100", "105.1", 0.0),
        ("0", "0.0", 1.0),
        ("0", "0.001", 0.0),
        ("Yes", "Yes.", 1.0),
        ("2010", "1990", 1.0),
        ("Paris", "paris", 1.0),
        ("abcd", "abxy", 0.0),
        ("abcd", "abcx", 0.75),
        ("[A, B]", "['A', 'B']", 1.0),
        ("['A', 'B']", "['B', 'A']", 0.0),
        ("['A', 'B']", "['A']", 0.5),
        ("A", "['A', 'B', 'C']", pytest.approx(1 / 3)),
        ("['1', '2']", "[1, 2.05]", 1.0),
        # a word at a time is quoted, and two words in quotes are one
        ("[New York, 5]", "['NewYork', '5']", 1.0),
        ("[]", "[]", 1.0),
        ("[a", "[a", 1.0),
        ("nan", "nan", 0.0),
        ("", "x", 0.0),
    ],
)
def test_items_are_scored_by_position(target: str, text: str, score: float) -> None:
    assert scores(target, text) == (score, score)


def test_exactly_half_alike_scores_nothing_here_and_half_in_docvqa() -> None:
    assert scores("0.28a", "8.22a")[0] == pytest.approx(0.6)
    assert scores("ab", "ax")[0] == 0.0
    sample = Sample(id="s", question="?", images=(), targets=("ab",))
    graded = load("anls", Judge).value.grade(sample, Answer(text="ax", how_found="", reply="ax"))
    assert isinstance(graded, Grade)
    assert graded.score == 0.5


@pytest.mark.parametrize(
    ("target", "text", "years", "kind", "score"),
    [
        ("2010", "2011", ["YES"], "Factoid", 0.0),
        ("2010", "2010", ["yes"], "Factoid", 1.0),
        ("2010", "2011", ["NO"], "Factoid", 1.0),
        ("[2010, 5]", "[2011, 5.1]", ["YES", "NO"], "Factoid", 0.5),
        ("[2010, 2012]", "[2011, 2012]", ["YES"], "Factoid", 0.5),
        # of a conversation only the last flag counts
        ("2010", "2011", ["YES", "NO"], "Conversational", 1.0),
        ("2010", "2011", ["NO", "YES"], "Conversational", 0.0),
        ("2010", "2011", [], "Factoid", 1.0),
        ("2010", "2011", None, "Factoid", 1.0),
    ],
)
def test_years_are_equal_where_the_flag_says_so(
    target: str, text: str, years: JsonValue, kind: str, score: float
) -> None:
    assert scores(target, text, kind, years) == (score, score)


@pytest.mark.parametrize("kind", ["Fact Checking", "Multi Choice"])
def test_the_published_script_forgets_that_these_match_exactly(kind: str) -> None:
    assert scores("Likely", "Unlikely", kind) == (0.75, 0.0)
    assert scores("b", "a", kind) == (0.0, 0.0)
    assert scores("True", "true", kind) == (1.0, 1.0)
    assert scores("100", "104", kind) == (1.0, 0.0)


def test_half_right_is_not_correct() -> None:
    assert (OFFICIAL.correct_at, LMMS.correct_at) == (1.0, 1.0)


@pytest.mark.parametrize(
    "text",
    ["[" * 9_000, "[" + "-" * 9_000 + "1]", "[1" + "+1" * 4_000 + "]", "['\\d']", "[b'\\xzz']"],
)
def test_a_literal_made_to_hurt_is_text(text: str) -> None:
    first, second = scores("x", text)
    assert first == second
