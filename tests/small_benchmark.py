"""A benchmark of tiny drawn images, its judge, and a model that plays both arms of crop_zoom."""

import io
import json
from pathlib import Path

from PIL import Image

from medeval.models.base import Model, Request
from medeval.models.checkpoints import Checkpoint
from medeval.models.scripted import ScriptedModel

LETTERS = "ABCD"

DEFINITION = """
import io

from PIL import Image

from medeval import Benchmark, DrawnRows, Sample


def draw(index):
    buffer = io.BytesIO()
    colour = (index % 256, index // 256, {shade})
    Image.new("RGB", (48, 40), colour).save(buffer, "PNG")
    return {{"image": b"not an image" if index in {broken} else buffer.getvalue()}}


def to_sample(row):
    return Sample(
        id=f"s{{row.index % {period}:03d}}",
        question=f"Question {{row.index}}?",
        images=(row.image("image"),),
        targets=("ABCD"[row.index % 4],),
        options=("red", "green", "blue", "gray"),
        groups={{"half": "first" if row.index < {n} // 2 else "second"}},
    )


SMALL = Benchmark(
    name="{name}",
    title="drawn for tests",
    rows=DrawnRows({n}, draw),
    count={count},
    columns=("image",),
    to_sample=to_sample,
    judge={judge!r},
    groups=("half",),
)
"""

JUDGE = """
from medeval import Grade, Judge
from medeval.errors import JudgeError


def grade(sample, answer):
    if sample.id in {raises}:
        raise ZeroDivisionError("a bug of this judge")
    if sample.id in {refuses}:
        raise JudgeError("nothing to look at")
    return Grade(score=float(answer.text in sample.targets), extracted=answer.text)


LETTER = Judge(name="{name}", metric="accuracy", grade=grade, correct_at={correct_at})
"""

PAIR = """
from dataclasses import replace

from medeval import EvalProtocol, Pair, Sampling, crop_and_zoom

CROP = crop_and_zoom(budget=None)


def buggy(arguments, context):
    raise TypeError("a bug of this tool")


FREE = EvalProtocol(
    name="free",
    user="$question$options",
    call_syntax="hermes",
    stop=("</tool_call>",),
    sampling=Sampling(temperature={temperature}, max_tokens=64),
)
AVAILABLE = FREE.with_tools(
    replace(CROP, run=buggy) if {is_buggy} else CROP,
    name="available",
    prompt="<tools>\\n$tools\\n</tools>",
    max_generations=3,
    max_calls=2,
)
PAIR = Pair(name="small_pair", free=FREE, available=AVAILABLE)
"""


def write_benchmark(
    folder: Path,
    n: int = 8,
    *,
    name: str = "small",
    count: int | None = None,
    judge: Path | str | None = None,
    broken: tuple[int, ...] = (),
    period: int = 1000,
    shade: int = 7,
) -> Path:
    """A definition of `n` samples, s000 and on; those of the `broken` rows have no image.

    Its judge is `judge`, or one written beside it. Ids repeat after `period` rows.
    """
    judge = judge or write_judge(folder)
    path = folder / f"{name}.py"
    path.write_text(
        DEFINITION.format(
            name=name,
            n=n,
            count=n if count is None else count,
            judge=str(judge),
            broken=broken,
            period=period,
            shade=shade,
        )
    )
    return path


def write_judge(
    folder: Path,
    name: str = "letter",
    *,
    raises: tuple[str, ...] = (),
    refuses: tuple[str, ...] = (),
    correct_at: float = 1.0,
) -> Path:
    """A judge that compares letters, and raises or gives up on the samples named."""
    path = folder / f"judge_{name}.py"
    path.write_text(JUDGE.format(name=name, raises=raises, refuses=refuses, correct_at=correct_at))
    return path


def write_pair(folder: Path, *, is_buggy: bool = False, temperature: float = 0.0) -> Path:
    """A pair with a crop tool that does not enlarge; a buggy one raises TypeError instead."""
    path = folder / "small_pair.py"
    path.write_text(PAIR.format(is_buggy=is_buggy, temperature=temperature))
    return path


def offers_tools(request: Request) -> bool:
    """Whether a request is of the available arm."""
    return "<tools>" in request.messages[0].text


def question_number(request: Request) -> int:
    """The position of the sample that a request is about."""
    text = next(message.text for message in request.messages if "Question" in message.text)
    return int(text.split("Question ")[1].split("?")[0])


CROP = "<tool_call>\n{}\n</tool_call>".format(
    json.dumps({"name": "crop_and_zoom", "arguments": {"bbox_2d": [100, 100, 900, 900]}})
)


def play(request: Request) -> str:
    """With tools a crop and then the right letter; without, A."""
    if not offers_tools(request):
        return "<answer>A</answer>"
    if all(message.role != "assistant" for message in request.messages):
        return CROP
    return f"<answer>{LETTERS[question_number(request) % 4]}</answer>"


def scripted(_: Checkpoint) -> Model:
    """The model that plays."""
    return ScriptedModel(play)


def png(colour: tuple[int, int, int] = (1, 2, 3)) -> bytes:
    """A small image."""
    buffer = io.BytesIO()
    Image.new("RGB", (48, 40), colour).save(buffer, "PNG")
    return buffer.getvalue()
