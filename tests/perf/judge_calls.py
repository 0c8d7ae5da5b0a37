"""What judging by a model costs us: calls to a local server, beside that server's own share.

usage: python tests/perf/judge_calls.py [--calls 10000] [--concurrency 64] [--latency 0]

The server is a process of its own that says "correct" without reading. Each answer differs, so
that none is answered from what was kept. Printed are our CPU time, the server's, and the wall time;
with a latency also the share of what the latency alone would allow.
"""

import argparse
import resource
import subprocess
import sys
import time
from pathlib import Path

import medeval

STUB = Path(__file__).parents[1] / "stub_server.py"


def cpu_s(who: int) -> float:
    """User and system time of this process, or of its ended children."""
    used = resource.getrusage(who)
    return used.ru_utime + used.ru_stime


def cpu_of(pid: int) -> float:
    """User and system time of another process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def main() -> None:
    """Judge, and print what it took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=10_000)
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--latency", type=float, default=0.0)
    options = parser.parse_args()
    command = [sys.executable, str(STUB), "--answer", "correct", "--latency", str(options.latency)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        url = server.stdout.readline().strip()
        lines = [
            {"answer": f"answer {number}", "targets": ["paris"], "question": "Which city?"}
            for number in range(options.calls)
        ]
        judge = {"judge_model": "stub", "judge_base_url": url}
        medeval.score(lines[:64], "model", judge_concurrency=64, **judge)
        wall, ours, theirs = time.perf_counter(), cpu_s(resource.RUSAGE_SELF), cpu_of(server.pid)
        scored = medeval.score(lines, "model", judge_concurrency=options.concurrency, **judge)
        wall = time.perf_counter() - wall
        ours, theirs = cpu_s(resource.RUSAGE_SELF) - ours, cpu_of(server.pid) - theirs
        server.kill()
    assert [line["verdict"] for line in scored] == ["correct"] * options.calls
    print(
        f"{options.calls:,} calls at {options.concurrency}: {wall:.2f} s, "
        f"{options.calls / wall:,.0f}/s; CPU a call: ours {1e3 * ours / options.calls:.2f} ms, "
        f"the server's {1e3 * theirs / options.calls:.2f} ms"
    )
    if options.latency:
        ideal_s = options.calls * options.latency / options.concurrency
        print(f"{100 * ideal_s / wall:.0f}% of what the latency allows")


if __name__ == "__main__":
    main()
