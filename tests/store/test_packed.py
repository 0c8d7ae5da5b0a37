import pytest
from hypothesis import given
from hypothesis import strategies as st

from medeval.store.packed import Numbered, SampleKeys, Table, Texts, VerdictKeys

# lone surrogates included, which a file of JSON may hold
TEXT = st.text(st.characters(exclude_categories=()))
KEYS = st.lists(st.tuples(TEXT, st.integers(0, 12)))


@given(st.lists(st.binary(max_size=3)))
def test_a_table_places_each_item_once_in_the_order_of_their_coming(items: list[bytes]) -> None:
    table, order = Table(), list(dict.fromkeys(items))
    assert [table.add(item) for item in items] == [order.index(item) for item in items]
    assert list(table) == order
    assert [table.place(item) for item in order] == list(range(len(order)))
    assert table.place(b"longer than any") is None


def test_a_table_that_outgrows_its_slots_finds_all() -> None:
    table = Table()
    assert [table.add(b"%d" % number) for number in range(5000)] == list(range(5000))
    assert [table.place(b"%d" % number) for number in range(5000)] == list(range(5000))
    assert table.place(b"5000") is None


@given(st.lists(TEXT))
def test_texts_are_the_list_they_were(texts: list[str]) -> None:
    held = Texts(texts)
    assert (list(held), len(held), held[1:]) == (texts, len(texts), texts[1:])
    assert not texts or held[-1] == texts[-1]
    with pytest.raises(IndexError):
        held[len(texts)]


@given(KEYS, KEYS)
def test_sample_keys_are_a_set(first: list[tuple[str, int]], second: list[tuple[str, int]]) -> None:
    one, two = SampleKeys(first), SampleKeys(second)
    assert list(one) == list(dict.fromkeys(first))
    assert set(one | two) == {*first, *second}
    assert set(one - two) == set(first) - set(second)
    assert (one <= two) == (set(first) <= set(second))
    assert all(key in one and one[one.add(key)] == key for key in first)
    others: list[object] = ["a", ("a", "b")]
    assert not any(other in one for other in others)


@given(st.lists(st.tuples(TEXT, st.integers(0, 3), st.sampled_from("ab"))))
def test_verdict_keys_are_a_set(keys: list[tuple[str, int, str]]) -> None:
    held = VerdictKeys(keys)
    assert (set(held), len(held)) == (set(keys), len(set(keys)))
    assert all(key in held for key in keys)
    others: list[object] = [("a", 0, "another judge"), ("a", 0)]
    assert not any(other in held for other in others)


def test_the_last_number_of_a_key_holds() -> None:
    numbers = Numbered()
    numbers["a", 0] = 1
    numbers["a", 1] = 2
    numbers["a", 0] = 3
    assert [numbers.get(("a", 0)), numbers.get(("a", 1)), numbers.get(("b", 0))] == [3, 2, None]
