"""The five native tools: zoom, rotate, flip, draw a line, draw a point.

Modelled on what is known of ToolsRL (arXiv 2604.19945): at most ten calls, one a message, on any
image of the conversation, and an answer that names the image it rests on. Its prompts, argument
names and coordinates are not public, so every word here is ours and no model was trained with it.

`native5` writes calls as Hermes blocks in the text; `native5_native` offers the same tools through
the server's own field for tool calls. Coordinates are per-mille of the image they are about.
"""

from dataclasses import replace

from medeval import (
    CallRules,
    EvalProtocol,
    Observation,
    Pair,
    Sampling,
    crop_and_zoom,
    draw_line,
    draw_point,
    flip,
    rotate,
)

SYSTEM = "You are a helpful assistant."

USER = """$question$options$instruction

Think step by step. Then write the final answer, and nothing else, between <answer> and </answer>."""  # noqa: E501

WHAT = """You may call a tool before you answer, on any image of the conversation. Each result is a new image; images are numbered from 0, first those you were given, then those that tools made. You may make at most 10 calls, one a message. In your last message, before the answer, name the image that it rests on, as "image 2"."""  # noqa: E501

TOOL_PROMPT = f"""

# Tools

{WHAT} These are the tools, one JSON schema a line:
<tools>
$tools
</tools>

To call a tool, write its name and arguments as JSON inside <tool_call> and </tool_call>, then stop:
<tool_call>
{{"name": <name>, "arguments": <arguments>}}
</tool_call>
The result comes in the next message, inside <tool_response> and </tool_response>."""

NATIVE_TOOL_PROMPT = f"\n\n{WHAT}"

TOOLS = (crop_and_zoom(name="zoom"), rotate(), flip(), draw_line(), draw_point())

FREE = EvalProtocol(
    name="native5_free",
    title="one reply, no tool in the prompt",
    system=SYSTEM,
    user=USER,
    call_syntax="hermes",
    call_rules=CallRules(pick="first"),
    frame="permille",
    observation=Observation(before="<tool_response>\nimage $index\n"),
    answer_rules=("answer_tag",),
    stop=("</tool_call>",),
    sampling=Sampling(temperature=0.0, max_tokens=2048),
    source="written for medeval after the description of ToolsRL",
    licence="MIT",
)

FREE_NATIVE = replace(
    FREE,
    name="native5_native_free",
    title="one reply, no tool in the request",
    call_syntax="openai",
    stop=(),
    observation=Observation(
        before="The image that the call made (image $index):\n", after="", error="Error: $message"
    ),
)

NATIVE5 = Pair(
    name="native5",
    title="five tools, Hermes calls",
    free=FREE,
    available=FREE.with_tools(
        *TOOLS,
        name="native5_tools",
        title="zoom, rotate, flip, draw line and point as Hermes calls, at most 10",
        prompt=TOOL_PROMPT,
        max_generations=11,
        max_calls=10,
    ),
)

NATIVE5_NATIVE = Pair(
    name="native5_native",
    title="five tools, native OpenAI calls",
    free=FREE_NATIVE,
    available=FREE_NATIVE.with_tools(
        *TOOLS,
        name="native5_native_tools",
        title="zoom, rotate, flip, draw line and point as native calls, at most 10",
        prompt=NATIVE_TOOL_PROMPT,
        max_generations=11,
        max_calls=10,
    ),
)
