"""How long rules take to judge, one answer after the other in one process.

usage: python tests/perf/grading_speed.py [--verdicts 100000] [JUDGE ...]

Answers are drawn from a few dozen that models write: letters, numbers, short and long texts.
Each verdict goes all the way from a line of `medeval score` to a verdict. CPU time is printed.
"""

import argparse
import random
import time
from collections.abc import Iterator

from medeval.evaluation.loader import load, shipped
from medeval.scoring.judge import Judge
from medeval.scoring.predictions import score_lines

ANSWERS = (
    "A", "(B)", "The answer is B.", "the red car", "Because the dog is red, (A)", "12", "12.5%",
    "$3,852 million", "1,000", "Léon Balcer", "2004-01-01", "a||b||c", "true", "False", "[1, 2]",
    "['Paris', 'Lyon']", "ITC Limited", "the quick brown fox jumps over the lazy dog", "0.28",
)  # fmt: skip
TARGETS = {"choice": "A", "tablevqa_vtabfact": "true"}


def lines(judge: str, n: int) -> Iterator[dict[str, object]]:
    """Predictions that the judge can read."""
    drawn = random.Random(0)
    for _ in range(n):
        yield {
            "answer": drawn.choice(ANSWERS),
            "targets": [TARGETS.get(judge) or drawn.choice(ANSWERS)],
            "options": ["the red car", "the blue car"],
            "metadata": {"years": ["NO"]},
        }


def main() -> None:
    """Judge, and print one line a judge."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--verdicts", type=int, default=100_000)
    parser.add_argument("judges", nargs="*")
    options = parser.parse_args()
    rules = [judge.value.name for judge in shipped(Judge) if not judge.value.needs_endpoint]
    # math-verify takes milliseconds a verdict; name it to measure it
    for name in options.judges or [rule for rule in rules if rule != "math"]:
        judge = load(name, Judge)
        wall, cpu = time.perf_counter(), time.process_time()
        n = sum(1 for _ in score_lines(lines(name, options.verdicts), judge))
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        print(
            f"{name:28} {n:,} verdicts: {cpu:6.2f} s CPU, {wall:6.2f} s,"
            f" {n / cpu:,.0f} a CPU second"
        )


if __name__ == "__main__":
    main()
