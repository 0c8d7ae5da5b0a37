"""TableVQA-Bench: four parts, each with its authors' prompt."""

import json

import pytest

from medeval.data.benchmark import Benchmark
from medeval.data.rows import HubRows
from medeval.evaluation.loader import load
from medeval.types.sample import Sample
from tests.frozen_rows import NO_SHARED, SHARED, picture, prompt, samples_of, without_images

ROW: dict[str, object] = {
    "qa_id": "nu-1740",
    "image": {"bytes": picture(), "path": None},
    "question": "how many players attended wake forest university before being drafted?",
    "text_markdown_table": "| a |",
    "text_html_table": "<table></table>",
    "gt": "2",
}
VWTQ = """You are asked to answer questions asked on an image.
You should answer the question with a single word.
Example:\x20
Question: what was the only year mr. wu competed in the olympic games?
Answer: 2004
Question: which township in pope county, arkansas has the least amount of water area?
Answer: Freeman
If you have multiple answers, please separate them with || marks. Example: Apple||Banana||Tomato"""


@pytest.mark.parametrize(
    ("part", "count", "judge", "chance"),
    [
        ("vwtq", 750, "tablevqa_vwtq", None),
        ("vwtq_syn", 250, "tablevqa_vwtq", None),
        ("vtabfact", 250, "tablevqa_vtabfact", 0.5),
        ("fintabnetqa", 250, "tablevqa_fintabnetqa", None),
    ],
)
def test_the_parts_are_the_published_splits(
    part: str, count: int, judge: str, chance: float | None
) -> None:
    benchmark = load(f"tablevqa_{part}", Benchmark).value
    assert benchmark.rows == HubRows("terryoo/TableVQA-Bench", split=part)
    assert (benchmark.count, benchmark.judge, benchmark.chance) == (count, judge, chance)
    assert benchmark.suite == "tablevqa"


def test_a_row_becomes_this_sample_and_prompt() -> None:
    (sample,) = samples_of(load("tablevqa_vwtq", Benchmark).value, ROW)
    assert without_images(sample) == Sample(
        id="nu-1740",
        question="how many players attended wake forest university before being drafted?",
        images=(),
        targets=("2",),
        instruction=VWTQ,
    )
    assert [image.read() for image in sample.images] == [picture()]
    assert prompt(sample) == f"{ROW['question']}\n{VWTQ}"


@pytest.mark.parametrize(("label", "target"), [("1", "true"), ("0", "false"), (1, "true")])
def test_a_fact_is_answered_with_a_word(label: object, target: str) -> None:
    (sample,) = samples_of(load("tablevqa_vtabfact", Benchmark).value, {**ROW, "gt": label})
    assert (sample.targets, sample.chance) == ((target,), 0.5)
    assert sample.instruction.startswith("You are asked to answer whether the statement is True")


@pytest.mark.skipif(not SHARED.is_dir(), reason=NO_SHARED)
@pytest.mark.parametrize("part", ["vwtq", "vwtq_syn", "vtabfact", "fintabnetqa"])
def test_real_items_survive_the_data_sets_columns(part: str) -> None:
    lines = (SHARED / "tablevqa" / f"{part}.jsonl").read_text(encoding="utf-8").splitlines()
    items = [json.loads(line) for line in lines]
    rows = [
        {**ROW, "qa_id": item["qa_id"], "question": item["question"], "gt": str(item["answer"])}
        for item in items
    ]
    samples = samples_of(load(f"tablevqa_{part}", Benchmark).value, *rows)
    assert len({sample.id for sample in samples}) == len(items)
    for sample, item in zip(samples, items, strict=True):
        assert (sample.id, sample.question) == (item["qa_id"], item["question"])
        answer = {0: "false", 1: "true"}.get(item["answer"], item["answer"])
        assert sample.targets == (answer,)


@pytest.mark.skipif(not SHARED.is_dir(), reason=NO_SHARED)
def test_real_images_are_read() -> None:
    lines = (SHARED / "tablevqa" / "samples_with_images.jsonl").read_text().splitlines()
    for item in map(json.loads, lines):
        data = (SHARED / "tablevqa" / item["image"]).read_bytes()
        row = {**ROW, "image": data, "qa_id": item["id"], "gt": item["answer"]}
        (sample,) = samples_of(load(f"tablevqa_{item['split']}", Benchmark).value, row)
        assert sample.images[0].read() == data
