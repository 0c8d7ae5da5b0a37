"""Focus on the values of a bar chart by blocks of Python: ReFocus on ChartQA.

Prompt, loop and tools of https://github.com/zeyofu/ReFocus_Code at 8412b5f (src/prompt_need.py,
ChartQAPrompt_mix_orig; src/main_chartQA.py; src/agent.py; src/tools.py), which gives no licence.
Written for GPT-4o. `refocus`, in focus.py, is the same on tables. ReFocus has no baseline prompt
for charts: the free arm is that of its tables with "chart" in place of "table".

As published: every function says that it returns a masked image, and the examples call functions
that there are not; `focus_on_y_values_with_draw` takes a name that holds the given one or is part
of it, and goes on from that one to the next; it and `focus_on_x_values_with_highlight` pass over a
name without a box, where draw and highlight otherwise fail; the original image stands below the
edited one.

Where we differ, beside what focus.py says of `refocus`: of a block that displays two images,
upstream shows the second in the place of the original, and of one that displays none it scores
the question 0; here the first stands above the original, or the original above itself. The
functions for tables are bound there too, though no prompt names them; here a call of one is
refused. `columns_bbox` and `rows_bbox` are not bound there; here both hold the chart's values.
"""

from dataclasses import replace

from medeval import CallRules, EvalProtocol, Observation, Pair, Sampling, focus_tools
from medeval.tools.focus import CHART_AXES, REFOCUS, display

SOURCE = "https://github.com/zeyofu/ReFocus_Code at 8412b5f"
LICENCE = "none given"

# AutoGen gives up after this many replies; it is they that are bounded, not the calls of a block.
REPLIES = 6
MANY = 100

SYSTEM = """You are a helpful multimodal AI assistant.
Solve tasks using your vision, coding, and language skills.
The task can be free-form or multiple-choice questions.
You can answer the user's question about images. If you are not sure, you can coding\u0020
You are coding in a Python jupyter notebook environment.
You can suggest python code (in a python coding block) for the user to execute. In a dialogue, all your codes are executed with the same jupyter kernel, so you can use the variables, working states.. in your earlier code blocks.
Solve the task step by step if you need to.\u0020
The task may be a vision-language task and require several steps. You can write code to process images, text, or other data in a step. Give your code to the user to execute. The user may reply with the text and image outputs of the code execution. You can use the outputs to proceed to the next step, with reasoning, planning, or further coding.
If a plan is not provided, explain your plan first. Be clear which step uses code, and which step uses your language skill.
When using code, you must indicate the script type in the code block. The user cannot provide any other feedback or perform any other action beyond executing the code you suggest. The user can't modify your code. So do not suggest incomplete code which requires users to modify. Don't use a code block if it's not intended to be executed by the user.
Don't include multiple code blocks in one response. Do not ask users to copy and paste the result. Instead, use 'print' function for the output when relevant. Check the execution result returned by the user.
All images should be stored in PIL Image objects. The notebook has imported 'Image' from 'PIL' package and 'display' from 'IPython.display' package. If you want to read the image outputs of your code, use 'display' function to show the image in the notebook. The user will send the image outputs to you.
If the result indicates there is an error, fix the error and output the code again. Suggest the full code instead of partial code or code changes. If the error can't be fixed or if the task is not solved even after the code is executed successfully, analyze the problem, revisit your assumption, collect additional info you need, and think of a different approach to try.

For each turn, you should first do a "THOUGHT", based on the images and text you see.
If you think you get the answer to the intial user request, you can reply with "ANSWER: <your answer>" and ends with "TERMINATE".
"""  # noqa: E501

TOOL = """def focus_on_$axis_with_$mode(image, $axis_to_focus_on, all_$axis_bounding_boxes):
    \"\"\"
    This function is useful when you want to focus on some specific $values in the image.
    It does this by $how.
    This function is especially useful for $bars bar charts.
    For example, you can focus on the $values in a chart that are relevant to your analysis$rest.
    Return the masked image.

    Args:
        image (PIL.Image.Image): the input image
        $axis_to_focus_on (List[str]): a list of $values to focus on.\u0020
        all_$axis_bounding_boxes (Dict[Dict]): a dictionary of bounding boxes for all $values in the image. key is $one and value is the bounding box of that $one. Each bounding box is in the format {'x1': x1, 'y1': y1, 'x2': x2, 'y2': y2}.
$gap
    Returns:
        image_with_focused_$axis (PIL.Image.Image): the image with specified $values focused on

    Example:
        image = Image.open("sample_img.jpg")
        image_with_focused_$axis = focus_on_$axis(image, $example)$shown
    \"\"\"
"""  # noqa: E501

X_VALUES = {
    "$axis": "x_values",
    "$values": "x values",
    "$one": "x value",
    "$bars": "vertical",
    "$gap": "    ",
    "$example": (
        """["2005", "2006"], {"2005": {'x1': 0.1, 'y1': 0.1, 'x2': 0.3, 'y2': 0.9}, "2006": {'x1': 0.4, 'y1': 0.1, 'x2': 0.6, 'y2': 0.9}, "2007": {'x1': 0.7, 'y1': 0.1, 'x2': 0.9, 'y2': 0.9}}"""  # noqa: E501
    ),
    "$shown": "\n        display(image_with_focused_x_values)",
}
Y_VALUES = {
    "$axis": "y_values",
    "$values": "y values",
    "$one": "y value",
    "$bars": "horizontal",
    "$gap": "",
    "$example": (
        """["0", "10"], {"0": {'x1': 0.1, 'y1': 0.1, 'x2': 0.9, 'y2': 0.15}, "10": {'x1': 0.1, 'y1': 0.2, 'x2': 0.9, 'y2': 0.5}, "20": {'x1': 0.1, 'y1': 0.6, 'x2': 0.9, 'y2': 0.9}}"""  # noqa: E501
    ),
    "$shown": "",
}
MODES = {
    "mask": "masking out the $values that are not needed",
    "draw": "drawing a red box around the $values that need to be focused on",
    "highlight": "adding light transparent red highlight to the $values that need to be focused on",
}


def described(mode: str, how: str, axis: dict[str, str]) -> str:
    """One function as the published prompt describes it."""
    text = TOOL.replace("$how", how).replace("$mode", mode)
    text = text.replace("$rest", " and ignore the rest" if mode == "mask" else "")
    for key, value in axis.items():
        text = text.replace(key, value)
    return text


OPENING = """Here are some tools that can help you. All are python codes. They are in tools.py and will be imported for you.
You will be given a chart figure: image_1 and a question.
Notice that you, as an AI assistant, are not good at answering questions when there are too many unnecessary and irrelevant information.\u0020
If you are dealing with a vertical bar chart figure, you should determine which are the relevant x values to the question, and specify them in a python list. You should use the given x value names.\u0020
If you are dealing with a horizontal bar chart figure, you should also determine which are the relevant y values to the question, and specify them in a python list. You should use the given y value names.
Below are the tools in tools.py:
```python
"""  # noqa: E501

GOAL = """```
# GOAL #: Based on the above tools, I want you to reason about how to solve the # USER REQUEST # and generate the actions step by step (each action is a python jupyter notebook code block) to solve the request.
You may need to use the tools above to process the images and make decisions based on the visual outputs of the previous code blocks.
Your visual ability is not perfect, so you should use these tools to assist you in reasoning about the images.
The jupyter notebook has already executed the following code to import the necessary packages:
```python
from PIL import Image
from IPython.display import display
from tools import *
```

# REQUIREMENTS #:
1. The generated actions can resolve the given user request # USER REQUEST # perfectly. The user request is reasonable and can be solved. Try your best to solve the request.
2. The arguments of a tool must be the same format specified in # TOOL LIST #;
3. If you think you got the answer, use ANSWER: <your answer> Please extract the final answer in FINAL ANSWER: <final answer> and ends with TERMINATE.
4. All images in the initial user request are stored in PIL Image objects named image_1, image_2, ..., image_n. You can use these images in your code blocks. Use display() function to show the image in the notebook for you too see.
5. Use as few tools as possible. Only use the tools for the use cases written in the tool description. You can use multiple tools in a single action.
6. If you do not think you have enough information to answer the question on the images returned by the tools, you should directly answer the question based on the original image.
7. If all the x values are relevant to the question for a vertical bar chart, you do not need to focus on any specific x values. You should directly answer the question based on the original image.
8. If all the y values are relevant to the question for a horizontal bar chart, you do not need to focus on any specific y values. You should directly answer the question based on the original image.
9. In most situations, you only need to draw or highlight. Only use mask tools when necessary.
Below are some examples of how to use the tools to solve the user requests. You can refer to them for help. You can also refer to the tool descriptions for more information.
"""  # noqa: E501

# `$info` is what a request says of its boxes, `$success` what stands for an observation.
EXAMPLES = """
# EXAMPLE: Simple question that does not require any tool
# USER REQUEST #: <A image here> What is the title of this chart?
$info The x values in the image are: ["2005", "2006", "2007"]. The y values in the image are: [].
# USER IMAGE stored in image_1, as PIL image.
# RESULT #:
THOUGHT 0: The question does not require any tool. I can see the title of the table is "Customer Information".
ACTION 0: No action needed.
ANSWER: The title of the table is "Customer Information". FINAL ANSWER: Customer Information. TERMINATE

# EXAMPLE:  Focus on specific x values in vertical bar chart image
# USER REQUEST #: <A image here> What's the annual gain in China?
$info The x values in the image are: ["China", "USA", "UK"]. The y values in the image are: [].
# USER IMAGE stored in image_1, as PIL image.
# RESULT #:
THOUGHT 0: This is a vertical bar chart image, and I need to focus on the part when x axis value equals 'China' and find out the annual gain.
ACTION 0:
```python
image_with_focused_x_values = focus_on_x_values_with_highlight(image_1, ["China"], x_values_bbox)
display(image_with_focused_x_values)
```
$success
THOUGHT 1: I can see that the annual gain in China is $$100,000.
ACTION 1: No action needed.
ANSWER: The annual gain in China is $$100,000. FINAL ANSWER: 100000. TERMINATE

# EXAMPLE:  Focus on specific y values in the horizontal bar chart image
# USER REQUEST #: <A image here> How many games did Josh win?\u0020
$info The x values in the image are: []. The y values in the image are: ["Josh", "Alice", "Bob"].\u0020
# USER IMAGE stored in image_1, as PIL image.
# RESULT #:
THOUGHT 0: This is a horizontal bar chart image, I need to focus on the part when y axis value equals 'Josh' and find out how many games he won.
ACTION 0:
```python
image_with_focused_y_values = focus_on_y_values_with_draw(image_1, ["Josh"], y_values_bbox)
display(image_with_focused_y_values)
```
$success
THOUGHT 1: I can see that Josh won 3 games.
ACTION 1: No action needed.
ANSWER: Josh won 3 games. FINAL ANSWER: 3. TERMINATE

# Example: Should focus on every x and y in the image so should not use any tool
# USER REQUEST #: <A image here> What is the average spending by Dan over the years in the figure?
$info The x values in the image are: ['Year', 'Spending']. The y values in the image are: ['2001', '2002', '2003'].
# USER IMAGE stored in image_1, as PIL image.
# RESULT #:
THOUGHT 0: The question does not require any tool. I can see that the spending over the years by Dan are 12, 15, 18. The average spending by Dan over the years is (12 + 15 + 18) / 3 = 15.
ACTION 0: No action needed.
ANSWER: The average spending by Dan over the years is 15. FINAL ANSWER: 15. TERMINATE

"""  # noqa: E501

REQUEST = """# USER REQUEST #: $images $question$options$instruction
$info The x values in the image are: $x_values. The y values in the image are: $y_values.
# USER IMAGE stored in image_1, as PIL image.\u0020
Now please generate only THOUGHT 0 and ACTION 0 in RESULT. If no action needed, also reply with ANSWER: <your answer> Please extract the final answer in FINAL ANSWER: <final answer> and ends with TERMINATE:
# RESULT #:
"""  # noqa: E501

INFO = "# USER Bounding Box Info: x_values_bbox, storing x values and coordinates. y_values_bbox, storing x values and coordinates."  # noqa: E501

SUCCESS = """OBSERVATION: Execution success. The output is as follows:
<the image outputs of the previous code is here.>
If you can get the answer, please reply with ANSWER: <your answer> Please extract the final answer in FINAL ANSWER: <final answer> and ends with TERMINATE. Otherwise, please generate the next THOUGHT and ACTION."""  # noqa: E501

TOOLS = "\n".join(
    described(mode, how, axis) for mode, how in MODES.items() for axis in (X_VALUES, Y_VALUES)
)
ASKED = OPENING + TOOLS + GOAL + EXAMPLES.replace("$success", SUCCESS) + REQUEST

FREE_ASKED = """Given the chart figure $images
Solve the following question: $question$options${instruction}Please extract the final answer in FINAL ANSWER: <final answer> and ends with TERMINATE
"""  # noqa: E501

OBSERVATION = Observation(
    before="OBSERVATION: Execution success. The output is as follows:\n",
    after="""
And a kind reminder that the original image is:
$original
Answer the question $question. You can turn the chart image into text and answer with step of thinking.\u0020
Reply with ANSWER: <your answer> Please extract the final answer in FINAL ANSWER: <final answer> and ends with TERMINATE.""",  # noqa: E501
    error="""OBSERVATION: Execution error. Exit code: 1, Output:
$message
Please fix the error and generate the fixed code, in the next THOUGHT and ACTION.""",
    malformed="""OBSERVATION: Parsing error. Error code: unknown, Error message:
$message
Please fix the error and generate the fixed code, in the next THOUGHT and ACTION.""",
)

FREE = EvalProtocol(
    name="refocus_chart_free",
    title="ReFocus on charts, its baseline prompt for tables said of a chart",
    system=SYSTEM,
    user=FREE_ASKED,
    call_syntax="fenced_python",
    call_rules=CallRules(dialect="refocus"),
    observation=OBSERVATION,
    answer_rules=("final_answer",),
    sampling=Sampling(temperature=0.0, max_tokens=4096),
    source=SOURCE,
    licence=LICENCE,
)
REFOCUS_CHART = Pair(
    name="refocus_chart",
    title="ReFocus on charts",
    free=FREE,
    available=replace(
        FREE.with_tools(
            *focus_tools(REFOCUS, CHART_AXES),
            display(),
            name="refocus_chart_focus",
            title="ReFocus on charts, blocks of Python, at most 6 replies",
            max_generations=REPLIES,
            max_calls=MANY,
        ),
        user=ASKED.replace("$info", INFO),
    ),
    free_source="derived",
    differences={"user": "the available arm has a published prompt, the free arm one after it"},
)
