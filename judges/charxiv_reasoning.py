r"""CharXiv's judge of reasoning answers: a model, with a rubric for each type of answer.

Prompts: princeton-nlp/CharXiv, constants.py at commit 6571893, REASONING_GRADING_PREFIX and
REASONING_GRADING_INST, word for word, with their white space and their mistakes: the prompt asks
for the key `extract_answer`, its examples and the authors' code have `extracted_answer`; either is
read here. Licence of that code: Apache-2.0.

The rubric is that of the sample's `metadata["answer_type"]`, 1 to 4 (reasoning_a_type; lmms-eval
chooses it by reasoning_q_source). The authors ask gpt-4o-2024-05-13 at temperature 0 with seed 42,
and in JSON mode, which is not asked for here; scores by another model are not theirs. A reply
that holds no score is asked for again there, up to ten times, and scores -1 in the end, which their
mean counts as 0; here it is undecided.

The response that is put before the model is the final answer: under the rule `whole_reply` all of
the reply but its thinking, as the authors do it.
"""

# The prompts' lines are as long as they are.
# ruff: noqa: E501, RUF001

from medeval import Answer, Judge, Sample
from medeval.errors import JudgeError
from medeval.scoring.judge_prompt import Inquiry, Ruling, asking, filled

PREFIX = """
You will be given a question, an ground truth answer and a model response. You need to extract the final answer from the model response, compare it with the ground truth answer, and then assign a binary score. Avoid providing explanations in your response. If there is no provided model response, please leave the extracted answer empty and give a score of 0. 

Your response must follow json formats with keys [extract_answer, score] where the value of the score is an interger in [0, 1]. You must follow the scoring rules:\n"""

TEXT_IN_CHART = """
    ### Rules ###
    * Give a score of 1 if and only if the final answer and the ground truth answer are referring to the same term. It's acceptable to have different grammar or form (e.g., α and alpha; $R^2_{t,h,v,m}$ and R^2_t,h,v,m). It's also acceptable to have different orders of the terms when question asks for multiple terms.
    * Give a score of 0 if any term (e.g., ACC+ and ACC; P-101 and P=101) is different between the final answer and the ground truth.

    ### Example 1 Starts ###
    * Question: What is the name of the curve that intersects y=\\lambda exactly three times?
    * Ground Truth: P56962
    * Response: There is only one curve that intersects y=\\lambda exactly three times. The name of the curve is written as P55762.
    
    {
        "extracted_answer": "P55762",
        "score": 0
    }
    ### Example 1 Ends ###


    ### Example 2 Starts ###
    * Question: What is the letter of the subplot where all bars are above 35?
    * Ground Truth: (b)
    * Response: The letter of the subplot where all bars are above 35 is b.

    {
        "extracted_answer": "b",
        "score": 1
    }
    ### Example 2 Ends ###
"""

TEXT_IN_GENERAL = """
    ### Rules ###
    * If there are predefined options in the question:
        * Give a score of 1 if the final answer matches the ground truth answer exactly.
        * Give a score of 0 if the final answer does not match the ground truth answer.
    * If there are no predefined options in the question:
        * Give a score of 1 if the final answer shares the same semantic meaning with the ground truth answer (e.g., "increasing then decreasing" and "moving up then down"; "converge" and "move closer together").
        * Give a score of 0 if the final answer shares different semantic meanings from the ground truth answer (e.g., "increasing then decreasing" and "remain constant"; "converge" and "diverge").

    ### Example 1 Starts ###
    * Question: What is the trend of the red curve between t=10 and t=25?
    * Ground Truth: increasing then decreasing
    * Response: The red curve is increasing between t=10 and t=25.

    {
        "extracted_answer": "increasing",
        "score": 0
    }
    ### Example 1 Ends ###

    ### Example 2 Starts ###
    * Question: What is the interval where the blue curve achieves the maximum value among [0, 50], [50, 100], [100, 150], and [150, 200]?
    * Ground Truth: [50, 100]
    * Response: The interval where the blue curve achieves the maximum value is [50, 100].

    {
        "extracted_answer": "[50, 100]",
        "score": 1
    }
    ### Example 2 Ends ###
"""

# The authors have this text twice, for numbers in the chart and for numbers in general.
NUMBER = """
    ### Rules ###
    * Give a score of 1 if and only if the two numbers are exactly equal in values. It's acceptable to have different notations (e.g., 0.01 and 10^-2; 1500 and 1.5e3).
    * Give a score of 0 if the two numbers are different in values.

    ### Example 1 Starts ###
    * Question: What is the value of the red curve at t=10?
    * Ground Truth: 0.01
    * Response: The value of the red curve at t=10 is 0.012.

    {
        "extracted_answer": "0.012",
        "score": 0
    }
    ### Example 1 Ends ###

    ### Example 2 Starts ###
    * Question: What is the value of the blue curve at t=50?
    * Ground Truth: 1500
    * Response: The value of the blue curve at t=50 is 1.5e3.

    {
        "extracted_answer": "1.5e3",
        "score": 1
    }
    ### Example 2 Ends ###
"""

YOUR_TURN = """
    ### Your Turn ###
    * Question: <|question|>
    * Ground Truth: <|ground_truth|>
    * Response: <|response|>

    """

RUBRICS = {1: TEXT_IN_CHART, 2: TEXT_IN_GENERAL, 3: NUMBER, 4: NUMBER}

RULING = Ruling(
    key="score",
    correct=("1",),
    incorrect=("0",),
    extracted=("extracted_answer", "extract_answer"),
)


def inquire(sample: Sample, answer: Answer) -> Inquiry:
    """The rubric of the sample's answer type, with question, target and answer."""
    kind = sample.metadata.get("answer_type")
    if kind not in (1, 2, 3, 4):
        raise JudgeError(f"sample {sample.id!r}: an answer_type is 1 to 4, got {kind!r}")
    values = {
        "question": sample.question,
        "ground_truth": sample.targets[0],
        "response": answer.text,
    }
    return Inquiry(prompt=PREFIX + filled(RUBRICS[int(kind)] + YOUR_TURN, values), ruling=RULING)


CHARXIV_REASONING = Judge(
    name="charxiv_reasoning",
    metric="accuracy by a model",
    ask=asking(inquire),
    reads=("targets", "metadata"),
    source="princeton-nlp/CharXiv@6571893 constants.py REASONING_GRADING_INST",
    licence="Apache-2.0",
)
