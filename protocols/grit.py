"""Reasoners without tools: they name boxes in their reasoning, and nothing is cropped for them.

Each is one protocol with no available arm, so there is no pair. `grit` asks as
eric-ai-lab/GRIT does (commit 44699c9, MIT): boxes in JSON inside the reasoning, the answer after
`<answer>`, which need not be closed. That the question follows "Question: " is as lmms-eval's
wrapper puts it. `deepeyes_reasoner` is the prompt without tools that DeepEyes ships beside its
zoom (REASON_PROMPT, commit 6c5e796, Apache-2.0).
"""

from medeval import EvalProtocol, Sampling

GRIT = EvalProtocol(
    name="grit",
    title="GRIT: boxes in the reasoning, no tool",
    user="Question: $question$options$instruction First, think between <think> and </think> while output necessary coordinates needed to answer the question in JSON with key 'bbox_2d'. Then, based on the thinking contents and coordinates, rethink between <rethink> </rethink> and then answer the question after <answer>.\n",  # noqa: E501
    answer_rules=("answer_tag",),
    sampling=Sampling(temperature=0.001, max_tokens=1024),
    source="https://github.com/eric-ai-lab/GRIT commit 44699c9",
    licence="MIT",
)

DEEPEYES_REASONER = EvalProtocol(
    name="deepeyes_reasoner",
    title="DeepEyes' prompt without tools",
    system="You are a helpful assistant. The user will ask you a question and you as the assistant solve it. The assistant first thinks how to solve the task through reasoning and then provides the user with the final answer. The reasoning process and answer are enclosed within <think>...</think> and <answer>...</answer> tags, respectively.",  # noqa: E501
    user="$question$options$instruction",
    answer_rules=("answer_tag",),
    sampling=Sampling(temperature=0.0, max_tokens=10240),
    source="https://github.com/Visual-Agent/DeepEyes commit 6c5e796, mm_process_engine/prompt.py",
    licence="Apache-2.0",
)
