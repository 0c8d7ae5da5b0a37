from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medeval.errors import RecordError
from medeval.store.keys import CellKey, OutcomeKey, quoted, unquoted

names = st.text(min_size=1, max_size=20)
steps = st.none() | st.integers(min_value=0, max_value=10**9)


@pytest.mark.parametrize(
    ("key", "checkpoint", "path"),
    [
        (CellKey("rl", 20, "vstar", "tool_free"), "rl/20", "rl/20/vstar/tool_free"),
        (CellKey("gpt", None, "vstar", "tool_free"), "gpt", "gpt/single/vstar/tool_free"),
        (CellKey("a/b c", 0, "x", "y"), "a/b c/0", "a%2Fb%20c/0/x/y"),
        (CellKey("..", 0, ".x", "v1.5"), "../0", "%2E%2E/0/%2Ex/v1.5"),
    ],
)
def test_cell_has_a_checkpoint_id_and_a_path(key: CellKey, checkpoint: str, path: str) -> None:
    assert (key.checkpoint, key.relative_path) == (checkpoint, Path(path))


@given(names)
def test_any_name_is_one_path_component_and_reads_back(name: str) -> None:
    component = quoted(name)

    assert Path(component).parts == (component,)
    assert not component.startswith(".")
    assert unquoted(component) == name


@given(names, steps, names, names)
def test_cell_key_reads_back_from_its_path(
    series: str, step: int | None, benchmark: str, protocol: str
) -> None:
    key = CellKey(series, step, benchmark, protocol)

    assert CellKey.from_path(key.relative_path) == key


@given(names, steps, names, names, st.none() | names)
def test_outcome_key_reads_back_from_its_path(
    series: str, step: int | None, benchmark: str, pair: str, judge: str | None
) -> None:
    key = OutcomeKey(series, step, benchmark, pair, judge)

    assert OutcomeKey.from_path(key.relative_path) == key


def test_outcomes_of_a_judge_have_its_identity_in_their_name() -> None:
    key = OutcomeKey("rl", 20, "vstar", "crop_zoom", "choice@org/model#12345678")

    assert key.relative_path.name == "crop_zoom.choice%40org%2Fmodel%2312345678.jsonl"


def test_empty_name_is_refused() -> None:
    with pytest.raises(RecordError, match="empty"):
        quoted("")
