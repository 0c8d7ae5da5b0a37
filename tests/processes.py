"""Python programs run as real second processes, with medeval on their path."""

import os
import subprocess
import sys
from pathlib import Path

import medeval

ROOT = Path(medeval.__file__).parents[1]


def start_python(code: str, *arguments: str) -> subprocess.Popen[str]:
    """Start a Python program given as text; its output is read by the caller."""
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def run_python(code: str, *arguments: str) -> str:
    """Run a Python program to its end and return what it printed; fails where it failed."""
    with start_python(code, *arguments) as process:
        output, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    return output


def wait_for_line(process: subprocess.Popen[str]) -> str:
    """The next line a program prints; fails, with its errors, where it ends before that."""
    assert process.stdout is not None
    assert process.stderr is not None
    line = process.stdout.readline()
    assert line, process.stderr.read()
    return line.strip()
