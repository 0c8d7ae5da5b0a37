"""What a run was made with: command, versions, commit, machine."""

import platform
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from medeval.types.run import Session
from medeval.types.sample import JsonValue


def now() -> str:
    """The time as ISO 8601 in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def session(
    plan: Mapping[str, JsonValue], *, seed: int, extra: Mapping[str, JsonValue] | None = None
) -> Session:
    """The record of this start of medeval; the command line holds no keys, so it is kept whole."""
    return Session(
        created=now(),
        medeval_version=version("medeval"),
        command=tuple(sys.argv),
        plan=dict(plan),
        git_commit=_git_commit(),
        python=platform.python_version(),
        platform=platform.platform(),
        seed=seed,
        extra=dict(extra or {}),
    )


def _git_commit() -> str | None:
    """The commit of medeval's own checkout; None where it is installed from a wheel."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    try:
        shown = subprocess.run(
            ["git", "-C", str(root), "rev-parse", "--verify", "--quiet", "HEAD"],
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return shown.stdout.strip() or None
