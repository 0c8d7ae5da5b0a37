"""TableVQA-Bench's accuracy for VTabFact: whether the answer says true or false.

The rule of naver-ai/tablevqabench@88d0514, src/evaluate_tablevqa_dataset.py `evaluate_tabfact`:
the words are looked for anywhere in the answer, in any case, so that "untrue" and "not true" read
as true; an answer with both words is wrong, and so is one with neither.

The target is "1" or "true", "0" or "false".
"""

from medeval import Answer, Grade, Judge, Sample
from medeval.errors import JudgeError

TRUTHS = {"1": "true", "true": "true", "0": "false", "false": "false"}


def grade(sample: Sample, answer: Answer) -> Grade:
    """1.0 where the answer holds the target's word alone, else 0.0."""
    expected = {TRUTHS.get(target.strip().lower()) for target in sample.targets}
    if None in expected:
        raise JudgeError(
            f"sample {sample.id!r}: a target is 'true' or 'false', got {sample.targets!r}"
        )
    text = answer.text.lower()
    said = [word for word in ("true", "false") if word in text]
    if len(said) != 1:
        reason = "both true and false" if said else "neither true nor false"
        return Grade(score=0.0, reason=f"the answer says {reason}")
    return Grade(score=float(said[0] in expected), extracted=said[0])


TABLEVQA_VTABFACT = Judge(
    name="tablevqa_vtabfact",
    metric="accuracy",
    grade=grade,
    source="naver-ai/tablevqabench@88d0514 src/evaluate_tablevqa_dataset.py evaluate_tabfact",
)
