"""Chain-of-Focus (Adaptive-CoF): zoom by pixel boxes of the resized image that was sent.

Follows eval/vstar/vllm_inference.py. The client resizes the image (28, 112^2 to 3840^2 pixels,
Lanczos), sends it, and always cuts that. Quirks kept: a box is enlarged by half about its centre
and the cut twofold; a box that is none, and a call that cannot be read, give the whole image,
enlarged like any crop (PIL's crop of no box is the whole image); a call without four values gives
it as it is. A call in the sixth reply leaves no answer. The name of a call is not looked at; a call
without its end cannot be read, and one that the token limit cuts off gives the whole image too.

The prompts are those of xtong-zhang/Chain-of-Focus at commit 431ff0d; the repository has no
licence file. No tool-free prompt is published: the free arm drops the tool.
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
    crop_and_zoom,
)

SOURCE = "https://github.com/xtong-zhang/Chain-of-Focus commit 431ff0d, eval/vstar"
LICENCE = "none stated"

SYSTEM = "You are a helpful assistant."

TOOL_PROMPT = """

# Tools
You may call one or more functions to assist with the user query.
You are provided with function signatures within <tools></tools> XML tags:
<tools>
{"type": "function", "function": {"name":"image_zoom_in_tool","description":"Zoom in on a specific region of an image by cropping it based on a bounding box (bbox_2d) and an optional object label.","parameters":{"properties":{"bbox_2d":{"type":"array","items":{"type":"number"},"minItems":4,"maxItems":4,"description":"The bounding box of the region to zoom in, as [x1, y1, x2, y2], where (x1, y1) is the top-left corner and (x2, y2) is the bottom-right corner."},"label":{"type":"string","description":"The name or label of the object in the specified bounding box (optional)."}},"required":["bbox_2d"], "type":"object"},"args_format": "Format the arguments as a JSON object."}}
</tools>

For the function call, return a json object with function name and arguments within <tool_call></tool_call> XML tags:
<tool_call>
{"name": <function-name>, "arguments": <args-json-object>}
</tool_call>"""  # noqa: E501

FORMAT = "\nThink in the mind first, and then decide whether to call tools one or more times OR provide final answer. Format strictly as: <think>...</think> <tool_call>...</tool_call> <tool_call>...</tool_call> (if any tools needed) OR <answer>...</answer> (if no tools needed)."  # noqa: E501
FREE_FORMAT = "\nThink in the mind first, and then provide final answer. Format strictly as: <think>...</think> <answer>...</answer>."  # noqa: E501

QUESTION = "Question: $question$options$instruction"

BUDGET = PixelBudget(min_px=112**2, max_px=3840**2, factor=28, resample="lanczos")

ZOOM = crop_and_zoom(
    name="image_zoom_in_tool",
    description=(
        "Zoom in on a specific region of an image by cropping it based on a bounding box "
        "(bbox_2d) and an optional object label."
    ),
    parameters={
        "properties": {
            "bbox_2d": {
                "type": "array",
                "items": {"type": "number"},
                "minItems": 4,
                "maxItems": 4,
                "description": (
                    "The bounding box of the region to zoom in, as [x1, y1, x2, y2], where "
                    "(x1, y1) is the top-left corner and (x2, y2) is the bottom-right corner."
                ),
            },
            "label": {
                "type": "string",
                "description": (
                    "The name or label of the object in the specified bounding box (optional)."
                ),
            },
        },
        "required": ["bbox_2d"],
        "type": "object",
    },
    target=Target(rule="first"),
    rules=CropRules(
        must_be_inside=True,
        enlarge=1.5,
        rounding="cut",
        small="keep",
        invalid="whole_image",
        source="sent",
        upscale=2.0,
        resample="lanczos",
    ),
    budget=BUDGET,
    other_arguments="ignore",
)

FREE = EvalProtocol(
    name="chain_of_focus_free",
    title="one reply in Chain-of-Focus' form, no tool",
    system=SYSTEM,
    user=QUESTION + FREE_FORMAT,
    call_syntax="hermes",
    call_rules=CallRules(pick="first", in_reasoning=True, any_name=True, unclosed_malformed=True),
    frame="pixels_sent",
    observation=Observation(before="", after=FORMAT, error="Error: $message"),
    on_malformed="carry_out",
    answer_rules=("answer_tag", "raw_reply"),
    sampling=Sampling(temperature=0.0, max_tokens=512),
    pixel_budget=BUDGET,
    used="executed",
    source="derived from " + SOURCE,
    licence=LICENCE,
)

AVAILABLE = replace(
    FREE.with_tools(
        ZOOM,
        name="chain_of_focus_available",
        title="Chain-of-Focus' zoom, 6 replies and 6 images at most",
        prompt=TOOL_PROMPT,
        max_generations=6,
        max_calls=5,
        max_images=6,
    ),
    user=QUESTION + FORMAT,
    source=SOURCE,
)

CHAIN_OF_FOCUS = Pair(
    name="chain_of_focus",
    title="Adaptive-CoF-7B as its authors evaluated it",
    free=FREE,
    available=AVAILABLE,
    differences={"user": "the tool is taken out of the words that tell the form of the answer"},
    free_source="derived",
)
