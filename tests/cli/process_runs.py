"""Runs whose models carry out a plan, and the process tables that `medeval analyze` makes."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from click.testing import CliRunner

import medeval
from medeval.analysis.frames import Run
from medeval.cli import group
from medeval.models.base import Model, Request
from medeval.models.checkpoints import Checkpoint
from medeval.models.scripted import ScriptedModel
from tests.model_folders import write_model

# What a script does with a sample: its answer without tools, its calls, its answer with them.
Plan = tuple[bool, Sequence[str], bool]
Planned = Callable[[str, int, int], Plan]

# How a question begins, so that the model knows which sample it is asked about.
NUMBERED = re.compile(r"(tables|turned|marked) (\d+):")


def player(planned: Planned) -> Callable[[Checkpoint], Model]:
    """A model that carries out the plan of the sample it is asked about."""

    def open_model(checkpoint: Checkpoint) -> Model:
        def play(request: Request) -> str:
            text = "".join(message.text for message in request.messages)
            found = NUMBERED.search(text)
            assert found is not None
            free, calls, available = planned(found[1], int(found[2]), checkpoint.step or 0)
            if not ("<tools>" in text or "focus_on_" in text):
                return answer(free)
            turn = sum(message.role == "assistant" for message in request.messages)
            return calls[turn] if turn < len(calls) else answer(available, len(calls))

        return ScriptedModel(play)

    return open_model


def answer(right: bool, image: int = 0) -> str:
    """The last reply: it rests on the image of the last call."""
    return f"I see it in image {image}. <answer>{'right' if right else 'wrong'}</answer>"


def evaluated(
    tmp_path: Path,
    benchmarks: Sequence[str],
    planned: Planned,
    *,
    pairs: Sequence[str],
    **options: Any,
) -> Run:
    """A run of a series of two checkpoints that carry out their plans."""
    for step in (0, 10):
        write_model(tmp_path / f"rl/global_step_{step}")
    return medeval.run(
        checkpoints=[f"rl={tmp_path / 'rl'}"],
        benchmarks=list(benchmarks),
        pairs=list(pairs),
        output_dir=tmp_path / "run",
        open_model=player(planned),
        **options,
    )


def analyzed(tmp_path: Path, *arguments: str) -> tuple[str, dict[str, pd.DataFrame]]:
    """What is printed, and the process tables that are written."""
    command = ["analyze", str(tmp_path / "run"), "--process", "--resamples", "50", *arguments]
    result = CliRunner().invoke(group, command, catch_exceptions=False)
    assert result.exit_code == 0
    tables = (tmp_path / "run/tables").glob("process_*.csv")
    return result.stdout, {path.stem: pd.read_csv(path) for path in tables}


def row_of(frame: pd.DataFrame, **where: Any) -> dict[str, Any]:
    """The one row of a table that has these values."""
    for name, value in where.items():
        frame = frame[frame[name] == value]
    (row,) = frame.to_dict(orient="records")
    return {str(name): value for name, value in row.items()}


def widths(text: str) -> list[int]:
    """The widths of the process tables' lines."""
    return [len(line) for line in text[text.index("Process, calls") :].splitlines()]
