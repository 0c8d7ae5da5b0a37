import pytest
from hypothesis import given
from hypothesis import strategies as st

from medeval.store.fingerprints import canonical_json, differences, fingerprint

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=3)
    ),
    max_leaves=8,
)
field_sets = st.dictionaries(st.sampled_from("abc"), values, max_size=3)


def test_order_of_fields_and_kind_of_number_do_not_change_a_fingerprint() -> None:
    assert fingerprint({"a": 1, "b": [0.0, 2]}) == fingerprint({"b": (0, 2.0), "a": 1.0})


def test_true_is_not_one() -> None:
    assert fingerprint({"a": True}) != fingerprint({"a": 1})


def test_number_that_json_lacks_is_refused() -> None:
    with pytest.raises(ValueError, match="Out of range float"):
        canonical_json({"a": float("nan")})


@given(field_sets, field_sets)
def test_fingerprints_differ_exactly_where_a_difference_is_named(
    before: dict[str, object], now: dict[str, object]
) -> None:
    assert (fingerprint(before) != fingerprint(now)) == bool(differences(before, now))


@pytest.mark.parametrize(
    ("before", "now", "lines"),
    [
        ({"seed": 0}, {"seed": 1}, ["seed: recorded 0, now 1"]),
        (
            {"sampling": {"temperature": 0.0, "top_p": None}},
            {"sampling": {"temperature": 0.7, "top_p": None}},
            ["sampling.temperature: recorded 0, now 0.7"],
        ),
        ({"dtype": "bf16"}, {}, ['dtype: recorded "bf16", now nothing']),
        ({}, {"dtype": "bf16"}, ['dtype: recorded nothing, now "bf16"']),
        (
            {"tools": {}},
            {"tools": {"a": 1}},
            [
                "tools: recorded {}, now nothing",
                "tools.a: recorded nothing, now 1",
            ],
        ),
        ({"prompt": "ab"}, {"prompt": "abc"}, ['prompt: recorded "ab", now "abc"']),
    ],
)
def test_difference_names_field_and_both_values(
    before: dict[str, object], now: dict[str, object], lines: list[str]
) -> None:
    assert differences(before, now) == lines


def test_long_values_are_shown_where_they_first_differ() -> None:
    before, now = {"template": "a" * 500 + "X" + "b" * 500}, {"template": "a" * 500 + "Y"}

    (line,) = differences(before, now)

    assert "X" in line
    assert "Y" in line
    assert len(line) < 220


def test_long_value_that_is_new_is_shown_from_its_beginning() -> None:
    assert differences({}, {"a": "x" * 200}) == [f'a: recorded nothing, now "{"x" * 79}...']
