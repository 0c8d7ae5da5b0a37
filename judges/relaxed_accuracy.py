"""ChartQA's relaxed accuracy: numbers within 5% of the target, any other text equal to it.

The rule is that of google-research/pix2struct, pix2struct/metrics.py at commit 5b086ef,
`relaxed_correctness` and `aggregate_metrics`, which lmms-eval (chartqa/utils.py:25) and VLMEvalKit
(dataset/utils/vqa_eval.py:175) repeat; the paper (arXiv:2203.10244, section 5.1) states it in a
sentence. With all that follows from it:

- "60%" is 0.6, so it matches "0.6" and "60%" but not "60".
- A target of zero is compared as text: "0.0" is not "0".
- A year is a number like any other: "1990" matches "2010".
- "1,000", "$5" and "[0.57, 0.21]" are no numbers; "5.", "1e3", "nan" and "inf" are, and the last
  two match nothing.
- Text is equal but for case; "Yes." is not "Yes".

The answer is stripped, as VLMEvalKit does and lmms-eval does not: the extraction of a final answer
has stripped it already. The targets are left as they are.
"""

from medeval import Answer, Grade, Judge, Sample
from medeval.scoring.answers import read_number

MAX_RELATIVE_CHANGE = 0.05


def matches(target: str, answer: str) -> bool:
    """Whether an answer is correct by the rule above."""
    expected, number = read_number(target), read_number(answer)
    if number is None or not expected:
        return answer.lower() == target.lower()
    return abs(number - expected) / abs(expected) <= MAX_RELATIVE_CHANGE


def grade(sample: Sample, answer: Answer) -> Grade:
    """1.0 where the answer matches any of the targets, else 0.0."""
    text = answer.text.strip()
    score = float(any(matches(target, text) for target in sample.targets))
    return Grade(score=score, extracted=text)


RELAXED_ACCURACY = Judge(
    name="relaxed_accuracy",
    metric="relaxed accuracy",
    grade=grade,
    source="google-research/pix2struct@5b086ef pix2struct/metrics.py relaxed_correctness",
)
