"""A row in a data set's own columns, the sample it becomes, and what a model would read of it."""

import base64
import dataclasses
import io
from collections.abc import Mapping
from pathlib import Path

from PIL import Image

from medeval.data.benchmark import Benchmark
from medeval.data.rows import DrawnRows, RepeatedRows, open_rows
from medeval.evaluation.loader import load
from medeval.rollout.protocol import EvalProtocol
from medeval.types.sample import Sample
from medeval.types.trajectory import Text

SHARED = Path(__file__).parents[2] / "shared" / "data"
NO_SHARED = "no ../shared/data beside the project"

PROTOCOL_TAIL = (
    "\n\nThink step by step. Then write the final answer, and nothing else, "
    "between <answer> and </answer>."
)


def picture(width: int = 8, height: int = 6, colour: str = "red") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), colour).save(buffer, "PNG")
    return buffer.getvalue()


def in_base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def samples_of(benchmark: Benchmark, *rows: Mapping[str, object]) -> list[Sample]:
    """What rows become, with each of them checked for the columns the benchmark names."""
    drawn: DrawnRows | RepeatedRows = DrawnRows(len(rows), lambda index: rows[index])
    if isinstance(benchmark.rows, RepeatedRows):
        drawn = RepeatedRows(DrawnRows(len(rows), lambda index: rows[index]), benchmark.rows.times)
    opened = open_rows(drawn)
    assert all(column in row for row in opened for column in benchmark.columns)
    return [benchmark.to_sample(row) for row in opened]


def without_images(sample: Sample) -> Sample:
    return dataclasses.replace(sample, images=())


def prompt(sample: Sample) -> str:
    """The user's text under the neutral protocol without tools, less what the protocol adds."""
    protocol = load("tool_free", EvalProtocol).value
    user = protocol.opening(sample)[-1]
    text = "".join(part.text for part in user.content if isinstance(part, Text))
    assert text.endswith(PROTOCOL_TAIL)
    return text.removesuffix(PROTOCOL_TAIL)
