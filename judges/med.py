r"""MED's verdict: correct by its rule verifier, or by a model.

As GAIR-NLP/Med scores it (recipe/med/eval/ray_evaluator.py: `int(llm) | int(rule)`): the model can
only add to what the rule (`math`) found, and is asked about every answer. Both verdicts are kept, and
`medeval grade` counts their disagreements. An answer that the rule takes for wrong and the model
leaves open is undecided; there it is wrong.

Prompt: GAIR-NLP/Med, recipe/med/eval/utils/common.py at commit ecf391f, PROMPT_JUDGE, word for
word (5% for numbers); licence MIT. There the judge reads the whole response; here it gets the
final answer. The published runs were judged by
Qwen2.5-32B-Instruct, or by the evaluated model itself where nothing else was named.

Needs `pip install 'medeval[math]'`.
"""

# The prompt's lines are as long as they are.
# ruff: noqa: E501

from medeval import Answer, Grade, Judge, Sample
from medeval.scoring.judge_prompt import SCORE, Ask, Inquiry, filled
from medeval.scoring.math import are_equal, check_installed

PROMPT = """You are given a question and its standard answer, your task is to judge if a model-generated solution is correct.
You first need to extract the final choice made in the model-generated solution, and then judge if it matches the standard answer.
The <image> placeholder indicates an image in the question, but you do not need its content.

For multiple choice questions, note that the model-generated solution may not directly give the option letter, in this case, you need to judge from the solution's content to find out which option it has chosen.
For floating-point answers, the model-generated final answer needs to be close enough (5% relative error) to the standard answer to be considered correct.
Note that math expressions can have multiple equivalent forms, e.g., 0.5km and 500m are equivalent.
Other short-text answers can be considered equivalent if they are semantically equivalent under the context of the question.

Give a score of 1 if the model-generated solution matches the standard answer, and 0 otherwise.

[[Begin of Question]]
<|question|>
[[End of Question]]

[[Begin of Standard Answer]]
<|answer|>
[[End of Standard Answer]]

[[Begin of Model-Generated Solution]]
<|response|>
[[End of Model-Generated Solution]]


Your output should begin with a concise analysis, mentioning what answer the Model-Generated Solution has finally given.
Finally give an integer score in the following json format:
```json
{
    "score": ## an integer, 0 or 1 ##
}
```
"""


def inquire(sample: Sample, answer: Answer) -> Inquiry:
    """The question with its options, the target and the answer."""
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    options = [f"{letter}. {text}" for letter, text in zip(letters, sample.options, strict=False)]
    values = {
        "question": "\n".join([sample.question, *options]),
        "answer": sample.targets[0],
        "response": answer.text,
    }
    return Inquiry(prompt=filled(PROMPT, values), ruling=SCORE)


async def rule_or_model(sample: Sample, answer: Answer, ask: Ask) -> Grade:
    """1.0 where either says so, 0.0 where both deny it, None where the model leaves it open."""
    rule = float(any(are_equal(target, answer.text) for target in sample.targets))
    ruled = await ask(inquire(sample, answer))
    return Grade(
        score=1.0 if rule else ruled.score,
        extracted=ruled.extracted,
        reason=ruled.reason,
        parts={"rule": rule, "model": ruled.score},
    )


MED = Judge(
    name="med",
    metric="accuracy by a rule or a model",
    ask=rule_or_model,
    check=check_installed,
    source="GAIR-NLP/Med@ecf391f recipe/med/eval/utils/common.py PROMPT_JUDGE",
    licence="MIT",
)
