"""Pixel-Reasoner: crops by fractions or pixels, as its environment guesses, with padding.

Follows curiosity_driven_rl/openrlhf of TIGER-AI-Lab/Pixel-Reasoner. Quirks kept:

- Coordinates are fractions where all four are below 1, and pixels otherwise: one of exactly 1.0
  turns the whole box into pixels.
- A box is padded by a tenth of the image on every side; a crop of 28 pixels or less a side is an
  error. The sample's own images are cut at full resolution, crops from what was sent.
- The tool for video frames is offered for images too, and always refused.
- Only a reply that ends with a call calls; its last one counts.
- Both arms are published: `notool` is the repository's own mode. Four newlines stand before the
  guidelines of the available arm, two from the data set and two from the text itself.

Prompts: datasets/prompts_dataset.py and Qwen-Agent's function-call template (Apache-2.0), at
commit a3a6c3a; the code states Apache-2.0 through OpenRLHF.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import NoReturn

from medeval import (
    CallRules,
    CropRules,
    EvalProtocol,
    Observation,
    Pair,
    PixelBudget,
    Sampling,
    Target,
    Tool,
    crop_and_zoom,
)
from medeval.errors import ToolError

SOURCE = "https://github.com/TIGER-AI-Lab/Pixel-Reasoner commit a3a6c3a, curiosity_driven_rl"
LICENCE = "Apache-2.0"

SYSTEM = "You are a helpful assistant."

TOOL_PROMPT = """

# Tools

You may call one or more functions to assist with the user query.

You are provided with function signatures within <tools></tools> XML tags:
<tools>
$tools
</tools>

For each function call, return a json object with function name and arguments within <tool_call></tool_call> XML tags:
<tool_call>
{"name": <function-name>, "arguments": <args-json-object>}
</tool_call>"""  # noqa: E501

GUIDELINES = "\n\n\n\nGuidelines: Understand the given visual information and the user query. Determine if it is beneficial to employ the given visual operations (tools). For a video, we can look closer by `select_frames`. For an image, we can look closer by `crop_image`. Reason with the visual information step by step, and put your final answer within \\boxed{}."  # noqa: E501
NO_TOOL = "\n\nPlease think step by step, and put your final answer within \\boxed{}."

CROP = crop_and_zoom(
    name="crop_image_normalized",
    description=(
        "Zoom in on the image based on the bounding box coordinates. It is useful when the "
        "object or text in the image is too small to be seen."
    ),
    parameters={
        "type": "object",
        "properties": {
            "bbox_2d": {
                "type": "array",
                "description": (
                    "coordinates for bounding box of the area you want to zoom in. "
                    "Values should be within [0.0,1.0]."
                ),
                "items": {"type": "number"},
            },
            "target_image": {
                "type": "number",
                "description": (
                    "The index of the image to crop. Index from 1 to the number of images. "
                    "Choose 1 to operate on original image."
                ),
            },
        },
        "required": ["bbox_2d", "target_image"],
    },
    target=Target(argument="target_image", base=1, default=None),
    rules=CropRules(
        pad=0.1,
        rounding="nearest",
        small="refuse",
        minimum_side_px=28,
        minimum_excluded=True,
        small_refusal="Cropped image is too small: ${width}x${height}",
        source="raw_of_originals",
    ),
    budget=PixelBudget(min_px=256 * 28 * 28, max_px=5120 * 28 * 28, factor=28),
    other_arguments="ignore",
)


def refuse_frames(arguments: Mapping[str, object], context: object) -> NoReturn:
    """Selecting frames of an image, which is refused as it is upstream."""
    raise ToolError(
        "You attempted to select frames from an **image**, but this operation is only desgined "
        "for analyzing videos. Think again."
    )


SELECT_FRAMES = Tool(
    name="select_frames",
    description="Select frames from a video.",
    parameters={
        "type": "object",
        "properties": {
            "target_frames": {
                "type": "array",
                "description": (
                    "List of frame indices to select from the video (no more than 8 frames in "
                    "total)."
                ),
                "items": {"type": "integer", "description": "Frame index from 1 to 16."},
            }
        },
        "required": ["target_frames"],
    },
    run=refuse_frames,
)

FREE = EvalProtocol(
    name="pixel_reasoner_free",
    title="Pixel-Reasoner's own mode without tools",
    system=SYSTEM,
    user="$question$options$instruction" + NO_TOOL,
    call_syntax="hermes",
    call_rules=CallRules(pick="last", must_end_reply=True, must_close=True, in_reasoning=True),
    frame="guess_pixel_reasoner",
    observation=Observation(
        before="\nHere is the cropped image (Image Size: ${width}x${height}):",
        after="",
        error="\nExecution error:\n$message\n",
    ),
    at_limit="last_reply",
    answer_rules=("boxed_anywhere", "answer_tag"),
    sampling=Sampling(temperature=0.0, max_tokens=8192),
    pixel_budget=PixelBudget(min_px=256 * 28 * 28, max_px=8000 * 28 * 28, factor=28),
    used="attempted",
    source=SOURCE,
    licence=LICENCE,
)

AVAILABLE = replace(
    FREE.with_tools(
        CROP,
        SELECT_FRAMES,
        name="pixel_reasoner_available",
        title="Pixel-Reasoner's crop, 5 replies and 4 calls at most",
        prompt=TOOL_PROMPT,
        max_generations=5,
        max_calls=4,
        max_images=16,
    ),
    user="$question$options$instruction" + GUIDELINES,
    max_context_tokens=12 * 1024 - 199,
)

PIXEL_REASONER = Pair(
    name="pixel_reasoner",
    title="PixelReasoner-7B as its authors evaluated it",
    free=FREE,
    available=AVAILABLE,
    differences={
        "user": "each mode has its own published instruction",
        "max_context_tokens": "bounds the rounds of a conversation",
    },
    free_source="published",
)
