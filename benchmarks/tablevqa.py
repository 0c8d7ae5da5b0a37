"""TableVQA-Bench: questions about images of tables, in four parts.

Rows: https://huggingface.co/datasets/terryoo/TableVQA-Bench, splits vwtq (750), vwtq_syn, vtabfact
and fintabnetqa (250 each); columns qa_id, image, question, text_markdown_table, text_html_table and
gt.
The benchmark's average is over all 1,500 rows together. No commit was read in a source, so
`revision` is None and a run records the one it resolved.

The instructions are the authors' prompts, naver-ai/tablevqabench, src/example_prompts.py at commit
6138266, without the frame "Question: ... Answer:" (VTabFact: "Statement:") at their end. There they
stand before the question, here after it.
"""

from medeval import Benchmark, HubRows, Row, Sample

VWTQ = """You are asked to answer questions asked on an image.
You should answer the question with a single word.
Example:\x20
Question: what was the only year mr. wu competed in the olympic games?
Answer: 2004
Question: which township in pope county, arkansas has the least amount of water area?
Answer: Freeman
If you have multiple answers, please separate them with || marks. Example: Apple||Banana||Tomato"""

VTABFACT = """You are asked to answer whether the statement is True or False based on given image
You should only answer true or false.
Example:\x20
Statement: the milwaukee buck win 6 game in the 2010 - 11 season
Answer: True
Statement: only the top team score above the average of 8.8
Answer: False"""

FINTABNETQA = """You are asked to answer questions asked on a image.
You should answer the question within a single word or few words.
If units can be known, the answer should include units such as $, %, million and etc.
Example:\x20
Question: What were the total financing originations for the fiscal year ended October 31, 2004?
Answer: $3,852 million
Question: What is the time period represented in the table?
Answer: October 31
Question: What was the percentage of net sales for selling, general and administrative expenses in 2006?
Answer: 34.2%"""  # noqa: E501

INSTRUCTIONS = {
    "tablevqa_vwtq": VWTQ,
    "tablevqa_vtabfact": VTABFACT,
    "tablevqa_fintabnetqa": FINTABNETQA,
}
# How VTabFact's labels are stored; what is answered is the word.
TRUTHS = {"1": "true", "0": "false"}


def tablevqa(split: str, count: int, judge: str, chance: float | None = None) -> Benchmark:
    """One part of TableVQA-Bench."""

    def to_sample(row: Row) -> Sample:
        target = row.text("gt")
        return Sample(
            id=row.text("qa_id"),
            question=row.text("question"),
            images=(row.image("image"),),
            targets=(TRUTHS[target] if split == "vtabfact" else target,),
            instruction=INSTRUCTIONS[judge],
            chance=chance,
        )

    return Benchmark(
        name=f"tablevqa_{split}",
        title=f"TableVQA-Bench, {split}",
        rows=HubRows("terryoo/TableVQA-Bench", split=split),
        count=count,
        columns=("qa_id", "image", "question", "gt"),
        to_sample=to_sample,
        judge=judge,
        suite="tablevqa",
        chance=chance,
        licence="CC BY 4.0",
        citation="Kim, Yim and Song, TableVQA-Bench, 2024, arXiv:2404.19205",
    )


TABLEVQA_VWTQ = tablevqa("vwtq", 750, "tablevqa_vwtq")
TABLEVQA_VWTQ_SYN = tablevqa("vwtq_syn", 250, "tablevqa_vwtq")
TABLEVQA_VTABFACT = tablevqa("vtabfact", 250, "tablevqa_vtabfact", chance=0.5)
TABLEVQA_FINTABNETQA = tablevqa("fintabnetqa", 250, "tablevqa_fintabnetqa")
