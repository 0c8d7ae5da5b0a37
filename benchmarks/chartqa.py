"""ChartQA: questions about charts, written by people (human) or made by a model (augmented).

Rows: https://huggingface.co/datasets/lmms-lab-encoder/ChartQA (before, and still in many caches,
lmms-lab/ChartQA), split test, 2,500 rows, 1,250 of type human_test and 1,250 of augmented_test;
columns type, question, answer, image. No commit of it was read in a source, so `revision` is None
and a run records the one it resolved.

The rows carry no id: a sample's is its position in the table, unless a local copy has an `id`
column. The instruction is that of lmms-eval, lmms_eval/tasks/chartqa/chartqa.yaml at commit
38eb0f3; the authors published none.
"""

from medeval import Benchmark, HubRows, Row, Sample

INSTRUCTION = "Answer the question with a single word."


def to_sample(row: Row) -> Sample:
    """A row of ChartQA."""
    return Sample(
        id=row.text("id") if "id" in row else f"test-{row.index:05d}",
        question=row.text("question"),
        images=(row.image("image"),),
        targets=(row.text("answer"),),
        instruction=INSTRUCTION,
        groups={"type": row.text("type").removesuffix("_test")},
    )


CHARTQA = Benchmark(
    name="chartqa",
    title="ChartQA, test",
    aliases=("ChartQA_TEST",),
    rows=HubRows("lmms-lab-encoder/ChartQA", split="test", mirrors=("lmms-lab/ChartQA",)),
    count=2500,
    columns=("type", "question", "answer", "image"),
    to_sample=to_sample,
    judge="relaxed_accuracy",
    groups=("type",),
    licence="GPL-3.0 (charts: their publishers)",
    citation="Masry et al., ChartQA, Findings of ACL 2022, arXiv:2203.10244",
)
