"""100,000 mutated real calls through every parser: no exception, no execution, and the time.

python tests/perf/mutated_calls_speed.py [COUNT]
"""

import json
import os
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from medeval.tools.calls.find import find_calls
from tests.tools.calls.mutated_calls import SYNTAXES, mutated


def main() -> None:
    """Parse, and tell the share of calls read and the slowest kilobyte of each syntax."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        n_calls = [0] * len(SYNTAXES)
        slowest = [0.0] * len(SYNTAXES)
        for syntax, rules in SYNTAXES:
            # what a parser imports at its first use is no part of its time
            find_calls("```python\nx = f(1)\n```", (), syntax, rules)
        started = time.perf_counter()
        for text in mutated(count, seed=1):
            for index, (syntax, rules) in enumerate(SYNTAXES):
                before = time.process_time()
                calls = find_calls(text, (), syntax, rules)
                spent = time.process_time() - before
                slowest[index] = max(slowest[index], spent / max(1.0, len(text) / 1000))
                n_calls[index] += len(calls)
                for call in calls:
                    json.dumps(call.arguments, allow_nan=False)
        left = list(Path(folder).iterdir())
        os.chdir("/")
    assert left == [], f"something was run: {left}"
    print(f"{count} texts, {time.perf_counter() - started:.0f} s, nothing raised or ran")
    for (syntax, _), found, worst in zip(SYNTAXES, n_calls, slowest, strict=True):
        print(f"{syntax:14} {found:7} calls, slowest {worst * 1000:.2f} ms a kilobyte")


if __name__ == "__main__":
    main()
