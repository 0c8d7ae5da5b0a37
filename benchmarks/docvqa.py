"""DocVQA and InfographicVQA: questions about scanned pages and infographics.

Rows: https://huggingface.co/datasets/lmms-lab-encoder/DocVQA (before, and still in many caches,
lmms-lab/DocVQA), configurations DocVQA (validation 5,349, test 5,188) and InfographicVQA
(validation 2,801, test 3,288); columns questionId, question, image, answers and, of DocVQA,
question_types, of InfographicVQA, answer_type. No commit was read in a source for the
newer name, so `revision` is None and a run records the one it resolved.

Answers of the test splits are kept by the challenge (https://rrc.cvc.uab.es/?ch=17): their samples
have no target and get no score; `medeval export` writes the file to submit.

The instruction is that of lmms-eval, tasks/docvqa/_default_template_docvqa_yaml at commit 0ad7b14.

`docvqa_d4` and `infovqa_d4` are our own construction, after ToolsRL's DocVQA-RF (arXiv:2604.19945),
whose own is unpublished: never compare them with a published figure. Each validation image is
turned or flipped by one of the seven symmetries of a square that move something, drawn evenly from
sha256 of "medeval d4|<questionId>"; the draw is the sample's transform and its group
`orientation`. `docvqa_d4_upright` and `infovqa_d4_upright` are their controls: the same questions,
each image decoded and encoded in the same way and left upright. A question has one id in both.
"""

from collections.abc import Callable

from medeval import Benchmark, HubRows, Row, Sample
from medeval.data.symmetry import drawn_turn, turned

INSTRUCTION = "Answer the question using a single word or phrase."
SEED = "medeval d4"
NAMES = {"docvqa": "DocVQA", "infovqa": "InfographicVQA"}
KINDS = {"docvqa": "question_types", "infovqa": "answer_type"}
CITATIONS = {
    "docvqa": "Mathew et al., DocVQA, WACV 2021, arXiv:2007.00398",
    "infovqa": "Mathew et al., InfographicVQA, WACV 2022, arXiv:2104.12756",
}


def to_sample(row: Row) -> Sample:
    """A row of either; the group of a question of several kinds names them all."""
    column = KINDS["docvqa"] if KINDS["docvqa"] in row else KINDS["infovqa"]
    kinds = row.texts(column) if row.get(column) else ()
    answers = row.texts("answers") if row.get("answers") else ()
    return Sample(
        id=row.text("questionId"),
        question=row.text("question"),
        images=(row.image("image"),),
        targets=answers,
        instruction=INSTRUCTION,
        groups={"kind": ", ".join(sorted(kinds))} if kinds else {},
    )


def to_turned_sample(row: Row) -> Sample:
    """A row with its image turned by the symmetry drawn for its question."""
    sample = to_sample(row)
    return turned(sample, drawn_turn(SEED, sample.id))


def to_upright_sample(row: Row) -> Sample:
    """A row with its image left upright, otherwise treated as a turned one."""
    return turned(to_sample(row), "upright")


def benchmark(
    name: str,
    title: str,
    split: str,
    count: int,
    aliases: tuple[str, ...] = (),
    to_sample: Callable[[Row], Sample] = to_sample,
) -> Benchmark:
    """One split of DocVQA or InfographicVQA, as the name's first part says."""
    task = name.partition("_")[0]
    return Benchmark(
        name=name,
        title=title,
        aliases=aliases,
        rows=HubRows(
            "lmms-lab-encoder/DocVQA",
            config=NAMES[task],
            split=split,
            mirrors=("lmms-lab/DocVQA",),
        ),
        count=count,
        columns=("questionId", "question", "image", "answers"),
        to_sample=to_sample,
        judge="anls",
        groups=("kind", "orientation") if "d4" in name else ("kind",),
        labelled=split != "test",
        licence="Apache-2.0 as its page says; pages: UCSF Industry Documents, research use"
        if task == "docvqa"
        else "Apache-2.0 as its page says; infographics: their makers, research use",
        citation=CITATIONS[task],
    )


DOCVQA = benchmark("docvqa", "DocVQA, validation", "validation", 5349, ("DocVQA_VAL", "docvqa_val"))
INFOVQA = benchmark(
    "infovqa", "InfographicVQA, validation", "validation", 2801, ("InfoVQA_VAL", "infovqa_val")
)
DOCVQA_TEST = benchmark("docvqa_test", "DocVQA, test (no labels)", "test", 5188, ("DocVQA_TEST",))
INFOVQA_TEST = benchmark(
    "infovqa_test", "InfographicVQA, test (no labels)", "test", 3288, ("InfoVQA_TEST",)
)
DOCVQA_D4 = benchmark(
    "docvqa_d4",
    "DocVQA, validation, each page turned or flipped (our construction)",
    "validation",
    5349,
    to_sample=to_turned_sample,
)
DOCVQA_D4_UPRIGHT = benchmark(
    "docvqa_d4_upright",
    "DocVQA, validation, the upright control of docvqa_d4",
    "validation",
    5349,
    to_sample=to_upright_sample,
)
INFOVQA_D4 = benchmark(
    "infovqa_d4",
    "InfographicVQA, validation, each image turned or flipped (our construction)",
    "validation",
    2801,
    to_sample=to_turned_sample,
)
INFOVQA_D4_UPRIGHT = benchmark(
    "infovqa_d4_upright",
    "InfographicVQA, validation, the upright control of infovqa_d4",
    "validation",
    2801,
    to_sample=to_upright_sample,
)
