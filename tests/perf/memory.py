"""Peak memory and CPU of `medeval run` by the number of samples: neither may grow with it.

    python tests/perf/memory.py [--samples 200,2000] [--size 1024x1024] [--pictures N]
        [--resized] [--rotations N] [--concurrency 32] [--latency 0]

Each number of samples is one run of its own process against a stub server, both arms. Images are
drawn beforehand, `--pictures` different ones in turn (as many as samples, unless said); each sample
reads its own anew. `--resized` sends them within a pixel budget. With `--rotations N` there is one
arm, in which each conversation has the image turned so many times. Prints one line a number of
samples: peak resident memory, the bytes a sample by which it grew since the line before, CPU time a
trajectory, and start-up's alone.

    python tests/perf/memory.py --samples 100,1000,10000,100000 --size 64x64 --pictures 10
    python tests/perf/memory.py --samples 96,192 --size 7680x4320 --pictures 4 --concurrency 64 \
        --latency 2
    python tests/perf/memory.py --samples 20,40 --size 7680x4320 --pictures 4 --concurrency 64 \
        --latency 2 --rotations 2
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image, ImageChops

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.perf.side_by_side import DEFINITION, server  # noqa: E402

PROTOCOL = """
from medeval import EvalProtocol, PixelBudget

ARM = EvalProtocol(name="{name}", user="$question", call_syntax="hermes", pixel_budget={budget})
"""
TURNING = """
from medeval import EvalProtocol, rotate

ARM = EvalProtocol(
    name="turning",
    user="$question",
    call_syntax="hermes",
    system="$tools",
    tools=(rotate(),),
    max_calls=10,
    max_generations=11,
)
"""
TURN = '<tool_call>\n{"name": "rotate", "arguments": {"angle": 180}}\n</tool_call>'
RESIZED = "PixelBudget(min_px=784, max_px=1120 * 840, factor=28)"


def draw(folder: Path, n: int, size: tuple[int, int]) -> list[str]:
    """Photo-like JPEGs: noise at a quarter of the size, enlarged where that is large."""
    small = size if max(size) <= 1024 else (size[0] // 4, size[1] // 4)
    noise = Image.effect_noise(small, 40).resize(size)
    for index in range(n):
        turned = ImageChops.offset(noise, 37 * index, 91 * index)
        Image.merge("RGB", (turned, noise, turned)).save(folder / f"{index}.jpg", quality=90)
    return [f"{index}.jpg" for index in range(n)]


def measure(n: int, folder: Path, url: str, how: argparse.Namespace) -> tuple[float, float]:
    """Peak memory in MB and CPU seconds of one run."""
    arms = ",".join(str(folder / f"{name}.py") for name in arms_of(how))
    command = [
        *(sys.executable, "-m", "medeval", "run", "--model", "stub", "--base-url", url),
        *("--benchmarks", str(folder / "files.py"), "--data-dir", str(folder / "images")),
        *("--protocols", arms),
        *("--limit", str(n), "--concurrency", str(how.concurrency)),
        *("--output-dir", str(folder / f"run_{n}")),
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, env=environment)
        _, status, usage = os.wait4(process.pid, 0)
    if os.waitstatus_to_exitcode(status) != 0:
        sys.exit((folder / "log").read_text()[-3000:])
    return usage.ru_maxrss / 1024, usage.ru_utime + usage.ru_stime


def arms_of(how: argparse.Namespace) -> tuple[str, ...]:
    return ("turning",) if how.rotations else ("free", "again")


def prepare(folder: Path, counts: list[int], how: argparse.Namespace) -> None:
    images = folder / "images"
    images.mkdir()
    width, height = map(int, how.size.split("x"))
    names = draw(images, how.pictures or max(counts), (width, height))
    with (images / "rows.jsonl").open("w") as rows:
        for index in range(max(counts)):
            rows.write(json.dumps({"image": names[index % len(names)]}) + "\n")
    (folder / "files.py").write_text(DEFINITION)
    for name in arms_of(how):
        text = PROTOCOL.format(name=name, budget=RESIZED if how.resized else "None")
        (folder / f"{name}.py").write_text(TURNING if how.rotations else text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", default="200,2000")
    parser.add_argument("--size", default="1024x1024")
    parser.add_argument("--pictures", type=int)
    parser.add_argument("--resized", action="store_true")
    parser.add_argument("--rotations", type=int, default=0)
    parser.add_argument("--concurrency", type=int, default=32)
    parser.add_argument("--latency", type=float, default=0.0)
    how = parser.parse_args()
    counts = [int(count) for count in how.samples.split(",")]
    with (
        tempfile.TemporaryDirectory() as name,
        server(how.latency, how.concurrency, 1 + how.rotations, TURN) as url,
    ):
        folder = Path(name)
        prepare(folder, counts, how)
        _, start_s = measure(1, folder, url, how)
        before: tuple[int, float] | None = None
        for n in counts:
            began_at = time.monotonic()
            peak_mb, cpu_s = measure(n, folder, url, how)
            grown = (
                ""
                if before is None
                else f"{(peak_mb - before[1]) * 2**20 / (n - before[0]):8.0f} B"
            )
            before = (n, peak_mb)
            each_s = (cpu_s - start_s) / (n * len(arms_of(how)))
            print(
                f"{n:>7} samples  peak {peak_mb:7.1f} MB  grown by {grown or 'nothing yet':>11} "
                f"a sample  CPU a trajectory {1000 * each_s:6.2f} ms "
                f"beyond {start_s:.1f} s of start-up  {time.monotonic() - began_at:.0f} s",
                flush=True,
            )


if __name__ == "__main__":
    main()
