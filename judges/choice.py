"""The letter of a multiple choice.

The answer is read by `medeval.scoring.answers.chosen_option`; one that names no option, or more
than one, is incorrect and says so. It is never replaced by a random letter.

This is the accuracy that V*Bench is reported in since it came to be asked for letters; the
authors' own script (penghao-wu/vstar, vstar_bench_eval.py) compares the likelihoods of the
options instead. lmms-eval's reader (vstar_bench/utils.py:44) takes "Because" for B and "Dog" for D;
this one does not.
"""

from medeval import Answer, Grade, Judge, Sample
from medeval.errors import JudgeError
from medeval.scoring.answers import chosen_option


def grade(sample: Sample, answer: Answer) -> Grade:
    """1.0 where the answer chooses the target's letter, else 0.0."""
    targets = {chosen_option(target, sample.options) for target in sample.targets}
    if None in targets:
        raise JudgeError(
            f"sample {sample.id!r}: targets {sample.targets!r} name no option "
            f"of {len(sample.options)}"
        )
    letter = chosen_option(answer.text, sample.options)
    if letter is None:
        return Grade(score=0.0, extracted=None, reason="no option letter in the answer")
    return Grade(score=float(letter in targets), extracted=letter)


CHOICE = Judge(
    name="choice",
    metric="accuracy",
    grade=grade,
    reads=("targets", "options"),
    source="medeval.scoring.answers.chosen_option",
)
