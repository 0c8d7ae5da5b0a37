from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medeval.analysis.held import HeldLabels, HeldResults, Labels
from medeval.store.records import SampleRecord
from medeval.types.sample import Sample
from tests.analysis.test_summary import result

SCORES = st.none() | st.floats(allow_nan=False, allow_infinity=False)


def record(name: str, cluster: str | None, groups: Mapping[str, str]) -> SampleRecord:
    sample = Sample(
        id=name,
        question="?",
        images=(),
        targets=(f"of {name}",),
        options=("x", "y"),
        groups=groups,
        cluster=cluster,
    )
    return SampleRecord.from_sample(sample, [])


@given(st.lists(st.tuples(SCORES, st.none() | st.text(), st.booleans())))
def test_results_come_back_as_they_were(
    drawn: list[tuple[float | None, str | None, bool]],
) -> None:
    given_ones = [
        result(f"s{n // 2}", score, repeat=n % 2, answer=answer, called=called, attempted=n)
        for n, (score, answer, called) in enumerate(drawn)
    ]
    held = HeldResults(given_ones)
    assert (list(held), len(held)) == (given_ones, len(given_ones))
    assert all(one in held and held.get((one.sample_id, one.repeat)) == one for one in given_ones)
    assert held.n_decided == len(list(held.decided())) == sum(s is not None for s, *_ in drawn)
    assert held.get(("s0", 7)) is None
    assert HeldResults.of(held) is held


def test_labels_come_back_as_they_were() -> None:
    labels = HeldLabels([record("a", None, {"half": "first"}), record("b", "q", {})])
    assert labels["a"] == Labels(
        id="a", options=["x", "y"], targets=("of a",), groups={"half": "first"}, cluster=None
    )
    assert list(labels.labels()) == list(labels.values())
    assert (list(labels), len(labels), labels.has_groups) == (["a", "b"], 2, True)
    with pytest.raises(KeyError):
        labels["c"]


@pytest.mark.parametrize(
    ("clusters", "alike"),
    [
        ({"a": None, "b": None, "c": None}, []),
        ({"a": "q", "b": "q", "c": None}, ["ab"]),
        ({"a": None, "b": "a", "c": "a"}, ["ab", "ac", "bc"]),
    ],
)
def test_a_sample_without_a_cluster_is_its_own(
    clusters: dict[str, str | None], alike: list[str]
) -> None:
    labels = HeldLabels(record(name, cluster, {}) for name, cluster in clusters.items())
    pairs = ["ab", "ac", "bc"]
    assert [p for p in pairs if labels.cluster(p[0]) == labels.cluster(p[1])] == alike
