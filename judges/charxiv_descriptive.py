r"""CharXiv's judge of descriptions: a model, with a rubric for each of the 19 templates.

Prompts: princeton-nlp/CharXiv, constants.py at commit 6571893, DESCRIPTIVE_GRADING_PREFIX, _QMAP
and _ICL, word for word, with their white space and their mistakes; which template has which
rubric and how they are put together, src/descriptive_utils.py at 5e10248. Licence of that code:
Apache-2.0.

The authors grade five answers to one template with one prompt; here each is graded alone, a
prompt with one pair, so that an answer's verdict does not hang on its neighbours. They ask
gpt-4o-2024-05-13 at temperature 0 with seed 42, and in JSON mode, which is not asked for here;
scores by another model are not theirs. A reply without a score is undecided; in their mean it
counts as 0.

The template is the sample's `metadata["template"]`, 1 to 19. The response that is put before the
model is the final answer.
"""

# The prompts' lines are as long as they are.
# ruff: noqa: E501, RUF001

from medeval import Answer, Judge, Sample
from medeval.errors import JudgeError
from medeval.scoring.judge_prompt import Inquiry, Ruling, asking, filled

PREFIX = """
You will be given <|n|> pairs of ground truth answers and model responses under an overarching question. You need to go through each of the pairs, extract the final answer from the model response, compare it with the ground truth answer, and then assign a binary score. Avoid providing explanations in your response. If there is no provided model response, please leave the extracted answer empty and give a score of 0. Your response must follow json formats with keys [<|keys|>] where the value for any `extract_answer` is your extracted answer and `score` is an interger in [0, 1] based on the following rules:\n

Overarching Question: <|overarching_question|>
"""

PAIR = "T1:\nResponse 1: <|response|>\nGround Truth 1: <|ground_truth|>\n\n"

QUESTIONS = (
    "What is the title of the plot?",
    "What is the label of the x-axis?",
    "What is the label of the y-axis?",
    "What is the leftmost labeled tick on the x-axis?",
    "What is the rightmost labeled tick on the x-axis?",
    "What is the spatially lowest labeled tick on the y-axis?",
    "What is the spatially highest labeled tick on the y-axis?",
    "What is difference between consecutive numerical tick values on the x-axis?",
    "What is difference between consecutive numerical tick values on the y-axis?",
    "How many lines are there?",
    "Do any lines intersect?",
    "How many discrete labels are there in the legend?",
    "What are the names of the labels in the legend? (from top to bottom, then left to right)",
    "What is the difference between the maximum and minimum values of the tick labels on the continuous legend (i.e., colorbar)?",
    "What is the maximum value of the tick labels on the continuous legend (i.e., colorbar)?",
    "What is the general trend of data from left to right?",
    "What is the total number of explicitly labeled ticks across all axes?",
    "What is the layout of the subplots?",
    "What is the number of subplots?",
)

TITLE = """
Rubric: 
    * Give a score of 1 if and only if the extracted answer and the ground truth answer are referring to the same term. It's acceptable to have different grammar or form (e.g., α and alpha; $R^2_{t,h,v,m}$ and R^2_t,h,v,m). It's acceptable to omit letter prefixes (e.g., (a) Increment over time and Increment over time).
    * Give a score of 0 if any term in the extracted answer is different from the ground truth answer.
    * When ground truth answer is "Not Applicable", the response must express "Not Applicable" to receive a score of 1.

    ### Example Start ###
    T1:
    Response 1: The title of the plot is "The number of students in each grade".
    Ground Truth 1: The variance of students in each grade

    T2:
    Response 2: There is no title.
    Ground Truth 2: Not Applicable

    T3:
    Response 3: A_v^t
    Ground Truth 3: A^t_v

    {
        "extract_answer_T1": "The number of students in each grade",
        "score_T1": 0
        "extract_answer_T2: "Not Applicable",
        "score_T2": 1
        "extract_answer_T3": "A_v^t",
        "score_T3": 1
    }
    ### Example End ###        
"""

OCR = """
Rubric: 
    * Give a score of 1 if and only if the extracted answer and the ground truth answer are referring to the same term. It's acceptable to have equivalent grammar or form (e.g., α and alpha; $R^2_{t,h,v,m}$ and R^2_t,h,v,m). If the ground truth is a number, the extracted answer should be the number with the exact same value.
    * Give a score of 0 if any term in the extracted answer is different from the ground truth answer, or if the extracted number is different in value from the ground truth number.
    * When ground truth answer is "Not Applicable", the response must express "Not Applicable" to receive a score of 1.

    ### Example Start ###
    T1:
    Response 1: The answer is 1.0
    Ground Truth 1: 1.00

    T2:
    Response 2: By manually inspecting the plot, the final answer should be 0.
    Ground Truth 2: Not Applicable

    T3:
    Response 3: A_v^t
    Ground Truth 3: A^t_v

    {
        "extract_answer_T1": 1.0,
        "score_T1": 1
        "extract_answer_T2: 0,
        "score_T2": 0
        "extract_answer_T3": "A_v^t",
        "score_T3": 1
    }
    ### Example End ###        
"""

QUANTITY = """
Rubric:
    * Give a score of 1 if and only if the extracted answer and the ground truth answer are numbers with the exact same value.
    * Give a score of 0 if the extracted answer is different in value from the ground truth answer.
    * When ground truth answer is "Not Applicable", the response must express "Not Applicable" to receive a score of 1.

    ### Example Start ###
    T1:
    Response 1: 5
    Ground Truth 1: 6

    T2:
    Response 2: 0
    Ground Truth 2: Not Applicable

    T3:
    Response 3: 4
    Ground Truth 3: 4

    {
        "extract_answer_T1": 5,
        "score_T1": 0
        "extract_answer_T2: 0,
        "score_T2": 0
        "extract_answer_T3": 4,
        "score_T3": 1
    }
    ### Example End ###   
"""

YES_NO = """
Rubric:
    * Give a score of 1 if and only if the extracted answer and the ground truth answer are the same.
    * Give a score of 0 if the extracted answer and the ground truth answer are different.
    * When ground truth answer is "Not Applicable", the response must express "Not Applicable" to receive a score of 1.

    ### Example Start ###
    T1:
    Response 1: No, there are no intersections.
    Ground Truth 1: no

    T2:
    Response 2: No, all the lines are parallel.
    Ground Truth 2: Yes

    T3:
    Response 3: There are no lines in the plot.
    Ground Truth 3: Not Applicable

    {
        "extract_answer_T1": "No",
        "score_T1": 1
        "extract_answer_T2: "No",
        "score_T2": 0
        "extract_answer_T3": "Not Applicable",
        "score_T3": 1
    }
    ### Example End ###   
"""

ENUMERATION = """
Rubric:
    * Give a score of 1 if and only if the extracted answer and the ground truth answer are referring to the same term. It's acceptable to have equivalent grammar or form (e.g., α and alpha; $R^2_{t,h,v,m}$ and R^2_t,h,v,m). The order of the terms must be the same.
    * Give a score of 0 if any term in the extracted answer is different from the ground truth answer, or if the order of the terms is different.
    * When ground truth answer is "Not Applicable", the response must express "Not Applicable" to receive a score of 1.

    ### Example Start ###
    T1:
    Response 1: Here are the names of the labels: A, B, C
    Ground Truth 1: B, A, C

    T2:
    Response 2: The labels are T56, B33.
    Ground Truth 2: T56,B33,A12

    T3:
    Response 3: \alpha, \beta, \\gamma^t_v
    Ground Truth 3: α, β, γ_v^t

    {
        "extract_answer_T1": "A, B, C",
        "score_T1": 0
        "extract_answer_T2: "T56, B33",
        "score_T2": 0
        "extract_answer_T3": "\alpha, \beta, \\gamma^t_v",
        "score_T3": 1
    }
    ### Example End ###
"""

TREND = """
Rubric:
    * Give a score of 1 if and only if the extracted answer and the ground truth answer share the same general trend.
    * Give a score of 0 if the extracted answer and the ground truth answer are different in trend expression.

    ### Example Start ###
    T1:
    Response 1: there is an increase in the data from left to right
    Ground Truth 1: Decreases

    T2:
    Response 2: the curves move up and stay constant
    Ground Truth 2: Increases then stabilizes

    T3:
    Response 3: Decreases
    Ground Truth 3: Decreases then increases

    {
        "extract_answer_T1": "Increases",
        "score_T1": 0
        "extract_answer_T2: "Move up and stay constant",
        "score_T2": 1
        "extract_answer_T3": "Decreases",
        "score_T3": 0
    }
    ### Example End ###
"""

LAYOUT = """
Rubric:
    * Give a score of 1 if and only if the extracted answer and the ground truth answer are the same in terms of the number of rows and columns (e.g., n by m).
    * Give a score of 0 if the extracted answer is different from the ground truth answer.

    ### Example Start ###
    T1:
    Response 1: 2 by 3
    Ground Truth 1: 3 by 2

    T2:
    Response 2: the layout is 1 by 1
    Ground Truth 2: 1 by 1

    T3:
    Response 3: there are two rows and three columns
    Ground Truth 3: 2 by 3

    {
        "extract_answer_T1": "2 by 3",
        "score_T1": 0
        "extract_answer_T2: "1 by 1",
        "score_T2": 1
        "extract_answer_T3": "2 by 3",
        "score_T3": 1
    }
    ### Example End ###
"""

RUBRICS = {
    **dict.fromkeys((1,), TITLE),
    **dict.fromkeys((2, 3, 4, 5, 6, 7), OCR),
    **dict.fromkeys((8, 9, 10, 12, 14, 15, 17, 19), QUANTITY),
    **dict.fromkeys((11,), YES_NO),
    **dict.fromkeys((13,), ENUMERATION),
    **dict.fromkeys((16,), TREND),
    **dict.fromkeys((18,), LAYOUT),
}

RULING = Ruling(key="score_T1", correct=("1",), incorrect=("0",), extracted=("extract_answer_T1",))


def inquire(sample: Sample, answer: Answer) -> Inquiry:
    """The rubric of the sample's template, with target and answer."""
    template = sample.metadata.get("template")
    if not isinstance(template, int) or template not in RUBRICS:
        raise JudgeError(f"sample {sample.id!r}: a template is 1 to 19, got {template!r}")
    asked = {
        "n": "1",
        "keys": "['extract_answer_T1', 'score_T1']",
        "overarching_question": QUESTIONS[template - 1],
    }
    pair = {"response": answer.text, "ground_truth": sample.targets[0]}
    prompt = filled(PREFIX, asked) + RUBRICS[template] + filled(PAIR, pair)
    return Inquiry(prompt=prompt, ruling=RULING)


CHARXIV_DESCRIPTIVE = Judge(
    name="charxiv_descriptive",
    metric="accuracy by a model",
    ask=asking(inquire),
    reads=("targets", "metadata"),
    source="princeton-nlp/CharXiv@6571893 constants.py DESCRIPTIVE_GRADING_ICL",
    licence="Apache-2.0",
)
