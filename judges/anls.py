"""Average normalised Levenshtein similarity, the metric of DocVQA and InfoVQA.

The rule is that of the challenge's script (https://rrc.cvc.uab.es/?ch=17, infographicsvqa_eval.py)
as lmms-eval repeats it (lmms_eval/api/metrics.py:290): both texts in lower case with each run of
whitespace as one space; their edit distance over the length of the longer one; one minus the
smallest of these over the targets; below 0.5 that counts as 0. Exactly 0.5 is kept, where the
paper's formula (arXiv:1907.00490, equation 1) would drop it. Two empty texts score 1.

The length is taken before whitespace is collapsed, in upper case, as in the script. There, a padded
answer is measured against its padding: "xyz" and three blanks score 0.5 for "abc". Here the answer
is stripped first, as the extraction of a final answer does anyway, so that scores differ from the
script's on padded answers alone. `anls_lmms` keeps the padding, where the reply was the answer.

An answer counts as correct at 0.5 or more.
"""

from medeval import Answer, Grade, Judge, Sample
from medeval.scoring.answers import collapsed, edit_distance

THRESHOLD = 0.5


def similarity(target: str, answer: str) -> float:
    """One minus the normalised edit distance, before the threshold.

    Below 0 only where a change of case changes lengths.
    """
    length = max(len(target.upper()), len(answer.upper()))
    if not length:
        return 1.0
    return 1 - edit_distance(collapsed(target).lower(), collapsed(answer).lower()) / length


def grade(sample: Sample, answer: Answer) -> Grade:
    """The best similarity over the targets, 0 to 1, or 0 where it is below the threshold."""
    text = answer.text.strip()
    best = max(similarity(target, text) for target in sample.targets)
    return Grade(score=best if best >= THRESHOLD else 0.0, extracted=text)


def padded(answer: Answer) -> str:
    """The answer as it was written: the reply itself, where it holds nothing else."""
    return answer.reply if answer.reply.strip() == answer.text.strip() else answer.text


def grade_lmms(sample: Sample, answer: Answer) -> Grade:
    """What the script gives for an answer whose padding counts as length."""
    text = padded(answer)
    best = max(similarity(target, text) for target in sample.targets)
    return Grade(score=best if best >= THRESHOLD else 0.0, extracted=text)


ANLS = Judge(
    name="anls",
    metric="ANLS",
    grade=grade,
    correct_at=THRESHOLD,
    source="https://rrc.cvc.uab.es/?ch=17 infographicsvqa_eval.py",
)
ANLS_LMMS = Judge(
    name="anls_lmms",
    metric="ANLS of the padded reply",
    grade=grade_lmms,
    correct_at=THRESHOLD,
    source="EvolvingLMMs-Lab/lmms-eval@75571cf lmms_eval/api/metrics.py:290",
)
