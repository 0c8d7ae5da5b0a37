"""CharXiv: one question of reasoning and four of description for each figure."""

import json
from collections import Counter
from collections.abc import Mapping

import pytest

from medeval.data.benchmark import Benchmark
from medeval.data.rows import HubRows, RepeatedRows
from medeval.errors import DataError
from medeval.evaluation.loader import load
from medeval.types.sample import Sample
from tests.frozen_rows import NO_SHARED, SHARED, picture, prompt, samples_of, without_images

REASONING = load("charxiv_reasoning", Benchmark).value
DESCRIPTIVE = load("charxiv_descriptive", Benchmark).value
ROWS = HubRows("princeton-nlp/CharXiv", split="validation")

ROW: dict[str, object] = {
    "category": "cs",
    "year": "20",
    "original_figure_path": "arXiv_src_2004_038/2004/2004.10956/figures/overall3.jpg",
    "original_id": "2004.10956",
    "figure_path": "images/0.jpg",
    "num_subplots": 2,
    "subplot_row": 1,
    "subplot_col": 2,
    "subplot_loc": None,
    "descriptive_q1": 7,
    "descriptive_q2": 13,
    "descriptive_q3": 11,
    "descriptive_q4": 18,
    "descriptive_a1": "60",
    "descriptive_a2": "A, B",
    "descriptive_a3": "Yes",
    "descriptive_a4": "1 by 2",
    "reasoning_q": "Which model shows a greater decline?",
    "reasoning_q_source": 3,
    "reasoning_a": "Joint-CNN",
    "reasoning_a_type": 1,
    "image": {"bytes": picture(), "path": None},
}


def test_it_is_the_published_validation_split() -> None:
    assert (REASONING.rows, REASONING.count) == (ROWS, 1000)
    assert (DESCRIPTIVE.rows, DESCRIPTIVE.count) == (RepeatedRows(ROWS, times=4), 4000)
    assert (REASONING.judge, DESCRIPTIVE.judge) == ("charxiv_reasoning", "charxiv_descriptive")
    assert load("CharXiv_reasoning_val", Benchmark).value is REASONING
    assert load("CharXiv_descriptive_val", Benchmark).value is DESCRIPTIVE


def test_a_row_becomes_this_question_of_reasoning() -> None:
    (sample,) = samples_of(REASONING, ROW)
    assert without_images(sample) == Sample(
        id="0",
        question="Which model shows a greater decline?",
        images=(),
        targets=("Joint-CNN",),
        instruction=sample.instruction,
        groups={
            "answer_type": "Text-in-Chart",
            "source": "Completely Human",
            "subject": "cs",
            "year": "2020",
            "subplots": "2-4",
        },
        metadata={"answer_type": 1},
    )
    assert [image.read() for image in sample.images] == [picture()]
    assert prompt(sample) == (
        "Which model shows a greater decline?\n"
        "    * Your final answer must be grounded to some text that is explicitly written and "
        "relevant to the question in the chart.\n"
        "    * If you need to answer multiple terms, separate them with commas.\n"
        "    * Unless specified in the question (such as answering with a letter), you are "
        "required to answer the full names of subplots and/or labels by default."
    )


@pytest.mark.parametrize(
    ("answer", "instruction"),
    [
        ("12", "    * Your final answer must be an exact integer."),
        ("0.25", "    * Your final answer must be a number with 2 decimal places."),
        ("3.", "    * Your final answer must be a number with 0 decimal places."),
    ],
)
def test_a_number_in_general_says_how_exact_it_is(answer: str, instruction: str) -> None:
    row = {**ROW, "reasoning_a_type": 4, "reasoning_a": answer}
    (sample,) = samples_of(REASONING, row)
    assert sample.instruction == instruction
    assert sample.groups["answer_type"] == "Number-in-General"


def test_a_row_becomes_these_four_questions_of_description() -> None:
    samples = samples_of(DESCRIPTIVE, ROW)
    assert [sample.id for sample in samples] == ["0_0", "0_1", "0_2", "0_3"]
    assert {sample.cluster for sample in samples} == {"0"}
    assert [sample.targets for sample in samples] == [("60",), ("A, B",), ("Yes",), ("1 by 2",)]
    assert [sample.metadata for sample in samples] == [
        {"template": 7},
        {"template": 13},
        {"template": 11},
        {"template": 18},
    ]
    assert [sample.groups["category"] for sample in samples] == [
        "Information Extraction",
        "Enumeration",
        "Pattern Recognition",
        "Pattern Recognition",
    ]
    assert [sample.question for sample in samples] == [
        "For the subplot at row 1 and column 2, what is the spatially highest labeled tick on the "
        "y-axis?",
        "For the subplot at row 1 and column 2, what are the names of the labels in the legend?",
        "For the subplot at row 1 and column 2, do any lines intersect?",
        "What is the layout of the subplots?",
    ]
    assert prompt(samples[0]) == (
        "For the subplot at row 1 and column 2, what is the spatially highest labeled tick on the "
        "y-axis?\n"
        "    * Your final answer should be the tick value on the y-axis that is explicitly "
        "written, including the case when y-axis is shared across multiple subplots. When the "
        "y-axis is present on both the left and right of the plot, based on the axis at the left. "
        "Ignore units or scales that are written separately from the tick, such as units and "
        "scales from the axis label or the corner of the plot."
    )
    assert samples[1].instruction == (
        "    * You should write down the labels from top to bottom, then from left to right and "
        "separate the labels with commas. Your final answer should account for only labels "
        "relevant to the plot in the legend, even if the legend is located outside the plot.\n"
        "    * If the plot does not have a legend or no legend is not considered relevant to this "
        'plot, answer "Not Applicable".'
    )
    assert samples[3].instruction == (
        '    * Your final answer should follow "n by m" format, where n is the number of rows and '
        'm is the number of columns.\n    * If the plot does not contain subplots, answer "1 by 1".'
    )


@pytest.mark.parametrize(
    ("place", "begins"),
    [
        ({"subplot_row": 0, "subplot_col": 0}, "For the current plot, what"),
        ({"subplot_loc": "the bottom subplot"}, "For the bottom subplot, what"),
    ],
)
def test_a_description_says_which_subplot_it_is_of(
    place: Mapping[str, object], begins: str
) -> None:
    assert samples_of(DESCRIPTIVE, {**ROW, **place})[0].question.startswith(begins)


def test_every_template_has_a_question_an_instruction_and_a_category() -> None:
    for template in range(1, 20):
        sample = samples_of(DESCRIPTIVE, {**ROW, "descriptive_q1": template})[0]
        assert sample.question.endswith("?")
        assert sample.instruction.startswith("    * ")
        assert sample.groups["template"] == str(template)


@pytest.mark.parametrize(
    ("benchmark", "column", "value"),
    [
        (REASONING, "reasoning_a_type", 5),
        (REASONING, "reasoning_q_source", 0),
        (DESCRIPTIVE, "descriptive_q1", 20),
    ],
)
def test_a_number_without_a_meaning_is_refused(
    benchmark: Benchmark, column: str, value: int
) -> None:
    with pytest.raises(DataError, match=f"{column} is 1 to"):
        samples_of(benchmark, {**ROW, column: value})


def real_rows() -> list[dict[str, object]]:
    """The official questions, in the columns of the hub's data set."""
    read = {
        name: json.loads((SHARED / "charxiv" / f"{name}_val.json").read_text(encoding="utf-8"))
        for name in ("reasoning", "descriptive", "image_metadata")
    }
    rows = []
    for key, reasoning in read["reasoning"].items():
        described, about = read["descriptive"][key], read["image_metadata"][key]
        place = described["subplot_loc"]
        row, column = (None, None) if isinstance(place, str) else place
        rows.append(
            {
                **ROW,
                **{name: about[name] for name in ("category", "year")},
                "figure_path": f"images/{key}.jpg",
                "num_subplots": described["num_subplots"],
                "subplot_row": row,
                "subplot_col": column,
                "subplot_loc": place if isinstance(place, str) else None,
                **{f"descriptive_q{n + 1}": q for n, q in enumerate(described["qids"])},
                **{f"descriptive_a{n + 1}": a for n, a in enumerate(described["answers"])},
                "reasoning_q": reasoning["query"],
                "reasoning_q_source": reasoning["qa_source"],
                "reasoning_a": reasoning["answer"],
                "reasoning_a_type": reasoning["inst_category"],
            }
        )
    return rows


@pytest.mark.skipif(not SHARED.is_dir(), reason=NO_SHARED)
def test_all_real_questions_of_reasoning_survive_the_data_sets_columns() -> None:
    samples = samples_of(REASONING, *real_rows())
    assert len({sample.id for sample in samples}) == REASONING.count
    assert Counter(sample.groups["answer_type"] for sample in samples) == {
        "Text-in-Chart": 440,
        "Text-in-General": 99,
        "Number-in-Chart": 232,
        "Number-in-General": 229,
    }


@pytest.mark.skipif(not SHARED.is_dir(), reason=NO_SHARED)
def test_all_four_real_descriptions_of_each_figure_are_asked() -> None:
    rows = real_rows()
    samples = samples_of(DESCRIPTIVE, *rows)
    assert len({sample.id for sample in samples}) == DESCRIPTIVE.count
    assert set(Counter(sample.cluster for sample in samples).values()) == {4}
    asked = Counter((sample.cluster, sample.groups["template"]) for sample in samples)
    there = Counter(
        (str(row["figure_path"])[7:-4], str(row[f"descriptive_q{n}"]))
        for row in rows
        for n in "1234"
    )
    assert asked == there
    assert all(sample.targets[0] for sample in samples)
