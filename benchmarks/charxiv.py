"""CharXiv: questions about figures of arXiv papers; one of reasoning, four of description each.

Rows: https://huggingface.co/datasets/princeton-nlp/CharXiv, split validation, 1,000 figures;
columns category, year, figure_path, num_subplots, subplot_row, subplot_col, subplot_loc,
descriptive_q1..4 (numbers of 19 templates), descriptive_a1..4, reasoning_q, reasoning_q_source,
reasoning_a, reasoning_a_type, image. No commit was read in a source, so `revision` is None and a
run records the one it resolved. A sample's id is the figure's file name, as in the authors'
results, and of a description the question's position after it, 0 to 3.

Questions and instructions are the authors': princeton-nlp/CharXiv, constants.py at commit 6571893,
src/reasoning_utils.py and src/descriptive_utils.py at 5e10248, without the white space at their
ends. The instruction of a number in general says how many decimal places the answer has, which is
read off the answer. An answer's type is reasoning_a_type (lmms-eval reads reasoning_q_source in
its place, and asks only one of the four descriptions).

The official scores are the means over all 1,000 and all 4,000 answers. There an answer that the
judge could not read scores 0; here it is undecided.
"""

from pathlib import PurePosixPath

from medeval import Benchmark, HubRows, RepeatedRows, Row, Sample
from medeval.errors import DataError

ROWS = HubRows("princeton-nlp/CharXiv", split="validation")

ANSWER_TYPES = ("Text-in-Chart", "Text-in-General", "Number-in-Chart", "Number-in-General")
SOURCES = ("GPT-Sourced", "GPT-Inspired", "Completely Human")

# By answer type; a number in general has a rule of its own for each answer.
REASONING = (
    """\
    * Your final answer must be grounded to some text that is explicitly written and relevant to the question in the chart.
    * If you need to answer multiple terms, separate them with commas.
    * Unless specified in the question (such as answering with a letter), you are required to answer the full names of subplots and/or labels by default.""",  # noqa: E501
    """\
    * If there are options in the question, your final answer must conform to one of the options.
    * If there are additional instructions in the question, follow them accordingly.
    * If there are neither options nor additional instructions, you are allowed to respond with a short phrase only.""",  # noqa: E501
    """\
    * Your final answer must be grounded to a number that is exlicitly written and relevant to the question in the chart, even if it's an approximate value.
    * You are allowed to extract numbers within some text when needed.""",  # noqa: E501
)

BOTTOM = "including the case when x-axis is shared across multiple subplots. When the x-axis is present on both the top and bottom of the plot, answer"  # noqa: E501
LEFT = "including the case when y-axis is shared across multiple subplots. When the y-axis is present on both the left and right of the plot,"  # noqa: E501
TICK = "Ignore units or scales that are written separately from the tick, such as units and scales from the axis label or the corner of the plot."  # noqa: E501
X_TICK = f"    * Your final answer should be the tick value on the x-axis that is explicitly written, {BOTTOM} based on the axis at the bottom. {TICK}"  # noqa: E501
Y_TICK = f"    * Your final answer should be the tick value on the y-axis that is explicitly written, {LEFT} based on the axis at the left. {TICK}"  # noqa: E501
NO_STEP = 'or if the tick values are not numerical, or if the difference is not constant between all consecutive tick values, answer "Not Applicable".'  # noqa: E501
NO_LINES = '    * If the plot does not contain any lines or is not considered a line plot, answer "Not Applicable".'  # noqa: E501
NO_GRID = "Ignore grid lines, tick marks, and any vertical or horizontal auxiliary lines."
LEGEND = "account for only labels relevant to the plot in the legend, even if the legend is located outside the plot."  # noqa: E501
NO_LEGEND = '    * If the plot does not have a legend or no legend is not considered relevant to this plot, answer "Not Applicable".'  # noqa: E501
NO_COLORBAR = '    * If the plot does not have an explicit colorbar-based continuous legend or the legend is not considered relevant to this subplot, answer "Not Applicable".'  # noqa: E501

# By template, 1 to 19: the question and its instruction.
DESCRIPTIVE = (
    (
        "what is its title?",
        """\
    * Your final answer should be the most relevant title of the plot that is explicitly written.
    * If the plot does not have an explicit title or contains only a letter, answer 'Not Applicable'.""",  # noqa: E501
    ),
    (
        "what is the label of the x-axis?",
        f"""\
    * Your final answer should be the label of the x-axis that is explicitly written, {BOTTOM} the label of the x-axis at the bottom.
    * If the plot does not have an explicit x-axis label, answer 'Not Applicable'.""",  # noqa: E501
    ),
    (
        "what is the label of the y-axis?",
        f"""\
    * Your final answer should be the label of the y-axis that is explicitly written, {LEFT} answer the label of the y-axis at the left.
    * If the plot does not have an explicit y-axis label, answer 'Not Applicable'.""",  # noqa: E501
    ),
    ("what is the leftmost labeled tick on the x-axis?", X_TICK),
    ("what is the rightmost labeled tick on the x-axis?", X_TICK),
    ("what is the spatially lowest labeled tick on the y-axis?", Y_TICK),
    ("what is the spatially highest labeled tick on the y-axis?", Y_TICK),
    (
        "what is difference between consecutive numerical tick values on the x-axis?",
        f"""\
    * Your final answer should be the difference between consecutive numerical tick values of the x-axis, {BOTTOM} based on the axis at the bottom. {TICK}
    * If the plot does not have an explicit x-axis tick value, {NO_STEP}""",  # noqa: E501
    ),
    (
        "what is difference between consecutive numerical tick values on the y-axis?",
        f"""\
    * Your final answer should be the difference between consecutive numerical tick values of the y-axis, {LEFT} answer based on the axis at the left. {TICK}
    * If the plot does not have an explicit y-axis tick value, {NO_STEP}""",  # noqa: E501
    ),
    (
        "how many lines are there?",
        f"    * Your final answer should be the number of lines in the plot. {NO_GRID}\n{NO_LINES}",
    ),
    (
        "do any lines intersect?",
        f'    * Your final answer should be "Yes" if any lines intersect, and "No" otherwise. '
        f"{NO_GRID}\n{NO_LINES}",
    ),
    (
        "how many discrete labels are there in the legend?",
        f"    * Your final answer should {LEGEND} \n{NO_LEGEND}",
    ),
    (
        "what are the names of the labels in the legend?",
        "    * You should write down the labels from top to bottom, then from left to right and "
        f"separate the labels with commas. Your final answer should {LEGEND}\n{NO_LEGEND}",
    ),
    (
        "what is the difference between the maximum and minimum values of the tick labels on the continuous legend (i.e., colorbar)?",  # noqa: E501
        f"    * You should remove the percentage sign (if any) in your answer.\n{NO_COLORBAR}",
    ),
    (
        "what is the maximum value of the tick labels on the continuous legend (i.e., colorbar)?",
        f"    * You should remove the percentage sign (if any) in your answer. \n{NO_COLORBAR}",
    ),
    (
        "what is the general trend of data from left to right?",
        '    * Your final answer should be within a few words, such as "increases", '
        '"increases then stabilizes".',
    ),
    (
        "What is the total number of explicitly labeled ticks across all axes?",
        "    * Your final answer should be the total number of explicitly labeled ticks across all "
        "axes, including the case when any axis is shared across multiple subplots.",
    ),
    (
        "What is the layout of the subplots?",
        '    * Your final answer should follow "n by m" format, where n is the number of rows and '
        "m is the number of columns.\n"
        '    * If the plot does not contain subplots, answer "1 by 1".',
    ),
    (
        "What is the number of subplots?",
        "    * Your final answer should be the total number of subplots in the plot.\n"
        '    * If the plot does not contain subplots, answer "1".',
    ),
)
WHOLE_FIGURE = (18, 19)
CATEGORIES = {
    "Information Extraction": (1, 2, 3, 4, 5, 6, 7),
    "Enumeration": (8, 9, 13, 14, 15),
    "Pattern Recognition": (11, 16, 18),
    "Counting": (10, 12, 19),
    "Compositionality": (17,),
}


def figure(row: Row) -> str:
    """The figure's number, which is its file's name."""
    return PurePosixPath(row.text("figure_path")).stem


def figure_groups(row: Row) -> dict[str, str]:
    """The groups of a figure that both scores are split by."""
    subplots = int(row.text("num_subplots"))
    return {
        "subject": row.text("category"),
        "year": f"20{row.text('year')[-2:]}",
        "subplots": "1" if subplots == 1 else "2-4" if subplots <= 4 else "5+",
    }


def chosen(row: Row, column: str, names: tuple[object, ...]) -> int:
    """A column's number, 1 to as many as there are names; DataError for any other."""
    number = int(float(row.text(column)))
    if not 1 <= number <= len(names):
        raise DataError(f"{column} is 1 to {len(names)}, got {row[column]!r}")
    return number


def decimals(answer: str) -> str:
    """The instruction that says how exact a number is to be."""
    _, point, places = answer.partition(".")
    if not point:
        return "    * Your final answer must be an exact integer."
    places = places.partition(".")[0]
    return f"    * Your final answer must be a number with {len(places)} decimal places."


def to_reasoning(row: Row) -> Sample:
    """A row's question of reasoning."""
    kind, answer = chosen(row, "reasoning_a_type", ANSWER_TYPES), row.text("reasoning_a")
    source = chosen(row, "reasoning_q_source", SOURCES)
    return Sample(
        id=figure(row),
        question=row.text("reasoning_q"),
        images=(row.image("image"),),
        targets=(answer,),
        instruction=decimals(answer) if kind == 4 else REASONING[kind - 1],
        groups={
            "answer_type": ANSWER_TYPES[kind - 1],
            "source": SOURCES[source - 1],
            **figure_groups(row),
        },
        metadata={"answer_type": kind},
    )


def where(row: Row, template: int) -> str:
    """How a question begins: which subplot it is about."""
    if template in WHOLE_FIGURE:
        return ""
    if row.get("subplot_loc"):
        return f"For {row.text('subplot_loc')}, "
    if int(row.text("subplot_row")) == 0:
        return "For the current plot, "
    place = f"row {int(row.text('subplot_row'))} and column {int(row.text('subplot_col'))}"
    return f"For the subplot at {place}, "


def to_descriptive(row: Row) -> Sample:
    """One of a row's four questions of description, as its part says."""
    part = int(row.text("part"))
    template = chosen(row, f"descriptive_q{part + 1}", DESCRIPTIVE)
    question, instruction = DESCRIPTIVE[template - 1]
    (category,) = (name for name, templates in CATEGORIES.items() if template in templates)
    return Sample(
        id=f"{figure(row)}_{part}",
        question=where(row, template) + question,
        images=(row.image("image"),),
        targets=(row.text(f"descriptive_a{part + 1}"),),
        instruction=instruction,
        groups={"category": category, "template": str(template), **figure_groups(row)},
        cluster=figure(row),
        metadata={"template": template},
    )


CHARXIV_REASONING = Benchmark(
    name="charxiv_reasoning",
    title="CharXiv, validation, reasoning",
    aliases=("CharXiv_reasoning_val", "charxiv_val_reasoning"),
    rows=ROWS,
    count=1000,
    columns=(
        "figure_path",
        "reasoning_q",
        "reasoning_q_source",
        "reasoning_a",
        "reasoning_a_type",
        "category",
        "year",
        "num_subplots",
        "image",
    ),
    to_sample=to_reasoning,
    judge="charxiv_reasoning",
    groups=("answer_type", "source", "subject", "year", "subplots"),
    licence="CC BY-SA 4.0",
    citation="Wang et al., CharXiv, NeurIPS 2024, arXiv:2406.18521",
)

CHARXIV_DESCRIPTIVE = Benchmark(
    name="charxiv_descriptive",
    title="CharXiv, validation, all four descriptions of each figure",
    aliases=("CharXiv_descriptive_val", "charxiv_val_descriptive"),
    rows=RepeatedRows(ROWS, times=4),
    count=4000,
    columns=(
        "figure_path",
        "descriptive_q1",
        "descriptive_a1",
        "subplot_row",
        "subplot_col",
        "category",
        "year",
        "num_subplots",
        "image",
    ),
    to_sample=to_descriptive,
    judge="charxiv_descriptive",
    groups=("category", "template", "subject", "year", "subplots"),
    cluster_size=4,
    licence="CC BY-SA 4.0",
    citation="Wang et al., CharXiv, NeurIPS 2024, arXiv:2406.18521",
)
