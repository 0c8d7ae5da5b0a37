"""`medeval demo`: the shipped series, from one command to figures and two lines."""

from pathlib import Path

import pytest

from medeval import load_run
from medeval.analysis.report import analyze
from medeval.cli.demo import story
from tests.analysis.outcome_lines import outcome, run_of
from tests.medeval_processes import MedevalMain


def test_the_fast_demo_leaves_a_run_with_figures_and_says_what_it_means(
    medeval_main: MedevalMain, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert medeval_main("demo", "--fast", "--output-dir", run) == 0
    out = capsys.readouterr().out
    assert "Explain: gap = call gain" in out
    for name in ("measure", "explain", "diagnose"):
        assert f"{run}/figures/{name}.png" in out
    harm, gain = out.splitlines()[-2:]
    assert harm.startswith("Harm: at step 0 ")
    assert gain.startswith("Gain: at step ")
    made = load_run(run)
    assert set(made.outcomes.groupby("step").size()) == {40}
    last = made.outcomes[made.outcomes.step == made.outcomes.step.max()]
    assert last.available_correct.mean() - last.free_correct.mean() > 0.15
    trajectories = sorted(run.rglob("trajectories.*.jsonl"))
    before = [path.stat().st_mtime_ns for path in trajectories]
    assert medeval_main("demo", "--fast", "--output-dir", run) == 0
    assert [path.stat().st_mtime_ns for path in trajectories] == before


def test_the_story_is_read_off_the_numbers(tmp_path: Path) -> None:
    marks = {0: ["100"] * 3 + ["000"], 10: ["101", "101", "011", "110"], 20: ["011"] * 4}
    run = run_of(
        tmp_path / "run",
        [
            outcome(f"s{number}", each, step=step)
            for step, row in marks.items()
            for number, each in enumerate(row)
        ],
    )
    harm, gain = story(analyze(run.path, resamples=20))
    assert harm.startswith("Harm: at step 0 the mere sight of the tool's schema costs 75.0 points")
    assert "at step 10 calls whose crops mislead cost 50.0 points" in harm
    assert gain.startswith("Gain: at step 20 the model calls on 100% of the samples")
    assert "100.0 points [" in gain
