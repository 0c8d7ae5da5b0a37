"""ChartQAPro: questions of five types about charts of 157 sources.

Rows: https://huggingface.co/datasets/ahmed-masry/ChartQAPro, split test, 1,948 rows; columns
Question and Answer (lists: of a conversation all turns), "Question Type", image (bytes), Year (a
list of YES and NO) and Paragraph. The rows carry no id: a sample's is its position in the table.
No commit was read in a source, so `revision` is None and a run records the one it resolved.

The instructions are the authors' direct ones, as VLMEvalKit repeats them
(vlmeval/dataset/utils/chartqapro.py at commit 160057c), with two differences: line breaks inside a
paragraph are spaces, and the last line, which forbids any other text, is left out, because a
protocol says itself what may stand around an answer. There they stand before the question, here
after it. A conversation is written as there, a Python list before its last question; a paragraph
stands before all, after "Context: ", as in lmms-eval (tasks/chartqapro/utils.py at 5a89faf).
"""

from medeval import Benchmark, HubRows, Row, Sample

SHORT = (
    "Your answer should be a single word, number, or phrase. If the question is unanswerable based "
    "on the information in the provided image, your answer should be unanswerable. Do not generate "
    "units. But if numerical units such as million, m, billion, B, or K are required, use the exact "  # noqa: E501
    "notation shown in the chart.\n"
)
SEVERAL = (
    "If there are multiple answers, put them in brackets using this format [’Answer1’, ’Answer2’]."  # noqa: RUF001
)
INSTRUCTIONS = {
    "Factoid": "You are given a factoid question that you need to answer based on the provided "
    f"image.\n{SHORT}{SEVERAL}",
    "Multi Choice": "You are given a question along with different possible answers. You need to "
    "select the correct answer from them based on the provided image.\nYour answer should be one "
    "of the options letters only: a, b, c or d (just the letter itself without any additional "
    "text). If the question is unanswerable based on the information in the provided image, your "
    f"answer should be unanswerable.\n{SEVERAL}",
    "Conversational": "You are given a multi-turn conversation, and your job is to answer the "
    "final question based on the conversation history and the information in the provided image."
    f"\n{SHORT}{SEVERAL}",
    "Fact Checking": "You are given a fact statement that you need to assess based on the "
    "provided image.\nYour answer should be either true or false (without any additional text). If "
    "the question is unanswerable based on the information in the provided image, your answer "
    f"should be unanswerable.\n{SEVERAL}",
    "Hypothetical": "You are given a hypothetical question that you need to answer based on the "
    f"provided image.\n{SHORT}{SEVERAL}",
}


def to_sample(row: Row) -> Sample:
    """A row of ChartQAPro; the question is the last one of a conversation."""
    questions, answers = row.texts("Question"), row.texts("Answer")
    kind = row.text("Question Type")
    question = questions[-1].strip()
    if kind == "Conversational" and len(questions) > 1:
        turns = [said for turn in zip(questions[:-1], answers[:-1], strict=True) for said in turn]
        question = f"Conversation: {turns} Question: {question}"
    paragraph = str(row.get("Paragraph") or "").strip()
    return Sample(
        id=f"test-{row.index:05d}",
        question=f"Context: {paragraph}\n\n{question}" if paragraph else question,
        images=(row.image("image"),),
        targets=answers[-1:],
        instruction=INSTRUCTIONS[kind],
        groups={"question_type": kind},
        metadata={"years": list(row.texts("Year"))},
    )


CHARTQA_PRO = Benchmark(
    name="chartqa_pro",
    title="ChartQAPro, test",
    aliases=("ChartQAPro", "chartqapro"),
    rows=HubRows("ahmed-masry/ChartQAPro", split="test"),
    count=1948,
    columns=("Question", "Answer", "Question Type", "image", "Year", "Paragraph"),
    to_sample=to_sample,
    judge="chartqa_pro",
    groups=("question_type",),
    licence="MIT, as its page says (charts: their publishers); recalled, not read",
    citation="Masry et al., ChartQAPro, 2025, arXiv:2504.05506",
)
