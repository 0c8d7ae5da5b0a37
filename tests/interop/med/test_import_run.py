import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from medeval.errors import DataError, RecordError, UsageError
from medeval.evaluation.regrade import RegradeSettings, regrade
from medeval.interop.med.import_run import import_med
from medeval.store.run_folder import CellKey, RunFolder
from medeval.types.outcome import OutcomeRecord
from tests.interop.med.med_tree import (
    ARMS,
    BASELINE,
    EXPERIMENT,
    line,
    log_path,
    write_cell,
    write_log,
)

FREE, AVAILABLE = ARMS


def write_tree(directory: Path) -> Path:
    """A baseline and one step of two benchmarks of three samples."""
    for experiment in (BASELINE, f"{EXPERIMENT}/global_step_0000010"):
        for benchmark in ("vstar", "mine"):
            place = directory / "evals" / experiment / benchmark
            write_cell(place, [1, 0, 1], [1, 1, 0], [0, 2, 1])
    return directory / "evals" / EXPERIMENT / "global_step_0000010" / "vstar"


def outcomes(
    folder: RunFolder, series: str, step: int | None, benchmark: str
) -> list[OutcomeRecord]:
    return list(folder.outcomes(series, step, benchmark, "med"))


def test_logs_become_an_ordinary_run_folder(tmp_path: Path) -> None:
    write_tree(tmp_path)
    report = import_med(tmp_path, tmp_path / "run")
    folder = report.folder
    assert [key.checkpoint for key in folder.cells()][::4] == ["baseline/0", f"{EXPERIMENT}/10"]
    assert folder.benchmarks() == ["mine", "vstar"]
    found = outcomes(folder, EXPERIMENT, 10, "vstar")
    assert [outcome.sample_id for outcome in found] == ["line-000001", "line-000002", "line-000003"]
    assert [outcome.free_correct for outcome in found] == [True, False, True]
    assert [outcome.available_correct for outcome in found] == [True, True, False]
    assert [outcome.called for outcome in found] == [False, True, True]
    assert [outcome.calls_attempted for outcome in found] == [0, 2, 1]
    assert found[0].judge.startswith("med_import#")
    assert [o.checkpoint for o in outcomes(folder, EXPERIMENT, 0, "mine")] == ["baseline/0"] * 3
    assert f"step 0 of {EXPERIMENT!r} is {BASELINE!r}" in report.notes


def test_the_run_says_that_it_pairs_by_position(tmp_path: Path) -> None:
    write_tree(tmp_path)
    folder = import_med(tmp_path, tmp_path / "run").folder
    record = folder.record()
    assert {part.pairing for part in record.benchmarks.values()} == {"position"}
    assert set(pd.read_csv(folder.path / "tables" / "summary.csv")["pairing"]) == {"position"}


def test_the_run_keeps_its_judge_and_regrading_leaves_the_verdicts(tmp_path: Path) -> None:
    write_tree(tmp_path)
    folder = import_med(tmp_path, tmp_path / "run").folder
    before = outcomes(folder, EXPERIMENT, 10, "vstar")
    assert (folder.path / "definitions" / "judge-med_import.py").is_file()
    regrade(folder, ())
    assert outcomes(folder, EXPERIMENT, 10, "vstar") == before


def test_judging_imported_answers_again_leaves_them_undecided(tmp_path: Path) -> None:
    write_tree(tmp_path)
    folder = import_med(tmp_path, tmp_path / "run").folder
    regrade(folder, (), RegradeSettings(again=True))
    again = outcomes(folder, EXPERIMENT, 10, "vstar")
    assert {outcome.free_correct for outcome in again} == {None}


def test_importing_the_same_logs_again_changes_nothing(tmp_path: Path) -> None:
    write_tree(tmp_path)
    folder = import_med(tmp_path, tmp_path / "run").folder
    before = outcomes(folder, EXPERIMENT, 10, "vstar")
    import_med(tmp_path, tmp_path / "run")
    assert outcomes(folder, EXPERIMENT, 10, "vstar") == before
    cell = folder.cell(CellKey(EXPERIMENT, 10, "vstar", AVAILABLE))
    assert len(list(cell.trajectories())) == 3
    assert len(folder.record().sessions) == 2


def test_changed_logs_are_refused(tmp_path: Path) -> None:
    place = write_tree(tmp_path)
    import_med(tmp_path, tmp_path / "run")
    write_cell(place, [0, 0, 1], [1, 1, 0], [0, 2, 1])
    with pytest.raises(RecordError, match="begun with other settings"):
        import_med(tmp_path, tmp_path / "run")


def test_later_steps_extend_an_imported_run(tmp_path: Path) -> None:
    write_tree(tmp_path)
    import_med(tmp_path, tmp_path / "run")
    later = tmp_path / "evals" / EXPERIMENT / "global_step_20"
    write_cell(later / "vstar", [1, 1, 1], [1, 1, 1], [1, 1, 1])
    folder = import_med(tmp_path, tmp_path / "run").folder
    assert len(outcomes(folder, EXPERIMENT, 20, "vstar")) == 3
    assert len(outcomes(folder, EXPERIMENT, 10, "vstar")) == 3


def test_a_run_whose_benchmark_has_another_size_is_refused(tmp_path: Path) -> None:
    write_tree(tmp_path)
    import_med(tmp_path, tmp_path / "run")
    other = tmp_path / "other" / "evals" / EXPERIMENT / "global_step_20" / "vstar"
    write_cell(other, [1, 1], [1, 1], [1, 1])
    with pytest.raises(RecordError, match="3 samples paired by position, the logs have 2"):
        import_med(tmp_path / "other", tmp_path / "run")


def damaged(place: Path) -> None:
    path = log_path(place, AVAILABLE)
    path.write_text(path.read_text()[:-20])


def dropped(place: Path) -> None:
    write_log(log_path(place, AVAILABLE), [line(1), line(0)])


def listed(place: Path) -> None:
    write_log(log_path(place, AVAILABLE), ["[]", "[]", "[]"])


def emptied(place: Path) -> None:
    log_path(place, AVAILABLE).write_text("\n")


def removed(place: Path) -> None:
    log_path(place, AVAILABLE).unlink()


def garbled(place: Path) -> None:
    write_log(log_path(place, AVAILABLE), [line(1, medeval={"stop": "bored"}), line(1), line(1)])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (damaged, r"tool_agent_trajectories\.jsonl, line 3 is not JSON"),
        (dropped, r"has 2 lines, but its benchmark's logs have 3"),
        (listed, r"line 1 is not a JSON object"),
        (emptied, r"holds no line"),
        (removed, r"benchmark 'vstar': the log of 'tool_agent' is missing"),
        (garbled, r"record 1, its `medeval` object: field "),
    ],
)
def test_broken_logs_are_refused_or_left_out_as_gaps(
    damage: Callable[[Path], None], message: str, tmp_path: Path
) -> None:
    damage(write_tree(tmp_path))
    with pytest.raises(DataError, match=message) as caught:
        import_med(tmp_path, tmp_path / "run")
    assert "--allow-missing" in str(caught.value)
    assert not RunFolder.exists(tmp_path / "run")
    report = import_med(tmp_path, tmp_path / "run", allow_missing=True)
    assert any(note.startswith("left out: ") for note in report.notes)
    kept = {(key.step, key.benchmark, key.protocol) for key in report.folder.cells()}
    assert (10, "vstar", FREE) in kept
    assert (10, "vstar", AVAILABLE) not in kept
    with pytest.raises(RecordError, match="no outcomes"):
        outcomes(report.folder, EXPERIMENT, 10, "vstar")
    assert report.folder.record().sessions[0].extra["notes"] == list(report.notes)


def test_several_broken_logs_are_counted(tmp_path: Path) -> None:
    place = write_tree(tmp_path)
    removed(place)
    damaged(place.with_name("mine"))
    with pytest.raises(DataError, match="and 1 more like it"):
        import_med(tmp_path, tmp_path / "run")


def test_a_folder_without_logs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no MED logs below"):
        import_med(tmp_path, tmp_path / "run")


def test_scores_without_logs_are_a_missing_arm_not_zeros(tmp_path: Path) -> None:
    place = write_tree(tmp_path)
    for arm in ARMS:
        log_path(place, arm).unlink()
    with pytest.raises(DataError, match="'single_turn_agent' is missing"):
        import_med(tmp_path, tmp_path / "run")


@pytest.mark.parametrize("value", [None, "1", "absent", float("nan"), 2, -1, [1]])
def test_a_line_without_a_reward_is_unscored_not_wrong(value: Any, tmp_path: Path) -> None:
    place = write_tree(tmp_path)
    lines = [line(1), line(value), line(0)]
    if value == "absent":
        del lines[1]["accuracy_reward"]
    write_log(log_path(place, FREE), lines)
    report = import_med(tmp_path, tmp_path / "run")
    found = outcomes(report.folder, EXPERIMENT, 10, "vstar")
    assert [outcome.sample_id for outcome in found] == ["line-000001", "line-000003"]
    (summary,) = [
        item
        for item in report.summaries
        if (item.step, item.benchmark, item.protocol) == (10, "vstar", FREE)
    ]
    assert (summary.unscored, summary.score.n, summary.score.value) == (1, 2, 0.5)
    failures = list(report.folder.cell(CellKey(EXPERIMENT, 10, "vstar", FREE)).failures())
    assert "no accuracy_reward" in failures[0].error
    import_med(tmp_path, tmp_path / "run")
    again = list(report.folder.cell(CellKey(EXPERIMENT, 10, "vstar", FREE)).failures())
    assert again == failures


@pytest.mark.parametrize("value", [None, "2", True, 1.5, -1, float("inf")])
def test_a_tool_line_without_a_call_count_is_unscored(value: Any, tmp_path: Path) -> None:
    place = write_tree(tmp_path)
    write_log(log_path(place, AVAILABLE), [line(1, 0), line(1, value), line(1, 2.0)])
    folder = import_med(tmp_path, tmp_path / "run").folder
    found = outcomes(folder, EXPERIMENT, 10, "vstar")
    assert [(o.sample_id, o.calls_attempted) for o in found] == [
        ("line-000001", 0),
        ("line-000003", 2),
    ]


def test_a_reward_between_is_incorrect_and_true_is_correct_as_in_the_original(
    tmp_path: Path,
) -> None:
    place = write_tree(tmp_path)
    write_log(log_path(place, FREE), [line(0.9), line(True), line(1.0)])
    found = outcomes(import_med(tmp_path, tmp_path / "run").folder, EXPERIMENT, 10, "vstar")
    assert [outcome.free_correct for outcome in found] == [False, True, True]
    assert found[0].free_score == 0.9


def test_blank_lines_are_no_samples(tmp_path: Path) -> None:
    place = write_tree(tmp_path)
    write_log(log_path(place, FREE), [line(1), "", line(0), line(0)])
    assert (
        len(outcomes(import_med(tmp_path, tmp_path / "run").folder, EXPERIMENT, 10, "vstar")) == 3
    )


def test_ids_in_raw_logs_that_differ_by_position_are_refused(tmp_path: Path) -> None:
    place = write_tree(tmp_path)
    for arm in ARMS:
        lines = [line(1, result_dict={"id": f"q{n}"}) for n in range(3)]
        write_log(log_path(place, arm), lines if arm == FREE else lines[::-1])
    with pytest.raises(DataError, match=r"record 1 is of 'q2', but in .* of 'q0'"):
        import_med(tmp_path, tmp_path / "run")


def test_raw_logs_describe_their_samples(tmp_path: Path) -> None:
    place = write_tree(tmp_path)
    for path in tmp_path.rglob("vstar_bench_*.jsonl"):
        told = {"id": "q", "question": "Which?", "answer": "A", "repeat_idx": 0}
        write_log(path, [line(1, result_dict={**told, "id": f"q{n}"}) for n in range(3)])
    assert place.is_dir()
    sample = next(import_med(tmp_path, tmp_path / "run").folder.samples("vstar"))
    assert (sample.question, sample.targets, sample.metadata) == ("Which?", ("A",), {"id": "q0"})


def test_lines_in_a_row_are_repeats_where_told_so(tmp_path: Path) -> None:
    place = tmp_path / "evals" / "mine" / "global_step_1" / "vstar"
    write_cell(place, [1, 0, 0, 0], [1, 1, 1, 0], [1, 0, 1, 0])
    folder = import_med(tmp_path, tmp_path / "run", repeats=2).folder
    found = outcomes(folder, "mine", 1, "vstar")
    assert [(o.sample_id, o.repeat) for o in found] == [
        ("line-000001", 0),
        ("line-000001", 1),
        ("line-000002", 0),
        ("line-000002", 1),
    ]
    assert folder.record().benchmarks["vstar"].count == 2


def test_repeats_that_do_not_fit_the_lines_are_refused(tmp_path: Path) -> None:
    place = tmp_path / "evals" / "mine" / "global_step_1" / "vstar"
    write_cell(place, [1, 0, 0], [1, 1, 1], [1, 0, 1])
    with pytest.raises(DataError, match="3 lines, no multiple of 2 repeats"):
        import_med(tmp_path, tmp_path / "run", repeats=2)
    lines = [line(1, result_dict={"id": "q", "repeat_idx": n}) for n in range(3)]
    write_log(log_path(place, FREE), lines)
    with pytest.raises(DataError, match="record 2: it is repeat 1 of its sample, expected 0"):
        import_med(tmp_path, tmp_path / "run")


@pytest.mark.parametrize("depth", ["root", "evals", "experiment"])
def test_any_level_of_the_tree_may_be_named(depth: str, tmp_path: Path) -> None:
    write_cell(tmp_path / "evals" / "mine" / "global_step_007" / "vstar", [1], [1], [0])
    directory = {"root": ".", "evals": "evals", "experiment": "evals/mine"}[depth]
    folder = import_med(tmp_path / directory, tmp_path / "run").folder
    assert folder.cells()[0].checkpoint == "mine/7"


def test_a_step_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    for name in ("global_step_7", "global_step_007"):
        write_cell(tmp_path / "evals" / "mine" / name / "vstar", [1], [1], [0])
    with pytest.raises(DataError, match=r"two folders hold .* step 7, benchmark 'vstar'"):
        import_med(tmp_path, tmp_path / "run")


def test_logs_before_their_migration_are_repaired(tmp_path: Path) -> None:
    place = tmp_path / "mine" / "global_step_3"
    for benchmark in ("vstar", "chartqa"):
        for arm in ARMS:
            name = f"{benchmark}_bench_{arm}_trajectories.jsonl"
            write_log(place / "trajectories" / name, [line(1), line(0)])
    summary = {
        f"vstar_bench_{arm}": {"pass@1_accuracy": "0.5000 (50.00%)", "accuracy": "1"}
        for arm in ARMS
    }
    (place / "evaluation_results.json").write_text(json.dumps({"summary": summary}))
    report = import_med(tmp_path, tmp_path / "run")
    assert report.folder.benchmarks() == ["chartqa", "vstar"]
    assert len(outcomes(report.folder, "mine", 3, "vstar")) == 2
    assert sum("has no 'w/o tool'; it comes from the lines" in note for note in report.notes) == 1
    assert any("'chartqa'" in note and "has no 'w/ tool'" in note for note in report.notes)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "no evaluation_results.json"),
        ("{", "is not JSON"),
        ("[]", "is not a JSON object"),
        ('{"summary": {"vstar_bench_tool_agent": {}}}', "has no 'w/ tool'"),
        ('{"w/o tool": 0.9, "w/ tool": 0.6667}', "'w/o tool' is 0.9 .* 0.6667 of the lines"),
    ],
)
def test_scores_that_are_missing_or_disagree_are_told(
    text: str | None, message: str, tmp_path: Path
) -> None:
    results = write_tree(tmp_path) / "evaluation_results.json"
    if text is None:
        results.unlink()
    else:
        results.write_text(text)
    notes = import_med(tmp_path, tmp_path / "run").notes
    assert any(re.search(message, note) for note in notes), notes


def test_published_scores_are_within_their_rounding(tmp_path: Path) -> None:
    place = write_tree(tmp_path)
    write_cell(
        place, [1, 0, 1], [1, 1, 0], [0, 2, 1], scores={"w/o tool": 0.6667, "w/ tool": 0.6666}
    )
    assert not any("of the lines" in note for note in import_med(tmp_path, tmp_path / "run").notes)


def two_baselines(directory: Path) -> None:
    evals = directory / "evals"
    write_cell(evals / "baseline" / "A" / "vstar", [1, 0], [1, 0], [0, 0])
    write_cell(evals / "baseline" / "B" / "vstar", [0, 0], [1, 0], [0, 0])
    for name in ("one", "two"):
        write_cell(evals / name / "global_step_1" / "vstar", [1, 1], [1, 1], [1, 1])


def test_a_baseline_must_be_named_where_several_are_there(tmp_path: Path) -> None:
    two_baselines(tmp_path)
    with pytest.raises(UsageError, match="which baseline is step 0 of 'one'") as caught:
        import_med(tmp_path, tmp_path / "run")
    assert "--baseline one=baseline/A" in str(caught.value)


def test_each_experiment_may_have_its_own_baseline(tmp_path: Path) -> None:
    two_baselines(tmp_path)
    folder = import_med(
        tmp_path, tmp_path / "run", baselines=["one=baseline/A", "two=baseline/B"]
    ).folder
    assert [o.free_correct for o in outcomes(folder, "one", 0, "vstar")] == [True, False]
    assert [o.free_correct for o in outcomes(folder, "two", 0, "vstar")] == [False, False]
    assert "baseline" not in {key.series for key in folder.cells()}


def test_a_baseline_for_all_is_shared_and_the_other_stands_alone(tmp_path: Path) -> None:
    two_baselines(tmp_path)
    folder = import_med(
        tmp_path, tmp_path / "run", baselines=[str(tmp_path / "evals" / "baseline" / "B")]
    ).folder
    assert {key.checkpoint for key in folder.cells()} == {
        "baseline/0",
        "baseline/A",
        "one/1",
        "two/1",
    }
    assert outcomes(folder, "two", 0, "vstar")[0].checkpoint == "baseline/0"
    assert outcomes(folder, "baseline/A", None, "vstar")[0].step is None


def test_a_baseline_may_lie_elsewhere(tmp_path: Path) -> None:
    write_cell(tmp_path / "tree" / "evals" / "mine" / "global_step_1" / "vstar", [1], [1], [1])
    write_cell(tmp_path / "elsewhere" / "stock" / "vstar", [0], [1], [1])
    folder = import_med(
        tmp_path / "tree", tmp_path / "run", baselines=[str(tmp_path / "elsewhere" / "stock")]
    ).folder
    assert [o.free_correct for o in outcomes(folder, "mine", 0, "vstar")] == [False]


def test_a_step_0_of_its_own_needs_no_baseline(tmp_path: Path) -> None:
    evals = tmp_path / "evals"
    for step in (0, 5):
        write_cell(evals / EXPERIMENT / f"global_step_{step}" / "vstar", [1], [1], [1])
    report = import_med(tmp_path, tmp_path / "run")
    assert [key.step for key in report.folder.outcome_keys()] == [0, 5]
    assert report.notes == ()


def test_an_experiment_without_a_baseline_is_told(tmp_path: Path) -> None:
    write_cell(tmp_path / "evals" / "mine" / "global_step_1" / "vstar", [1], [1], [1])
    assert "no baseline" in import_med(tmp_path, tmp_path / "run").notes[0]


@pytest.mark.parametrize(
    ("baseline", "message"),
    [
        ("other=baseline/A", "the experiment 'other', which is not there"),
        ("nowhere", "no baseline 'nowhere'"),
        ("one", "the baseline 'one' has steps"),
    ],
)
def test_a_baseline_that_cannot_be_meant_is_refused(
    baseline: str, message: str, tmp_path: Path
) -> None:
    two_baselines(tmp_path)
    with pytest.raises(UsageError, match=message):
        import_med(tmp_path, tmp_path / "run", baselines=[baseline])


def test_a_baseline_beside_a_step_0_is_refused(tmp_path: Path) -> None:
    two_baselines(tmp_path)
    write_cell(tmp_path / "evals" / "one" / "global_step_0" / "vstar", [1, 1], [1, 1], [1, 1])
    with pytest.raises(UsageError, match="'one' has a step 0 of its own"):
        import_med(tmp_path, tmp_path / "run", baselines=["one=baseline/A", "two=baseline/B"])


def test_an_experiment_called_baseline_is_refused(tmp_path: Path) -> None:
    write_cell(tmp_path / "evals" / "baseline" / "global_step_1" / "vstar", [1], [1], [1])
    with pytest.raises(DataError, match="an experiment is called 'baseline'"):
        import_med(tmp_path, tmp_path / "run")


def said(role: str, *texts: str, image: bool = False) -> dict[str, Any]:
    parts: list[dict[str, Any]] = [{"type": "text", "text": text} for text in texts]
    if image:
        parts.append({"type": "image_placeholder", "description": "a crop"})
    return {"role": role, "content": parts, "tool_calls": None}


CALL = '<tool_call>\n{"name": "zoom", "arguments": {"box": [1, 2]}}\n</tool_call>'


def conversation(messages: list[Any], n_calls: int, directory: Path) -> Any:
    place = directory / "evals" / "mine" / "global_step_1" / "vstar"
    write_cell(place, [1], [1], [n_calls])
    told = line(1, n_calls, messages=messages, response_length=7)
    write_log(log_path(place, AVAILABLE), [told])
    folder = import_med(directory, directory / "run").folder
    (trajectory,) = folder.cell(CellKey("mine", 1, "vstar", AVAILABLE)).trajectories()
    return trajectory


def test_a_conversation_shows_what_became_of_its_calls(tmp_path: Path) -> None:
    trajectory = conversation(
        [
            {"role": "user", "content": "Where?"},
            said("assistant", CALL),
            said("user", image=True),
            said("assistant", CALL),
            said("user", "Error: no such image"),
            said("assistant", "\\boxed{A}"),
        ],
        2,
        tmp_path,
    )
    assert [call.status for call in trajectory.calls] == ["executed", "rejected"]
    assert [call.name for call in trajectory.calls] == ["zoom", "zoom"]
    assert trajectory.calls[1].error == "Error: no such image"
    assert trajectory.observed == 1
    assert trajectory.answer.text == "\\boxed{A}"
    assert trajectory.messages[2].text == "[a crop]"
    assert trajectory.usage.completion_tokens == 7


def test_a_call_without_an_answer_to_it_was_not_observed(tmp_path: Path) -> None:
    trajectory = conversation([said("user", "Where?"), said("assistant", CALL)], 1, tmp_path)
    assert [(call.status, call.observed) for call in trajectory.calls] == [("executed", False)]


def test_a_conversation_that_fits_no_count_tells_only_the_count(tmp_path: Path) -> None:
    shown = [said("assistant", "hm"), said("user", image=True), said("assistant", "A")]
    trajectory = conversation(["torn", *shown], 0, tmp_path)
    assert trajectory.calls == ()


def test_a_log_without_conversations_gives_answers_that_say_so(tmp_path: Path) -> None:
    trajectory = conversation([], 2, tmp_path)
    assert trajectory.answer.text == "(not in the log)"
    assert [call.observed for call in trajectory.calls] == [True, True]


def test_calls_in_the_free_arm_were_not_offered(tmp_path: Path) -> None:
    place = write_tree(tmp_path)
    write_log(log_path(place, FREE), [line(1, 2), line(0, None), line(1)])
    folder = import_med(tmp_path, tmp_path / "run").folder
    first, second, _ = folder.cell(CellKey(EXPERIMENT, 10, "vstar", FREE)).trajectories()
    assert [call.status for call in first.calls] == ["not_offered", "not_offered"]
    assert not first.called
    assert second.calls == ()
