"""Mini-o3: zoom in by fractions of any image so far, in a tag of its own, over many rounds.

Quirks kept: observations are numbered by rounds, and named in calls by successful crops, so that
the two diverge after a failed call; a crop loses its last row and column to the clamp.

The texts are those of verl/trainer/constants.py of Mini-o3/Mini-o3 (commit 8654dbf, Apache-2.0),
read in public copies of that file; in the observation, the copies write Qwen's image tokens where
the image stands. The published code looks the observation up under a name that it does not define;
this is the only text that matches. Sampling is that of Avg@32: run with --repeats 32 for it.
No tool-free prompt is published: the free arm drops the sentence on zooming.

`mini_o3_train` has the 6 rounds of training in place of the 12 of the evaluation, and nothing else
is different. Training leaves conversations over that limit out of its loss; here they have no
answer, as in the evaluation.
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

SOURCE = "https://github.com/Mini-o3/Mini-o3 commit 8654dbf, verl/trainer/constants.py"

THINK = "You are a helpful assistant. Answer the user's question based on the image provided. Output your thinking process within the <think> and </think> tags."  # noqa: E501
ANSWER = " Once the final answer is confirmed, put it within <answer> and </answer>."
ZOOM = """ Whenever you find anything unclear, you can zoom in a specific region in the given image to see more clearly by outputing <grounding>{"bbox_2d": [x0, y0, x1, y1], "source": "original_image"}</grounding>, where (x0, y0) and (x1, y1) are the top-left and bottom-right coordinates of the region that you want to zoom in, respectively (suppose the width and height of the image are 1.0), and 'source' refers to the image that you zoom in and could be either 'original_image' or 'observation_i'."""  # noqa: E501

OBSERVED = ".\nContinue your reasoning process inside <think> and </think>. If needed, you can continue to zoom in on the original image or any of the observations, by outputting <grounding> and </grounding> as before. If the final answer is confirmed, put your final answer inside <answer> and </answer>."  # noqa: E501
ERROR = "ERROR occurs during grounding. Error Information: $message.\nPlease analyze the error information obtained from the function tool and adjust your response. Countinue your reasoning process inside <think> and </think>."  # noqa: E501

BUDGET = PixelBudget(min_px=40_000, max_px=2_000_000, factor=1, rule="area", resample="nearest")

GROUNDING = crop_and_zoom(
    name="grounding",
    target=Target(rule="source", argument="source"),
    rules=CropRules(clamp="last_pixel", rounding="cut", small="keep", maximum_ratio=199.0),
    budget=BUDGET,
    coordinates="Coordinates are shares of that image's width and height, from 0 to 1",
    other_arguments="ignore",
)

FREE = EvalProtocol(
    name="mini_o3_free",
    title="one reply in Mini-o3's form, no tool",
    system=THINK + ANSWER,
    user="$question$options$instruction",
    call_syntax="tagged_json",
    call_rules=CallRules(tag="grounding", pick="last", in_reasoning=True, python_literals=True),
    frame="relative",
    observation=Observation(
        before="After the above Action $turn, here is the the zoom-in image "
        "(Observation $observation):\n",
        after=OBSERVED,
        error=ERROR,
    ),
    answer_rules=("answer_tag",),
    stop=("</grounding>",),
    sampling=Sampling(temperature=1.0, top_p=1.0, max_tokens=8192),
    pixel_budget=BUDGET,
    used="executed",
    source="derived from " + SOURCE,
    licence="Apache-2.0",
)

AVAILABLE = replace(
    FREE.with_tools(
        GROUNDING,
        name="mini_o3_available",
        title="Mini-o3's grounding, 12 replies and 12 images at most",
        max_generations=12,
        max_calls=11,
        max_images=12,
    ),
    system=THINK + ZOOM + ANSWER,
    max_context_tokens=32768 - 2000,
    source=SOURCE,
)

TRAIN_AVAILABLE = replace(
    AVAILABLE,
    name="mini_o3_train_available",
    title="Mini-o3's grounding, 6 replies at most, as it was trained",
    max_generations=6,
    max_calls=5,
)

DIFFERENCES = {
    "system": "the sentence on zooming stands between the two that both arms have",
    "max_context_tokens": "bounds the rounds of a conversation",
}

MINI_O3 = Pair(
    name="mini_o3",
    title="Mini-o3-7B as its authors evaluated it",
    free=FREE,
    available=AVAILABLE,
    differences=DIFFERENCES,
    free_source="derived",
)

MINI_O3_TRAIN = Pair(
    name="mini_o3_train",
    title="Mini-o3-7B with the rounds of its training",
    free=FREE,
    available=TRAIN_AVAILABLE,
    differences=DIFFERENCES,
    free_source="derived",
)
