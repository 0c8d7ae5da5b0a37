"""Peak memory of `medeval run` from 200 to 2,000 samples: it must not grow with their number.

    python tests/perf/memory.py [--samples 200,2000] [--edge-px 1024]

Each size is one run of its own process against a stub server, both arms, with distinct drawn
images. Prints peak resident memory, CPU time a trajectory and wall time, one line a size.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

DEFINITION = """
from pathlib import Path

from PIL import Image

from medeval import Benchmark, DrawnRows, Sample

FOLDER = Path({folder!r})


def draw(index):
    path = FOLDER / f"{{index}}.jpg"
    if not path.exists():
        noise = Image.effect_noise(({edge}, {edge}), 40).convert("RGB")
        noise.save(path, quality=90)
    return {{"image": path.read_bytes()}}


def to_sample(row):
    return Sample(
        id=f"s{{row.index:05d}}",
        question=f"Question {{row.index}}?",
        images=(row.image("image"),),
        targets=("A",),
        options=("red", "green"),
    )


NOISE = Benchmark(
    name="noise", title="noise", rows=DrawnRows({n}, draw), to_sample=to_sample, judge="choice"
)
"""


def measure(n_samples: int, edge_px: int, url: str, folder: Path) -> str:
    definition = folder / f"noise_{n_samples}.py"
    images = folder / f"images_{n_samples}"
    images.mkdir()
    definition.write_text(DEFINITION.format(edge=edge_px, n=n_samples, folder=str(images)))
    command = [
        sys.executable, "-m", "medeval", "run", "--model", "stub", "--base-url", url,
        "--benchmarks", str(definition), "--concurrency", "32",
        "--output-dir", str(folder / f"run_{n_samples}"),
    ]  # fmt: skip
    # the first run draws the images, the second is measured
    for attempt in ("draw", "measure"):
        with (folder / f"{attempt}.log").open("wb") as log:
            process = subprocess.Popen([*command, "--fresh"], cwd=ROOT, stdout=log, stderr=log)
            _, status, usage = os.wait4(process.pid, 0)
        if os.waitstatus_to_exitcode(status) != 0:
            sys.exit((folder / f"{attempt}.log").read_text())
    cpu_s = usage.ru_utime + usage.ru_stime
    return (
        f"{n_samples:>6} samples  peak {usage.ru_maxrss / 1024:7.1f} MB  "
        f"CPU {cpu_s:6.1f} s  {1000 * cpu_s / (2 * n_samples):5.1f} ms a trajectory"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", default="200,2000")
    parser.add_argument("--edge-px", type=int, default=1024)
    arguments = parser.parse_args()
    server = subprocess.Popen(
        [sys.executable, str(ROOT / "tests/stub_server.py"), "--port", "0"],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert server.stdout is not None
        url = server.stdout.readline().strip()
        with tempfile.TemporaryDirectory() as folder:
            for n_samples in map(int, arguments.samples.split(",")):
                print(measure(n_samples, arguments.edge_px, url, Path(folder)), flush=True)
    finally:
        server.terminate()
        server.wait()


if __name__ == "__main__":
    main()
