"""What medeval adds to the least that a large image costs, sent as it is and resized.

    python tests/perf/large_images.py [--samples 6]

For 4096x3072 and 7680x4320 JPEGs, drawn here. `as it is` is compared with reading, hashing and
base64 alone; `resized` with one decode, one resize and one PNG by Pillow, from which the ratio of
CPU a sample is taken. CPU of medeval is that of a run of so many samples beyond a run of one.
"""

import argparse
import base64
import hashlib
import io
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from PIL import Image, ImageChops

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.perf.side_by_side import DEFINITION, server  # noqa: E402

SIZES = ((4096, 3072), (7680, 4320))
SENT = (1120, 840)
PROTOCOL = """
from medeval import EvalProtocol, PixelBudget

FREE = EvalProtocol(name="{name}", user="$question", call_syntax="hermes", pixel_budget={budget})
"""
BUDGETS = {"as it is": "None", "resized": "PixelBudget(min_px=784, max_px=1120 * 840, factor=28)"}


def draw(folder: Path, n: int, size: tuple[int, int]) -> None:
    folder.mkdir()
    noise = Image.effect_noise((size[0] // 4, size[1] // 4), 60).resize(size)
    for index in range(n):
        turned = ImageChops.offset(noise, 37 * index, 91 * index)
        path = folder / f"{index:06d}.jpg"
        Image.merge("RGB", (turned, noise, turned)).save(path, quality=90)
    rows = (f'{{"image": "{index:06d}.jpg"}}\n' for index in range(n))
    (folder / "rows.jsonl").write_text("".join(rows))


def passed_on(data: bytes) -> None:
    hashlib.sha256(data).hexdigest()
    base64.b64encode(data)


def resized(data: bytes) -> None:
    with Image.open(io.BytesIO(data)) as image:
        small = image.convert("RGB").resize(SENT, Image.Resampling.BICUBIC)
    small.save(io.BytesIO(), "PNG", compress_level=1)


LEAST: dict[str, Callable[[bytes], None]] = {"as it is": passed_on, "resized": resized}


def least_cpu_s(work: Callable[[bytes], None], images: Path) -> float:
    paths = sorted(images.glob("*.jpg"))
    started = time.process_time()
    for path in paths:
        work(path.read_bytes())
    return (time.process_time() - started) / len(paths)


def run_cpu_s(url: str, n: int, images: Path, folder: Path) -> float:
    command = [
        *(sys.executable, "-m", "medeval", "run", "--model", "stub", "--base-url", url),
        *("--benchmarks", str(folder / "files.py"), "--data-dir", str(images), "--fresh"),
        *("--protocols", str(folder / "protocol.py"), "--limit", str(n)),
        *("--concurrency", "4", "--output-dir", str(folder / f"run-{images.name}")),
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, env=environment)
        _, status, usage = os.wait4(process.pid, 0)
    if os.waitstatus_to_exitcode(status) != 0:
        sys.exit((folder / "log").read_text()[-3000:])
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=6)
    n = parser.parse_args().samples
    with tempfile.TemporaryDirectory() as name, server(0.0, 64, 1) as url:
        folder = Path(name)
        (folder / "files.py").write_text(DEFINITION)
        for size in SIZES:
            images = folder / f"{size[0]}x{size[1]}"
            draw(images, n, size)
            for how, budget in BUDGETS.items():
                text = PROTOCOL.format(name=how.replace(" ", "_"), budget=budget)
                (folder / "protocol.py").write_text(text)
                least = least_cpu_s(LEAST[how], images)
                one, all_of_them = (run_cpu_s(url, count, images, folder) for count in (1, n))
                ours = (all_of_them - one) / (n - 1)
                print(
                    f"{images.name} {how:8}  least {1000 * least:6.0f} ms  medeval "
                    f"{1000 * ours:6.0f} ms of CPU a sample  ratio {ours / least:.2f}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
