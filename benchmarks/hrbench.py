"""HR-Bench 4K and 8K: multiple choice about details of very large photographs.

Rows: https://huggingface.co/datasets/DreamMr/HR-Bench, configuration hrbench_version_split, splits
hrbench_4k and hrbench_8k of 800 rows each; columns index, question, answer, category (single or
cross), A, B, C, D, cycle_category, image (base64). They are 200 questions, each four times with
its options moved round. No column names the question that four rows share: they are those with
the same question, image and set of options, and `medeval validate` tells where these are not
four. How cycles are spelt could not be read and is taken as it stands. No commit was read in a
source, so `revision` is None and a run records the one it resolved.

The instruction and the layout of options are those of lmms-eval, lmms_eval/tasks/hrbench/utils.py
at commit 161c7a1. The official score is the mean over the four cycles of each cycle's mean, for
all rows and for each category (VLMEvalKit, vlmeval/dataset/utils/hrbench.py at commit 36049f0).
"""

import hashlib

from medeval import Benchmark, HubRows, Row, Sample

INSTRUCTION = "Answer the option letter directly."
COLUMNS = ("index", "question", "answer", "category", "A", "B", "cycle_category", "image")


def question_key(row: Row, options: tuple[str, ...]) -> str:
    """What the four rows of one question share and no others do."""
    shared = (row.text("question"), *sorted(options), row.digest("image"))
    return hashlib.sha256("\0".join(shared).encode()).hexdigest()[:16]


def to_sample(row: Row) -> Sample:
    """A row of HR-Bench."""
    options = tuple(row.text(letter) for letter in "ABCD" if row.get(letter) not in (None, ""))
    return Sample(
        id=row.text("index"),
        question=row.text("question").strip(),
        images=(row.image("image"),),
        targets=(row.text("answer"),),
        options=options,
        instruction=INSTRUCTION,
        groups={"category": row.text("category"), "cycle": row.text("cycle_category")},
        cluster=question_key(row, options),
        chance=1 / len(options),
    )


def hrbench(size: str) -> Benchmark:
    """HR-Bench at one size of image, 4k or 8k."""
    return Benchmark(
        name=f"hrbench_{size}",
        title=f"HR-Bench {size.upper()}",
        aliases=(f"HRBench{size.upper()}", f"hrbench{size}"),
        rows=HubRows("DreamMr/HR-Bench", config="hrbench_version_split", split=f"hrbench_{size}"),
        count=800,
        columns=COLUMNS,
        to_sample=to_sample,
        judge="choice",
        groups=("category", "cycle"),
        aggregate="mean over cycles",
        cluster_size=4,
        chance=0.25,
        licence="other, as its page says without a text",
        citation="Wang et al., Divide, Conquer and Combine, AAAI 2025, arXiv:2408.15556",
    )


HRBENCH_4K = hrbench("4k")
HRBENCH_8K = hrbench("8k")
