import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from medeval.errors import RecordError
from medeval.interop.med.export_run import export_med, export_med_csv
from medeval.interop.med.import_run import import_med
from medeval.store.run_folder import RunFolder
from medeval.types.outcome import OutcomeRecord
from tests.interop.med.med_tree import ARMS, log_path
from tests.interop.runs import Arms, Cells, Reply, write_run

RIGHT, WRONG, UNDECIDED = (Reply(is_correct=value) for value in (True, False, None))
CALLED = Reply(calls=("executed", "rejected", "malformed"))
PLAIN: Arms = ([RIGHT, WRONG, RIGHT], [CALLED, RIGHT, WRONG])


def read_log(place: Path, arm: str) -> list[dict[str, Any]]:
    return [json.loads(text) for text in log_path(place, arm).read_text().splitlines()]


def test_a_run_is_written_in_the_published_layout(tmp_path: Path) -> None:
    cells: Cells = {("baseline", 0, "vstar"): PLAIN, ("crop_rl", 10, "vstar"): PLAIN}
    files = export_med(write_run(tmp_path / "run", cells), tmp_path / "out")
    assert [str(path.relative_to(tmp_path / "out")) for path in files] == [
        f"evals/{place}/{name}"
        for place in (
            "baseline/Qwen2.5-VL-7B-Instruct/vstar",
            "qwen25vl_instruct_crop_rl/global_step_0000010/vstar",
        )
        for name in (
            "trajectories/vstar_bench_single_turn_agent_trajectories.jsonl",
            "trajectories/vstar_bench_tool_agent_trajectories.jsonl",
            "evaluation_results.json",
        )
    ]
    assert json.loads(files[-1].read_text()) == {"w/o tool": 2 / 3, "w/ tool": 2 / 3}


def test_lines_hold_the_released_fields_in_the_order_of_the_samples(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", {("m", None, "vstar"): PLAIN})
    export_med(folder, tmp_path)
    lines = read_log(tmp_path / "evals" / "m" / "vstar", ARMS[1])
    assert [line["uid"] for line in lines] == ["s0", "s1", "s2"]
    assert [line["accuracy_reward"] for line in lines] == [1, 1, 0]
    assert [line["tool_call_counts"] for line in lines] == [2, 0, 0]
    assert [line["response_length"] for line in lines] == [7, 7, 7]
    assert lines[0]["messages"][1]["content"][0]["type"] == "image_placeholder"
    said = lines[0]["messages"][2]["content"]
    assert [part["text"] for part in said] == [
        "<think>\nHm.\n</think>\n",
        '<tool_call>\n{"name": "crop", "arguments": {"box": [0, 1]}}\n</tool_call>',
    ]
    assert lines[0]["messages"][3]["role"] == "user"


@pytest.mark.parametrize(
    ("series", "family", "experiments", "baselines"),
    [
        (["a"], None, {"qwen25vl_instruct_a"}, {"Qwen2.5-VL-7B-Instruct"}),
        (["a"], "qwen3vl_instruct", {"qwen3vl_instruct_a"}, {"Qwen3-VL-8B-Instruct"}),
        (
            ["qwen3vl_instruct_a", "b"],
            None,
            {"qwen3vl_instruct_a", "qwen3vl_instruct_b"},
            {"Qwen3-VL-8B-Instruct"},
        ),
        (
            ["qwen3vl_instruct_a", "qwen25vl_instruct_b"],
            None,
            {"qwen3vl_instruct_a", "qwen25vl_instruct_b"},
            {"Qwen3-VL-8B-Instruct", "Qwen2.5-VL-7B-Instruct"},
        ),
    ],
)
def test_series_are_named_so_that_the_scripts_find_their_baseline(
    series: list[str],
    family: str | None,
    experiments: set[str],
    baselines: set[str],
    tmp_path: Path,
) -> None:
    cells: Cells = {("baseline", 0, "vstar"): PLAIN}
    cells |= {(name, 10, "vstar"): PLAIN for name in series}
    export_med(write_run(tmp_path / "run", cells), tmp_path, family=family)
    evals = tmp_path / "evals"
    assert {path.name for path in (evals / "baseline").iterdir()} == baselines
    assert {path.name for path in evals.iterdir()} == {"baseline", *experiments}


def test_a_step_0_of_its_own_stays_in_its_series(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    name = "qwen3vl_instruct_own"
    cells: Cells = {
        (name, 0, "vstar"): PLAIN,
        (name, 10, "vstar"): PLAIN,
    }
    export_med(write_run(tmp_path / "run", cells), tmp_path / "own")
    found = {path.name for path in (tmp_path / "own" / "evals" / name).iterdir()}
    assert found == {"global_step_0000000", "global_step_0000010"}
    both = cells | {("baseline", 0, "vstar"): PLAIN, ("other", 10, "vstar"): PLAIN}
    export_med(write_run(tmp_path / "both", both), tmp_path / "out")
    assert (tmp_path / "out" / "evals" / f"series_{name}").is_dir()
    assert f"series {name} is written as experiment series_{name}" in caplog.text


def test_other_benchmarks_keep_their_name_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cells: Cells = {
        ("m", None, name): PLAIN for name in ("hrbench_4k", "visualprobe_hard", "chartqa")
    }
    export_med(write_run(tmp_path / "run", cells), tmp_path)
    found = {path.name for path in (tmp_path / "evals" / "m").iterdir()}
    assert found == {"hrbench4k", "visualprobhard", "chartqa"}
    assert "benchmark chartqa: the original's scripts read only" in caplog.text
    assert "benchmark hrbench_4k" not in caplog.text


def test_a_sample_undecided_anywhere_is_left_out_everywhere(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cells: Cells = {
        ("m", 1, "vstar"): PLAIN,
        ("m", 2, "vstar"): ([RIGHT, UNDECIDED, RIGHT], [RIGHT, WRONG, WRONG]),
    }
    export_med(write_run(tmp_path / "run", cells), tmp_path)
    for step in (1, 2):
        place = tmp_path / "evals" / "m" / f"global_step_000000{step}" / "vstar"
        assert [line["uid"] for line in read_log(place, ARMS[0])] == ["s0", "s2"]
    assert "undecided at a checkpoint: 's1'" in caplog.text


def test_a_run_with_no_sample_decided_everywhere_is_refused(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", {("m", 1, "vstar"): ([UNDECIDED], [RIGHT])})
    with pytest.raises(RecordError, match="no sample decided at every checkpoint"):
        export_med(folder, tmp_path)


def test_samples_unscored_anywhere_are_refused_without_allow_missing(tmp_path: Path) -> None:
    short: Arms = ([RIGHT], [RIGHT])
    cells: Cells = {("m", 1, "vstar"): ([RIGHT] * 9, [RIGHT] * 9), ("m", 2, "vstar"): short}
    folder = write_run(tmp_path / "run", cells)
    with pytest.raises(RecordError, match=r"'s1', 's2', 's3', 's4', 's5' and 3 more"):
        export_med(folder, tmp_path)
    export_med(folder, tmp_path, allow_missing=True)
    place = tmp_path / "evals" / "m" / "global_step_0000001" / "vstar"
    assert len(read_log(place, ARMS[0])) == 1


def test_a_checkpoint_with_one_arm_is_left_out_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cells: Cells = {("m", 1, "vstar"): PLAIN, ("m", 2, "vstar"): PLAIN}
    folder = write_run(tmp_path / "run", cells)
    (folder.path / "outcomes" / "m" / "2" / "vstar" / "pair.jsonl").unlink()
    export_med(folder, tmp_path)
    assert {path.name for path in (tmp_path / "evals" / "m").iterdir()} == {"global_step_0000001"}
    assert "left out: m/2 x vstar has only the arm 'available'" in caplog.text


def test_a_run_without_outcomes_is_refused(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", {("m", 1, "vstar"): PLAIN})
    (folder.path / "outcomes" / "m" / "1" / "vstar" / "pair.jsonl").unlink()
    with pytest.raises(RecordError, match="no outcomes of pair 'pair'"):
        export_med(folder, tmp_path)


def test_each_experiment_has_its_table_beside_its_logs(tmp_path: Path) -> None:
    cells: Cells = {("baseline", 0, "hrbench_4k"): PLAIN, ("a", 10, "hrbench_4k"): PLAIN}
    folder = write_run(tmp_path / "run", cells)
    files = export_med_csv(folder, tmp_path)
    assert [str(path.relative_to(tmp_path)) for path in files] == [
        "evals/baseline/Qwen2.5-VL-7B-Instruct/Qwen2.5-VL-7B-Instruct_results.csv",
        "evals/qwen25vl_instruct_a/qwen25vl_instruct_a_results.csv",
    ]
    (row,) = pd.read_csv(files[1]).to_dict("records")
    assert (row["benchmark"], row["call_sum"], row["term1_0"]) == ("hrbench4k", 2, 0.0)
    place = "evals/qwen25vl_instruct_a/global_step_0000010/hrbench4k"
    assert row["json_path"] == f"{place}/evaluation_results.json"


def test_repeats_are_lines_in_a_row_and_come_back_as_repeats(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    arms: Arms = ([RIGHT, WRONG, WRONG, WRONG], [CALLED, RIGHT, WRONG, RIGHT])
    folder = write_run(tmp_path / "run", {("m", 1, "vstar"): arms}, repeats=2)
    export_med(folder, tmp_path / "out")
    place = tmp_path / "out" / "evals" / "m" / "global_step_0000001" / "vstar"
    assert [line["uid"] for line in read_log(place, ARMS[0])] == ["s0", "s0#1", "s1", "s1#1"]
    assert "take each repeat for a sample" in caplog.text
    back = import_med(tmp_path / "out", tmp_path / "back", repeats=2).folder
    assert compared(back, "m", 1, "med") == compared(folder, "m", 1, "pair")


NAMES = {"sample_id", "series", "checkpoint", "pair", "judge"}


def compared(folder: RunFolder, series: str, step: int | None, pair: str) -> list[dict[str, Any]]:
    """Outcomes without what names things: ids, series, pair and judge."""
    found: list[OutcomeRecord] = list(folder.outcomes(series, step, "vstar", pair))
    return [
        {name: value for name, value in asdict(outcome).items() if name not in NAMES}
        for outcome in found
    ]


statuses = st.sampled_from(["executed", "rejected", "malformed", "over_limit"])
stops = st.sampled_from(["answered", "length", "no_answer", "turn_limit"])
replies = st.builds(
    Reply,
    is_correct=st.booleans(),
    stop=stops,
    calls=st.lists(statuses, max_size=4).map(tuple),
)


@st.composite
def runs(draw: st.DrawFn) -> Cells:
    n = draw(st.integers(1, 5))
    arm = st.lists(replies, min_size=n, max_size=n)
    places: list[tuple[str, int | None, str]] = [("qwen25vl_instruct_a", 10, "vstar")]
    if draw(st.booleans()):
        places.append(("qwen25vl_instruct_a", 200, "vstar"))
    places.append(draw(st.sampled_from([("baseline", 0, "vstar"), ("b", None, "vstar")])))
    return {place: draw(st.tuples(arm, arm)) for place in places}


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(cells=runs())
def test_a_round_trip_gives_equal_outcomes_up_to_names(
    cells: Cells, tmp_path_factory: pytest.TempPathFactory
) -> None:
    directory = tmp_path_factory.mktemp("trip")
    folder = write_run(directory / "run", cells)
    export_med(folder, directory / "out")
    back = import_med(directory / "out", directory / "back").folder
    keys = folder.outcome_keys()
    assert [(key.series, key.step) for key in back.outcome_keys()] == [
        (key.series, key.step) for key in keys
    ]
    for key in keys:
        expected = compared(folder, key.series, key.step, "pair")
        assert compared(back, key.series, key.step, "med") == expected
