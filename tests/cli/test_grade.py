"""`medeval grade`: what a run's judging left open is told, and the exit code says so."""

from pathlib import Path

import pytest

import medeval
from tests.medeval_processes import MedevalMain, Serve
from tests.small_benchmark import scripted, write_benchmark, write_judge, write_pair
from tests.stub_server import StubServer

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A finished run of four samples in both arms."""
    write_benchmark(tmp_path, 4)
    write_pair(tmp_path)
    return medeval.run(
        model="m",
        benchmarks=tmp_path / "small.py",
        pairs=tmp_path / "small_pair.py",
        output_dir=tmp_path / "run",
        open_model=scripted,
    ).folder.path


def asking(server: StubServer) -> list[object]:
    return [
        *("--judge", "model", "--judge-model", "stub", "--judge-base-url", server.base_url),
        *("--judge-args", "max_retries=0"),
    ]


def test_a_run_that_is_all_scored_exits_with_0(
    run: Path, medeval_main: MedevalMain, capsys: Capture
) -> None:
    assert medeval_main("grade", run) == 0
    assert capsys.readouterr().err == ""


def test_answers_that_a_judges_endpoint_left_unscored_exit_with_1_until_they_are_judged(
    run: Path, medeval_main: MedevalMain, serve: Serve, capsys: Capture
) -> None:
    server = serve(StubServer(answer="correct", faults=["500"] * 2))
    assert medeval_main("grade", run, *asking(server)) == 1
    told = capsys.readouterr().err
    assert "2 judge failures: failures.jsonl in each cell's folder says why" in told
    assert "2 unscored: " in told
    assert medeval_main("grade", run, *asking(server)) == 0
    assert "failures" not in capsys.readouterr().err


def test_an_endpoint_that_fails_when_asked_again_exits_with_1_though_older_verdicts_stand(
    run: Path, medeval_main: MedevalMain, serve: Serve, capsys: Capture
) -> None:
    server = serve(StubServer(answer="correct"))
    assert medeval_main("grade", run, *asking(server)) == 0
    # without the kept replies the endpoint is asked anew
    (run / "judge_replies.jsonl").unlink()
    server.faults = lambda *_: "500"
    assert medeval_main("grade", run, *asking(server), "--again") == 1
    told = capsys.readouterr().err
    assert "8 judge failures: " in told
    assert "unscored: " not in told


def test_a_judge_with_a_bug_exits_with_1(
    run: Path, tmp_path: Path, medeval_main: MedevalMain, capsys: Capture
) -> None:
    buggy = write_judge(tmp_path, "buggy", raises=("s001",))
    assert medeval_main("grade", run, "--judge", buggy) == 1
    assert "2 judge failures: " in capsys.readouterr().err


def test_samples_that_were_never_answered_exit_with_1(
    run: Path, medeval_main: MedevalMain, capsys: Capture
) -> None:
    (lines,) = run.glob("cells/m/single/small/free/trajectories.*.jsonl")
    lines.write_bytes(b"".join(lines.read_bytes().splitlines(keepends=True)[1:]))
    assert medeval_main("grade", run) == 1
    assert "1 unscored: " in capsys.readouterr().err
