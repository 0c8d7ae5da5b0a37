"""CPU and wall time of `medeval --help` and `medeval list`, beside a bare interpreter.

    python tests/perf/startup.py [--runs 9]

The commands take turns, so that a busy machine slows all of them alike. Prints the least and
the median of wall and CPU seconds.
"""

import argparse
import statistics
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.perf.measuring import Usage, measured, medeval

COMMANDS = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "medeval --help": medeval("--help"),
    "medeval list": medeval("list"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=9)
    runs = parser.parse_args().runs
    times: dict[str, list[Usage]] = {name: [] for name in COMMANDS}
    for _ in range(runs + 1):
        for name, command in COMMANDS.items():
            times[name].append(measured(command))
    for name, taken in times.items():
        walls = [usage.wall_s for usage in taken[1:]]
        cpus = [usage.cpu_s for usage in taken[1:]]
        print(
            f"{name:16} wall {min(walls):.3f} / {statistics.median(walls):.3f} s  "
            f"CPU {min(cpus):.3f} / {statistics.median(cpus):.3f} s (least / median)"
        )


if __name__ == "__main__":
    main()
