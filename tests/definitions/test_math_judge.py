"""MED's rule verifier: equal as mathematics, whatever the notation."""

import sys
import threading

import pytest

from medeval.errors import JudgeError, MedevalError, UsageError
from medeval.evaluation.loader import load
from medeval.evaluation.plan import ready_judge
from medeval.scoring.judge import Judge
from medeval.scoring.math import MAX_CHARACTERS, are_equal, check_installed
from medeval.types.sample import Sample
from medeval.types.trajectory import Answer
from medeval.types.verdict import Grade

MATH = load("math", Judge)


def score(text: str, *targets: str) -> float | None:
    sample = Sample(id="s", question="?", images=(), targets=targets)
    graded = MATH.value.grade(sample, Answer(text=text, how_found="boxed", reply=text))
    assert isinstance(graded, Grade)
    return graded.score


@pytest.mark.parametrize(
    ("target", "text", "expected"),
    [
        ("A", "A", 1.0),
        ("A", "a", 1.0),
        ("A", "B", 0.0),
        ("0.5", r"\frac{1}{2}", 1.0),
        ("0.5", r"\boxed{\frac{1}{2}}", 1.0),
        (r"\boxed{3}", "3.0", 1.0),
        ("50%", "0.5", 1.0),
        ("12", "12 cm", 1.0),
        ("1/3", "0.3333", 0.0),
        ("dog", "god", 0.0),
        ("yes", "no", 0.0),
        ("blue", "the blue one", 0.0),
    ],
)
def test_notation_does_not_matter(target: str, text: str, expected: float) -> None:
    pytest.importorskip("math_verify")
    assert score(text, target) == expected


def test_any_of_the_targets_will_do() -> None:
    pytest.importorskip("math_verify")
    assert score("2", "1", "2.0") == 1.0


def test_what_takes_too_long_is_wrong_and_stops_nobody(caplog: pytest.LogCaptureFixture) -> None:
    pytest.importorskip("math_verify")
    assert score(r"9^{9^{9^9}}", "9") == 0.0
    assert score("1" * (MAX_CHARACTERS + 1), "1") == 0.0


def test_without_the_package_a_plan_is_refused_with_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "math_verify", None)
    for name in ("math", "med"):
        with pytest.raises(UsageError, match="needs the package math-verify") as caught:
            ready_judge(load(name, Judge), None)
        assert caught.value.hint == "pip install 'medeval[math]'"
    with pytest.raises(UsageError):
        check_installed()
    assert are_equal("same text", "Same Text")


def test_outside_the_main_thread_it_does_not_look() -> None:
    pytest.importorskip("math_verify")
    seen: list[MedevalError] = []

    def compare() -> None:
        try:
            are_equal("1", "2")
        except JudgeError as error:
            seen.append(error)

    thread = threading.Thread(target=compare)
    thread.start()
    thread.join()
    assert "main thread" in seen[0].message
