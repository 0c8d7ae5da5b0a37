import pytest
from hypothesis import given
from hypothesis import strategies as st

from medeval.analysis.agreement import VerdictPair, agreement, cohens_kappa, disagreement_rows
from medeval.store.keys import CellKey
from medeval.types.verdict import VerdictStatus

CELL = CellKey("m", 20, "vstar", "free")
LABELS = st.sampled_from(["correct", "incorrect"])
PAIRS = st.lists(st.tuples(LABELS, LABELS), max_size=30)


def compared(*pairs: tuple[VerdictStatus, VerdictStatus]) -> list[VerdictPair]:
    return [
        VerdictPair(cell=CELL, sample_id=f"s{index}", repeat=0, first=first, second=second)
        for index, (first, second) in enumerate(pairs)
    ]


@pytest.mark.parametrize(
    ("table", "kappa"),
    [
        # both correct, first alone, second alone, both incorrect
        ((20, 5, 10, 15), 0.4),
        ((45, 15, 25, 15), 0.1304),
        ((25, 35, 5, 35), 0.2593),
        ((10, 0, 0, 10), 1.0),
        ((0, 10, 10, 0), -1.0),
        ((5, 5, 5, 5), 0.0),
        ((7, 0, 0, 0), None),
        ((0, 0, 0, 0), None),
    ],
)
def test_kappa_of_worked_tables(table: tuple[int, int, int, int], kappa: float | None) -> None:
    labels = [("y", "y"), ("y", "n"), ("n", "y"), ("n", "n")]
    pairs = [label for label, count in zip(labels, table, strict=True) for _ in range(count)]
    found = cohens_kappa(pairs)
    assert found == (None if kappa is None else pytest.approx(kappa, abs=5e-5))


@given(PAIRS)
def test_kappa_is_symmetric_and_at_most_1(pairs: list[tuple[str, str]]) -> None:
    kappa = cohens_kappa(pairs)
    swapped = cohens_kappa([(second, first) for first, second in pairs])
    assert kappa == (None if swapped is None else pytest.approx(swapped))
    if kappa is not None:
        assert -1.0 - 1e-9 <= kappa <= 1.0
        assert (kappa == 1.0) == all(first == second for first, second in pairs)


def test_undecided_answers_are_counted_apart_and_listed() -> None:
    found = agreement(
        "a#1",
        "b#2",
        compared(
            ("correct", "correct"),
            ("incorrect", "incorrect"),
            ("correct", "incorrect"),
            ("undecided", "incorrect"),
            ("undecided", "undecided"),
        ),
    )
    assert (found.n, found.undecided) == (3, 2)
    assert found.agreed == pytest.approx(2 / 3)
    assert [item.sample_id for item in found.disagreements] == ["s2", "s3"]
    assert disagreement_rows(found)[0] == (
        "a#1", "b#2", "m/20", "vstar", "free", "s2", "0", "correct", "incorrect",
    )  # fmt: skip


def test_nothing_in_common_is_undefined() -> None:
    found = agreement("a", "b", [])
    assert (found.n, found.agreed, found.kappa, found.disagreements) == (0, None, None, ())
