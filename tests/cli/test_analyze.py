"""`medeval analyze` on run folders: what it prints, writes and refuses."""

import json
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner, Result

from medeval.cli import group
from medeval.errors import RecordError
from medeval.store.run_folder import RunFolder
from tests.analysis.outcome_lines import outcome, run_of
from tests.analysis.published_logs import logged_cells

TABLES = {"coverage", "measure", "explain", "diagnose", "contribution", "changes"}


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return run_of(
        tmp_path / "run",
        (
            outcome(
                f"s{number}",
                f"{free}{available}{int(calls > 0)}",
                step=cell.step,
                benchmark=cell.benchmark,
            )
            for cell in logged_cells()
            if cell.benchmark in ("vstar", "hrbench4k") and cell.step <= 20
            for number, (free, available, calls) in enumerate(
                zip(cell.free, cell.available, cell.calls, strict=True)
            )
        ),
    )


def analyze(run: RunFolder, *arguments: object) -> Result:
    command = ["analyze", str(run.path), "--resamples", "50", *map(str, arguments)]
    return CliRunner().invoke(group, command, catch_exceptions=False)


def test_prints_the_tables_and_writes_every_number(run: RunFolder) -> None:
    result = analyze(run)

    assert result.exit_code == 0
    for heading in ("Measure:", "Explain:", "Diagnose (current", "Tool contribution"):
        assert heading in result.stdout
    assert "45.0 [30.7, 60.2]" in result.stdout
    assert result.stderr == ""
    assert {path.stem for path in (run.path / "tables").iterdir()} == TABLES
    written = pd.read_csv(run.path / "tables/diagnose.csv")
    assert len(written) == 3 * 3 * 12
    assert {"value", "value_low", "value_high", "n_mass", "pairing"} <= set(written.columns)
    assert (
        "rl,crop_zoom,vstar,10,40,current,call_gain,0.025,"
        in (run.path / "tables/diagnose.csv").read_text()
    )


def test_json_holds_every_table(run: RunFolder) -> None:
    tables = json.loads(analyze(run, "--format", "json").stdout)

    assert set(tables) == TABLES
    (row,) = [row for row in tables["measure"] if (row["benchmark"], row["step"]) == ("vstar", 10)]
    assert (row["free"], row["available"], row["n"]) == (0.45, 0.5, 40)


def test_csv_names_each_table(run: RunFolder) -> None:
    text = analyze(run, "--format", "csv").stdout

    assert text.startswith("# coverage\nseries,pair,benchmark,step,")
    assert text.count("\n# ") == len(TABLES) - 1


def test_tables_go_where_they_are_sent(run: RunFolder, tmp_path: Path) -> None:
    analyze(run, "--output-dir", tmp_path / "elsewhere")

    assert {path.stem for path in (tmp_path / "elsewhere").iterdir()} == TABLES
    assert not (run.path / "tables").exists()


def test_a_single_model_is_told_that_drift_needs_steps(tmp_path: Path) -> None:
    run = run_of(tmp_path, [outcome(name, "011", step=None) for name in "ab"])
    result = analyze(run)

    assert result.exit_code == 0
    assert "rl: no drift and no tool contribution" in result.stderr
    assert "undefined" in result.stdout
    assert "contribution" not in {path.stem for path in (tmp_path / "tables").iterdir()}


def test_a_missing_baseline_is_told(tmp_path: Path) -> None:
    run = run_of(tmp_path, [outcome("a", "011", step=step) for step in (10, 20)])

    assert "there is no step 0, so drifts are measured from step 10" in analyze(run).stderr


def test_gaps_are_refused_unless_allowed_and_then_marked(run: RunFolder) -> None:
    (run.path / "outcomes/rl/10/vstar/crop_zoom.jsonl").unlink()
    with pytest.raises(RecordError, match="step 10 x vstar: no outcomes"):
        analyze(run)

    result = analyze(run, "--allow-missing")

    assert "every table says so" in result.stderr
    assert result.stdout.count("missing: allowed") == 4
    assert "vstar: no outcomes" in result.stdout
    assert "gap " in result.stdout


def test_what_is_left_out_is_listed(tmp_path: Path) -> None:
    lines = [outcome("a", "?11"), outcome("b", "011"), outcome("c", "110")]
    result = analyze(run_of(tmp_path, lines), "--max-undecided", "0.5")

    assert "1 samples are left out" in result.stderr
    assert "a,undecided" in (tmp_path / "tables/excluded.csv").read_text()


def test_a_table_that_no_longer_holds_does_not_stay(tmp_path: Path) -> None:
    folder = run_of(tmp_path, [outcome("a", "?11"), outcome("b", "011"), outcome("c", "110")])
    analyze(folder, "--max-undecided", "0.5")
    key = folder.outcome_keys()[0]
    folder.write_outcomes(
        key.series, key.step, key.benchmark, key.pair, [outcome("a", "011"), outcome("b", "011")]
    )
    (tmp_path / "tables/notes.csv").write_text("kept")
    analyze(folder)
    assert not (tmp_path / "tables/excluded.csv").exists()
    assert (tmp_path / "tables/notes.csv").exists()


def test_the_noise_floor_is_printed_where_asked_for(tmp_path: Path) -> None:
    lines = [outcome("a", line, repeat=repeat) for repeat, line in enumerate(("011", "111"))]
    result = analyze(run_of(tmp_path, lines), "--noise-floor")

    assert "Noise floor: the free arm against itself" in result.stdout
    assert (tmp_path / "tables/noise_floor.csv").exists()


def test_calls_can_be_counted_otherwise(run: RunFolder) -> None:
    result = analyze(run, "--called-by", "observed", "--benchmarks", "vstar", "--pair", "crop_zoom")

    assert result.exit_code == 0
    assert "hrbench4k" not in result.stdout
