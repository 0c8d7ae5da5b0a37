"""CPU and wall time of `medeval --help` and `medeval list`, beside a bare interpreter.

    python tests/perf/startup.py [--runs 9]

The commands take turns, so that a busy machine slows all of them alike. Prints the least and
the median of wall and CPU seconds.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time

COMMANDS = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "medeval --help": [sys.executable, "-m", "medeval", "--help"],
    "medeval list": [sys.executable, "-m", "medeval", "list"],
}


def timed(command: list[str]) -> tuple[float, float]:
    started = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    wall_s = time.monotonic() - started
    if os.waitstatus_to_exitcode(status) != 0:
        sys.exit(f"{command} failed")
    return wall_s, usage.ru_utime + usage.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=9)
    runs = parser.parse_args().runs
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in COMMANDS}
    for _ in range(runs + 1):
        for name, command in COMMANDS.items():
            times[name].append(timed(command))
    for name, measured in times.items():
        walls, cpus = zip(*measured[1:], strict=True)
        print(
            f"{name:16} wall {min(walls):.3f} / {statistics.median(walls):.3f} s  "
            f"CPU {min(cpus):.3f} / {statistics.median(cpus):.3f} s (least / median)"
        )


if __name__ == "__main__":
    main()
