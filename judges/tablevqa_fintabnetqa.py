"""TableVQA-Bench's relieved accuracy for FinTabNetQA, and its stricter second score.

The rule of naver-ai/tablevqabench@88d0514, src/evaluate_tablevqa_dataset.py `evaluate_fintabnet`:
a text is normalised as in `medeval.scoring.denotation`; `$ ( ) ,` and units ("shares", "years",
...) are dropped; thousand, million, billion and % become e3, e6, e9 and e-2; what is left is a
number where Python's `float` reads it, and text otherwise. `tablevqa_fintabnetqa`, the headline,
takes a text with and without its scale and is content where any of both sides' values are equal;
`tablevqa_fintabnetqa_exact` compares the scaled values alone.

So "(1,234)", which accountants write for a loss, is 1234, and equality of numbers is exact.
"""

import re

from medeval import Answer, Grade, Judge, Sample
from medeval.scoring.denotation import normalise

UNITS = re.compile(
    r"\b(?:dollar|gallons|square feet|shares|mbtu|mbpd|mbbls|mmbtu|unit|gwh|year|mmcf|mile|mboe)"
    r"s?\b"
)
SCALES = tuple(
    (re.compile(pattern), exponent)
    for pattern, exponent in (
        (r" \bthousand\b", "e3"),
        (r" \bmillion\b", "e6"),
        (r" \bbillion\b", "e9"),
        (r"\bthousand\b", "e3"),
        (r"\bmillion\b", "e6"),
        (r"\bbillion\b", "e9"),
        (r" ?%", "e-2"),
    )
)
DROPPED = str.maketrans("", "", "$(),")
SOURCE = "naver-ai/tablevqabench@88d0514 src/evaluate_tablevqa_dataset.py evaluate_fintabnet"


def readings(text: str) -> tuple[float | str, float | str]:
    """What a text is worth with its scale and without, as numbers or, failing that, as text."""
    scaled = bare = UNITS.sub("", normalise(text).translate(DROPPED))
    for pattern, exponent in SCALES:
        scaled = pattern.sub(exponent, scaled)
        bare = pattern.sub("", bare)
    try:
        return float(scaled), float(bare)
    except ValueError:
        return scaled, bare


def grade(sample: Sample, answer: Answer) -> Grade:
    """1.0 where a reading of the answer equals a reading of any of the targets, else 0.0."""
    found = readings(answer.text)
    score = any(
        reading == expected
        for target in sample.targets
        for expected in readings(target)
        for reading in found
    )
    return Grade(score=float(score), extracted=str(found[0]))


def grade_exact(sample: Sample, answer: Answer) -> Grade:
    """1.0 where the answer with its scale equals any of the targets with theirs, else 0.0."""
    found, _ = readings(answer.text)
    score = any(readings(target)[0] == found for target in sample.targets)
    return Grade(score=float(score), extracted=str(found))


TABLEVQA_FINTABNETQA = Judge(
    name="tablevqa_fintabnetqa", metric="relieved accuracy", grade=grade, source=SOURCE
)
TABLEVQA_FINTABNETQA_EXACT = Judge(
    name="tablevqa_fintabnetqa_exact", metric="accuracy", grade=grade_exact, source=SOURCE
)
