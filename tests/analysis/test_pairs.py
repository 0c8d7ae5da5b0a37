from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medeval.analysis.pairs import PairName, Result, join_verdicts, pair_outcomes
from medeval.types.outcome import OutcomeRecord
from medeval.types.sample import Sample, SampleRecord
from medeval.types.trajectory import Answer, CallStatus, ToolCall, Trajectory
from medeval.types.verdict import Verdict, VerdictStatus
from tests.analysis.test_summary import result

NAME = PairName(checkpoint="baseline/0", series="rl", step=0, benchmark="small", pair="small_pair")


def sample(name: str, **changes: Any) -> SampleRecord:
    value = Sample(id=name, question="?", images=(), targets=("A",), **changes)
    return SampleRecord.from_sample(value, ())


def trajectory(name: str, repeat: int = 0, **changes: Any) -> Trajectory:
    values: dict[str, Any] = {
        "sample_id": name,
        "repeat": repeat,
        "protocol": "available",
        "messages": (),
        "images": (),
        "turns": (),
        "calls": (),
        "answer": Answer(text="A", how_found="answer_tag", reply="<answer>A</answer>"),
        "stop": "answered",
        "seconds": 1.0,
        **changes,
    }
    return Trajectory(**values)


def verdict(name: str, status: VerdictStatus = "correct", **changes: Any) -> Verdict:
    score = {"correct": 1.0, "incorrect": 0.0, "undecided": None}[status]
    values: dict[str, Any] = {"repeat": 0, "judge": "j#1", "score": score, **changes}
    return Verdict(sample_id=name, status=status, **values)


def outcomes(
    samples: list[str], free: list[Result], available: list[Result]
) -> list[OutcomeRecord]:
    return list(pair_outcomes(NAME, [sample(name) for name in samples], free, available))


def test_a_trajectory_meets_the_verdict_of_its_id_repeat_and_judge() -> None:
    joined = join_verdicts(
        [trajectory("a"), trajectory("a", 1), trajectory("b"), trajectory("c", answer=None)],
        [
            verdict("a", "incorrect"),
            verdict("a", "correct"),
            verdict("a", repeat=1),
            verdict("b", judge="other#2"),
            verdict("c", "incorrect"),
        ],
        "j#1",
    )
    found = [(r.sample_id, r.repeat, r.status, r.answer) for r in joined]
    assert found == [
        ("a", 0, "correct", "A"),
        ("a", 1, "correct", "A"),
        ("c", 0, "incorrect", None),
    ]


def test_a_result_counts_the_calls_of_its_trajectory() -> None:
    made: list[tuple[CallStatus, bool]] = [
        ("executed", True),
        ("executed", False),
        ("malformed", True),
        ("over_limit", False),
    ]
    calls = tuple(
        ToolCall(turn=0, name="crop", raw_text="", arguments={}, status=status, observed=observed)
        for status, observed in made
    )
    (found,) = join_verdicts([trajectory("a", calls=calls)], [verdict("a")], "j#1")
    assert (found.called, found.attempted, found.executed, found.observed) == (True, 4, 2, 1)


def test_arms_pair_by_id_and_repeat_in_the_order_of_the_samples() -> None:
    free = [result("b", 1.0), result("a", 0.0, repeat=1), result("a", 1.0), result("c", 1.0)]
    available = [
        result("a", 0.0, called=True, attempted=3, executed=2, observed=1, answer="C"),
        result("b", None),
        result("a", 1.0, repeat=1),
        result("d", 1.0),
    ]
    found = outcomes(["a", "b", "c", "d"], free, available)
    assert [(o.sample_id, o.repeat, o.free_correct, o.available_correct) for o in found] == [
        ("a", 0, True, False),
        ("a", 1, False, True),
        ("b", 0, True, None),
    ]
    first = found[0]
    assert (first.called, first.calls_attempted, first.calls_executed) == (True, 3, 2)
    assert (first.free_answer, first.available_answer, first.targets) == ("A", "C", ("A",))
    assert (first.checkpoint, first.series, first.step) == ("baseline/0", "rl", 0)
    assert (found[2].free_score, found[2].available_score) == (1.0, None)


@pytest.mark.parametrize("missing", ["free", "available"])
def test_a_sample_unscored_in_one_arm_has_no_outcome(missing: str) -> None:
    both = [result("a", 1.0), result("b", 0.0)]
    arms = {"free": both, "available": both, missing: both[:1]}
    assert [o.sample_id for o in outcomes(["a", "b"], **arms)] == ["a"]


def test_groups_and_cluster_come_from_the_sample() -> None:
    described = sample("a", groups={"half": "first"}, cluster="x")
    (found,) = pair_outcomes(NAME, [described], [result("a", 1.0)], [result("a", 1.0)])
    assert (found.groups, found.cluster) == ({"half": "first"}, "x")


@given(st.permutations("abcdef"), st.permutations("abcdef"))
def test_the_order_of_the_arms_does_not_matter(free: list[str], available: list[str]) -> None:
    scores = {name: float(index % 2) for index, name in enumerate("abcdef")}
    found = outcomes(
        list("abcdef"),
        [result(name, scores[name]) for name in free],
        [result(name, 1 - scores[name]) for name in available],
    )
    assert [o.sample_id for o in found] == list("abcdef")
    assert all(o.free_correct is not o.available_correct for o in found)
