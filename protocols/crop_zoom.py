"""The neutral pair: one crop-and-zoom tool, put to every model in the same plain words.

Written for this project, after no single model's training prompt: use it to compare models and
checkpoints with each other. A model that was trained with its own prompt does better under it.

`crop_zoom` writes calls as Hermes blocks in the text; `crop_zoom_native` offers the same tool
through the server's own field for tool calls. Boxes are per-mille of the image they name: 0 to
1000 from its top left corner.
"""

from medeval import EvalProtocol, Observation, Pair, Sampling, crop_and_zoom

USER = """$question$options$instruction

Think step by step. Then write the final answer, and nothing else, between <answer> and </answer>."""  # noqa: E501

SYSTEM = "You are a helpful assistant."

TOOL_PROMPT = """

# Tools

You may call a tool before you answer. These are the tools, one JSON schema a line:
<tools>
$tools
</tools>

To call a tool, write its name and arguments as JSON inside <tool_call> and </tool_call>, then stop:
<tool_call>
{"name": <name>, "arguments": <arguments>}
</tool_call>
The result comes in the next message, inside <tool_response> and </tool_response>. You may make at most 4 calls, one a message."""  # noqa: E501

NATIVE_TOOL_PROMPT = """

You may call a tool before you answer. Its result comes in the next message. You may make at most 4 calls."""  # noqa: E501

CROP_AND_ZOOM = crop_and_zoom()

TOOL_FREE = EvalProtocol(
    name="tool_free",
    title="one reply, no tool in the prompt",
    system=SYSTEM,
    user=USER,
    call_syntax="hermes",
    frame="permille",
    observation=Observation(),
    answer_rules=("answer_tag",),
    stop=("</tool_call>",),
    sampling=Sampling(temperature=0.0, max_tokens=2048),
    source="written for medeval",
    licence="MIT",
)

TOOL_AVAILABLE = TOOL_FREE.with_tools(
    CROP_AND_ZOOM,
    name="tool_available",
    title="crop and zoom as Hermes calls, at most 5 replies and 4 executed calls",
    prompt=TOOL_PROMPT,
    max_generations=5,
    max_calls=4,
)

TOOL_FREE_NATIVE = EvalProtocol(
    name="tool_free_native",
    title="one reply, no tool in the request",
    system=SYSTEM,
    user=USER,
    call_syntax="openai",
    frame="permille",
    observation=Observation(
        before="The image that the call made (image $index):\n", after="", error="Error: $message"
    ),
    answer_rules=("answer_tag",),
    sampling=Sampling(temperature=0.0, max_tokens=2048),
    source="written for medeval",
    licence="MIT",
)

TOOL_AVAILABLE_NATIVE = TOOL_FREE_NATIVE.with_tools(
    CROP_AND_ZOOM,
    name="tool_available_native",
    title="crop and zoom as native calls, at most 5 replies and 4 executed calls",
    prompt=NATIVE_TOOL_PROMPT,
    max_generations=5,
    max_calls=4,
)

CROP_ZOOM = Pair(
    name="crop_zoom",
    title="the neutral pair, Hermes calls",
    free=TOOL_FREE,
    available=TOOL_AVAILABLE,
)

CROP_ZOOM_NATIVE = Pair(
    name="crop_zoom_native",
    title="the neutral pair, native OpenAI calls",
    free=TOOL_FREE_NATIVE,
    available=TOOL_AVAILABLE_NATIVE,
)
