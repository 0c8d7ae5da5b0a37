"""Qwen3-VL's zoom as the official cookbook runs it with Qwen-Agent: per-mille boxes, any image.

Qwen-Agent's template for function calls is the whole system text, as the cookbook allows beside
its longer one ("use system_message='' to simply enable the tools"). Every call of a reply is
carried out; a box under 32 pixels grows in proportion; crops of crops are cut from what was sent.
The free arm is the plain question, as in Qwen's evaluations without tools. Errors that name an
image by its path upstream are worded by medeval. Sampling is that of the Instruct models.

Sources: QwenLM/Qwen3-VL at commit 9658872, cookbooks/think_with_images.ipynb, and
QwenLM/Qwen-Agent at commit 31a4d36, tools/image_zoom_in_qwen3vl.py; both Apache-2.0.
"""

from dataclasses import replace

from medeval import (
    CropRules,
    EvalProtocol,
    Observation,
    Pair,
    PixelBudget,
    Sampling,
    Target,
    crop_and_zoom,
)

SOURCE = "https://github.com/QwenLM/Qwen-Agent commit 31a4d36, with Qwen3-VL commit 9658872"

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

ZOOM = crop_and_zoom(
    name="image_zoom_in_tool",
    description=(
        "Zoom in on a specific region of an image by cropping it based on a bounding box (bbox) "
        "and an optional object label"
    ),
    parameters={
        "type": "object",
        "properties": {
            "bbox_2d": {
                "type": "array",
                "items": {"type": "number"},
                "minItems": 4,
                "maxItems": 4,
                "description": (
                    "The bounding box of the region to zoom in, as [x1, y1, x2, y2], where "
                    "(x1, y1) is the top-left corner and (x2, y2) is the bottom-right corner"
                ),
            },
            "label": {
                "type": "string",
                "description": "The name or label of the object in the specified bounding box",
            },
            "img_idx": {
                "type": "number",
                "description": "The index of the zoomed-in image (starting from 0)",
            },
        },
        "required": ["bbox_2d", "label", "img_idx"],
    },
    target=Target(argument="img_idx", default=None),
    rules=CropRules(
        rounding="nearest",
        small="grow_in_proportion",
        minimum_side_px=32,
        measure="box",
        source="raw_of_originals",
    ),
    budget=PixelBudget(min_px=256 * 32 * 32, max_px=12_845_056, factor=32),
    other_arguments="ignore",
)

FREE = EvalProtocol(
    name="qwen3vl_zoom_free",
    title="the plain question",
    user="$question$options$instruction",
    call_syntax="hermes",
    frame="permille",
    observation=Observation(
        before="<tool_response>\n",
        after="\n</tool_response>",
        between="\n",
        error="<tool_response>\nTool Execution Error $message\n</tool_response>",
    ),
    answer_rules=("boxed", "answer_tag", "whole_reply"),
    sampling=Sampling(temperature=0.7, top_p=0.8, top_k=20, presence_penalty=1.5, max_tokens=32768),
    used="executed",
    source="derived from " + SOURCE,
    licence="Apache-2.0",
)

AVAILABLE = replace(
    FREE.with_tools(
        ZOOM,
        name="qwen3vl_zoom_available",
        title="Qwen-Agent's zoom, 20 replies at most",
        prompt=TOOL_PROMPT,
        max_generations=20,
        max_calls=1000,
    ),
    source=SOURCE,
)

QWEN3VL_ZOOM = Pair(
    name="qwen3vl_zoom",
    title="Qwen3-VL with the official zoom",
    free=FREE,
    available=AVAILABLE,
    free_source="derived",
)
