"""`medeval compare`: which checkpoint a reference names, and what is told of two."""

import json
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner

from medeval.cli import group
from medeval.errors import UsageError
from tests.analysis.outcome_lines import outcome, run_of


@pytest.fixture
def run(tmp_path: Path) -> Path:
    marks = {0: ["000"] * 25, 10: ["110"] * 25}
    return run_of(
        tmp_path / "run",
        [
            outcome(f"s{number}", each, step=step)
            for step, each_of in marks.items()
            for number, each in enumerate(each_of)
        ],
    ).path


def printed(*arguments: object) -> str:
    result = CliRunner().invoke(group, ["compare", *map(str, arguments)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_differences_and_flips_are_printed(run: Path) -> None:
    text = printed(f"{run}@rl/0", f"{run}@rl/10")
    row = next(line for line in text.splitlines() if line.split()[:2] == ["small", "free"])
    assert row.split()[2:6] == ["25", "0.0", "100.0", "100.0"]
    assert "small, free: 25 gained, 0 lost" in text
    assert "s0, s1" in text
    assert ", and 5 more" in text


def test_a_run_with_one_checkpoint_needs_no_name(run: Path, tmp_path: Path) -> None:
    single = [outcome(f"s{number}", "000", step=None, series="gpt") for number in range(25)]
    other = run_of(tmp_path / "other@home", single).path
    assert "no sample flipped" in printed(other, f"{run}@rl/0")


@pytest.mark.parametrize(
    ("suffix", "message"), [("", "several checkpoints"), ("@rl/7", "no checkpoint")]
)
def test_a_reference_that_names_not_one_checkpoint_is_refused(
    run: Path, suffix: str, message: str
) -> None:
    with pytest.raises(UsageError, match=message) as refused:
        printed(f"{run}{suffix}", f"{run}@rl/0")
    assert "rl/0 (crop_zoom), rl/10 (crop_zoom)" in str(refused.value)


def test_every_number_is_given_as_json_and_csv(run: Path, tmp_path: Path) -> None:
    text = printed(f"{run}@rl/10", f"{run}@rl/0", "--json", "--output-dir", tmp_path / "out")
    rows = json.loads(text)
    assert [row["difference"] for row in rows["differences"]] == [-1.0, -1.0, 0.0]
    assert len(rows["flips"]) == 50
    assert len(pd.read_csv(tmp_path / "out/flips.csv")) == 50
    assert len(pd.read_csv(tmp_path / "out/differences.csv")) == 3
