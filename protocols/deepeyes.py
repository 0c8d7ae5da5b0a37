"""DeepEyes: zoom by pixel boxes, written as Hermes blocks; its evaluation and its training.

`deepeyes` follows the published evaluation of V* (eval/eval_vstar.py), faults included:

- The schema requires "bbox", a property that it does not have; models learnt "bbox_2d".
- Boxes are pixels of the image file, while the server scales files over 12.8 megapixels down:
  such boxes are misplaced (Visual-Agent/DeepEyes#141). `deepeyes_mapped` takes them as pixels of
  the image that the model saw; report both on larger images.
- A crop is not clamped: what lies outside the image is black. Always the original is cut.
- A call that fails ends the sample, and its last text is the answer; so does a reply with a
  closed answer beside its call, whose result nobody sees.

A reply without a call and without an answer ends the conversation here; upstream asks again with
the same messages, which at temperature 0 gives the same text.

`deepeyes_train` is the training environment (visual_toolbox_v2.py): the last call counts, errors
are told, boxes are clamped, and refused where a side is 30 pixels or less or a hundredth of the
other, before they are rounded. No tool-free prompt is published:
the free arm keeps the form of the answer and drops the tool.

The prompts are those of Visual-Agent/DeepEyes at commit 6c5e796, under Apache-2.0.
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
    Tool,
    crop_and_zoom,
)
from medeval.types.sample import JsonValue

SOURCE = "https://github.com/Visual-Agent/DeepEyes commit 6c5e796, eval/eval_vstar.py"
LICENCE = "Apache-2.0"

SYSTEM = "You are a helpful assistant."

TOOL_PROMPT = """

# Tools
You may call one or more functions to assist with the user query.
You are provided with function signatures within <tools></tools> XML tags:
<tools>
{"type":"function","function":{"name":"image_zoom_in_tool","description":"Zoom in on a specific region of an image by cropping it based on a bounding box (bbox) and an optional object label.","parameters":{"type":"object","properties":{"bbox_2d":{"type":"array","items":{"type":"number"},"minItems":4,"maxItems":4,"description":"The bounding box of the region to zoom in, as [x1, y1, x2, y2], where (x1, y1) is the top-left corner and (x2, y2) is the bottom-right corner."},"label":{"type":"string","description":"The name or label of the object in the specified bounding box (optional)."}},"required":["bbox"]}}}
</tools>

# How to call a tool
Return a json object with function name and arguments within <tool_call></tool_call> XML tags:
<tool_call>
{"name": <function-name>, "arguments": <args-json-object>}
</tool_call>

**Example**:  
<tool_call>  
{"name": "image_zoom_in_tool", "arguments": {"bbox_2d": [10, 20, 100, 200], "label": "the apple on the desk"}}  
</tool_call>"""  # noqa: E501

FORMAT = "\nThink first, call **image_zoom_in_tool** if needed, then answer. Format strictly as:  <think>...</think>  <tool_call>...</tool_call> (if tools needed)  <answer>...</answer> "  # noqa: E501
FREE_FORMAT = (
    "\nThink first, then answer. Format strictly as:  <think>...</think>  <answer>...</answer> "
)

QUESTION = "Question: $question\nOptions: $options\n\n"
OPEN_QUESTION = "Question: $question$instruction\n"

DESCRIPTION = (
    "Zoom in on a specific region of an image by cropping it based on a bounding box (bbox) "
    "and an optional object label."
)
PARAMETERS: dict[str, JsonValue] = {
    "type": "object",
    "properties": {
        "bbox_2d": {
            "type": "array",
            "items": {"type": "number"},
            "minItems": 4,
            "maxItems": 4,
            "description": (
                "The bounding box of the region to zoom in, as [x1, y1, x2, y2], where (x1, y1) "
                "is the top-left corner and (x2, y2) is the bottom-right corner."
            ),
        },
        "label": {
            "type": "string",
            "description": (
                "The name or label of the object in the specified bounding box (optional)."
            ),
        },
    },
    "required": ["bbox"],
}

# 4 to 16384 visual tokens of 28 x 28 pixels: what the server is started with, and each crop.
BUDGET = PixelBudget(min_px=4 * 28 * 28, max_px=16384 * 28 * 28, factor=28)

AS_EVALUATED = CropRules(clamp="none", rounding="nearest", small="keep", measure="box")
AS_TRAINED = CropRules(
    rounding="nearest",
    small="refuse",
    minimum_side_px=30,
    minimum_excluded=True,
    maximum_ratio=100.0,
    limits_before_rounding=True,
    box_refusal="ZOOM IN ARGUMENTS ARE INVALID",
    refusal="ZOOM IN ARGUMENTS ARE INVALID",
)


def zoom(rules: CropRules) -> Tool:
    """The zoom tool, cutting the original by the given rules."""
    return crop_and_zoom(
        name="image_zoom_in_tool",
        description=DESCRIPTION,
        parameters=PARAMETERS,
        target=Target(rule="first"),
        rules=rules,
        budget=BUDGET,
        other_arguments="ignore",
    )


FREE = EvalProtocol(
    name="deepeyes_free",
    title="one reply in DeepEyes' form, no tool",
    system=SYSTEM,
    user=QUESTION + FREE_FORMAT,
    user_open=OPEN_QUESTION + FREE_FORMAT,
    call_syntax="hermes",
    call_rules=CallRules(
        pick="first", in_reasoning=True, python_literals=True, answer_wins="after_calls"
    ),
    frame="pixels_raw",
    observation=Observation(
        before="<tool_response>", after=f"{FORMAT}</tool_response>", error="Error: $message"
    ),
    on_malformed="end",
    on_error="end",
    at_limit="last_reply",
    answer_rules=("first_answer_tag_anywhere", "raw_reply"),
    stop=("<|im_end|>",),
    sampling=Sampling(temperature=0.0, max_tokens=10240),
    used="observed",
    source="derived from " + SOURCE,
    licence=LICENCE,
)

AVAILABLE = replace(
    FREE.with_tools(
        zoom(AS_EVALUATED),
        name="deepeyes_available",
        title="DeepEyes' zoom as it was evaluated: boxes in pixels of the file",
        prompt=TOOL_PROMPT,
        max_generations=11,
        max_calls=11,
    ),
    user=QUESTION + FORMAT,
    user_open=OPEN_QUESTION + FORMAT,
    source=SOURCE,
)

MAPPED = replace(
    AVAILABLE,
    name="deepeyes_mapped_available",
    title="DeepEyes' zoom with boxes in pixels of the image that the model saw",
    frame="pixels_model",
    model_budget=BUDGET,
)

TRAIN_RULES = CallRules(pick="last", must_close=True, in_reasoning=True, answer_wins="before_calls")

TRAIN_FREE = replace(
    FREE,
    name="deepeyes_train_free",
    title="one reply in the form of DeepEyes' training, no tool",
    call_rules=TRAIN_RULES,
    on_malformed="observe",
    on_error="observe",
    at_limit="no_answer",
    answer_rules=("answer_tag", "whole_reply"),
)

TRAIN_AVAILABLE = replace(
    AVAILABLE,
    name="deepeyes_train_available",
    title="DeepEyes' zoom as it was trained",
    tools=(zoom(AS_TRAINED),),
    call_rules=TRAIN_RULES,
    on_malformed="observe",
    on_error="observe",
    at_limit="no_answer",
    answer_rules=("answer_tag", "whole_reply"),
    max_generations=5,
    max_calls=4,
    max_response_tokens=20480,
    source=SOURCE.replace("eval/eval_vstar.py", "verl/workers/agent/envs/mm_process_engine"),
)

WORDS = "the tool is taken out of the words that tell the form of the answer"
DIFFERENCES = {"user": WORDS, "user_open": WORDS}

DEEPEYES = Pair(
    name="deepeyes",
    title="DeepEyes-7B as its authors evaluated it",
    free=FREE,
    available=AVAILABLE,
    differences=DIFFERENCES,
    free_source="derived",
)

DEEPEYES_MAPPED = Pair(
    name="deepeyes_mapped",
    title="DeepEyes-7B with boxes in the pixels that it saw",
    free=FREE,
    available=MAPPED,
    differences={
        **DIFFERENCES,
        "frame": "boxes are mapped from the image that the model saw",
        "model_budget": "the size of that image, where the engine does not tell it",
    },
    free_source="derived",
)

DEEPEYES_TRAIN = Pair(
    name="deepeyes_train",
    title="DeepEyes-7B in its training environment",
    free=TRAIN_FREE,
    available=TRAIN_AVAILABLE,
    differences={**DIFFERENCES, "max_response_tokens": "bounds a conversation, not one reply"},
    free_source="derived",
)
