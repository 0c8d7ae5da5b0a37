"""MED's own protocol: per-mille boxes of the sample's images, five replies, in both syntaxes.

Follows GAIR-NLP/Med at commit 9812212 (Apache-2.0): verl/utils/dataset/prompt_pool.py for the
words, recipe/med/vision_tool*.py for the tool, verl/experimental/agent_loop for the loop.
Quirks kept:

- Coordinates up to 1000 are per-mille, larger ones pixels or shares of the largest. A bad box is
  mended: corners swapped, sides under 28 pixels grown in proportion.
- Crops are never kept: image_index names the sample's own images alone.
- The image passes through a JPEG of quality 75 before it is cut.
- Five replies, of which the last is never searched for calls; a call that cannot be read is
  passed over, and the reply then ends the conversation.
- 8192 tokens bound all that follows the prompt. The answer is the last boxed one of all replies.

Wordings that MED draws at random, anew at every reading, are drawn here by a hash of the sample's
id, equal in both arms. MED words the request for a multiple choice where the gold answer is one
capital letter; here, where the sample has options. Both arms are published: the free one is the
same prompt without the hint and the tools (the pool "You cannot use any tools" is never used).

`med_glm` is the same for GLM: its own call syntax, and answers between its box markers. Of GLM's
settings only temperature and top_p reach the engine, as upstream.
"""

from dataclasses import replace

from medeval import (
    CallRules,
    CropRules,
    EvalProtocol,
    Observation,
    Pair,
    PixelBudget,
    Sampling,
    Target,
    Wording,
    crop_and_zoom,
)
from medeval.types.sample import JsonValue

SOURCE = "https://github.com/GAIR-NLP/Med commit 9812212"
LICENCE = "Apache-2.0"

SYSTEM = "You are a helpful assistant."

TOOL_PROMPT = """# Tools

You may call one or more functions to assist with the user query.

You are provided with function signatures within <tools></tools> XML tags:
<tools>
$tools
</tools>

For each function call, return a json object with function name and arguments within <tool_call></tool_call> XML tags:
<tool_call>
{"name": <function-name>, "arguments": <args-json-object>}
</tool_call>"""  # noqa: E501

# GLM's chat template, where it renders tools.
GLM_TOOL_PROMPT = """# Tools

You may call one or more functions to assist with the user query.

You are provided with function signatures within <tools></tools> XML tags:
<tools>
$tools
</tools>

For each function call, output the function name and arguments within the following XML format:
<tool_call>{function-name}
<arg_key>{arg-key-1}</arg_key>
<arg_value>{arg-value-1}</arg_value>
<arg_key>{arg-key-2}</arg_key>
<arg_value>{arg-value-2}</arg_value>
...
</tool_call>"""

HINTS = (
    "For questions that depend on small or unclear visual details, consider using the image_crop_and_zoom_in_tool tool for a closer look.",  # noqa: E501
    "If the answer lies in fine or indistinct visual details, try using the image_crop_and_zoom_in_tool tool to get a better view.",  # noqa: E501
    "When dealing with questions requiring analysis of minute or blurry image elements, please utilize the image_crop_and_zoom_in_tool tool.",  # noqa: E501
    "To better address queries about small or hard-to-see details in an image, employ the image_crop_and_zoom_in_tool tool for magnification.",  # noqa: E501
    "Hint: For questions involving tiny or unclear visual specifics, the image_crop_and_zoom_in_tool tool can help you inspect the area more closely.",  # noqa: E501
    "Use the image_crop_and_zoom_in_tool tool when you need to magnify a specific part of an image to answer questions about its fine details.",  # noqa: E501
    "Consider activating the image_crop_and_zoom_in_tool tool whenever a question's resolution depends on examining small-scale or fuzzy visual information.",  # noqa: E501
    "When visual details are crucial but indistinct, remember that the image_crop_and_zoom_in_tool tool is available for a magnified inspection.",  # noqa: E501
    "For a more accurate response to questions about subtle visual details, make use of the image_crop_and_zoom_in_tool tool to examine the image up close.",  # noqa: E501
    "Should you encounter a question that hinges on small or blurry visual cues, the image_crop_and_zoom_in_tool tool is recommended for a detailed look.",  # noqa: E501
)

FIRST = (
    "Please provide a step-by-step explanation of your reasoning.",
    "Break down the problem and solve it step by step.",
    "Guide me through your thought process step by step.",
    "Elaborate your reasoning step by step.",
    "Solve this problem by reasoning through each step.",
    "Provide your reasoning in a detailed, step-by-step manner.",
    "Explain each step of your thought process clearly.",
    "Work through the solution, showing each step.",
    "Start from the basics and explain each step of the process.",
    "Walk me through the reasoning process step by step.",
    "Please solve this by explaining each step of the way.",
    "Take me through your reasoning process, step by step.",
    "Explain the solution in a detailed, sequential manner.",
    "Describe each step in the solution process clearly.",
    "Provide a breakdown of your reasoning, step by step.",
    "Please outline the steps you took to solve this.",
    "Detail your thought process and explain each step.",
    "Walk me through the logic behind your solution step by step.",
    "Step through your reasoning process carefully.",
    "Break down the solution into manageable steps and explain each.",
)

SECOND = (
    "Finally, place your answer in \\boxed{}. ",
    "Conclude your reasoning and present the answer inside \\boxed{}.",
    "Your final answer should be placed in \\boxed{}.",
    "Present the result in \\boxed{}.",
    "Wrap up your reasoning and put the solution in \\boxed{}.",
    "Enclose your final answer in \\boxed{}.",
    "The final answer should be boxed in \\boxed{}.",
    "Put your solution inside \\boxed{}.",
    "Display the answer in \\boxed{}.",
    "Put the final answer within \\boxed{}.",
    "Finally, place the answer inside \\boxed{}.",
    "Put your final answer in \\boxed{}.",
    "Conclude with your final result inside \\boxed{}.",
    "Your answer should be enclosed within \\boxed{}.",
    "Wrap your solution in \\boxed{}.",
    "Enclose the final result inside \\boxed{}.",
    "Present the final answer in a \\boxed{} format.",
    "The final answer must be shown within \\boxed{}.",
    "Conclude by boxing the final result in \\boxed{}.",
    "Please display the final answer enclosed in \\boxed{}.",
)

# "even ifunsure" is upstream's: two of its strings join without a space.
CHOICE = "Answer the preceding multiple choice question. The last line of your response should follow this format: 'The final answer is: $$\\boxed{LETTER}$$' (without quotes), where LETTER is one of the option letters. If you are uncertain or the problem is too complex, make a reasoned guess based on the information provided. Avoid thinking indefinitely, you MUST provide your best guess even ifunsure. Think step by step logically, considering all relevant information before answering."  # noqa: E501

QUESTION = "$question$options$instruction\n\n"
OPEN = "$first\n$second"

# verl's schema keeps type and description of a property, and drops the rest.
PARAMETERS: dict[str, JsonValue] = {
    "type": "object",
    "properties": {
        "bbox_2d": {
            "type": "array",
            "description": (
                "Defines the rectangular area for cropping in the format [x1, y1, x2, y2]. "
                "(x1, y1) marks the upper-left corner, and (x2, y2) marks the lower-right corner. "
                "All coordinates must be in the range [0, 1000] with x1 < x2 and y1 < y2."
            ),
        },
        "label": {
            "type": "string",
            "description": "A descriptive name for the object within the cropped region.",
        },
        "image_index": {
            "type": "number",
            "description": (
                "The index of the image to apply the crop and zoom operation on, starting from 0."
            ),
        },
    },
    "required": ["bbox_2d", "label", "image_index"],
}

ZOOM = crop_and_zoom(
    name="image_crop_and_zoom_in_tool",
    description=(
        "Crops and zooms into a specific region of an image based on provided relative "
        "coordinates. All coordinate values should be float numbers with the range [0,1000.0]."
    ),
    parameters=PARAMETERS,
    target=Target(
        over="originals",
        lenient=True,
        refusal="image_index must be a valid index (0 to $last). But You have $seen.",
    ),
    rules=CropRules(
        swap_corners=True,
        rounding="nearest",
        small="grow_in_proportion",
        minimum_side_px=28,
        jpeg_quality=75,
        measure="box",
        refusal="bbox_2d must be a list containing 4 numbers. But You have $seen.",
    ),
    budget=PixelBudget(min_px=256 * 28 * 28, max_px=1024 * 28 * 28, factor=28),
    other_arguments="ignore",
)

FREE = EvalProtocol(
    name="med_free",
    title="MED's prompt without hint and tools",
    system=SYSTEM,
    user=QUESTION + CHOICE,
    user_open=QUESTION + OPEN,
    wordings={
        "hint": Wording(texts=HINTS),
        "first": Wording(texts=FIRST),
        "second": Wording(texts=SECOND),
    },
    call_syntax="hermes",
    call_rules=CallRules(pick="first", in_reasoning=True, must_close=True),
    frame="guess_med",
    observation=Observation(),
    on_malformed="ignore",
    max_response_tokens=8192,
    at_limit="last_reply",
    answer_rules=("boxed_anywhere",),
    answer_over="all_replies",
    stop=("</tool_call>",),
    sampling=Sampling(temperature=0.0, max_tokens=8192),
    pixel_budget=PixelBudget(min_px=256 * 14 * 14, max_px=16384 * 14 * 14, factor=28),
    used="attempted",
    source=SOURCE,
    licence=LICENCE,
)

AVAILABLE = replace(
    FREE.with_tools(
        ZOOM,
        name="med_available",
        title="MED's crop, 5 replies and 4 calls at most",
        prompt="\n\n" + TOOL_PROMPT,
        max_generations=5,
        max_calls=4,
    ),
    user=QUESTION + "$hint\n\n" + CHOICE,
    user_open=QUESTION + "$hint\n\n" + OPEN,
)

GLM = {
    "call_syntax": "glm_xml",
    "answer_rules": ("box_markers", "boxed_anywhere"),
    "sampling": Sampling(temperature=0.8, top_p=0.6, max_tokens=16384),
    "max_response_tokens": 16384,
}

GLM_FREE = replace(FREE, name="med_glm_free", system="", **GLM)  # type: ignore[arg-type]
GLM_AVAILABLE = replace(
    AVAILABLE,
    name="med_glm_available",
    system=GLM_TOOL_PROMPT,
    **GLM,  # type: ignore[arg-type]
)

DIFFERENCES = {
    "user": "the available arm hints at the tool before the request to think",
    "user_open": "the available arm hints at the tool before the request to think",
}

MED = Pair(
    name="med",
    title="MED's own protocol, Hermes calls (Qwen)",
    free=FREE,
    available=AVAILABLE,
    differences=DIFFERENCES,
    free_source="published",
)

MED_GLM = Pair(
    name="med_glm",
    title="MED's own protocol, GLM calls",
    free=GLM_FREE,
    available=GLM_AVAILABLE,
    differences=DIFFERENCES,
    free_source="published",
)
