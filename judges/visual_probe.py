"""VisualProbe's judge: a model says whether the answer is equivalent to the target.

Prompt: dddraxxx/Mini-o3, examples/minio3/minio3_reward.py at commit 19dd873, SYSTEM_PROMPT and
QUERY_PROMPT, a fork of the benchmark's own training code on verl (Apache-2.0; the fork carries no
licence file of its own that could be read). The authors' own prompt could not be read: they say
that a model judges, and scores by different prompts and models are not comparable.

There a failed judging scores 0 and any reply that begins with yes or no counts; here the first is
unscored, and a reply that is more than yes or no, or a JSON object with a score of 1 or 0, is
undecided.
"""

from medeval import Answer, Judge, Sample
from medeval.scoring.judge_prompt import YES_OR_NO, Inquiry, asking, filled

SYSTEM = "Judge answer equivalence. Reply only Yes or No."
PROMPT = """Q: <|question|>
GT: <|ground_truth|>
Pred: <|prediction|>
Equivalent? Answer Yes or No."""


def inquire(sample: Sample, answer: Answer) -> Inquiry:
    """The question, its target and the answer."""
    values = {
        "question": sample.question,
        "ground_truth": sample.targets[0],
        "prediction": answer.text,
    }
    return Inquiry(system=SYSTEM, prompt=filled(PROMPT, values), ruling=YES_OR_NO)


VISUAL_PROBE = Judge(
    name="visual_probe",
    metric="accuracy by a model",
    ask=asking(inquire),
    source="dddraxxx/Mini-o3@19dd873 examples/minio3/minio3_reward.py",
    licence="Apache-2.0 (verl)",
)
