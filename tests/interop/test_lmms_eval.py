import json
from pathlib import Path

from medeval.interop.lmms_eval import export_lmms_eval
from tests.interop.runs import Reply, write_run


def test_each_arm_is_a_file_of_logged_samples(tmp_path: Path) -> None:
    wrong = Reply(is_correct=False, calls=("executed",))
    undecided = Reply(is_correct=None, stop="length")
    folder = write_run(tmp_path / "run", {("a/b", 10, "vstar"): ([wrong, undecided], [wrong] * 2)})
    files = export_lmms_eval(folder, tmp_path / "out")
    assert [str(path.relative_to(tmp_path / "out")) for path in files] == [
        "a__b__10/20260102_030405_samples_vstar_available.jsonl",
        "a__b__10/20260102_030405_samples_vstar_free.jsonl",
    ]
    first, second = map(json.loads, files[1].read_text().splitlines())
    assert len(first.pop("doc_hash")) == 64
    assert first == {
        "doc_id": 0,
        "target": "A",
        "resps": [["", "A"]],
        "filtered_resps": ["A"],
        "token_counts": [{"input_tokens": 20, "output_tokens": 7}],
        "input": "Answer.\nWhich?",
        "accuracy": 0.0,
        "sample_id": "s0",
        "repeat": 0,
        "verdict": "incorrect",
        "stop": "answered",
        "n_calls": 1,
    }
    assert (second["accuracy"], second["verdict"]) == (None, "undecided")
    assert (second["filtered_resps"], second["target"]) == ([""], "['A', 'B']")


def test_a_trajectory_without_a_verdict_has_no_metric(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", {("m", None, "vstar"): ([Reply()], [Reply()])})
    cell = folder.cell(folder.cells()[0])
    (cell.path / "verdicts.0.jsonl").unlink()
    files = export_lmms_eval(folder, tmp_path)
    line = json.loads(files[0].read_text())
    assert (line["accuracy"], line["verdict"]) == (None, None)
