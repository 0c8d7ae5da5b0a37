"""The calls of a run: read from its trajectories, by what became of them and by tool."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from medeval.analysis.figures import figures
from medeval.analysis.report import analyze
from medeval.store.cell_folder import CellWriter
from medeval.store.run_folder import RunFolder
from medeval.types.trajectory import Trajectory
from tests.analysis.figures.test_figures import assert_legible
from tests.interop.runs import Cells, Reply, write_run

QUIET = [Reply()] * 4
BUSY = [
    Reply(calls=("executed", "rejected")),
    Reply(calls=("executed",)),
    Reply(calls=("malformed",), stop="malformed_call"),
    Reply(),
]


def drawn_ends(folder: RunFolder) -> list[dict[str, tuple[float, float]]]:
    """The label of each line of each panel, with its first and last value."""
    figure = dict(figures(analyze(folder.path, resamples=10), folder))["calls"]
    assert_legible("calls", figure)
    found = []
    for axes in figure.axes:
        lines = [line for line in axes.lines if line.get_linestyle() != "None"]
        values = [np.asarray(line.get_ydata(), dtype=float) for line in lines]
        names = [text.get_text() for text in axes.texts]
        colours = [text.get_color() for text in axes.texts]
        ends = {}
        for line, value in zip(lines, values, strict=True):
            ends[names[colours.index(line.get_color())]] = (float(value[0]), float(value[-1]))
        found.append(ends)
    return found


def test_calls_a_sample_are_told_by_outcome_and_by_tool(tmp_path: Path) -> None:
    cells: Cells = {("rl", step, "b"): (QUIET, arm) for step, arm in ((0, QUIET), (10, BUSY))}
    folder = write_run(tmp_path / "run", cells)
    called, by_outcome, by_tool = drawn_ends(folder)
    assert called == {"called": (0.0, 50.0)}
    assert by_outcome == {"executed": (0, 0.5), "rejected": (0, 0.25), "malformed": (0, 0.25)}
    assert by_tool == {"crop": (0, 1.0)}


def test_repeats_count_as_parts_of_a_sample(tmp_path: Path) -> None:
    cells: Cells = {("rl", step, "b"): (QUIET, BUSY) for step in (0, 10)}
    folder = write_run(tmp_path / "run", cells, repeats=2)
    assert drawn_ends(folder)[1]["executed"] == (0.5, 0.5)


def test_a_shared_baseline_s_trajectories_are_read(tmp_path: Path) -> None:
    cells: Cells = {("rl", step, "b"): (QUIET, BUSY) for step in (0, 10)}
    folder = write_run(tmp_path / "run", cells)
    (folder.path / "cells/rl/0").rename(folder.path / "cells/moved")
    (folder.path / "cells/baseline").mkdir()
    (folder.path / "cells/moved").rename(folder.path / "cells/baseline/0")
    assert len(drawn_ends(folder)) == 3


def test_without_trajectories_the_recorded_counts_are_shown(tmp_path: Path) -> None:
    cells: Cells = {("rl", step, "b"): (QUIET, BUSY) for step in (0, 10)}
    folder = write_run(tmp_path / "run", cells)
    (folder.path / "cells/rl/10").rename(tmp_path / "gone")
    _, counts = drawn_ends(folder)
    assert counts == {"attempted": (1.0, 1.0), "executed": (0.5, 0.5), "observed": (0.5, 0.5)}


def test_no_call_at_all_leaves_no_panel_of_tools(tmp_path: Path) -> None:
    cells: Cells = {("rl", step, "b"): (QUIET, QUIET) for step in (0, 10)}
    assert len(drawn_ends(write_run(tmp_path / "run", cells))) == 2


def test_many_tools_are_put_together_as_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    append = CellWriter.append_trajectory

    def named(self: CellWriter, trajectory: Trajectory) -> None:
        number = trajectory.sample_id[1:]
        calls = tuple(
            replace(call, name=f"tool_${number}_of_a_long_name") for call in trajectory.calls
        )
        append(self, replace(trajectory, calls=calls))

    monkeypatch.setattr(CellWriter, "append_trajectory", named)
    replies = [Reply(calls=("executed",))] * 6
    cells: Cells = {("rl", step, "b"): ([Reply()] * 6, replies) for step in (0, 10)}
    by_tool = drawn_ends(write_run(tmp_path / "run", cells))[2]
    assert len(by_tool) == 5
    assert by_tool["other"] == pytest.approx((2 / 6, 2 / 6))
    assert r"tool_\$0_of_a_lo…" in by_tool


def test_a_single_model_s_calls_are_told_too(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", {("gpt", None, "b"): (QUIET, BUSY)})
    figure = dict(figures(analyze(folder.path, resamples=10), folder))["calls"]
    assert_legible("calls", figure)
    labels = [[text.get_text() for text in axes.get_yticklabels()] for axes in figure.axes]
    assert labels == [["called"], ["executed", "rejected", "malformed"], ["crop"]]
