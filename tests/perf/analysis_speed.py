"""How long `medeval analyze` takes, and how reading outcomes grows with their number.

usage: python tests/perf/analysis_speed.py tables [--resamples 10000]
       python tests/perf/analysis_speed.py reading [--outcomes 100000]

`tables` analyses 21 checkpoints on six benchmarks of the sizes the MED paper evaluates.
`reading` writes a run folder of outcomes to a temporary folder and reads it back.
"""

import argparse
import resource
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from medeval.analysis.med.analysis_set import analysis_set
from medeval.analysis.med.read import read_run
from medeval.analysis.report import analyze
from medeval.store.run_folder import RunFolder
from medeval.types.outcome import OutcomeRecord
from medeval.types.run import RunRecord

# Samples and samples a cluster: V*, HR-Bench 4K and 8K, VisualProbe easy, medium and hard.
SIZES = {
    "vstar": (191, 1),
    "hrbench_4k": (800, 4),
    "hrbench_8k": (800, 4),
    "visualprobe_easy": (141, 1),
    "visualprobe_medium": (268, 1),
    "visualprobe_hard": (106, 1),
}
STEPS = range(0, 210, 10)
TABLES = ("coverage", "measure", "explain", "diagnose", "contribution", "changes")


def simulated_frame(seed: int = 0) -> pd.DataFrame:
    """Outcomes of 21 checkpoints on the six benchmarks."""
    generator = np.random.default_rng(seed)
    parts = []
    for benchmark, (n, size) in SIZES.items():
        difficulty = generator.random(n)
        for step in STEPS:
            free = generator.random(n) * 0.5 + difficulty * 0.5 < 0.5 + step / 2000
            parts.append(
                pd.DataFrame(
                    {
                        "series": "rl",
                        "step": step,
                        "benchmark": benchmark,
                        "pair": "crop_zoom",
                        "sample_id": [f"{benchmark}-{number}" for number in range(n)],
                        "cluster": [f"{benchmark}-{number // size}" for number in range(n)],
                        "free_correct": free,
                        "available_correct": free ^ (generator.random(n) < 0.2),
                        "called": generator.random(n) < 0.6,
                    }
                )
            )
    return pd.concat(parts, ignore_index=True)


def time_tables(resamples: int) -> None:
    """Print the seconds each table takes, and the peak memory."""
    frame = simulated_frame()
    # what is imported on first use is start-up, not analysis
    len(analyze(frame[frame["step"] < 20], benchmarks=["vstar"], resamples=10).measure)
    used, start = time.process_time(), time.perf_counter()
    last = start
    analysis = analyze(frame, resamples=resamples)
    now = time.perf_counter()
    print(f"{'analysis set':14} {now - last:6.2f} s")
    for name in TABLES:
        last = now
        rows = len(getattr(analysis, name))
        now = time.perf_counter()
        print(f"{name:14} {now - last:6.2f} s  {rows} rows")
    used = time.process_time() - used
    print(f"{'all':14} {now - start:6.2f} s, {used:.2f} s of CPU, peak {peak_mb():.0f} MB")


def peak_mb() -> float:
    """The most memory this process has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def outcomes(step: int, benchmark: str, n: int) -> Iterator[OutcomeRecord]:
    """Outcome lines like those of a run."""
    generator = np.random.default_rng(step)
    free, available, called = generator.random((3, n)) < 0.5
    for number in range(n):
        yield OutcomeRecord(
            checkpoint=f"rl/{step}",
            series="rl",
            step=step,
            benchmark=benchmark,
            pair="crop_zoom",
            sample_id=f"{benchmark}-{number}",
            groups={"category": "direct_attributes"},
            cluster=None,
            repeat=0,
            free_correct=bool(free[number]),
            available_correct=bool(available[number]),
            free_score=float(free[number]),
            available_score=float(available[number]),
            called=bool(called[number]),
            calls_attempted=1,
            calls_executed=1,
            calls_observed=1,
            free_answer="A",
            available_answer="The answer is B",
            targets=("A",),
            free_stop="answered",
            available_stop="answered",
            judge="choice#12345678",
        )


def time_reading(n_outcomes: int) -> None:
    """Print the seconds and the memory that reading takes, for 20 steps of equal size."""
    n = n_outcomes // 20
    with tempfile.TemporaryDirectory() as root:
        folder = RunFolder.create(Path(root) / "run", RunRecord(sessions=()))
        for step in range(0, 200, 10):
            folder.write_outcomes("rl", step, "drawn", "crop_zoom", outcomes(step, "drawn", n))
        before, start = peak_mb(), time.process_time()
        (found,) = read_run(folder)
        middle = time.process_time()
        analysis_set(found)
        now = time.process_time()
    print(
        f"{20 * n} outcomes: {middle - start:.1f} s of CPU to read, {now - middle:.1f} s for the "
        f"analysis set, peak {peak_mb():.0f} MB ({before:.0f} MB before)"
    )


def main() -> None:
    """Time what the arguments ask for."""
    parser = argparse.ArgumentParser(description="Speed of medeval analyze.")
    parser.add_argument("what", choices=("tables", "reading"))
    parser.add_argument("--resamples", type=int, default=10_000)
    parser.add_argument("--outcomes", type=int, default=100_000)
    options = parser.parse_args()
    if options.what == "tables":
        time_tables(options.resamples)
    else:
        time_reading(options.outcomes)


if __name__ == "__main__":
    main()
