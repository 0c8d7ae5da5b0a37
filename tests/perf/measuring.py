"""What the programs beside this one share: a process measured to its end, and what it is fed."""

import json
import os
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from PIL import Image, ImageChops

from medeval.images.picture import prepare
from medeval.tools.base import ToolContext
from medeval.tools.crop import crop_and_zoom
from medeval.types.sample import JsonValue
from tests.medeval_processes import ROOT, stub_process

Item = TypeVar("Item")

# One image and one target a row; the model is to answer A.
DEFINITION = """
from medeval import Benchmark, HubRows, Sample

FILES = Benchmark(
    name="files",
    title="files",
    rows=HubRows("nobody/files", split="test"),
    to_sample=lambda row: Sample(
        id=f"s{row.index:06d}", question="Question?", images=(row.image("image"),), targets=("A",)
    ),
    judge="exact_match",
)
"""
PROTOCOL = """
from medeval import EvalProtocol, PixelBudget

ARM = EvalProtocol(name="{name}", user="$question", call_syntax="hermes", pixel_budget={budget})
"""
# What the model asks for with two turns, in thousandths of the image.
CROP: dict[str, JsonValue] = {"bbox_2d": [200, 200, 600, 600]}
RESIZED = "PixelBudget(min_px=784, max_px=1120 * 840, factor=28)"
# From this edge on, images are drawn at a quarter of their size and enlarged.
LARGE_PX = 2048


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What a process took from its start to its end."""

    wall_s: float
    cpu_s: float
    peak_mb: float


def measured(
    command: Sequence[str],
    *,
    folder: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> Usage:
    """Run a command to its end, in `folder` with its output in a log there, and say what it took.

    It imports the medeval next to which these programs lie. Ends this program, with the end of the
    log, where the command fails.
    """
    ours = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    variables = {**ours, **(environment or {})}
    log = Path(os.devnull) if folder is None else folder / "log"
    began_at = time.monotonic()
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=folder, stdout=output, stderr=output, env={**os.environ, **variables}
        )
        # `wait` would not tell what this one process used
        _, status, usage = os.wait4(process.pid, 0)
    wall_s = time.monotonic() - began_at
    if os.waitstatus_to_exitcode(status) != 0:
        sys.exit(
            f"{shlex.join(command)} failed:\n{'' if folder is None else log.read_text()[-3000:]}"
        )
    return Usage(
        wall_s=wall_s, cpu_s=usage.ru_utime + usage.ru_stime, peak_mb=usage.ru_maxrss / 1024
    )


def medeval(*arguments: object) -> list[str]:
    """A command of medeval's."""
    return [sys.executable, "-m", "medeval", *map(str, arguments)]


def cropping(image: bytes, name: str) -> ToolContext:
    """An image whose hash is taken, as `cropped` takes it."""
    return ToolContext(pictures=(prepare(image, name=name),), frame="permille")


def cropped(context: ToolContext) -> bytes:
    """The crop that the model asks for: decoded, cut out, resized and encoded."""
    return crop_and_zoom().run(CROP, context).picture.sent_image.encoded()


def stub_server(
    latency_s: float, places: int, *, call: str = "", n_calls: int = 0
) -> AbstractContextManager[str]:
    """The stub server while a block runs, which gives its base URL; it answers A.

    It works on `places` requests at once, `latency_s` each. Its first `n_calls` turns are a `call`.
    """
    calling = ("--call", call, "--calls", n_calls) if n_calls else ()
    return stub_process(
        *("--places", places, "--latency", latency_s, "--answer", "<answer>A</answer>", *calling)
    )


def cpu_s(work: Callable[[Item], object], items: Sequence[Item], n_threads: int) -> float:
    """CPU seconds of work on one item, so many threads at once."""
    with ThreadPoolExecutor(n_threads) as pool:
        started = time.process_time()
        for _ in pool.map(work, items):
            pass
        return (time.process_time() - started) / len(items)


def told(values: list[float]) -> str:
    """A median with what it lies between."""
    median, least, most = statistics.median(values), min(values), max(values)
    return f"{median:.2f} ({least:.2f}-{most:.2f})"


def photos(n: int, size: tuple[int, int], noise: float) -> Iterator[Image.Image]:
    """Distinct images with the given deviation of brightness: photo-like, if not to the eye."""
    is_large = max(size) >= LARGE_PX
    drawn = (size[0] // 4, size[1] // 4) if is_large else size
    plane = Image.effect_noise(drawn, noise).resize(size)
    for index in range(n):
        turned = ImageChops.offset(plane, 37 * index, 91 * index + index // size[0])
        yield Image.merge("RGB", (turned, plane, turned))


def file_name(index: int) -> str:
    """The name of an image's file."""
    return f"{index:06d}.jpg"


def write_photos(folder: Path, n: int, size: tuple[int, int], noise: float) -> None:
    """Write `n` JPEGs into a new folder."""
    folder.mkdir()
    for index, photo in enumerate(photos(n, size, noise)):
        photo.save(folder / file_name(index), quality=90)


def write_rows(folder: Path, n_rows: int, n_photos: int) -> None:
    """Write the table that DEFINITION reads: the images in turn, as often as it takes."""
    with (folder / "rows.jsonl").open("w") as rows:
        for index in range(n_rows):
            rows.write(json.dumps({"image": file_name(index % n_photos)}) + "\n")
