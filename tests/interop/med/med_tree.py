"""MED log trees for tests: written from plain lists, or drawn as the reference tree is."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

EXPERIMENT = "qwen25vl_instruct_7b_crop_and_zoom_rl"
BASELINE = "baseline/Qwen2.5-VL-7B-Instruct"
BENCHMARKS = (
    "vstar",
    "hrbench4k",
    "hrbench8k",
    "visualprobeasy",
    "visualprobmedium",
    "visualprobhard",
)
ARMS = ("single_turn_agent", "tool_agent")
Line = dict[str, Any] | str


def log_path(place: Path, arm: str) -> Path:
    return place / "trajectories" / f"{place.name}_bench_{arm}_trajectories.jsonl"


def write_log(path: Path, lines: Sequence[Line]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    path.write_text("".join(f"{text}\n" for text in texts))


def line(reward: Any, n_calls: Any = 0, **more: Any) -> dict[str, Any]:
    return {"accuracy_reward": reward, "tool_call_counts": n_calls, **more}


def write_cell(
    place: Path,
    free: Sequence[int],
    available: Sequence[int],
    n_calls: Sequence[int],
    *,
    scores: dict[str, Any] | None = None,
) -> Path:
    """One benchmark at one checkpoint, with the two fields that the original reads."""
    write_log(log_path(place, ARMS[0]), [line(reward) for reward in free])
    write_log(
        log_path(place, ARMS[1]),
        [line(reward, calls) for reward, calls in zip(available, n_calls, strict=True)],
    )
    means = {"w/o tool": sum(free) / len(free), "w/ tool": sum(available) / len(available)}
    (place / "evaluation_results.json").write_text(json.dumps(means if scores is None else scores))
    return place


def write_reference_tree(directory: Path) -> Path:
    """A baseline and five steps of six benchmarks, 40 samples each, drawn with seed 0.

    The draws follow those of the tree that the golden values were computed on.
    """
    rng = np.random.default_rng(0)
    for stage in range(6):
        experiment = BASELINE if stage == 0 else f"{EXPERIMENT}/global_step_{10 * stage}"
        for benchmark in BENCHMARKS:
            free = (rng.random(40) < 0.50 + 0.03 * stage).astype(int)
            calls = np.where(rng.random(40) < 0.35 + 0.05 * stage, rng.integers(1, 5, 40), 0)
            flip = rng.random(40)
            kept, gained = flip > 0.20 - 0.02 * stage, flip < 0.25
            available = np.where(free == 1, kept.astype(int), gained.astype(int))
            write_cell(
                directory / "evals" / experiment / benchmark,
                free.tolist(),
                available.tolist(),
                calls.tolist(),
            )
    return directory
