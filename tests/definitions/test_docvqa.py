"""DocVQA and InfographicVQA, their test splits without labels, and pages that were turned."""

import io
import json
from collections import Counter

import pytest
from PIL import Image

from medeval.data.benchmark import Benchmark
from medeval.data.rows import HubRows
from medeval.data.symmetry import TURNS
from medeval.evaluation.loader import load
from medeval.types.sample import Sample
from tests.frozen_rows import NO_SHARED, SHARED, picture, prompt, samples_of, without_images

DOCVQA = load("docvqa", Benchmark).value
PAGE: dict[str, object] = {
    "questionId": "49153",
    "question": "What is the ‘actual’ value per 1000, during the year 1975?",  # noqa: RUF001
    "question_types": ["table/list", "figure/diagram"],
    "image": {"bytes": picture(), "path": None},
    "docId": 14465,
    "ucsf_document_id": "pybv0228",
    "ucsf_document_page_no": "81",
    "answers": ["0.28", "0,28"],
    "data_split": "val",
}
GRAPHIC: dict[str, object] = {
    "questionId": "98313",
    "question": "Which social platform has heavy female audience?",
    "answers": ["pinterest"],
    "answer_type": ["single span"],
    "image": {"bytes": picture(), "path": None},
    "image_url": "https://example.org/a.png",
    "operation/reasoning": [],
    "ocr": "{}",
    "data_split": "val",
}


@pytest.mark.parametrize(
    ("name", "config", "split", "count", "labelled"),
    [
        ("docvqa", "DocVQA", "validation", 5349, True),
        ("DocVQA_VAL", "DocVQA", "validation", 5349, True),
        ("docvqa_test", "DocVQA", "test", 5188, False),
        ("infovqa", "InfographicVQA", "validation", 2801, True),
        ("infovqa_val", "InfographicVQA", "validation", 2801, True),
        ("InfoVQA_TEST", "InfographicVQA", "test", 3288, False),
        ("docvqa_d4", "DocVQA", "validation", 5349, True),
        ("docvqa_d4_upright", "DocVQA", "validation", 5349, True),
        ("infovqa_d4", "InfographicVQA", "validation", 2801, True),
        ("infovqa_d4_upright", "InfographicVQA", "validation", 2801, True),
    ],
)
def test_it_is_the_published_split(
    name: str, config: str, split: str, count: int, labelled: bool
) -> None:
    benchmark = load(name, Benchmark).value
    assert benchmark.rows == HubRows(
        "lmms-lab-encoder/DocVQA", split, config=config, mirrors=("lmms-lab/DocVQA",)
    )
    assert (benchmark.count, benchmark.judge, benchmark.labelled) == (count, "anls", labelled)


def test_a_page_becomes_this_sample_and_prompt() -> None:
    (sample,) = samples_of(DOCVQA, PAGE)
    assert without_images(sample) == Sample(
        id="49153",
        question=str(PAGE["question"]),
        images=(),
        targets=("0.28", "0,28"),
        instruction="Answer the question using a single word or phrase.",
        groups={"kind": "figure/diagram, table/list"},
    )
    assert [image.read() for image in sample.images] == [picture()]
    assert prompt(sample) == (
        "What is the ‘actual’ value per 1000, during the year 1975?\n"  # noqa: RUF001
        "Answer the question using a single word or phrase."
    )


def test_an_infographic_becomes_this_sample_and_prompt() -> None:
    (sample,) = samples_of(load("infovqa", Benchmark).value, GRAPHIC)
    assert without_images(sample) == Sample(
        id="98313",
        question="Which social platform has heavy female audience?",
        images=(),
        targets=("pinterest",),
        instruction="Answer the question using a single word or phrase.",
        groups={"kind": "single span"},
    )


@pytest.mark.parametrize(("name", "row"), [("docvqa_test", PAGE), ("infovqa_test", GRAPHIC)])
def test_a_row_of_a_test_split_has_no_target(name: str, row: dict[str, object]) -> None:
    unlabelled = {**row, "answers": None, "question_types": None, "answer_type": None}
    (sample,) = samples_of(load(name, Benchmark).value, unlabelled)
    assert (sample.targets, sample.groups) == ((), {})


def test_a_turned_page_is_the_page_turned_as_the_sample_says() -> None:
    data = io.BytesIO()
    image = Image.new("RGB", (3, 2))
    image.putdata([(shade, 0, 0) for shade in range(6)])
    image.save(data, "PNG")
    row = {**PAGE, "image": data.getvalue()}
    (plain,) = samples_of(DOCVQA, row)
    (turned,) = samples_of(load("docvqa_d4", Benchmark).value, row)
    assert turned.transform == turned.groups["orientation"] == "flip_horizontal"
    assert turned.images[0].name.endswith("(flip_horizontal)")
    seen = Image.open(io.BytesIO(turned.images[0].read()))
    assert list(seen.tobytes()[::3]) == [2, 1, 0, 5, 4, 3]
    assert (turned.id, turned.question, turned.targets) == (plain.id, plain.question, plain.targets)

    (upright,) = samples_of(load("docvqa_d4_upright", Benchmark).value, row)
    assert upright.transform == upright.groups["orientation"] == "upright"
    seen = Image.open(io.BytesIO(upright.images[0].read()))
    assert seen.tobytes() == image.tobytes()
    assert upright.id == turned.id


def test_questions_are_turned_in_all_seven_ways_about_as_often() -> None:
    rows = [{**PAGE, "questionId": str(number)} for number in range(3500)]
    turns = Counter(s.transform for s in samples_of(load("docvqa_d4", Benchmark).value, *rows))
    assert set(turns) == set(TURNS)
    assert all(430 <= count <= 570 for count in turns.values())


@pytest.mark.skipif(not SHARED.is_dir(), reason=NO_SHARED)
def test_real_questions_survive_the_data_sets_columns() -> None:
    text = (SHARED / "docvqa" / "text_with_real_predictions.jsonl").read_text(encoding="utf-8")
    items = [json.loads(line) for line in text.splitlines()]
    rows = [{**PAGE, **{key: item[key] for key in ("question", "answers")},
             "questionId": str(item["questionId"])} for item in items]  # fmt: skip
    samples = samples_of(DOCVQA, *rows)
    assert [int(sample.id) for sample in samples] == [item["questionId"] for item in items]
    assert [list(sample.targets) for sample in samples] == [item["answers"] for item in items]
