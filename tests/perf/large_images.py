"""What medeval adds to the least that a large image costs, sent as it is and resized.

    python tests/perf/large_images.py [--samples 6] [--rounds 3]

For 4096x3072 and 7680x4320 JPEGs, drawn here. `as it is` is compared with reading, hashing and
base64 alone; `resized` with one decode, one resize and one PNG by Pillow, from which the ratio of
CPU a sample is taken. CPU of medeval is that of a run of so many samples beyond a run of one; of
samples sent as they are there are ten times as many, whose files differ in a comment. No file is
known from an earlier run. `again` is a checkpoint after the first, which finds its images resized
in the run folder, four times as many, against the same least as `resized`. The least is taken
before and after each run, since a machine's speed may change; the ratio is the median of the
rounds.
"""

import argparse
import base64
import hashlib
import io
import os
import shutil
import statistics
import struct
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[2]))

from medeval.images import PixelBudget
from medeval.prepared_images import FOLDER, PreparedImages
from tests.perf.measuring import (
    DEFINITION,
    PROTOCOL,
    RESIZED,
    file_name,
    measured,
    medeval,
    stub_server,
    write_photos,
    write_rows,
)

SIZES = ((4096, 3072), (7680, 4320))
SENT = (1120, 840)
BUDGETS = {"as it is": "None", "resized": RESIZED, "again": RESIZED}
BUDGET = PixelBudget(min_px=784, max_px=SENT[0] * SENT[1], factor=28)
# sending an image as it is takes so little that start-up's own noise would hide it
TIMES = {"as it is": 10, "resized": 1, "again": 4}


def passed_on(data: bytes) -> None:
    hashlib.sha256(data).hexdigest()
    base64.b64encode(data)


def resized(data: bytes) -> None:
    with Image.open(io.BytesIO(data)) as image:
        small = image.resize(SENT, Image.Resampling.BICUBIC)
    small.save(io.BytesIO(), "PNG", compress_level=1)


def write_copies(images: Path, n: int, times: int) -> None:
    """Write each image again with a comment of its own: the same pixels in another file."""
    for index in range(n, n * times):
        data = (images / file_name(index % n)).read_bytes()
        comment = struct.pack(">2sHI", b"\xff\xfe", 6, index)
        (images / file_name(index)).write_bytes(data[:2] + comment + data[2:])


LEAST: dict[str, Callable[[bytes], None]] = {
    "as it is": passed_on,
    "resized": resized,
    "again": resized,
}


def least_cpu_s(work: Callable[[bytes], None], images: Path, n: int) -> float:
    paths = sorted(images.glob("*.jpg"))[:n]
    started = time.process_time()
    for path in paths:
        work(path.read_bytes())
    return (time.process_time() - started) / len(paths)


def prepare_ahead(images: Path, n: int, kept: Path) -> None:
    """Prepare the first images as the first checkpoint of a sweep does."""
    kept.mkdir()
    prepared = PreparedImages(kept)
    for path in sorted(images.glob("*.jpg"))[:n]:
        prepared.prepare(path.read_bytes(), name=path.name, budget=BUDGET)


def run_cpu_s(url: str, n: int, images: Path, folder: Path, kept: Path | None) -> float:
    run = folder / f"run-{images.name}"
    if kept is not None:
        shutil.copytree(kept, run / FOLDER, copy_function=os.link)
    command = medeval(
        *("run", "--model", "stub", "--base-url", url, "--concurrency", 4, "--limit", n),
        *("--benchmarks", folder / "files.py", "--data-dir", images, "--fresh"),
        *("--protocols", folder / "protocol.py", "--output-dir", run),
    )
    return measured(command, folder=folder).cpu_s


def cpu_s_of(url: str, how: str, n: int, images: Path, folder: Path) -> tuple[float, float]:
    """CPU seconds a sample of medeval's, and of the least."""
    many = n * TIMES[how]
    kept = folder / f"kept-{images.name}" if how == "again" else None
    if kept is not None and not kept.exists():
        prepare_ahead(images, many, kept)
    before = least_cpu_s(LEAST[how], images, n)
    one, all_of_them = (run_cpu_s(url, count, images, folder, kept) for count in (1, many))
    after = least_cpu_s(LEAST[how], images, n)
    return (all_of_them - one) / (many - 1), (before + after) / 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    n = asked.samples
    with tempfile.TemporaryDirectory() as name, stub_server(0.0, 64) as url:
        folder = Path(name)
        (folder / "files.py").write_text(DEFINITION)
        for size in SIZES:
            images = folder / f"{size[0]}x{size[1]}"
            write_photos(images, n, size, noise=60)
            n_files = n * max(TIMES.values())
            write_copies(images, n, max(TIMES.values()))
            write_rows(images, n_files, n_files)
            for how, budget in BUDGETS.items():
                text = PROTOCOL.format(name=how.replace(" ", "_"), budget=budget)
                (folder / "protocol.py").write_text(text)
                rounds = [cpu_s_of(url, how, n, images, folder) for _ in range(asked.rounds)]
                ratios = sorted(taken / least_s for taken, least_s in rounds)
                ours, least = (
                    1000 * statistics.median(taken) for taken in zip(*rounds, strict=True)
                )
                print(
                    f"{images.name} {how:8}  least {least:6.0f} ms  medeval {ours:6.0f} ms of CPU "
                    f"a sample  ratio {statistics.median(ratios):.2f} "
                    f"({ratios[0]:.2f}-{ratios[-1]:.2f})",
                    flush=True,
                )


if __name__ == "__main__":
    main()
