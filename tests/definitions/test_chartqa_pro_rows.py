"""ChartQAPro: five types of question, conversations and paragraphs."""

import pytest

from medeval.data.benchmark import Benchmark
from medeval.data.rows import HubRows
from medeval.evaluation.loader import load
from medeval.types.sample import Sample
from tests.frozen_rows import picture, prompt, samples_of, without_images

PRO = load("chartqa_pro", Benchmark).value

ROW: dict[str, object] = {
    "Question": ["Which year had the highest share?"],
    "Answer": ["2016"],
    "Question Type": "Factoid",
    "image": picture(),
    "Year": ["YES"],
    "Paragraph": "",
}
FACTOID = (
    "You are given a factoid question that you need to answer based on the provided image.\n"
    "Your answer should be a single word, number, or phrase. If the question is unanswerable based "
    "on the information in the provided image, your answer should be unanswerable. Do not generate "
    "units. But if numerical units such as million, m, billion, B, or K are required, use the "
    "exact notation shown in the chart.\n"
    "If there are multiple answers, put them in brackets using this format "
    "[’Answer1’, ’Answer2’]."  # noqa: RUF001
)


def test_it_is_the_published_test_split() -> None:
    assert PRO.rows == HubRows("ahmed-masry/ChartQAPro", split="test")
    assert (PRO.count, PRO.judge, PRO.groups) == (1948, "chartqa_pro", ("question_type",))
    assert load("ChartQAPro", Benchmark).value is load("chartqapro", Benchmark).value is PRO


def test_a_row_becomes_this_sample_and_prompt() -> None:
    (sample,) = samples_of(PRO, ROW)
    assert without_images(sample) == Sample(
        id="test-00000",
        question="Which year had the highest share?",
        images=(),
        targets=("2016",),
        instruction=FACTOID,
        groups={"question_type": "Factoid"},
        metadata={"years": ["YES"]},
    )
    assert [image.read() for image in sample.images] == [picture()]
    assert prompt(sample) == f"Which year had the highest share?\n{FACTOID}"


def test_a_conversation_stands_before_its_last_question() -> None:
    row = {
        **ROW,
        "Question": ["What is shown?", "Which is highest?", "By how much?"],
        "Answer": ["Sales", "It's 2016", "[5, 6]"],
        "Question Type": "Conversational",
        "Year": ["NO", "YES", "NO"],
    }
    (sample,) = samples_of(PRO, row)
    assert sample.question == (
        "Conversation: ['What is shown?', 'Sales', 'Which is highest?', \"It's 2016\"] "
        "Question: By how much?"
    )
    assert (sample.targets, sample.metadata) == (("[5, 6]",), {"years": ["NO", "YES", "NO"]})
    assert sample.instruction.startswith("You are given a multi-turn conversation, and your job")


def test_a_paragraph_stands_before_the_question() -> None:
    (sample,) = samples_of(PRO, {**ROW, "Paragraph": " Sales fell. "})
    assert sample.question == "Context: Sales fell.\n\nWhich year had the highest share?"


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("Multi Choice", "one of the options letters only: a, b, c or d (just the letter itself"),
        ("Fact Checking", "either true or false (without any additional text)"),
        ("Hypothetical", "You are given a hypothetical question"),
    ],
)
def test_each_type_has_its_instruction(kind: str, says: str) -> None:
    (sample,) = samples_of(PRO, {**ROW, "Question Type": kind})
    assert says in sample.instruction
    assert sample.instruction.count("\n") == 2
