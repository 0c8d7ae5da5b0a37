"""The judge of imported logs: the reward that stands in the log, which nothing can make anew.

Verdicts by this judge were written by `medeval import-med`; the logs hold neither the answer that
was judged nor, as a rule, the target.
"""

from medeval import Answer, Grade, Judge, Sample
from medeval.errors import JudgeError


def grade(sample: Sample, answer: Answer) -> Grade:
    """Nothing: the verdict is the log's own."""
    raise JudgeError(
        "the verdict was imported and cannot be made anew",
        hint="name another judge with --judge, where the samples have targets",
    )


MED_IMPORT = Judge(
    name="med_import",
    metric="accuracy_reward",
    grade=grade,
    reads=(),
    source="accuracy_reward of the imported log; 1 is correct, as in MED's own analysis",
)
