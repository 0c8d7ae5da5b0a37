"""V*Bench: attributes and relations of small objects in large photographs, as multiple choice.

Rows: https://huggingface.co/datasets/craigwu/vstar_bench, test_questions.jsonl, 191 rows: 115
direct_attributes (107 with four options, 8 with two) and 76 relative_position (two options).
Options, already shuffled, and the instruction stand inside the question's text; a file beside
each image holds the boxes of the target objects, [x, y, width, height] in its pixels. No commit
was read in a source that holds this table, so `revision` is None and a run records the one it
resolved.

The same questions as rows with an image column (lmms-lab-encoder/vstar-bench: image, text,
category, label, question_id) are read from a local copy; they have no boxes.
"""

import json
import re
from pathlib import PurePosixPath

from medeval import Benchmark, Box, HubFiles, Row, Sample, pixels
from medeval.errors import DataError
from medeval.scoring.answers import option_letter

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
OPTION = re.compile(r"^\(([A-Z])\)[ \t]*(.*?)[ \t\r]*$", re.MULTILINE)


def split_text(text: str) -> tuple[str, tuple[str, ...], str]:
    """The question, the texts of its options, and the instruction after them."""
    options = list(OPTION.finditer(text))
    letters = [option[1] for option in options]
    if len(options) < 2 or letters != [option_letter(i) for i in range(len(options))]:
        raise DataError(f"expected options (A), (B), ... on lines of their own, got {text!r}")
    question, instruction = text[: options[0].start()], text[options[-1].end() :]
    return question.strip(), tuple(option[2] for option in options), instruction.strip()


def target_boxes(row: Row, name: PurePosixPath) -> tuple[Box, ...]:
    """The boxes of the target objects, where the file beside the image is there."""
    annotation = row.file(str(name.with_suffix(".json")))
    if annotation is None:
        return ()
    size = row.image_size("image")
    frame = pixels(size.width_px, size.height_px, str(name))
    try:
        boxes = json.loads(annotation)["bbox"]
        return tuple(Box(x, y, x + width, y + height, frame) for x, y, width, height in boxes)
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"the annotation of {str(name)!r} has no boxes: {error!r}") from error


def to_sample(row: Row) -> Sample:
    """A row of V*Bench. Its id is the image's path, else the category and question id.

    An image may also stand in the row itself, as bytes or base64 text.
    """
    question, options, instruction = split_text(row.text("text"))
    image, category = row["image"], row.text("category")
    is_path = isinstance(image, str) and image.lower().endswith(IMAGE_SUFFIXES)
    name = PurePosixPath(row.text("image")) if is_path else None
    return Sample(
        id=str(name.with_suffix("")) if name else f"{category}/{row.text('question_id')}",
        question=question,
        images=(row.image("image"),),
        targets=(row.text("label"),),
        options=options,
        instruction=instruction,
        groups={"category": category},
        chance=1 / len(options),
        target_boxes=target_boxes(row, name) if name else (),
    )


VSTAR = Benchmark(
    name="vstar",
    title="V*Bench",
    aliases=("VStarBench", "vstar_bench"),
    rows=HubFiles(
        "craigwu/vstar_bench",
        table="test_questions.jsonl",
        allow_patterns=("direct_attributes/*", "relative_position/*"),
    ),
    count=191,
    columns=("image", "text", "category", "label"),
    to_sample=to_sample,
    judge="choice",
    groups=("category",),
    chance=(107 / 4 + 84 / 2) / 191,
    licence="none stated on the data set's page (photographs from SA-1B)",
    citation="Wu and Xie, V*: Guided Visual Search, CVPR 2024, arXiv:2312.14135",
)
