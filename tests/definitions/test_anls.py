import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medeval.evaluation.loader import load
from medeval.scoring.judge import Judge
from medeval.types.sample import Sample
from medeval.types.trajectory import Answer
from medeval.types.verdict import Grade

SHARED = Path(__file__).parents[3] / "shared" / "data" / "docvqa"
ANLS = load("anls", Judge).value
ANLS_LMMS = load("anls_lmms", Judge).value


def grade(text: str, *targets: str, judge: Judge = ANLS) -> Grade:
    sample = Sample(id="s", question="?", images=(), targets=targets)
    graded = judge.grade(sample, Answer(text=text, how_found="answer_tag", reply=text))
    assert isinstance(graded, Grade)
    return graded


@pytest.mark.parametrize(
    ("target", "text", "score"),
    [
        ("0.28", "8.22", 0.5),
        ("", "", 1.0),
        ("abc", "abc   ", 1.0),
        # the script scores 0.5 here, for the padding
        ("abc", "xyz   ", 0.0),
        ("abc", "abd", 1 - 1 / 3),
        ("ITC Limited", "itc limited", 1.0),
        ("ITC Limited", "itc", 0.0),
        ("Likely", "Unlikely", 0.75),
        # lengths are taken before whitespace is collapsed, as in the script
        ("a  b", "a b", 1.0),
        ("a    b", "a c", 1 - 1 / 6),
        ("abcd", "", 0.0),
        # 'ß' is one character, and two in upper case
        ("ß", "x", 0.5),
    ],
)
def test_the_score_is_the_challenges(target: str, text: str, score: float) -> None:
    assert grade(text, target).score == pytest.approx(score, abs=0)


@pytest.mark.parametrize(
    ("target", "text", "score"),
    [
        ("abc", "xyz   ", 0.5),
        ("abc", "abc   ", 1.0),
        ("abc", "abd   ", 1 - 1 / 6),
        ("0.28", "8.22", 0.5),
        ("", "", 1.0),
    ],
)
def test_padding_counts_in_the_other_harness(target: str, text: str, score: float) -> None:
    assert grade(text, target, judge=ANLS_LMMS).score == pytest.approx(score, abs=0)


def test_padding_is_that_of_the_reply_where_the_reply_is_the_answer() -> None:
    sample = Sample(id="s", question="?", images=(), targets=("abc",))
    scores = []
    for reply in ("xyz   ", "<answer>xyz   </answer>"):
        graded = ANLS_LMMS.grade(sample, Answer(text="xyz", how_found="rule", reply=reply))
        assert isinstance(graded, Grade)
        scores.append(graded.score)
    assert scores == [0.5, 0.0]


def test_exactly_half_is_correct() -> None:
    assert ANLS.correct_at == 0.5
    assert grade("8.22", "0.28").score == ANLS.correct_at


def test_the_best_target_counts() -> None:
    assert grade("itc limited", "Pepsi", "ITC Limited").score == 1.0


@given(
    st.text() | st.sampled_from(["nan", "1e999", "\x00\x1b", "x" * 100_000]),
    st.lists(st.text(), min_size=1, max_size=3),
)
def test_any_text_gets_0_or_a_share_from_one_half_to_1(text: str, targets: list[str]) -> None:
    for judge in (ANLS, ANLS_LMMS):
        score = grade(text, *targets, judge=judge).score
        assert score is not None
        assert score == 0.0 or 0.5 <= score <= 1.0


@given(st.text(), st.text())
def test_it_is_symmetric_but_for_padding(first: str, second: str) -> None:
    first, second = first.strip(), second.strip()
    assert grade(first, second).score == grade(second, first).score


@given(st.integers(1, 40), st.data())
def test_more_wrong_characters_never_score_higher(length: int, data: st.DataObject) -> None:
    n_wrong = sorted(data.draw(st.tuples(st.integers(0, length), st.integers(0, length))))
    fewer, more = ("b" * n + "a" * (length - n) for n in n_wrong)
    better, worse = grade(fewer, "a" * length).score, grade(more, "a" * length).score
    assert better is not None
    assert worse is not None
    assert better >= worse


@pytest.mark.skipif(not SHARED.is_dir(), reason="no ../shared/data beside the project")
def test_real_predictions_get_their_published_scores() -> None:
    scored = 0
    for path in SHARED.glob("*.jsonl"):
        for line in path.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            for prediction in row["real_predictions"].values():
                score = grade(prediction["pred"], *row["answers"]).score
                assert score == pytest.approx(prediction["anls"], abs=5e-5), row["id"]
                scored += 1
    assert scored == 26
