"""A server that refuses requests above a bound: seconds, refusals and samples lost, two ways.

    python tests/perf/overload.py [--samples 400] [--room 9] [--concurrency 64] [--latency 0.2]

`medeval run` against a stub server that answers 429 beside so many requests, once with the
concurrency as it is and once adapting it. The ideal keeps all of the server's room busy.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.medeval_processes import run_medeval, stub_process  # noqa: E402
from tests.small_benchmark import write_benchmark  # noqa: E402


def stats(url: str) -> dict[str, int]:
    with urllib.request.urlopen(f"{url.removesuffix('/v1')}/stats", timeout=10) as answer:
        return dict(json.load(answer))


def measured(
    folder: Path, how: argparse.Namespace, *, adaptive: bool
) -> tuple[float, subprocess.CompletedProcess[str], dict[str, int]]:
    with stub_process("--room", how.room, "--latency", how.latency) as url:
        began_at = time.monotonic()
        done = run_medeval(
            *("run", "--model", "stub", "--base-url", url, "--concurrency", how.concurrency),
            *("--benchmarks", folder / "small.py", "--protocols", "tool_free"),
            *("--model-args", f"adaptive={str(adaptive).lower()}", "--max-unscored", how.samples),
            *("--output-dir", folder / f"run_{adaptive}"),
            timeout_s=3600,
        )
        return time.monotonic() - began_at, done, stats(url)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=400)
    parser.add_argument("--room", type=int, default=9)
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--latency", type=float, default=0.2)
    how = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_benchmark(folder, how.samples)
        print(f"ideal {how.samples * how.latency / how.room:.1f} s")
        for adaptive in (False, True):
            seconds, done, seen = measured(folder, how, adaptive=adaptive)
            lost = how.samples - (seen["requests"] - seen["refused"])
            print(
                f"{'adaptive' if adaptive else 'fixed':8} {seconds:6.1f} s  "
                f"{seen['refused']} refused  {lost} samples lost  exit code {done.returncode}",
                flush=True,
            )


if __name__ == "__main__":
    main()
