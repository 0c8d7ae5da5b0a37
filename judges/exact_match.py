"""Equality with a target once both are normalised.

Normalised by `medeval.scoring.answers.normalised`: case-folded, each run of whitespace one space,
none at the ends, and no `. , ; : ! ?` at the end. Nothing else: articles, accents, quotation marks,
number words and thousands separators stay.
"""

from medeval import Answer, Grade, Judge, Sample
from medeval.scoring.answers import normalised


def grade(sample: Sample, answer: Answer) -> Grade:
    """1.0 where the answer equals any of the targets, else 0.0."""
    text = normalised(answer.text)
    return Grade(score=float(text in map(normalised, sample.targets)), extracted=text)


EXACT_MATCH = Judge(
    name="exact_match",
    metric="exact match",
    grade=grade,
    source="medeval.scoring.answers.normalised",
)
