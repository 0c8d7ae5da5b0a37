"""Official aggregates on tables worked out by hand."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medeval.analysis.aggregates import (
    Scored,
    all_correct,
    group_means,
    group_scores,
    letter_consistency,
    mean_over_cycles,
    mean_over_samples,
    official_score,
    scored_results,
    weighted_average,
)
from medeval.analysis.pairs import Labels, Result
from medeval.errors import DataError
from medeval.types.verdict import VerdictStatus

# Three questions, each in four cycles: score and chosen option; the third lacks its last cycle.
#            cycle 0      cycle 1      cycle 2      cycle 3
# q1 single  1 "red"      1 "red"      1 "red"      1 "red"
# q2 single  1 "cat"      0 "dog"      1 "cat"      0 None
# q3 cross   0 "left"     0 "left"     1 "right"    -
TABLE: dict[tuple[str, str], list[tuple[int, str | None]]] = {
    ("q1", "single"): [(1, "red"), (1, "red"), (1, "red"), (1, "red")],
    ("q2", "single"): [(1, "cat"), (0, "dog"), (1, "cat"), (0, None)],
    ("q3", "cross"): [(0, "left"), (0, "left"), (1, "right")],
}
HR = [
    Scored(
        sample_id=f"{question}-{cycle}",
        score=float(score),
        groups={"category": category, "cycle": str(cycle)},
        cluster=question,
        choice=choice,
    )
    for (question, category), cells in TABLE.items()
    for cycle, (score, choice) in enumerate(cells)
]


def test_hr_bench_is_the_mean_over_cycles_of_each_cycles_mean() -> None:
    # cycles: 2/3, 1/3, 3/3, 1/2; their mean is 2.5/4, where the plain mean is 7/11
    assert mean_over_cycles(HR) == pytest.approx(0.625)
    assert official_score("mean over cycles", HR) == pytest.approx(0.625)
    assert official_score("mean over samples", HR) == pytest.approx(7 / 11)


def test_hr_bench_takes_the_mean_over_cycles_inside_each_category_too() -> None:
    # single: 2/2, 1/2, 2/2, 1/2; cross: 0, 0, 1 over the three cycles it has
    scores = group_scores("mean over cycles", HR, "category")
    assert scores == {"cross": pytest.approx(1 / 3), "single": pytest.approx(0.75)}


def test_of_the_complete_questions_one_is_right_and_consistent_throughout() -> None:
    assert all_correct(HR) == 0.5
    assert letter_consistency(HR) == 0.5
    assert all_correct(HR, size=3) == 0.0
    assert letter_consistency(HR, size=3) == 0.0


def test_a_question_answered_wrongly_with_one_option_is_consistent() -> None:
    wrong = [
        Scored(sample_id=str(cycle), score=0.0, cluster="q", choice="left") for cycle in range(4)
    ]
    assert (all_correct(wrong), letter_consistency(wrong)) == (0.0, 1.0)


def test_the_average_of_table_vqa_weighs_parts_by_their_samples() -> None:
    # the published parts of GPT-4V: 42.533, 52.0, 68.0, 79.6 average 54.5 over 1,500
    parts = {
        "vwtq": (0.42533, 750),
        "vwtq_syn": (0.52, 250),
        "vtabfact": (0.68, 250),
        "fintabnetqa": (0.796, 250),
    }
    assert round(100 * weighted_average(parts), 1) == 54.5


def test_chartqa_has_a_mean_for_each_type() -> None:
    scored = [
        Scored(sample_id=f"{kind}{index}", score=score, groups={"type": kind})
        for kind, scores in {"human": (1.0, 0.0), "augmented": (1.0, 1.0)}.items()
        for index, score in enumerate(scores)
    ]
    assert group_means(scored, "type") == {"augmented": 1.0, "human": 0.5}
    assert mean_over_samples(scored) == 0.75


@given(st.lists(st.sampled_from([0.0, 0.5, 1.0]), min_size=4, max_size=400))
def test_with_equally_many_samples_in_each_cycle_both_aggregates_agree(scores: list[float]) -> None:
    whole = scores[: len(scores) // 4 * 4]
    scored = [
        Scored(sample_id=str(index), score=score, groups={"cycle": str(index % 4)})
        for index, score in enumerate(whole)
    ]
    assert mean_over_cycles(scored) == pytest.approx(mean_over_samples(scored))


def test_results_are_read_with_their_samples_and_chosen_options() -> None:
    sample = Labels(
        id="s", options=("red", "blue"), targets=("B",), groups={"cycle": "0"}, cluster="q"
    )
    alone = replace(sample, id="t", cluster=None, options=())

    def result(name: str, repeat: int, score: float | None, answer: str | None) -> Result:
        status: VerdictStatus = "undecided" if score is None else "correct"
        return Result(
            sample_id=name, repeat=repeat, status=status, score=score, judge="choice#0",
            answer=answer, stop="answered", called=False, attempted=0, executed=0, observed=0,
        )  # fmt: skip

    results = [
        result("s", 0, 1.0, "(B)"),
        result("s", 1, 0.0, None),
        result("s", 2, None, "A"),
        result("t", 0, 1.0, "A"),
    ]
    groups = {"cycle": "0"}
    assert scored_results(results, {"s": sample, "t": alone}) == [
        Scored(sample_id="s", score=1.0, groups=groups, cluster="q#0", choice="blue"),
        Scored(sample_id="s", score=0.0, groups=groups, cluster="q#1", choice=None),
        Scored(sample_id="t", score=1.0, groups=groups, cluster="t#0", choice=None),
    ]


def test_what_has_no_value_is_refused() -> None:
    alone = Scored(sample_id="a", score=1.0)
    for mean in (mean_over_samples, mean_over_cycles):
        with pytest.raises(DataError, match="no decided sample"):
            mean([])
    with pytest.raises(DataError, match="no decided sample"):
        weighted_average({})
    for share in (all_correct, letter_consistency):
        with pytest.raises(DataError, match="no question has all of its 4 samples decided"):
            share([alone])
    with pytest.raises(DataError, match="'a' is in no group of 'cycle'"):
        mean_over_cycles([alone])
