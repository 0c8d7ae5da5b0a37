import csv
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from medeval import __version__
from medeval.analysis.statistics.rate import UNDEFINED
from medeval.cli.run import ProgressBar
from medeval.cli.tables.run import _percent, _with_interval
from tests.medeval_processes import MedevalMain, Serve, run_medeval, start_medeval
from tests.small_benchmark import write_benchmark, write_judge, write_pair
from tests.stub_server import StubServer

Capture = pytest.CaptureFixture[str]


def flags(folder: Path, url: str, *more: object) -> list[object]:
    return [
        *("run", "--model", "stub", "--base-url", url),
        *("--benchmarks", folder / "small.py", "--pairs", folder / "small_pair.py"),
        *("--output-dir", folder / "run", *more),
    ]


@pytest.fixture
def definitions(tmp_path: Path) -> Path:
    write_benchmark(tmp_path, 4)
    write_pair(tmp_path)
    return tmp_path


def cells_of(table: str) -> list[list[str]]:
    """A printed table as rows of cells; two spaces or more stand between cells."""
    lines = [line for line in table.splitlines() if line and not line.startswith("--")]
    return [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in lines]


def test_the_table_goes_to_stdout_and_people_read_stderr(
    definitions: Path, medeval_main: MedevalMain, serve: Serve, capsys: Capture
) -> None:
    server = serve(StubServer())
    assert medeval_main(*flags(definitions, server.base_url)) == 0
    seen = capsys.readouterr()
    header, second_line, free, available, metric = cells_of(seen.out)
    assert header == [
        "checkpoint",
        "benchmark",
        "arm",
        "score",
        "n",
        "called",
        "truncated",
        "unanswered",
        "not",
        "undecided",
        "unscored",
    ]
    assert second_line == ["[95% interval]", "offered"]
    assert free[:3] == ["stub", "small", "free"]
    assert (free[5], available[2], available[5]) == ("0.0%", "available", "100.0%")
    assert metric[0].startswith("small: accuracy, judged by ")
    assert f"run folder: {definitions / 'run'}" in seen.err
    assert "8/8" in seen.err


def test_the_printed_table_is_the_one_in_the_folder(
    definitions: Path, medeval_main: MedevalMain, serve: Serve, capsys: Capture
) -> None:
    server = serve(StubServer())
    medeval_main(*flags(definitions, server.base_url, "--repeats", 2))
    _, _, *printed, _ = cells_of(capsys.readouterr().out)
    with (definitions / "run/tables/summary.csv").open() as file:
        written = list(csv.DictReader(file))
    assert [
        [
            row["checkpoint"],
            row["benchmark"],
            row["protocol"],
            "{:.3f} [{:.3f}, {:.3f}]".format(
                *(float(row[name]) for name in ("score", "score_low", "score_high"))
            ),
            row["n"],
            f"{100 * float(row['called']):.1f}%",
            row["undecided"],
            row["unscored"],
        ]
        for row in written
    ] == [[*row[:6], row[9], row[10]] for row in printed]


def test_a_dry_run_shows_the_cells_and_asks_nothing(
    definitions: Path, medeval_main: MedevalMain, serve: Serve, capsys: Capture
) -> None:
    server = serve(StubServer())
    assert medeval_main(*flags(definitions, server.base_url, "--limit", 3)) == 0
    asked = server.requests
    capsys.readouterr()
    assert medeval_main(*flags(definitions, server.base_url, "--repeats", 2), "--dry-run") == 0
    assert cells_of(capsys.readouterr().out) == [
        ["checkpoint", "benchmark", "arm", "trajectories", "done", "to do", "tokens", "engine s"],
        # a stub's turn is 110 tokens, and the arm with tools takes two
        ["stub", "small", "free", "8", "3", "5", "550", "0"],
        ["stub", "small", "available", "8", "3", "5", "1,100", "0"],
        ["all", "16", "6", "10", "1,650", "0"],
    ]
    assert server.requests == asked


def test_a_second_start_has_nothing_to_do(
    definitions: Path, medeval_main: MedevalMain, serve: Serve, capsys: Capture
) -> None:
    server = serve(StubServer())
    medeval_main(*flags(definitions, server.base_url))
    first = capsys.readouterr().out
    assert medeval_main(*flags(definitions, server.base_url)) == 0
    seen = capsys.readouterr()
    assert seen.out == first
    assert "samples/s" not in seen.err
    assert server.requests == 12


def test_every_session_is_recorded_with_its_plan_and_no_key(
    definitions: Path, medeval_main: MedevalMain, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve(StubServer(keys=("sk-secret",)))
    assert medeval_main(*flags(definitions, server.base_url, "--limit", 2)) == 1
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    assert medeval_main(*flags(definitions, server.base_url)) == 0
    record = json.loads((definitions / "run/run.json").read_text())
    assert [session["plan"]["limit"] for session in record["sessions"]] == [2, None]
    assert [session["medeval_version"] for session in record["sessions"]] == [__version__] * 2
    assert record["sessions"][0]["command"][:2] == ["medeval", "run"]
    for path in (definitions / "run").rglob("*"):
        assert path.is_dir() or b"sk-secret" not in path.read_bytes()


def test_changed_settings_are_told_by_field_and_fresh_starts_anew(
    definitions: Path, medeval_main: MedevalMain, serve: Serve, capsys: Capture
) -> None:
    server = serve(StubServer())
    medeval_main(*flags(definitions, server.base_url))
    assert medeval_main(*flags(definitions, server.base_url, "--seed", 3)) == 1
    errors = capsys.readouterr().err
    assert "seed: recorded 0, now 3" in errors
    assert "--fresh starts it anew" in errors
    assert server.requests == 12
    assert medeval_main(*flags(definitions, server.base_url, "--seed", 3, "--fresh")) == 0
    assert server.requests == 24


def test_a_judge_named_on_the_command_line_becomes_the_primary_one(
    definitions: Path, medeval_main: MedevalMain, serve: Serve, capsys: Capture
) -> None:
    server = serve(StubServer())
    lenient = write_judge(definitions, "lenient", correct_at=0.0)
    assert medeval_main(*flags(definitions, server.base_url, "--judge", lenient)) == 0
    outcome = next((definitions / "run/outcomes").rglob("*.jsonl")).read_text().splitlines()[0]
    assert json.loads(outcome)["judge"].startswith("lenient#")


def test_judges_are_named_in_a_comma_list_and_for_one_benchmark(
    definitions: Path, medeval_main: MedevalMain, serve: Serve
) -> None:
    server = serve(StubServer())
    named = f"small={write_judge(definitions, 'lenient', correct_at=0.0)},exact_match"
    assert medeval_main(*flags(definitions, server.base_url, "--judge", named)) == 0
    verdicts = next((definitions / "run/cells").rglob("verdicts.*.jsonl")).read_text()
    judges = [json.loads(line)["judge"].partition("#")[0] for line in verdicts.splitlines()]
    assert set(judges) == {"lenient", "exact_match"}
    record = json.loads((definitions / "run/run.json").read_text())
    assert record["judges"]["small"].startswith("lenient#")


def test_what_a_server_does_not_take_is_told(
    definitions: Path, medeval_main: MedevalMain, serve: Serve, capsys: Capture
) -> None:
    server = serve(StubServer(faults=lambda *_: "unsupported"))
    assert medeval_main(*flags(definitions, server.base_url)) == 0
    assert "stub: the server of 'stub' does not take 'seed'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (("--benchmarks", "chartqq"), "did you mean 'chartqa'"),
        (("--model-args", "timeout=3"), "'timeout', which the openai backend does not know"),
        (("--model-args", "timeout"), "'timeout' is not k=v"),
        (("--limit", 0), "0 is not in the range"),
        (("--protocols", "tool_free"), "give --pairs or --protocols, not both"),
        (("--base-url", ""), "the openai backend needs a server"),
        (("--plan", "missing.toml"), "cannot read the plan"),
    ],
)
def test_a_users_mistake_is_told_without_a_traceback(
    arguments: tuple[object, ...],
    shown: str,
    definitions: Path,
    medeval_main: MedevalMain,
    capsys: Capture,
) -> None:
    given = flags(definitions, "http://127.0.0.1:1", "--backend", "openai", *arguments)
    assert medeval_main(*given) in (1, 2)
    errors = capsys.readouterr().err
    assert shown in errors
    assert "Traceback" not in errors
    assert not (definitions / "run").exists()


def test_two_processes_on_one_run_folder_are_refused(definitions: Path, serve: Serve) -> None:
    server = serve(StubServer(faults=lambda *_: "hang"))
    with start_medeval(*flags(definitions, server.base_url)) as first:
        while not server.in_flight:
            assert first.poll() is None
            time.sleep(0.02)
        second = run_medeval(*flags(definitions, server.base_url))
        first.kill()
        first.communicate(timeout=10)
    assert second.returncode == 1
    assert "is in use by host" in second.stderr
    assert f"pid {first.pid}" in second.stderr
    assert "Traceback" not in second.stderr


def test_the_command_line_runs_as_a_module() -> None:
    shown = subprocess.run(
        [sys.executable, "-m", "medeval", "--version"], capture_output=True, text=True, check=True
    )
    assert shown.stdout.strip() == f"medeval {__version__}"


def test_messages_are_printed_above_the_bar_and_unscored_samples_counted(capsys: Capture) -> None:
    ProgressBar.tell("before")
    bar = ProgressBar(2)
    bar.advance(scored=False)
    bar.tell("meanwhile")
    bar.advance(scored=True)
    bar.close()
    seen = capsys.readouterr()
    assert seen.out == ""
    assert seen.err.startswith("before\n")
    assert "meanwhile\n" in seen.err
    *_, last = seen.err.split("\r")
    assert "2/2 [00:00<00:00, " in last
    assert "1 unscored" in last


def test_no_bar_is_shown_where_nothing_is_missing(capsys: Capture) -> None:
    bar = ProgressBar(0)
    bar.tell("nothing to do")
    bar.close()
    assert capsys.readouterr().err == "nothing to do\n"


def test_a_rate_of_nothing_is_shown_as_undefined() -> None:
    assert (_with_interval(UNDEFINED), _percent(UNDEFINED)) == ("undefined", "undefined")
