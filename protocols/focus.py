"""Focus on columns and rows by a block of Python: ReFocus, VTool-R1 and IAPO's tools.

`vtool_r1` (tables) and `vtool_r1_chart`: prompts of https://github.com/VTool-R1/VTool-R1 at
a1bf8c9 (examples/format_prompt/chartQA.jinja, for both; the request as its data scripts write it;
free arm eval/eval.py with eval/prompt.txt), loop, tools and observations of
https://github.com/VTool-R1/training-v2 at 563ef92 (eval/vtool_eval_loop.py,
recipe/vtool/refocus_tools.py). Apache-2.0. One block, two replies; the second is never parsed.
The functions for charts, and any of these on a table, are bound too, though no prompt names them.

`vtool_r1_v1` and `vtool_r1_v1_chart`: the same prompts in the loop of the first code itself, as its
evaluation has it (temperature 1). After a block that shows an image nothing follows the reply: it
is cut after its last code fence and ends with the observation, its turn is closed, the image
stands second in the question, and the model starts another turn. Where a block fails there is no
second reply, and the first is scored.

`iapo`: no code or prompt of IAPO is published; it follows VTool-R1, so this is `vtool_r1_chart`
under its name, for the count of misused calls.

`refocus` (tables): prompts, loop and tools of https://github.com/zeyofu/ReFocus_Code at 8412b5f
(src/prompt_need.py, src/agent.py, src/main_tablevqa.py, src/tools.py), which gives no licence.
Written for GPT-4o. Its chart prompt is in refocus_chart.py; its prompt for subfigures, which has
the model write general Python, is not here.

Where we differ: no code is run, so a block of more than assignments and calls of these functions
is an error, and binds no name; mask and draw change `image_1`, in ReFocus for later blocks too, but
never the image that the model was shown; and where ReFocus asks again after a reply with neither a
block nor "TERMINATE", the conversation ends. ReFocus' blocks share a kernel: what one has bound,
up to a call that failed, is known to the next. What the second training code's data script writes
as the request is not public; the first's stands in for it.
"""

from dataclasses import replace

from medeval import CallRules, EvalProtocol, Observation, Pair, PixelBudget, Sampling, focus_tools
from medeval.tools.focus import CHART_AXES, REFOCUS, TABLE_AXES, VTOOL_V1, VTOOL_V2, display
from medeval.tools.focus_prompt import tools_text

VTOOL_SOURCE = (
    "https://github.com/VTool-R1/VTool-R1 at a1bf8c9, "
    "https://github.com/VTool-R1/training-v2 at 563ef92"
)
V1_SOURCE = "https://github.com/VTool-R1/VTool-R1 at a1bf8c9"
REFOCUS_SOURCE = "https://github.com/zeyofu/ReFocus_Code at 8412b5f"
LICENCE = "Apache-2.0"

# A block may hold several calls; it is the replies that are bounded.
MANY = 100

OPENING = """Here are some tools that can help you. All are python codes. They are in tools.py and will be imported for you.
You will be given a table figure: image_1 and a question.
Notice that you, as an AI assistant, are not good at answering questions when there are too many unnecessary and irrelevant information. You should determine which are the relevant columns to the question, and specify them in a python list. You should use the given column headers.
You should also determine which are the relevant rows to the question, and specify them in a python list. You should use the given row headers.
You could select the tools to focus on some columns / rows, or mask out some columns / rows. Use whichever tool you think is more appropriate.
Below are the tools in tools.py:
```python
"""  # noqa: E501

VTOOL_GOAL = """```
# GOAL #: Based on the above tools, I want you to reason about how to solve the # USER REQUEST # and generate the actions step by step (each action is a python function call) to solve the request.
You may need to use the tools above to process the images and make decisions based on the visual outputs of the previous code blocks.
You should only use the tools above, you should not use other functions or code which will not be executed.
"""  # noqa: E501

REFOCUS_GOAL = """```
# GOAL #: Based on the above tools, I want you to reason about how to solve the # USER REQUEST # and generate the actions step by step (each action is a python jupyter notebook code block) to solve the request.
You may need to use the tools above to process the images and make decisions based on the visual outputs of the previous code blocks.
Your visual ability is not perfect, so you should use these tools to assist you in reasoning about the images.
The jupyter notebook has already executed the following code to import the necessary packages:
```python
from PIL import Image
from IPython.display import display
from tools import *
```
"""  # noqa: E501

REQUIREMENTS = """
# REQUIREMENTS #:
1. The generated actions can resolve the given user request # USER REQUEST # perfectly. The user request is reasonable and can be solved. Try your best to solve the request.
2. The arguments of a tool must be the same format specified in # TOOL LIST #;
3. If you think you got the answer, use ANSWER: <your answer> Please extract the final answer in FINAL ANSWER: <final answer> and ends with TERMINATE.
4. All images in the initial user request are stored in PIL Image objects named image_1, image_2, ..., image_n. You can use these images in your code blocks. Use display() function to show the image in the notebook for you too see.
5. Use as few tools as possible. Only use the tools for the use cases written in the tool description. You can use multiple tools in a single action.
6. If you have multiple answers, please separate them with || marks. For example, if the answer is 'Alice' and 'Bob', you should write 'Alice||Bob'.
7. When you focus on columns in the image, most like you need to look at multiple columns instead of a single one.\u0020
8. If you do not think you have enough information to answer the question on the images returned by the tools, you should directly answer the question based on the original image.
Below are some examples of how to use the tools to solve the user requests. You can refer to them for help. You can also refer to the tool descriptions for more information.
"""  # noqa: E501

ONE_TURN = """9. Only one turn of action, ACTION 0, is allowed. You must provide the answer after maximum one ACTION call.
"""  # noqa: E501

# `$shown` is what stands for an observation, `$done` an action of nothing after it.
EXAMPLES = """
# EXAMPLE: Simple question that does not require any tool
# USER REQUEST #: <A image here> What is the title of this table?
# USER Bounding Box Info: columns_bbox, where keys are column headers and values are column bounding boxes. rows_bbox, where keys are row headers and values are row bounding boxes. The columns in the image are: ["Grade", "Mentor", "Salary"]. The rows in the image start with: ["Grade", "A", "B", "C"].
# USER IMAGE stored in image_1, as PIL image.
# RESULT #:
THOUGHT 0: The question does not require any tool. I can see the title of the table is "Customer Information".
ACTION 0: No action needed.
ANSWER: The title of the table is "Customer Information". FINAL ANSWER: Customer Information. TERMINATE

# EXAMPLE:  Focus on specific columns in the image
# USER REQUEST #: <A image here> Who had the same game version as John Roth?
# USER Bounding Box Info: columns_bbox, where keys are column headers and values are column bounding boxes. rows_bbox, where keys are row headers and values are row bounding boxes. The columns in the image are: ['Manager Name', 'Game Version', 'Game Score']. The rows in the image start with: ['Manager Name', 'John Roth', 'Alice Smith', 'Bob Johnson'].
# USER IMAGE stored in image_1, as PIL image.
# RESULT #:
THOUGHT 0: To identify who had the same game version as John Roth, I need to focus on the 'Game Version' column and the 'Manager Name' column. Also, I need to focus on all the rows so I do not need to focus on some specific rows.
ACTION 0:
```python
image_with_focused_columns = focus_on_columns_with_draw(image_1, ["Game Version", "Manager Name"], columns_bbox)
display(image_with_focused_columns)
```
$shown
THOUGHT 1: Now I can see the 'Game Version' column and the 'Manager Name' column more clearly. The game version of John Roth is 'v1.2'. Other people with the same game version are 'Alice Smith' and 'Bob Johnson'.
$doneANSWER: 'Alice Smith' and 'Bob Johnson' had the same game version as John Roth are. FINAL ANSWER: Alice Smith||Bob Johnson. TERMINATE

# EXAMPLE:  Focus on specific rows in the image
# USER REQUEST #: <A image here> How many games did Josh win after 1996?\u0020
# USER Bounding Box Info: columns_bbox, where keys are column names and values are column bounding boxes. rows_bbox, where keys are row headers and values are row bounding boxes. The columns in the image are: ["Rank", "Year", "Score", "Month"]. The rows in the image start with: ["Rank", "0", "1", "2", "3", "4", "5"].
# USER IMAGE stored in image_1, as PIL image.
# RESULT #:
THOUGHT 0: This table is about the games played by Josh that he won. I do not need to focus on any specific columns. I need to focus on the rows with the year after 1996. Three rows have year after 1996: one has year 1997 and this row starts with "3", one has year 1998 and this row starts with "4", and one has year 1999 and this row starts with "5". So I will focus on the rows with row starters "3", "4", and "5".
ACTION 0:
```python
image_with_focused_rows = focus_on_rows_with_highlight(image_1, ["3", "4", "5"], rows_bbox)
display(image_with_focused_rows)
```
$shown
THOUGHT 1: I can see that Josh won 3 games after 1996.
$doneANSWER: Josh won 3 games after 1996. FINAL ANSWER: 3. TERMINATE

# EXAMPLE:  Focus on specific columns and specific rows in the image
# USER REQUEST #: <A image here> what is the sum of annual earnings after 2006?\u0020
# USER Bounding Box Info: columns_bbox, where keys are column names and values are column bounding boxes. rows_bbox, where keys are row headers and values are row bounding boxes. The columns in the image are: ["Index", "Year", "Cost", "Earning"]. The rows in the image start with: ["Index", "0", "1", "2", "3", "4", "5"].
# USER IMAGE stored in image_1, as PIL image.
# RESULT #:
THOUGHT 0: I need to focus on the 'Year' column and the 'Earning' column. I also need to focus on the rows with years after 2006. The row with year being 2006 starts with "3". So I will focus on the rows starting with "4", and "5".
ACTION 0:
```python
image_with_focused_columns = focus_on_columns_with_mask(image_1, ["Year", "Earning"], columns_bbox)
image_with_focused_rows = focus_on_rows_with_draw(image_with_focused_columns, ["4", "5"], rows_bbox)
display(image_with_focused_rows)
```
$shown
THOUGHT 1: I can see that the annual earnings after 2006 are $$165,498 and $$198,765. The sum of the annual earnings after 2006 is $$364,263.
$doneANSWER: The sum of the annual earnings after 2006 is $$364,263. FINAL ANSWER: 364263. TERMINATE

"""  # noqa: E501

VTOOL_SHOWN = """OBSERVATION: Execution success. The output is as follows:
<the image outputs of the code is added as the second image>"""
REFOCUS_SHOWN = """OBSERVATION: Execution success. The output is as follows:
<the image outputs of the previous code is here.>
If you can get the answer, please reply with ANSWER: <your answer> Please extract the final answer in FINAL ANSWER: <final answer> and ends with TERMINATE. Otherwise, please generate the next THOUGHT and ACTION."""  # noqa: E501

VTOOL_TOOLS = (
    ' \n\n"""\n\n'
    + OPENING
    + tools_text('\\"\\"\\"')
    + VTOOL_GOAL
    + REQUIREMENTS
    + ONE_TURN
    + EXAMPLES.replace("$shown", VTOOL_SHOWN).replace("$done", "")
    + '"""'
)
REFOCUS_TOOLS = (
    OPENING
    + tools_text('"""')
    + REFOCUS_GOAL
    + REQUIREMENTS
    + EXAMPLES.replace("$shown", REFOCUS_SHOWN).replace("$done", "ACTION 1: No action needed.\n")
)

TABLE_REQUEST = """# USER REQUEST #: $question$options$instruction
# USER Bounding Box Info: columns_bbox, where keys are column headers and values are column bounding boxes. rows_bbox, where keys row headers and values are row bounding boxes. The columns in the image are: $columns. The rows in the image start with: $rows.
# USER IMAGE stored in image_1, as PIL image."""  # noqa: E501
CHART_REQUEST = """ # USER REQUEST #: $question$options$instruction
# USER Bounding Box Info: x_values_bbox, storing x values and coordinates. y_values_bbox, storing x values and coordinates. The x values in the image are: $x_values. The y values in the image are: $y_values.
# USER IMAGE stored in image_1, as PIL image."""  # noqa: E501

# Of the free arm. Upstream puts it after the request with its "<image>" still in the text, beside
# the image itself, and numbers its requirements 1 and 3.
VTOOL_FREE = """
You will be given a table figure: image_1 and a question, please answer the question using the information in the image.

# REQUIREMENTS #:
1. The generated actions can resolve the given user request # USER REQUEST # perfectly. The user request is reasonable and can be solved. Try your best to solve the request.
3. If you think you got the answer, use ANSWER: <your answer> Please extract the final answer in FINAL ANSWER: <final answer> and ends with TERMINATE.

# EXAMPLE

# USER REQUEST #: <A image here> Who had the same game version as John Roth?

THOUGHT 0: To identify who had the same game version as John Roth, I need to focus on the 'Game Version' column and the 'Manager Name' column. Also, I need to focus on all the rows so I do not need to focus on some specific rows. I can see the 'Game Version' column and the 'Manager Name' column more clearly. The game version of John Roth is 'v1.2'. Other people with the same game version are 'Alice Smith' and 'Bob Johnson'.

ANSWER: 'Alice Smith' and 'Bob Johnson' had the same game version as John Roth are. FINAL ANSWER: Alice Smith||Bob Johnson. TERMINATE"""  # noqa: E501

# Of ReFocus: AutoGen gives up after this many replies.
REFOCUS_REPLIES = 6

REFOCUS_SYSTEM = """You are a helpful multimodal AI assistant.
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

REFOCUS_REQUEST = """# USER REQUEST #: $images $question$options$instruction
# USER Bounding Box Info: columns_bbox, where keys are column headers and values are column bounding boxes. rows_bbox, where keys row headers and values are row bounding boxes. The columns in the image are: $columns. The rows in the image start with: $rows.
# USER IMAGE stored in image_1, as PIL image.\u0020
Now please generate only THOUGHT 0 and ACTION 0 in RESULT. If no action needed, also reply with ANSWER: <your answer> Please extract the final answer in FINAL ANSWER: <final answer> and ends with TERMINATE:
# RESULT #:
"""  # noqa: E501

REFOCUS_FREE = """Given the table figure $images
Solve the following question: $question$options${instruction}Please extract the final answer in FINAL ANSWER: <final answer> and ends with TERMINATE
"""  # noqa: E501

REFOCUS_OBSERVATION = Observation(
    before="OBSERVATION: Execution success. The output is as follows:\n",
    after="""
Answer the question $question. You can turn the table image into text and answer with step of thinking.\u0020
Reply with ANSWER: <your answer> Please extract the final answer in FINAL ANSWER: <final answer> and ends with TERMINATE.""",  # noqa: E501
    error="""OBSERVATION: Execution error. Exit code: 1, Output:
$message
Please fix the error and generate the fixed code, in the next THOUGHT and ACTION.""",
    malformed="""OBSERVATION: Parsing error. Error code: unknown, Error message:
$message
Please fix the error and generate the fixed code, in the next THOUGHT and ACTION.""",
)

VTOOL_OBSERVATION = Observation(
    before="",
    after=VTOOL_SHOWN,
    error="OBSERVATION: Execution failed. The code did not produce a valid edited image. Please regenerate your final answer.",  # noqa: E501
)

OTHER_PROMPT = {"user": "each arm has a published prompt of its own"}


def vtool(name: str, request: str, title: str) -> Pair:
    """A pair of VTool-R1: its request with the tools after it, or with the free arm's text."""
    free = EvalProtocol(
        name=f"{name}_free",
        title=f"{title}, the prompt of its untrained baseline",
        user=f"$images<image>{request}{VTOOL_FREE}",
        call_syntax="fenced_python",
        call_rules=CallRules(dialect="vtool_v2"),
        observation=VTOOL_OBSERVATION,
        at_limit="last_reply",
        answer_rules=("answer_tag", "final_answer", "answer_prefix", "boxed", "whole_reply"),
        sampling=Sampling(temperature=0.0, max_tokens=2048),
        source=VTOOL_SOURCE,
        licence=LICENCE,
    )
    available = replace(
        free.with_tools(
            *focus_tools(VTOOL_V2, (*TABLE_AXES, *CHART_AXES)),
            display(),
            name=f"{name}_focus",
            title=f"{title}, one block of Python, then the answer",
            max_generations=2,
            max_calls=MANY,
        ),
        user=f"$images{request}{VTOOL_TOOLS}",
    )
    return Pair(
        name=name,
        title=title,
        free=free,
        available=available,
        free_source="published",
        differences=OTHER_PROMPT,
    )


# Of the first code's data set, for the original and for what the tools make.
V1_BUDGET = PixelBudget(min_px=262_144, max_px=4_194_304, factor=1, rule="area")


def first_version(later: Pair, name: str, title: str) -> Pair:
    """The pair as VTool-R1's first code evaluates it."""
    free = replace(
        later.free,
        name=f"{name}_free",
        title=f"{title}, the prompt of its untrained baseline",
        call_rules=CallRules(dialect="vtool_v1"),
        observation=Observation(place="rewritten", before="", after=f"\n{VTOOL_SHOWN}"),
        on_malformed="end",
        on_error="end",
        answer_rules=("final_answer", "raw_reply"),
        sampling=Sampling(temperature=1.0, top_p=0.99, max_tokens=1024),
        pixel_budget=V1_BUDGET,
        source=V1_SOURCE,
    )
    available = replace(
        free.with_tools(
            *focus_tools(VTOOL_V1, (*TABLE_AXES, *CHART_AXES), budget=V1_BUDGET),
            display(budget=V1_BUDGET),
            name=f"{name}_focus",
            title=f"{title}, one block of Python, its image put into the question",
            max_generations=2,
            max_calls=MANY,
        ),
        user=later.available.user,
    )
    return replace(later, name=name, title=title, free=free, available=available)


VTOOL_R1 = vtool("vtool_r1", TABLE_REQUEST, "VTool-R1 on tables")
VTOOL_R1_CHART = vtool("vtool_r1_chart", CHART_REQUEST, "VTool-R1 on charts")
VTOOL_R1_V1 = first_version(VTOOL_R1, "vtool_r1_v1", "VTool-R1's first code on tables")
VTOOL_R1_V1_CHART = first_version(
    VTOOL_R1_CHART, "vtool_r1_v1_chart", "VTool-R1's first code on charts"
)
IAPO = vtool("iapo", CHART_REQUEST, "IAPO, as VTool-R1 on charts")

REFOCUS_BASELINE = EvalProtocol(
    name="refocus_free",
    title="ReFocus on tables, its baseline prompt",
    system=REFOCUS_SYSTEM,
    user=REFOCUS_FREE,
    call_syntax="fenced_python",
    call_rules=CallRules(dialect="refocus"),
    observation=REFOCUS_OBSERVATION,
    answer_rules=("final_answer",),
    sampling=Sampling(temperature=0.0, max_tokens=4096),
    source=REFOCUS_SOURCE,
    licence="none given",
)
REFOCUS_PAIR = Pair(
    name="refocus",
    title="ReFocus on tables",
    free=REFOCUS_BASELINE,
    available=replace(
        REFOCUS_BASELINE.with_tools(
            *focus_tools(REFOCUS),
            display(),
            name="refocus_focus",
            title="ReFocus on tables, blocks of Python, at most 6 replies",
            max_generations=REFOCUS_REPLIES,
            max_calls=MANY,
        ),
        user=REFOCUS_TOOLS + REFOCUS_REQUEST,
    ),
    free_source="published",
    differences=OTHER_PROMPT,
)
