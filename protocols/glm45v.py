"""GLM-4.5V and 4.6V with a zoom: their own call syntax and per-mille boxes.

Zhipu publishes no zoom tool. The tool's schema is MED's, whose GLM runs are the only public
precedent; here its boxes are per-mille as declared and nothing is guessed, a call may name any
image so far, and refusals are worded by medeval. The text that tells of tools is the one GLM's
chat template renders, and a result is put as that template puts it, in a user's turn, since
templates drop images from a tool's. Answers stand between GLM's box markers. The whole pair is
put together here: its free arm is the plain question. Sampling is GLM's recommended setting.

Sources: zai-org/GLM-V at commit 8fc9756 (Apache-2.0), and public copies of the chat template; the
template of the 4.5V checkpoint itself could not be read.
"""

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

SOURCE = "put together from https://github.com/zai-org/GLM-V commit 8fc9756 and GAIR-NLP/Med"

TOOL_PROMPT = """# Tools

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

ZOOM = crop_and_zoom(
    name="image_crop_and_zoom_in_tool",
    description=(
        "Crops and zooms into a specific region of an image based on provided relative "
        "coordinates. All coordinate values should be float numbers with the range [0,1000.0]."
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
                    "Defines the rectangular area for cropping in the format [x1, y1, x2, y2]. "
                    "(x1, y1) marks the upper-left corner, and (x2, y2) marks the lower-right "
                    "corner. All coordinates must be in the range [0, 1000] with x1 < x2 and "
                    "y1 < y2."
                ),
            },
            "label": {
                "type": "string",
                "description": "A descriptive name for the object within the cropped region.",
            },
            "image_index": {
                "type": "number",
                "description": (
                    "The index of the image to apply the crop and zoom operation on, starting "
                    "from 0."
                ),
            },
        },
        "required": ["bbox_2d", "label", "image_index"],
    },
    target=Target(lenient=True),
    rules=CropRules(minimum_side_px=28),
    budget=PixelBudget(min_px=256 * 28 * 28, max_px=1024 * 28 * 28, factor=28),
    other_arguments="ignore",
)

FREE = EvalProtocol(
    name="glm45v_free",
    title="the plain question",
    user="$question$options$instruction",
    call_syntax="glm_xml",
    call_rules=CallRules(pick="first"),
    frame="permille",
    observation=Observation(),
    answer_rules=("box_markers", "answer_tag", "boxed", "whole_reply"),
    stop=("</tool_call>",),
    sampling=Sampling(
        temperature=0.8, top_p=0.6, top_k=2, repetition_penalty=1.1, max_tokens=16384
    ),
    source=SOURCE,
    licence="Apache-2.0",
)

AVAILABLE = FREE.with_tools(
    ZOOM,
    name="glm45v_available",
    title="a zoom in GLM's own syntax, 5 replies and 4 calls at most",
    prompt=TOOL_PROMPT,
    max_generations=5,
    max_calls=4,
)

GLM45V = Pair(
    name="glm45v",
    title="GLM-4.5V and 4.6V with a zoom",
    free=FREE,
    available=AVAILABLE,
    free_source="ours",
)
