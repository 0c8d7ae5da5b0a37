"""The published layout of MED's logs: the names of its folders and files.

`evals/<experiment>/global_step_<N>/<benchmark>/` holds `evaluation_results.json` with the two
scores and `trajectories/` with one JSONL file an arm. A baseline has no step. Source:
recipe/med/analysis_plot/create_csv.py of GAIR-NLP/Med.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from medeval.errors import DataError
from medeval.store.files import explained

Arm = Literal["single_turn_agent", "tool_agent"]

FREE: Final[Arm] = "single_turn_agent"
AVAILABLE: Final[Arm] = "tool_agent"
ARMS: Final[tuple[Arm, Arm]] = (FREE, AVAILABLE)
PAIR: Final = "med"

RESULTS: Final = "evaluation_results.json"
TRAJECTORIES: Final = "trajectories"
SCORES: Final[Mapping[Arm, str]] = {FREE: "w/o tool", AVAILABLE: "w/ tool"}

# The folders where the original's scripts look for the baseline of an experiment with this prefix.
BASELINES: Final[Mapping[str, str]] = {
    "qwen25vl_instruct": "baseline/Qwen2.5-VL-7B-Instruct",
    "qwen3vl_instruct": "baseline/Qwen3-VL-8B-Instruct",
}

# The only benchmark names that the original's scripts read.
BENCHMARKS: Final = (
    "vstar",
    "hrbench4k",
    "hrbench8k",
    "visualprobeasy",
    "visualprobmedium",
    "visualprobhard",
)

LOG_NAME: Final = re.compile(
    r"(?P<benchmark>.+?)(?:_bench)?_(?P<arm>single_turn_agent|tool_agent)_trajectories\.jsonl"
)
STEP_NAME: Final = re.compile(r"global_step_(\d+)")


def benchmark_name(name: str) -> str:
    """The original's name of a benchmark; one that it does not know keeps its name.

    >>> benchmark_name("hrbench_4k"), benchmark_name("visualprobe_easy"), benchmark_name("chartqa")
    ('hrbench4k', 'visualprobeasy', 'chartqa')
    """
    plain = re.sub(r"[_-]", "", name.lower())
    plain = re.sub(r"^visualprobe(easy|medium|hard)$", r"visualprob\1", plain)
    return plain if plain in BENCHMARKS else name


def log_name(benchmark: str, arm: Arm) -> str:
    """The file name of one arm's log."""
    return f"{benchmark}_bench_{arm}_trajectories.jsonl"


def step_name(step: int) -> str:
    """The folder of a step, padded as in the released logs.

    >>> step_name(10)
    'global_step_0000010'
    """
    return f"global_step_{step:07d}"


@dataclass(frozen=True, slots=True, kw_only=True)
class LogFolder:
    """The logs of one benchmark at one checkpoint.

    `experiment` is the path below the root, `step` None where no folder names one. `results` is the
    file of scores, None where it is absent, and `results_name` its path from the folder that holds
    `evals`. `logs` holds the log of each arm that has one.
    """

    experiment: str
    step: int | None
    benchmark: str
    results: Path | None
    results_name: str | None
    logs: Mapping[Arm, Path] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The name for messages."""
        step = "" if self.step is None else f", step {self.step}"
        return f"experiment {self.experiment!r}{step}, benchmark {self.benchmark!r}"


def root_of(directory: Path) -> Path:
    """The folder that the experiments' names are relative to: `evals` where there is one."""
    inner = directory / "evals"
    return inner if inner.is_dir() else directory


def find_logs(directory: Path) -> list[LogFolder]:
    """The logs below a directory, by experiment, step and benchmark.

    Raises DataError where there are none, or two of the same experiment, step and benchmark.
    """
    root = root_of(directory)
    with explained("read", root):
        paths = sorted(path for path in root.rglob("*") if path.is_file())
    grouped: dict[Path, list[Path]] = {}
    for path in paths:
        if path.name == RESULTS:
            grouped.setdefault(path.parent, [])
        elif path.parent.name == TRAJECTORIES and LOG_NAME.fullmatch(path.name):
            grouped.setdefault(path.parent.parent, []).append(path)
    found = [logs for folder, files in grouped.items() for logs in _logs(root, folder, files)]
    if not found:
        raise DataError(
            f"no MED logs below {str(directory)!r}",
            hint="name the folder that holds evals/<experiment>/global_step_<N>/<benchmark>/",
        )
    refuse_duplicates(found)
    return sorted(found, key=lambda logs: (logs.experiment, logs.step or 0, logs.benchmark))


def _logs(root: Path, folder: Path, files: list[Path]) -> Iterator[LogFolder]:
    """A folder's logs by benchmark; in the format before the release, a folder holds several."""
    by_benchmark: dict[str, dict[Arm, Path]] = {}
    for path in files:
        match = LOG_NAME.fullmatch(path.name)
        assert match is not None
        arm: Arm = FREE if match["arm"] == FREE else AVAILABLE
        by_benchmark.setdefault(match["benchmark"], {})[arm] = path
    if not files:
        by_benchmark[folder.name] = {}
    results = folder / RESULTS
    for benchmark, logs in by_benchmark.items():
        experiment, step = _experiment_and_step(root, folder, benchmark)
        yield LogFolder(
            experiment=experiment,
            step=step,
            benchmark=benchmark,
            results=results if results.is_file() else None,
            results_name=str(Path("evals") / results.relative_to(root))
            if results.is_file()
            else None,
            logs=logs,
        )


def _experiment_and_step(root: Path, folder: Path, benchmark: str) -> tuple[str, int | None]:
    parts = folder.relative_to(root).parts
    if parts and parts[-1] == benchmark:
        parts = parts[:-1]
    for position, part in enumerate(parts):
        match = STEP_NAME.fullmatch(part)
        if match:
            return "/".join(parts[:position]) or _own_name(root), int(match[1])
    return "/".join(parts) or _own_name(root), None


def _own_name(root: Path) -> str:
    return root.resolve().name


def refuse_duplicates(found: Sequence[LogFolder]) -> None:
    """Raise DataError where two folders are of the same experiment, step and benchmark."""
    seen: dict[tuple[str, int | None, str], LogFolder] = {}
    for logs in found:
        first = seen.setdefault((logs.experiment, logs.step, logs.benchmark), logs)
        if first is not logs:
            here, there = (_some_path(item) for item in (first, logs))
            raise DataError(
                f"two folders hold {logs.name}: {str(here)!r} and {str(there)!r}",
                hint="move one of them away",
            )


def _some_path(logs: LogFolder) -> Path | None:
    return next(iter(logs.logs.values()), logs.results)
