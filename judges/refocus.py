"""ReFocus's judges: a model rates an answer 0 or 1.

`refocus` is for the charts and shows the question and four examples; `refocus_brief` is for the
tables and the CharXiv figures and shows the prediction and the answer alone.

Prompts: zeyofu/ReFocus_Code, src/chart_data.py at commit 8412b5f, `compute_acc_from_raw_answer`
and `compute_acc_single` (which src/main_chartQA.py, and src/main_tablevqa.py and
src/main_charxiv.py call), word for word with their white space; that repository has no licence file (its data set is
Apache-2.0), and the prompts are quoted as the rule of the score. As there, `||` in the answer is read as
`|`, and of an answer with "FINAL ANSWER: ... TERMINATE" on one line only what stands between.

The authors ask gpt-4o at temperature 0 up to ten times until the reply is a whole number, which
then is the score whatever it is, and write 'Failed' where it never is. Here a reply that is not 0
or 1, nor a JSON object with such a score, is undecided.
"""

# The prompt's lines are as long as they are.
# ruff: noqa: E501

import re
from collections.abc import Callable

from medeval import Answer, Judge, Sample
from medeval.scoring.judge_prompt import SCORE, Inquiry, asking, filled

PROMPT = """
    You are given a prediction for the question. You need to rate it given the correct answer. Disregard the format, and only rate based on the content. If you think the prediction is correct, i.e. same as the correct answer, then return 1, otherwise return 0. Return 0 or 1 only.

    # Example
    # Question: What is the height of the tower?
    # Prediction: ANSWER: The tower is built in China from 200 years ago. The total hight of the tower is 180 Meters. TERMINATE
    # Correct Answer: 80 Meters
    # Your Response: 0

    # Example
    # Question: What is the difference?
    # Prediction: ANSWER: 69%. TERMINATE
    # Correct Answer: 69
    # Your Response: 1

    # Example
    # Question: What is the increase?
    # Prediction: ANSWER: 3%. TERMINATE
    # Correct Answer: 0.03
    # Your Response: 1

    # Example
    # Question: What is the ratio?
    # Prediction: ANSWER: 1.541. TERMINATE
    # Correct Answer: 1.54
    # Your Response: 1

    # Question: <|question|>
    # Prediction: <|prediction|>
    # Correct Answer: <|solution|>
    # Your Response:"""

BRIEF_PROMPT = """
    Rate my prediction given the correct answer.
    Prediction: <|prediction|>
    Answer: <|solution|>
    If you think the prediction is correct, return 1, otherwise return 0. Return 0 or 1 only."""

# After the first mark, up to the first end of its line's answer.
_FINAL = re.compile(r"FINAL ANSWER:\s*+(?P<answer>[^\n]*?)\s*TERMINATE")


def prediction(text: str) -> str:
    """The part of an answer that is rated."""
    text = text.replace("||", "|")
    found = _FINAL.search(text)
    return found["answer"] if found else text


def inquirer(prompt: str) -> Callable[[Sample, Answer], Inquiry]:
    """What puts a prompt to the model with what is rated, the target, and maybe the question."""

    def inquire(sample: Sample, answer: Answer) -> Inquiry:
        values = {
            "question": sample.question,
            "prediction": prediction(answer.text),
            "solution": sample.targets[0],
        }
        return Inquiry(prompt=filled(prompt, values), ruling=SCORE)

    return inquire


REFOCUS = Judge(
    name="refocus",
    metric="accuracy by a model",
    ask=asking(inquirer(PROMPT)),
    source="zeyofu/ReFocus_Code@8412b5f src/chart_data.py compute_acc_from_raw_answer",
    licence="none given",
)

REFOCUS_BRIEF = Judge(
    name="refocus_brief",
    metric="accuracy by a model",
    ask=asking(inquirer(BRIEF_PROMPT)),
    source="zeyofu/ReFocus_Code@8412b5f src/chart_data.py compute_acc_single",
    licence="none given",
)
