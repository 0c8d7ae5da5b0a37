"""What medeval adds to the least that a large image costs, sent as it is and resized.

    python tests/perf/large_images.py [--samples 6]

For 4096x3072 and 7680x4320 JPEGs, drawn here. `as it is` is compared with reading, hashing and
base64 alone; `resized` with one decode, one resize and one PNG by Pillow, from which the ratio of
CPU a sample is taken; `again` is a checkpoint after the first, that finds them in `.prepared`. CPU
of medeval is that of a run of so many samples beyond a run of one; of samples that are sent as they
are or found there are ten times as many, of the same images in turn.
"""

import argparse
import base64
import hashlib
import io
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
TIMES = {"as it is": 10, "resized": 1, "again": 10}


def passed_on(data: bytes) -> None:
    hashlib.sha256(data).hexdigest()
    base64.b64encode(data)


def resized(data: bytes) -> None:
    with Image.open(io.BytesIO(data)) as image:
        small = image.convert("RGB").resize(SENT, Image.Resampling.BICUBIC)
    small.save(io.BytesIO(), "PNG", compress_level=1)


LEAST: dict[str, Callable[[bytes], None]] = {
    "as it is": passed_on,
    "resized": resized,
    "again": resized,
}


def least_cpu_s(work: Callable[[bytes], None], images: Path) -> float:
    paths = sorted(images.glob("*.jpg"))
    started = time.process_time()
    for path in paths:
        work(path.read_bytes())
    return (time.process_time() - started) / len(paths)


def keep_prepared(images: Path, run: Path) -> None:
    """Leave in a run folder what a run leaves that ends in the middle of a sweep."""
    (run / FOLDER).mkdir(parents=True)
    prepared = PreparedImages(run / FOLDER)
    for path in sorted(images.glob("*.jpg")):
        prepared.prepare(path.read_bytes(), name=path.name, budget=BUDGET)


def run_cpu_s(url: str, n: int, images: Path, folder: Path, how: str) -> float:
    run = folder / f"run-{images.name}"
    if how == "again":
        keep_prepared(images, run)
    command = medeval(
        *("run", "--model", "stub", "--base-url", url, "--concurrency", 4, "--limit", n),
        *("--benchmarks", folder / "files.py", "--data-dir", images, "--fresh"),
        *("--protocols", folder / "protocol.py", "--output-dir", run),
    )
    return measured(command, folder=folder).cpu_s


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=6)
    n = parser.parse_args().samples
    with tempfile.TemporaryDirectory() as name, stub_server(0.0, 64) as url:
        folder = Path(name)
        (folder / "files.py").write_text(DEFINITION)
        for size in SIZES:
            images = folder / f"{size[0]}x{size[1]}"
            write_photos(images, n, size, noise=60)
            write_rows(images, n * max(TIMES.values()), n)
            for how, budget in BUDGETS.items():
                text = PROTOCOL.format(name=how.replace(" ", "_"), budget=budget)
                (folder / "protocol.py").write_text(text)
                least = least_cpu_s(LEAST[how], images)
                many = n * TIMES[how]
                one, all_of_them = (
                    run_cpu_s(url, count, images, folder, how) for count in (1, many)
                )
                ours = (all_of_them - one) / (many - 1)
                print(
                    f"{images.name} {how:8}  least {1000 * least:6.0f} ms  medeval "
                    f"{1000 * ours:6.0f} ms of CPU a sample  ratio {ours / least:.2f}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
