import base64
import dataclasses
import json
import random
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import pytest
from PIL import Image

from medeval.data.benchmark import Benchmark
from medeval.data.rows import DrawnRows, HubFiles, open_rows
from medeval.errors import DataError
from medeval.evaluation.loader import load
from medeval.scoring.answers import option_letter
from medeval.types.geometry import Box, pixels
from medeval.types.sample import Sample
from tests.frozen_rows import prompt

SHARED = Path(__file__).parents[3] / "shared" / "data" / "vstar"
VSTAR = load("vstar", Benchmark).value
INSTRUCTION = "Answer with the option's letter from the given choices directly."


def text_of(question: str, options: list[str]) -> str:
    lines = [f"({option_letter(index)}) {option}" for index, option in enumerate(options)]
    return "\n".join([question, *lines, INSTRUCTION])


def write_official(
    folder: Path, rows: list[Mapping[str, object]], boxes: Mapping[str, object]
) -> None:
    """The layout of the official repository, with drawn images."""
    for row in rows:
        image = folder / str(row["image"])
        image.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (200, 100), "white").save(image)
        if row["image"] in boxes:
            annotation = {"target_object": ["glove"], "bbox": boxes[str(row["image"])]}
            image.with_suffix(".json").write_text(json.dumps(annotation), encoding="utf-8")
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "test_questions.jsonl").write_text(lines, encoding="utf-8")


GLOVE: Mapping[str, object] = {
    "image": "direct_attributes/sa_4690.jpg",
    "text": text_of("What is the material of the glove?", ["rubber", "cotton", "kevlar"]),
    "category": "direct_attributes",
    "label": "A",
    "question_id": 0,
}


def test_it_is_the_official_repository() -> None:
    assert isinstance(VSTAR.rows, HubFiles)
    assert (VSTAR.rows.repo, VSTAR.rows.table) == ("craigwu/vstar_bench", "test_questions.jsonl")
    assert (VSTAR.count, VSTAR.judge, VSTAR.groups) == (191, "choice", ("category",))
    assert load("VStarBench", Benchmark).value is load("vstar_bench", Benchmark).value is VSTAR


def test_chance_is_the_published_36_percent() -> None:
    assert VSTAR.chance == pytest.approx(0.360, abs=5e-4)


def test_an_official_row_becomes_this_sample(tmp_path: Path) -> None:
    write_official(tmp_path, [GLOVE], {str(GLOVE["image"]): [[56, 14, 15, 16], [0, 0, 1, 1]]})
    # A second table beside the official one does not confuse.
    (tmp_path / "other.jsonl").write_text("{}\n", encoding="utf-8")
    (sample,) = map(VSTAR.to_sample, open_rows(VSTAR.rows, tmp_path))
    frame = pixels(200, 100, "direct_attributes/sa_4690.jpg")
    assert dataclasses.replace(sample, images=()) == Sample(
        id="direct_attributes/sa_4690",
        question="What is the material of the glove?",
        images=(),
        targets=("A",),
        options=("rubber", "cotton", "kevlar"),
        instruction=INSTRUCTION,
        groups={"category": "direct_attributes"},
        chance=1 / 3,
        target_boxes=(Box(56, 14, 71, 30, frame), Box(0, 0, 1, 1, frame)),
    )
    assert prompt(sample) == (
        "What is the material of the glove?\nA. rubber\nB. cotton\nC. kevlar\n"
        "Answer with the option's letter from the given choices directly."
    )
    (image,) = sample.images
    assert image.name == GLOVE["image"]
    assert image.read() == (tmp_path / str(GLOVE["image"])).read_bytes()


def test_a_row_with_an_image_column_becomes_the_same_sample_without_boxes() -> None:
    row = {**GLOVE, "question_id": "17", "image": {"bytes": b"jpg", "path": None}}
    sample = VSTAR.to_sample(open_rows(DrawnRows(1, lambda index: row))[0])
    assert (sample.id, sample.target_boxes) == ("direct_attributes/17", ())
    assert (sample.options, sample.targets) == (("rubber", "cotton", "kevlar"), ("A",))
    assert sample.images[0].read() == b"jpg"


@pytest.mark.parametrize("prefix", ["", "data:image/jpeg;base64,"])
def test_rows_with_base64_images_are_told_apart_by_their_question_id(prefix: str) -> None:
    jpeg = b"\xff\xd8\xff" + bytes(range(256))
    encoded = prefix + base64.b64encode(jpeg).decode()
    rows = [{**GLOVE, "question_id": index, "image": encoded} for index in range(2)]
    samples = [VSTAR.to_sample(row) for row in open_rows(DrawnRows(2, lambda i: rows[i]))]
    assert [one.id for one in samples] == ["direct_attributes/0", "direct_attributes/1"]
    assert [one.target_boxes for one in samples] == [(), ()]
    assert samples[0].images[0].read() == jpeg


def sample_of(text: str) -> Sample:
    row = {**GLOVE, "text": text, "image": b"jpg"}
    return VSTAR.to_sample(open_rows(DrawnRows(1, lambda index: row))[0])


@pytest.mark.parametrize(
    "options",
    [
        ["red (dark)", "(B) inside", "blue"],
        ["on the left (A) side", "a"],
        ["(A)", "(B)"],
        ["1 (one).", "2"],
    ],
)
def test_options_keep_their_parentheses(options: list[str]) -> None:
    sample = sample_of(text_of("Which (A) of these?", options))
    assert sample.options == tuple(options)
    assert (sample.question, sample.instruction) == ("Which (A) of these?", INSTRUCTION)


def test_windows_line_ends_are_no_part_of_an_option() -> None:
    assert sample_of("Which?\r\n(A) red\r\n(B) blue\r\n").options == ("red", "blue")


@pytest.mark.parametrize(
    "text", ["Which?", "Which?\n(A) red", "Which?\n(A) red\n(C) blue", "Which? (A) red (B) blue"]
)
def test_text_without_options_in_order_is_refused(text: str) -> None:
    with pytest.raises(DataError, match="expected options"):
        sample_of(text)


@pytest.mark.parametrize("boxes", [[[1, 2, 3]], [[1, 2, 0, 4]], 5, [["a", 1, 2, 3]]])
def test_an_annotation_without_boxes_is_told(tmp_path: Path, boxes: object) -> None:
    write_official(tmp_path, [GLOVE], {str(GLOVE["image"]): boxes})
    with pytest.raises(DataError, match=r"sa_4690\.jpg' has no boxes"):
        VSTAR.to_sample(open_rows(VSTAR.rows, tmp_path)[0])


def test_an_image_without_an_annotation_has_no_boxes(tmp_path: Path) -> None:
    write_official(tmp_path, [GLOVE], {})
    assert VSTAR.to_sample(open_rows(VSTAR.rows, tmp_path)[0]).target_boxes == ()


def test_a_garbled_annotation_is_told(tmp_path: Path) -> None:
    write_official(tmp_path, [GLOVE], {})
    (tmp_path / "direct_attributes" / "sa_4690.json").write_text("{", encoding="utf-8")
    with pytest.raises(DataError, match="has no boxes"):
        VSTAR.to_sample(open_rows(VSTAR.rows, tmp_path)[0])


@pytest.mark.skipif(not SHARED.is_dir(), reason="no ../shared/data beside the project")
def test_all_191_real_questions_survive_the_official_layout(tmp_path: Path) -> None:
    lines = (SHARED / "questions.jsonl").read_text(encoding="utf-8").splitlines()
    questions = [json.loads(line) for line in lines]
    shuffle = random.Random(0).shuffle
    rows: list[Mapping[str, object]] = []
    for question in questions:
        shuffle(question["options"])
        label = option_letter(question["options"].index(question["answer"]))
        text = text_of(question["question"], question["options"])
        kept = {key: question[key] for key in ("image", "category")}
        rows.append({**kept, "text": text, "label": label, "question_id": len(rows)})
    write_official(tmp_path, rows, {str(row["image"]): [[1, 2, 3, 4]] for row in rows})

    samples = [VSTAR.to_sample(row) for row in open_rows(VSTAR.rows, tmp_path)]
    assert len({sample.id for sample in samples}) == len(samples) == VSTAR.count
    assert Counter((s.groups["category"], len(s.options)) for s in samples) == {
        ("direct_attributes", 4): 107,
        ("direct_attributes", 2): 8,
        ("relative_position", 2): 76,
    }
    for sample, question in zip(samples, questions, strict=True):
        assert sample.id == question["id"]
        assert sample.question == question["question"]
        assert sample.options == tuple(question["options"])
        assert sample.options["ABCD".index(sample.targets[0])] == question["answer"]
        assert len(sample.target_boxes) == 1
    assert VSTAR.chance == pytest.approx(sum(s.chance or 0.0 for s in samples) / len(samples))
