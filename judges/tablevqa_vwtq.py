r"""TableVQA-Bench's denotation accuracy for VWTQ and VWTQ-Syn.

The rule of naver-ai/tablevqabench@88d0514, src/evaluate_tablevqa_dataset.py `evaluate_wtq`: both
the answer (its `||` read as `|`) and the target are lists parted by `|`, with `\n`, `\p` and `\\`
unescaped; the answer is correct where both lists denote the same set of values
(`medeval.scoring.denotation`). So order and repetitions do not matter, "2" is "2.0", and "1,000" is
text.

Text that the script would crash on ("nan", "inf") is compared as text.
"""

from medeval import Answer, Grade, Judge, Sample
from medeval.scoring.denotation import denotes_same


def values(text: str) -> list[str]:
    """The items of a list parted by vertical bars, unescaped."""
    return [
        item.replace(r"\n", "\n").replace(r"\p", "|").replace(r"\\", "\\")
        for item in text.split("|")
    ]


def grade(sample: Sample, answer: Answer) -> Grade:
    """1.0 where the answer denotes what any of the targets does, else 0.0."""
    found = values(answer.text.replace("||", "|"))
    score = float(any(denotes_same(values(target), found) for target in sample.targets))
    return Grade(score=score, extracted=answer.text)


TABLEVQA_VWTQ = Judge(
    name="tablevqa_vwtq",
    metric="denotation accuracy",
    grade=grade,
    source="naver-ai/tablevqabench@88d0514 src/evaluate_tablevqa_dataset.py evaluate_wtq",
)
