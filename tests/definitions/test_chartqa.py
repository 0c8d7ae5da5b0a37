import dataclasses
import hashlib
import json
from pathlib import Path

import pytest
from PIL import Image

from medeval.data.benchmark import Benchmark
from medeval.data.rows import DrawnRows, HubRows, open_rows
from medeval.errors import DataError
from medeval.evaluation.loader import load
from medeval.types.sample import ImageSource, Sample
from tests.frozen_rows import prompt

SHARED = Path(__file__).parents[3] / "shared" / "data" / "chartqa"
CHARTQA = load("chartqa", Benchmark).value


def test_it_is_the_published_test_split() -> None:
    assert CHARTQA.rows == HubRows(
        "lmms-lab-encoder/ChartQA", split="test", mirrors=("lmms-lab/ChartQA",)
    )
    assert load("ChartQA_TEST", Benchmark).value is CHARTQA
    assert (CHARTQA.count, CHARTQA.judge, CHARTQA.groups) == (2500, "relaxed_accuracy", ("type",))


def test_a_hub_row_becomes_this_sample() -> None:
    row = {
        "type": "human_test",
        "question": "How many food item is shown in the bar graph?",
        "answer": "14",
        "image": {"bytes": b"png", "path": None},
    }
    rows = open_rows(DrawnRows(8, lambda index: row))
    sample = CHARTQA.to_sample(rows[7])
    assert dataclasses.replace(sample, images=()) == Sample(
        id="test-00007",
        question="How many food item is shown in the bar graph?",
        images=(),
        targets=("14",),
        instruction="Answer the question with a single word.",
        groups={"type": "human"},
    )
    assert [image.read() for image in sample.images] == [b"png"]
    assert prompt(sample) == (
        "How many food item is shown in the bar graph?\nAnswer the question with a single word."
    )


@pytest.mark.parametrize("column", CHARTQA.columns)
def test_a_row_without_a_column_is_told(column: str) -> None:
    row = {"type": "human_test", "question": "?", "answer": "14", "image": b"png"}
    del row[column]
    with pytest.raises(DataError, match=f"no column '{column}'"):
        CHARTQA.to_sample(open_rows(DrawnRows(1, lambda index: row))[0])


def test_a_local_folder_with_ids_gives_the_same_samples(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    Image.new("RGB", (4, 3), "blue").save(tmp_path / "images" / "a.png")
    row = {"id": "a-1", "type": "augmented_test", "question": "?", "answer": 2004}
    (tmp_path / "rows.jsonl").write_text(
        json.dumps({**row, "image": "images/a.png"}) + "\n", encoding="utf-8"
    )
    (sample,) = map(CHARTQA.to_sample, open_rows(CHARTQA.rows, tmp_path))
    assert (sample.id, sample.targets, sample.groups) == ("a-1", ("2004",), {"type": "augmented"})
    assert sample.images[0].read() == (tmp_path / "images" / "a.png").read_bytes()


@pytest.mark.skipif(not SHARED.is_dir(), reason="no ../shared/data beside the project")
def test_200_real_questions_load_with_their_charts() -> None:
    rows = open_rows(CHARTQA.rows, SHARED)
    samples = [CHARTQA.to_sample(row) for row in rows]
    assert len({sample.id for sample in samples}) == len(rows) == 200
    groups = [sample.groups["type"] for sample in samples]
    assert (groups.count("human"), groups.count("augmented")) == (100, 100)
    assert all(sample.targets[0] and sample.question for sample in samples)

    def digest(image: ImageSource) -> str:
        return hashlib.sha256(image.read()).hexdigest()

    on_disk = {hashlib.sha256(path.read_bytes()).hexdigest() for path in SHARED.rglob("*.png")}
    assert {digest(sample.images[0]) for sample in samples} == on_disk
