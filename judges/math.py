r"""Equality as mathematics, by the package math-verify: MED's rule verifier.

An answer is correct where it equals a target but for case, or where math-verify finds both equal
(`medeval.scoring.math`, after GAIR-NLP/Med@c41310c, reward_server/verifier/utils_rule.py). There
the verifier looks for `\boxed{}` in the whole response, with what tools returned in it; here it
gets the final answer.

It is no judge of words: other words than the target's are wrong, whatever they mean. What takes
math-verify longer than five seconds is wrong too, as there.

Needs `pip install 'medeval[math]'`.
"""

from medeval import Answer, Grade, Judge, Sample
from medeval.scoring.math import are_equal, check_installed


def grade(sample: Sample, answer: Answer) -> Grade:
    """1.0 where the answer equals any of the targets, else 0.0."""
    score = float(any(are_equal(target, answer.text) for target in sample.targets))
    return Grade(score=score, extracted=answer.text)


MATH = Judge(
    name="math",
    metric="accuracy",
    grade=grade,
    check=check_installed,
    source="GAIR-NLP/Med@c41310c reward_server/verifier/utils_rule.py",
)
