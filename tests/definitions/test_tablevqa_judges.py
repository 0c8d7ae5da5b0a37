"""TableVQA-Bench's three rules, against the authors' own scores of a real model."""

import json
from pathlib import Path

import pytest

from medeval.evaluation.loader import load
from medeval.scoring.judge import Judge
from medeval.types.sample import Sample
from medeval.types.trajectory import Answer
from medeval.types.verdict import Grade

SHARED = Path(__file__).parents[3] / "shared" / "data" / "tablevqa"
JUDGES = {
    name: load(f"tablevqa_{name}", Judge).value
    for name in ("vwtq", "vtabfact", "fintabnetqa", "fintabnetqa_exact")
}


def grade(judge: str, text: str, *targets: str) -> Grade:
    sample = Sample(id="s", question="?", images=(), targets=targets)
    graded = JUDGES[judge].grade(sample, Answer(text=text, how_found="answer_tag", reply=text))
    assert isinstance(graded, Grade)
    return graded


@pytest.mark.skipif(not SHARED.is_dir(), reason="no ../shared/data beside the project")
@pytest.mark.parametrize(
    ("split", "judge", "n", "right"),
    [("vwtq", "vwtq", 375, 161), ("vwtq_syn", "vwtq", 125, 61), ("vtabfact", "vtabfact", 125, 83),
     ("fintabnetqa", "fintabnetqa", 125, 98), ("fintabnetqa", "fintabnetqa_exact", 125, 76)],
)  # fmt: skip
def test_every_real_answer_gets_the_authors_score(
    split: str, judge: str, n: int, right: int
) -> None:
    rows = [json.loads(line) for line in (SHARED / f"{split}.jsonl").read_text().splitlines()]
    key = "exact_score" if judge.endswith("exact") else "a"
    total = 0.0
    for row in rows:
        # the authors put 'none' where the model gave nothing
        graded = grade(judge, row["gpt4v_pred"] or "none", str(row["answer"]))
        assert graded.score == (row["gpt4v_scores"][key] or 0), row["id"]
        total += graded.score or 0.0
    assert (len(rows), total) == (n, right)


@pytest.mark.parametrize(
    ("target", "text", "score"),
    [
        ("a|b", "b||a", 1.0),
        ("a|b", "a|b", 1.0),
        ("a|b", "a", 0.0),
        ("a", "a||a", 1.0),
        (r"a\pb", "a|b", 0.0),
        (r"a\pb", r"A\pB", 1.0),
        (r"a\nb", "a b", 1.0),
        ("1000", "1,000", 0.0),
        ("2", "2.0", 1.0),
        ("Léon Balcer", "Balcer", 0.0),
    ],
)
def test_denotations_of_lists(target: str, text: str, score: float) -> None:
    assert grade("vwtq", text, target).score == score


@pytest.mark.parametrize(
    ("target", "text", "score"),
    [
        ("1", "True", 1.0),
        ("true", "It is TRUE.", 1.0),
        ("false", "True", 0.0),
        ("0", "false", 1.0),
        ("1", "untrue", 1.0),
        ("1", "not true", 1.0),
        ("1", "True or false?", 0.0),
        ("0", "True or false?", 0.0),
        ("1", "yes", 0.0),
        ("0", "none", 0.0),
    ],
)
def test_facts(target: str, text: str, score: float) -> None:
    assert grade("vtabfact", text, target).score == score


def test_an_answer_with_both_words_or_none_says_so() -> None:
    assert grade("vtabfact", "true and false", "1").reason.endswith("both true and false")
    assert grade("vtabfact", "maybe", "1").reason.endswith("neither true nor false")


@pytest.mark.parametrize(
    ("text", "readings"),
    [
        ("$3,852 million", (3852000000.0, 3852.0)),
        ("34.2%", (0.342, 34.2)),
        ("12 years", (12.0, 12.0)),
        ("(1,234)", (1234.0, 1234.0)),
        ("abc", ("abc", "abc")),
        ("5 thousand %", ("5e3e-2", "5")),
        ("2 billion shares", (2e9, 2.0)),
        ("3 miles", (3.0, 3.0)),
        ("", ("", "")),
    ],
)
def test_what_a_financial_text_is_worth(text: str, readings: tuple[object, object]) -> None:
    scaled, bare = readings
    assert grade("fintabnetqa_exact", text, text).extracted == str(scaled)
    assert grade("fintabnetqa", text, text).score == 1.0
    if isinstance(bare, float):
        assert grade("fintabnetqa", repr(bare), text).score == 1.0


@pytest.mark.parametrize(
    ("target", "text", "relieved", "exact"),
    [
        ("$641.8", "$641.8 million", 1.0, 0.0),
        ("39%", "39%", 1.0, 1.0),
        ("39%", "39", 1.0, 0.0),
        ("39%", "0.39", 1.0, 1.0),
        ("1234", "(1,234)", 1.0, 1.0),
        ("5", "5.01", 0.0, 0.0),
        ("nan", "nan", 0.0, 0.0),
    ],
)
def test_scale_is_forgiven_in_the_headline_alone(
    target: str, text: str, relieved: float, exact: float
) -> None:
    assert grade("fintabnetqa", text, target).score == relieved
    assert grade("fintabnetqa_exact", text, target).score == exact
