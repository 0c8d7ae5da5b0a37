"""A judge's reply says one of two things plainly, or it says nothing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medeval.errors import JudgeError
from medeval.scoring.judge_prompt import RIGHT_OR_WRONG, SCORE, YES_OR_NO, Ruling, filled

ANY_TEXT = st.text() | st.sampled_from(
    ["\x00\x1b[0m", "{" * 50_000, '{"a":' * 5_000, "[" * 50_000, "nan", "1e999", "\ud800"]
)


@pytest.mark.parametrize(
    ("ruling", "reply", "score"),
    [
        (RIGHT_OR_WRONG, '{"verdict": "correct"}', 1.0),
        (RIGHT_OR_WRONG, '{"verdict": "incorrect"}', 0.0),
        (RIGHT_OR_WRONG, '{"verdict": "INCORRECT"}', 0.0),
        (RIGHT_OR_WRONG, "CORRECT", 1.0),
        (RIGHT_OR_WRONG, "INCORRECT", 0.0),
        (RIGHT_OR_WRONG, "**Incorrect.**\n", 0.0),
        (RIGHT_OR_WRONG, "Correct, because both name the same city.", None),
        (RIGHT_OR_WRONG, "not correct", None),
        (RIGHT_OR_WRONG, "Not incorrect!", None),
        (RIGHT_OR_WRONG, "correct or incorrect", None),
        (RIGHT_OR_WRONG, '{"verdict": "correct and incorrect"}', None),
        (RIGHT_OR_WRONG, '{"verdict": null}', None),
        (RIGHT_OR_WRONG, '{"verdict": "corr', None),
        (RIGHT_OR_WRONG, '{"Verdict": "correct"}', None),
        (RIGHT_OR_WRONG, '{"verdict": "correct", "verdict": "incorrect"}', None),
        (RIGHT_OR_WRONG, '{"verdict": "correct"} {"verdict": "incorrect"}', None),
        (RIGHT_OR_WRONG, '{"verdict": "correct"} as I said: {"verdict": "correct"}', 1.0),
        (RIGHT_OR_WRONG, 'Sure!\n```json\n{"verdict": "incorrect"}\n```', 0.0),
        (RIGHT_OR_WRONG, '{"why": {"verdict": "correct"}}', None),
        (RIGHT_OR_WRONG, 'set {x} {"verdict": "correct"}', 1.0),
        (RIGHT_OR_WRONG, '<think>{"verdict": "correct"}</think>{"verdict": "incorrect"}', 0.0),
        (RIGHT_OR_WRONG, '<think>{"verdict": "correct"}', None),
        (RIGHT_OR_WRONG, "", None),
        (SCORE, '{"score": 1}', 1.0),
        (SCORE, '{"score": 0}', 0.0),
        (SCORE, '{"score": 1.0}', 1.0),
        (SCORE, '{"score": "1"}', 1.0),
        (SCORE, '{"score": true}', None),
        (SCORE, '{"score": 2}', None),
        (SCORE, '{"score": 0.5}', None),
        (SCORE, '{"score": -1}', None),
        (SCORE, '{"score": NaN}', None),
        (SCORE, '{"score": ## an integer, 0 or 1 ##}', None),
        (SCORE, " 1\n", 1.0),
        (SCORE, "0", 0.0),
        (SCORE, "10", None),
        (SCORE, "Score: 1", None),
        (YES_OR_NO, "Yes.", 1.0),
        (YES_OR_NO, "no", 0.0),
        (YES_OR_NO, "None", None),
        (YES_OR_NO, "Yes and no", None),
        (YES_OR_NO, "I cannot help with that.", None),
        (YES_OR_NO, "yes" + " " * 30_000 + "!", None),
        (YES_OR_NO, "yes" + "." * 30_000 + "no", None),
    ],
)
def test_a_reply_is_read_or_left_open(ruling: Ruling, reply: str, score: float | None) -> None:
    grade = ruling.read(reply)
    assert grade.score == score
    assert reply in grade.reason or repr(reply) in grade.reason


@given(ANY_TEXT, st.sampled_from([RIGHT_OR_WRONG, SCORE, YES_OR_NO]))
def test_no_text_breaks_the_reading_and_none_is_a_guess(reply: str, ruling: Ruling) -> None:
    assert ruling.read(reply).score in (None, 0.0, 1.0)


@given(st.text(alphabet='in corectINCORET\n.!*{}":verdt', max_size=40))
def test_only_a_reply_that_says_so_is_correct(reply: str) -> None:
    if RIGHT_OR_WRONG.read(reply).score == 1.0:
        assert "correct" in reply.lower()
        assert "incorrect" not in reply.lower()


def test_the_extracted_answer_is_kept_where_the_reply_repeats_it() -> None:
    ruling = Ruling(key="score", correct=("1",), incorrect=("0",), extracted=("a", "b"))
    assert ruling.read('{"b": 3, "score": 1}').extracted == "3"
    assert ruling.read("1").extracted is None


@given(st.text(), st.text())
def test_what_is_filled_in_is_never_a_place(question: str, answer: str) -> None:
    values = {"question": question, "answer": f"<|question|>{answer}"}
    assert filled("<|answer|>", values) == f"<|question|>{answer}"


def test_a_place_without_a_value_is_refused() -> None:
    with pytest.raises(JudgeError, match=r"asks for \['target'\]; given: \['answer'\]"):
        filled("<|answer|> <|target|>", {"answer": "x"})
