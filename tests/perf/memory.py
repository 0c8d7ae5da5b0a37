"""Peak memory and CPU of `medeval run` by the number of samples: neither may grow with it.

    python tests/perf/memory.py [--samples 200,2000] [--size 1024x1024] [--pictures N]
        [--resized] [--concurrency 32] [--latency 0]

Each number of samples is one run of its own process against a stub server, both arms. Images are
drawn beforehand, `--pictures` different ones in turn (as many as samples, unless said); each sample
reads its own anew. `--resized` sends them within a pixel budget. Prints one line a number of
samples: peak resident memory, the bytes a sample by which it grew since the line before, CPU time a
trajectory, and start-up's alone.

    python tests/perf/memory.py --samples 100,1000,10000,100000 --size 64x64 --pictures 10
    python tests/perf/memory.py --samples 96,192 --size 7680x4320 --pictures 4 --concurrency 64 \
        --latency 2
"""

import argparse
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.perf.measuring import (
    DEFINITION,
    PROTOCOL,
    RESIZED,
    Usage,
    measured,
    medeval,
    stub_server,
    write_photos,
    write_rows,
)


def measure(n: int, folder: Path, url: str, how: argparse.Namespace) -> Usage:
    command = medeval(
        *("run", "--model", "stub", "--base-url", url, "--limit", n),
        *("--benchmarks", folder / "files.py", "--data-dir", folder / "images"),
        *("--protocols", f"{folder / 'free.py'},{folder / 'again.py'}"),
        *("--concurrency", how.concurrency, "--output-dir", folder / f"run_{n}"),
    )
    return measured(command, folder=folder)


def prepare(folder: Path, counts: list[int], how: argparse.Namespace) -> None:
    width, height = map(int, how.size.split("x"))
    n_photos = how.pictures or max(counts)
    write_photos(folder / "images", n_photos, (width, height), noise=40)
    write_rows(folder / "images", max(counts), n_photos)
    (folder / "files.py").write_text(DEFINITION)
    for name in ("free", "again"):
        text = PROTOCOL.format(name=name, budget=RESIZED if how.resized else "None")
        (folder / f"{name}.py").write_text(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", default="200,2000")
    parser.add_argument("--size", default="1024x1024")
    parser.add_argument("--pictures", type=int)
    parser.add_argument("--resized", action="store_true")
    parser.add_argument("--concurrency", type=int, default=32)
    parser.add_argument("--latency", type=float, default=0.0)
    how = parser.parse_args()
    counts = [int(count) for count in how.samples.split(",")]
    with tempfile.TemporaryDirectory() as name, stub_server(how.latency, how.concurrency) as url:
        folder = Path(name)
        prepare(folder, counts, how)
        start_s = measure(1, folder, url, how).cpu_s
        before: tuple[int, float] | None = None
        for n in counts:
            taken = measure(n, folder, url, how)
            grown = "nothing yet"
            if before is not None:
                grown = f"{(taken.peak_mb - before[1]) * 2**20 / (n - before[0]):.0f} B"
            before = (n, taken.peak_mb)
            print(
                f"{n:>7} samples  peak {taken.peak_mb:7.1f} MB  grown by {grown:>11} a sample  "
                f"CPU a trajectory {1000 * (taken.cpu_s - start_s) / (2 * n):6.2f} ms "
                f"beyond {start_s:.1f} s of start-up  {taken.wall_s:.0f} s",
                flush=True,
            )


if __name__ == "__main__":
    main()
