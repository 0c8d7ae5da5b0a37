import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from medeval.errors import RecordError, UsageError
from medeval.interop.med.csv_files import med_csv
from medeval.interop.med.import_run import import_med
from medeval.store.run_folder import RunFolder
from tests.interop.med.med_tree import (
    BASELINE,
    EXPERIMENT,
    line,
    log_path,
    write_cell,
    write_log,
    write_reference_tree,
)

GOLDEN = {
    "wo_tool_score": 0.45,
    "w_tool_score": 0.5,
    "term1": 0.025,
    "term2": 0.1,
    "term3": 0,
    "term4": 0.075,
    "call_num": 11,
    "call_sum": 32,
    "N_fail": 22,
    "N_succ": 18,
    "N_call_fail": 5,
    "p_call_fail": 0.227273,
    "p_acc_call_fail": 0.2,
    "p_err_call_succ": 0,
    "term1_0": 0.1,
    "p_fail_0": 0.6,
    "p_call_fail_0": 0.291667,
    "p_acc_call_fail_0": 0.571429,
    "term1_0_t": 0,
    "p_fail_0_t": 0.375,
    "p_succ_0_t": 0.225,
}


def table(folder: RunFolder, series: str) -> pd.DataFrame:
    return pd.read_csv(io.StringIO(med_csv(folder, series)))


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    directory = tmp_path_factory.mktemp("reference")
    return import_med(write_reference_tree(directory), directory / "run").folder


def test_the_reference_tree_gives_the_golden_values(reference: RunFolder) -> None:
    frame = table(reference, EXPERIMENT)
    (row,) = frame[(frame["step"] == 10) & (frame["benchmark"] == "vstar")].to_dict("records")
    assert {name: row[name] for name in GOLDEN} == pytest.approx(GOLDEN, abs=5e-7)
    assert row["json_path"] == f"evals/{EXPERIMENT}/global_step_10/vstar/evaluation_results.json"


def test_the_table_has_110_columns_in_the_original_order(reference: RunFolder) -> None:
    frame = table(reference, EXPERIMENT)
    head = ["step", "benchmark", "json_path", "wo_tool_score", "w_tool_score"]
    split = [
        *("term1", "term2", "term3", "term4", "call_num", "call_sum"),
        *("wo_tool_total", "w_tool_total", "wo_tool_correct_num", "wo_tool_incorrect_num"),
        *("w_tool_correct_num", "w_tool_incorrect_num", "w_tool_call_num", "w_tool_no_call_num"),
        *("term1_num", "term2_num", "term3_num", "term4_num", "N_fail", "N_succ", "N_call_fail"),
        *("p_fail", "p_succ", "p_call_fail", "p_nocall_fail", "p_call_succ", "p_nocall_succ"),
        *("p_acc_call_fail", "p_acc_nocall_fail", "p_err_call_succ", "p_err_nocall_succ"),
        *("p_acc_call_succ", "p_acc_nocall_succ", "p_err_call_fail", "p_err_nocall_fail"),
    ]
    suffixed = [f"{name}{suffix}" for suffix in ("", "_0", "_0_t") for name in split]
    assert list(frame.columns) == [*head, *suffixed]
    assert frame.shape == (30, 110)
    assert list(frame["step"]) == sorted(frame["step"])


def test_the_baseline_has_a_table_of_its_own_whose_splits_agree(reference: RunFolder) -> None:
    frame = table(reference, "baseline")
    assert frame.shape == (6, 110)
    assert set(frame["step"]) == {0}
    for suffix in ("_0", "_0_t"):
        assert (frame["term1"] == frame[f"term1{suffix}"]).all()


def test_s_tool_of_the_original_comes_out_of_the_tables(reference: RunFolder) -> None:
    frame = pd.concat([table(reference, "baseline"), table(reference, EXPERIMENT)])
    drifts = []
    for _, group in frame.groupby("benchmark"):
        scores = group.sort_values("step")[["wo_tool_score", "w_tool_score"]].to_numpy()
        drift = scores - scores[0]
        drifts.append(drift / np.abs(drift).max())
    free, available = np.mean(drifts, axis=0).T
    steps = np.array(sorted(set(frame["step"])))
    tool = np.trapezoid(np.abs(available - free), steps)
    assert tool / (tool + np.trapezoid(np.abs(free), steps)) == pytest.approx(0.236888, abs=5e-7)


def test_a_benchmark_that_the_baseline_lacks_has_no_fixed_columns(tmp_path: Path) -> None:
    evals = tmp_path / "evals"
    write_cell(evals / BASELINE / "vstar", [1, 0], [1, 1], [0, 1])
    for benchmark in ("vstar", "hrbench4k"):
        write_cell(evals / EXPERIMENT / "global_step_5" / benchmark, [1, 0], [0, 1], [2, 0])
    frame = table(import_med(tmp_path, tmp_path / "run").folder, EXPERIMENT).set_index("benchmark")
    assert frame["term1_0"].isna().to_dict() == {"vstar": False, "hrbench4k": True}
    assert frame.loc["vstar", "term2_0"] == 0.5


def test_without_a_baseline_the_earliest_step_splits(tmp_path: Path) -> None:
    evals = tmp_path / "evals" / "mine"
    write_cell(evals / "global_step_5" / "vstar", [1, 0], [1, 0], [0, 0])
    write_cell(evals / "global_step_6" / "vstar", [0, 1], [1, 1], [1, 0])
    frame = table(import_med(tmp_path, tmp_path / "run").folder, "mine").set_index("step")
    assert frame.loc[6, "term1"] == 0.5
    assert frame.loc[6, "term1_0"] == 0.0


def test_an_unknown_series_is_refused(reference: RunFolder) -> None:
    with pytest.raises(UsageError, match="no series 'other'"):
        med_csv(reference, "other")
    with pytest.raises(UsageError, match="no pair 'other'; the run has: med"):
        med_csv(reference, EXPERIMENT, pair="other")


def test_an_unscored_sample_is_refused_or_left_out_everywhere(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    evals = tmp_path / "evals" / "mine"
    write_cell(evals / "global_step_5" / "vstar", [1, 0, 1], [1, 0, 0], [0, 0, 1])
    later = write_cell(evals / "global_step_6" / "vstar", [0, 1, 1], [1, 1, 1], [1, 0, 0])
    write_log(log_path(later, "tool_agent"), [line(1, 1), line(None), line(1, 0)])
    folder = import_med(tmp_path, tmp_path / "run").folder
    with pytest.raises(RecordError, match="without an outcome at some checkpoint: 'line-000002'"):
        med_csv(folder, "mine")
    frame = pd.read_csv(io.StringIO(med_csv(folder, "mine", allow_missing=True)))
    assert list(frame["w_tool_total"]) == [2, 2]
    assert list(frame["wo_tool_score"]) == [1.0, 0.5]
    assert "unscored at a checkpoint: 'line-000002'" in caplog.text


bits = st.integers(0, 1)
cells = st.lists(st.tuples(bits, bits, st.integers(0, 3), bits), min_size=1, max_size=12)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(rows=cells)
def test_terms_sum_to_the_gaps_and_are_their_factors(
    rows: list[tuple[int, int, int, int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    directory = tmp_path_factory.mktemp("tree")
    free, available, calls, before = ([row[i] for row in rows] for i in range(4))
    write_cell(directory / "evals" / BASELINE / "vstar", before, before, [0] * len(rows))
    write_cell(directory / "evals" / EXPERIMENT / "global_step_1" / "vstar", free, available, calls)
    (row,) = table(import_med(directory, directory / "run").folder, EXPERIMENT).to_dict("records")
    share_now, share_then, share_with = (np.mean(column) for column in (free, before, available))
    for suffix, gap in (("", share_with - share_now), ("_0", share_with - share_then)):
        terms = [row[f"term{n}{suffix}"] for n in (1, 2, 3, 4)]
        assert terms[0] + terms[1] - terms[2] - terms[3] == pytest.approx(gap)
    for suffix in ("", "_0", "_0_t"):
        for term, names in {
            "term1": ("p_fail", "p_call_fail", "p_acc_call_fail"),
            "term2": ("p_fail", "p_nocall_fail", "p_acc_nocall_fail"),
            "term3": ("p_succ", "p_call_succ", "p_err_call_succ"),
            "term4": ("p_succ", "p_nocall_succ", "p_err_nocall_succ"),
        }.items():
            product = np.prod([row[f"{name}{suffix}"] for name in names])
            assert row[f"{term}{suffix}"] == pytest.approx(product)
