import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from medeval.cli import group
from medeval.errors import DataError
from tests.interop.med.med_tree import BASELINE, EXPERIMENT, log_path, write_cell


def write_tree(directory: Path) -> Path:
    evals = directory / "evals"
    write_cell(evals / BASELINE / "vstar", [1, 0], [1, 0], [0, 1])
    return write_cell(evals / EXPERIMENT / "global_step_10" / "vstar", [1, 0], [1, 1], [0, 1])


def test_logs_are_imported_and_exported_again(tmp_path: Path) -> None:
    place = write_tree(tmp_path)
    run = str(tmp_path / "run")
    imported = CliRunner().invoke(group, ["import-med", str(tmp_path), "--output-dir", run])
    assert imported.exit_code == 0, imported.output
    assert "pairing: position" in imported.stdout
    assert f"step 0 of {EXPERIMENT!r} is {BASELINE!r}" in imported.stderr
    out = tmp_path / "out"
    for name, n_files in {"med": 6, "med-csv": 2, "lmms-eval": 4}.items():
        arguments = ["export", "--format", name, run, "--output-dir", str(out)]
        exported = CliRunner().invoke(group, arguments)
        assert exported.exit_code == 0, exported.output
        written = exported.stdout.splitlines()
        assert len(written) == n_files
        assert all(Path(path).is_file() for path in written)
    again = out / "evals" / EXPERIMENT / "global_step_0000010" / "vstar"
    assert json.loads((again / "evaluation_results.json").read_text()) == json.loads(
        (place / "evaluation_results.json").read_text()
    )


def test_analyze_writes_the_originals_tables_too(tmp_path: Path) -> None:
    write_tree(tmp_path)
    run, out = str(tmp_path / "run"), tmp_path / "out"
    CliRunner().invoke(group, ["import-med", str(tmp_path), "--output-dir", run])
    refused = CliRunner().invoke(group, ["analyze", run, "--format", "med-csv"])
    assert (refused.exit_code, "needs --output-dir" in refused.output) == (2, True)
    arguments = ["analyze", run, "--format", "med-csv", "--output-dir", str(out)]
    written = CliRunner().invoke(group, arguments)
    assert written.exit_code == 0, written.output
    headers = {Path(path).read_text().splitlines()[0] for path in written.stdout.splitlines()}
    assert {len(header.split(",")) for header in headers} == {110}


def test_damaged_logs_need_allow_missing(tmp_path: Path) -> None:
    log_path(write_tree(tmp_path), "tool_agent").unlink()
    arguments = ["import-med", str(tmp_path), "--output-dir", str(tmp_path / "run")]
    refused = CliRunner().invoke(group, arguments)
    assert isinstance(refused.exception, DataError)
    allowed = CliRunner().invoke(group, [*arguments, "--allow-missing"])
    assert allowed.exit_code == 0
    assert "left out: experiment" in allowed.stderr


@pytest.mark.parametrize("command", ["import-med", "export"])
def test_the_commands_are_listed_and_explain_themselves(command: str) -> None:
    assert command in CliRunner().invoke(group, ["--help"]).output
    assert CliRunner().invoke(group, [command, "--help"]).exit_code == 0
