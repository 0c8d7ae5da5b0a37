"""After a fault of a server, the data, a tool or a judge, samples are unscored, never wrong."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import medeval
from medeval.analysis.frames import Run
from medeval.store.run_folder import RunFolder
from medeval.types.failure import FailureRecord
from tests.medeval_processes import MedevalMain, Serve
from tests.small_benchmark import scripted, write_benchmark, write_judge, write_pair
from tests.stub_server import Body, StubServer

PATIENCE = "timeout_s=0.3,max_retries=2,retry_wait_s=0.01"
TRIES = 3


def flags(folder: Path, server: StubServer, **changes: object) -> list[object]:
    values = {
        "model": "stub",
        "base-url": server.base_url,
        "benchmarks": folder / "small.py",
        "pairs": folder / "small_pair.py",
        "output-dir": folder / "run",
        "concurrency": 4,
        "model-args": PATIENCE,
        **changes,
    }
    return ["run", *(item for name, value in values.items() for item in (f"--{name}", value))]


def about(number: int) -> Callable[[Body], bool]:
    return lambda body: f"Question {number}?" in json.dumps(body["messages"])


def failing(fault: str, number: int = 3) -> Callable[[int, Body], str]:
    """A server that fails at each request about one of the samples."""
    return lambda _, body: fault if about(number)(body) else "ok"


def failures(run: Path) -> list[FailureRecord]:
    folder = RunFolder.open(run)
    return [failure for key in folder.cells() for failure in folder.cell(key).failures()]


def outcome_ids(run: Path) -> list[str]:
    return [
        json.loads(line)["sample_id"]
        for path in run.glob("outcomes/**/*.jsonl")
        for line in path.read_text().splitlines()
    ]


def table(run: Path) -> list[dict[str, str]]:
    with (run / "tables/summary.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize(
    ("fault", "cause"),
    [
        ("429", "Rate limit reached"),
        ("500", "Internal server error"),
        ("503", "Loading model"),
        ("garbage", "holds no reply"),
        ("empty_choices", "holds no reply"),
        ("no_message", "holds no reply"),
        ("drop", "no reply"),
        ("hang", "no answer in time"),
    ],
)
def test_a_fault_leaves_its_sample_unscored_and_a_resume_completes_it(
    fault: str, cause: str, tmp_path: Path, medeval_main: MedevalMain, serve: Serve
) -> None:
    write_benchmark(tmp_path, 8)
    write_pair(tmp_path)
    server = serve(StubServer(faults=failing(fault)))

    assert medeval_main(*flags(tmp_path, server)) == 1
    assert sum(map(about(3), server.bodies)) == 2 * TRIES
    assert outcome_ids(tmp_path / "run") == [f"s00{number}" for number in (0, 1, 2, 4, 5, 6, 7)]
    assert [(row["n"], row["unscored"]) for row in table(tmp_path / "run")] == [("7", "1")] * 2
    found = failures(tmp_path / "run")
    assert [(f.sample_id, f.repeat, f.kind, f.try_number) for f in found] == [
        ("s003", 0, "model", 1)
    ] * 2
    assert all(cause in failure.error for failure in found)
    assert all("Traceback" in failure.traceback for failure in found)

    server.faults, requests = (), server.requests
    assert medeval_main(*flags(tmp_path, server)) == 0
    assert server.requests - requests == 3
    assert "s003" in outcome_ids(tmp_path / "run")
    assert [(row["n"], row["unscored"]) for row in table(tmp_path / "run")] == [("8", "0")] * 2


def test_a_fault_that_passes_costs_a_retry_and_nothing_else(
    tmp_path: Path, medeval_main: MedevalMain, serve: Serve
) -> None:
    write_benchmark(tmp_path, 2)
    write_pair(tmp_path)
    server = serve(StubServer(faults=("429", "500", "garbage", "drop")))
    assert (
        medeval_main(
            *flags(tmp_path, server, **{"concurrency": 1, "model-args": "retry_wait_s=0.01"})
        )
        == 0
    )
    assert server.requests == 4 + 6
    assert not failures(tmp_path / "run")
    # "Retry-After: 0.05" of the first answer was waited for
    assert server.started[1] - server.started[0] >= 0.05


def test_tries_are_counted_over_resumes(
    tmp_path: Path, medeval_main: MedevalMain, serve: Serve
) -> None:
    write_benchmark(tmp_path, 2)
    write_pair(tmp_path)
    server = serve(StubServer(faults=failing("500", 0)))
    arguments = flags(tmp_path, server, **{"model-args": "max_retries=0"})
    assert [medeval_main(*arguments) for _ in range(2)] == [1, 1]
    assert sorted(failure.try_number for failure in failures(tmp_path / "run")) == [1, 1, 2, 2]


@pytest.mark.parametrize(("allowed", "code"), [(1, 1), (2, 0)])
def test_unscored_samples_are_tolerated_up_to_the_bound(
    allowed: int, code: int, tmp_path: Path, medeval_main: MedevalMain, serve: Serve
) -> None:
    write_benchmark(tmp_path, 4)
    write_pair(tmp_path)
    server = serve(StubServer(faults=failing("500")))
    arguments = flags(tmp_path, server, **{"max-unscored": allowed})
    assert medeval_main(*arguments) == code


def test_a_deferred_run_with_samples_that_failed_is_not_complete(
    tmp_path: Path,
    medeval_main: MedevalMain,
    serve: Serve,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_benchmark(tmp_path, 4)
    write_pair(tmp_path)
    server = serve(StubServer(faults=failing("500")))
    assert medeval_main(*flags(tmp_path, server), "--defer-grading") == 1
    assert "2 unscored" in capsys.readouterr().err
    server.faults = ()
    assert medeval_main(*flags(tmp_path, server), "--defer-grading") == 0
    assert "medeval grade" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("server", "shown"),
    [
        (StubServer(keys=("right",)), "Incorrect API key provided"),
        (StubServer(models=("another",)), "'stub' was asked for"),
    ],
)
def test_a_wrong_key_or_model_stops_before_the_first_sample(
    server: StubServer,
    shown: str,
    tmp_path: Path,
    medeval_main: MedevalMain,
    serve: Serve,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_benchmark(tmp_path, 4)
    write_pair(tmp_path)
    serve(server)
    assert medeval_main(*flags(tmp_path, server)) == 1
    assert server.requests == 0
    assert shown in capsys.readouterr().err
    assert [(row["n"], row["unscored"]) for row in table(tmp_path / "run")] == [("0", "4")] * 2


@pytest.mark.parametrize(
    ("fault", "shown"),
    [
        ("400", "at least one image is unreadable"),
        ("401", "Incorrect API key provided"),
        ("403", "You may not use this model"),
        ("404", "The model `other` does not exist."),
        ("422", "Input should be at most 2"),
    ],
)
def test_a_refusal_that_all_requests_would_meet_stops_the_cells_at_once(
    fault: str,
    shown: str,
    tmp_path: Path,
    medeval_main: MedevalMain,
    serve: Serve,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_benchmark(tmp_path, 40)
    write_pair(tmp_path)
    server = serve(StubServer(faults=lambda *_: fault))
    assert medeval_main(*flags(tmp_path, server)) == 1
    assert server.requests <= 4 + 2
    errors = capsys.readouterr().err
    assert shown in errors
    assert "small x free stopped" in errors
    assert [row["unscored"] for row in table(tmp_path / "run")] == ["40"] * 2


def test_one_cell_that_stops_does_not_hold_up_the_other(
    tmp_path: Path, medeval_main: MedevalMain, serve: Serve
) -> None:
    write_benchmark(tmp_path, 6)
    write_pair(tmp_path)

    def fault(_: int, body: Body) -> str:
        return "ok" if "<tools>" in json.dumps(body["messages"]) else "400"

    server = serve(StubServer(faults=fault))
    assert medeval_main(*flags(tmp_path, server)) == 1
    assert [(row["protocol"], row["n"]) for row in table(tmp_path / "run")] == [
        ("free", "0"),
        ("available", "6"),
    ]
    assert outcome_ids(tmp_path / "run") == []


def test_a_prompt_that_does_not_fit_is_a_result(
    tmp_path: Path, medeval_main: MedevalMain, serve: Serve
) -> None:
    write_benchmark(tmp_path, 4)
    write_pair(tmp_path)
    server = serve(StubServer(faults=failing("context")))
    assert medeval_main(*flags(tmp_path, server)) == 0
    assert len(outcome_ids(tmp_path / "run")) == 4
    assert [row["truncated"] for row in table(tmp_path / "run")] == ["0.25"] * 2


def in_process(folder: Path, **changes: Any) -> Run:
    values: dict[str, Any] = {
        "model": "m",
        "benchmarks": folder / "small.py",
        "pairs": folder / "small_pair.py",
        "output_dir": folder / "run",
        "open_model": scripted,
        **changes,
    }
    return medeval.run(**values)


def test_an_image_that_cannot_be_read_leaves_its_sample_unscored(tmp_path: Path) -> None:
    write_benchmark(tmp_path, 6, broken=(2,))
    write_pair(tmp_path)
    run = in_process(tmp_path)
    assert list(run.outcomes.sample_id) == ["s000", "s001", "s003", "s004", "s005"]
    found = failures(tmp_path / "run")
    assert [(failure.sample_id, failure.kind) for failure in found] == [("s002", "data")] * 2
    assert "is not an image we read" in found[0].error
    recorded = run.samples.set_index("sample_id").images["s002"][0]
    assert recorded["width_px"] is None
    assert "is not an image we read" in recorded["error"]


def test_a_bug_in_a_tool_leaves_its_samples_unscored_with_the_traceback(tmp_path: Path) -> None:
    write_benchmark(tmp_path, 3)
    write_pair(tmp_path, is_buggy=True)
    run = in_process(tmp_path)
    assert run.outcomes.empty
    assert run.summary.score[0] is not None
    assert list(run.summary.unscored) == [0, 3]
    found = failures(tmp_path / "run")
    assert [failure.kind for failure in found] == ["internal"] * 3
    assert found[0].error == "TypeError: a bug of this tool"
    assert "in buggy" in found[0].traceback


def test_a_judge_that_raises_leaves_the_answer_undecided(tmp_path: Path) -> None:
    judge = write_judge(tmp_path, raises=("s001",), refuses=("s002",))
    write_benchmark(tmp_path, 4, judge=judge)
    write_pair(tmp_path)
    run = in_process(tmp_path)
    undecided = run.verdicts[run.verdicts.status == "undecided"]
    assert sorted(undecided.sample_id) == ["s001", "s001", "s002", "s002"]
    assert list(run.summary.undecided) == [2, 2]
    assert list(run.summary.n) == [2, 2]
    assert list(run.summary.unscored) == [0, 0]
    by_id = run.outcomes.set_index("sample_id")
    assert by_id.free_correct["s001"] is None
    assert by_id.available_correct["s002"] is None
    found = failures(tmp_path / "run")
    assert [(failure.sample_id, failure.kind) for failure in found] == [("s001", "judge")] * 2
    assert "a bug of this judge" in found[0].traceback
