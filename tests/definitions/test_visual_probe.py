"""VisualProbe: paths begin with the repository's own name, which is no folder in it."""

import json
from pathlib import Path

import pytest

from medeval.data.benchmark import Benchmark
from medeval.data.rows import HubFiles, open_rows
from medeval.errors import DataError
from medeval.evaluation.loader import load
from medeval.types.sample import Sample
from tests.frozen_rows import picture, prompt, without_images

HARD = load("visual_probe_hard", Benchmark).value
ROW = {
    "images": ["VisualProbe_Hard/data/017.jpg"],
    "problem": "<image>\nWhat is the number on the red locker?",
    "solution": "42",
    "doc_id": 17,
    "data_source": "VisualProbe_Hard",
}


def samples(folder: Path, *rows: object) -> list[Sample]:
    (folder / "data").mkdir()
    (folder / "data" / "017.jpg").write_bytes(picture())
    (folder / "val.json").write_text(json.dumps(rows), encoding="utf-8")
    return [HARD.to_sample(row) for row in open_rows(HARD.rows, folder)]


@pytest.mark.parametrize(("difficulty", "count"), [("Easy", 141), ("Medium", 268), ("Hard", 106)])
def test_it_is_the_published_repository(difficulty: str, count: int) -> None:
    benchmark = load(f"VisualProbe_{difficulty}", Benchmark).value
    assert benchmark.rows == HubFiles(
        f"Mini-o3/VisualProbe_{difficulty}", "val.json", allow_patterns=("data/*",)
    )
    assert (benchmark.name, benchmark.count) == (f"visual_probe_{difficulty.lower()}", count)
    assert (benchmark.judge, benchmark.suite, benchmark.chance) == (
        "visual_probe",
        "visual_probe",
        None,
    )


def test_a_row_becomes_this_sample_and_prompt(tmp_path: Path) -> None:
    (sample,) = samples(tmp_path, ROW)
    assert without_images(sample) == Sample(
        id="17",
        question="What is the number on the red locker?",
        images=(),
        targets=("42",),
    )
    assert [(image.name, image.read()) for image in sample.images] == [("data/017.jpg", picture())]
    assert prompt(sample) == "What is the number on the red locker?"


def test_a_row_without_an_id_has_its_position(tmp_path: Path) -> None:
    rows = [{key: value for key, value in ROW.items() if key != "doc_id"}] * 2
    assert [sample.id for sample in samples(tmp_path, *rows)] == ["val-00000", "val-00001"]


def test_a_path_out_of_the_repository_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="inside the folder of the table"):
        samples(tmp_path, {**ROW, "images": ["VisualProbe_Hard/../../x.jpg"]})


def test_a_file_that_is_not_there_is_told_when_it_is_read(tmp_path: Path) -> None:
    (sample,) = samples(tmp_path, {**ROW, "images": ["VisualProbe_Hard/data/018.jpg"]})
    with pytest.raises(DataError, match=r"val\.json, row 0: no file 'data/018\.jpg'"):
        sample.images[0].read()
