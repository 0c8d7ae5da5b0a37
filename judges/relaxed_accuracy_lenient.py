"""Relaxed accuracy for answers written as people write numbers. Not ChartQA's metric.

`relaxed_accuracy`, the official rule, takes "60%" for 0.6 alone and "1,000", "$5" and "0.0" against
a target of zero for text. Here, on both sides:

- Thousands separators, a currency sign and a full stop at the end are dropped: "$1,000." is 1000.
- A percentage is read both ways: "60%" matches "60" and "0.6".
- Numbers within 5% match, zero only zero; any other text is equal once normalised
  (`medeval.scoring.answers.normalised`): "Yes." is "yes".

Every answer that the official rule takes for correct is correct here. A score by this judge stands
under this name, never beside published relaxed accuracy.
"""

from medeval import Answer, Grade, Judge, Sample
from medeval.scoring.answers import normalised, written_numbers

MAX_RELATIVE_CHANGE = 0.05


def matches(target: str, answer: str) -> bool:
    """Whether an answer is correct by the rule above."""
    return normalised(target) == normalised(answer) or any(
        abs(number - expected) <= MAX_RELATIVE_CHANGE * abs(expected)
        for expected in written_numbers(target)
        for number in written_numbers(answer)
    )


def grade(sample: Sample, answer: Answer) -> Grade:
    """1.0 where the answer matches any of the targets, else 0.0."""
    score = float(any(matches(target, answer.text) for target in sample.targets))
    return Grade(score=score, extracted=answer.text.strip())


RELAXED_ACCURACY_LENIENT = Judge(
    name="relaxed_accuracy_lenient",
    metric="lenient relaxed accuracy",
    grade=grade,
    source="medeval.scoring.answers.written_numbers, after relaxed_accuracy",
)
