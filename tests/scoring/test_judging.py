"""Judges that ask a model judge beside generation, cost nothing twice, and lose nothing."""

import asyncio
import csv
import json
import signal
import time
from pathlib import Path
from typing import Any

import pytest

import medeval
from medeval.models.base import Model, Request
from medeval.models.checkpoints import Checkpoint
from medeval.models.scripted import ScriptedModel
from medeval.store.run_folder import RunFolder
from medeval.types.verdict import Verdict
from tests.medeval_processes import MedevalMain, Serve, start_medeval, stub_process
from tests.small_benchmark import play, write_benchmark, write_pair
from tests.stub_server import StubServer

Capture = pytest.CaptureFixture[str]

ASKING = """
from medeval import Judge
from medeval.scoring.judge_prompt import RIGHT_OR_WRONG, Inquiry, asking


def inquire(sample, answer):
    prompt = f"Is {{answer.text}} right for {{sample.id}}?"
    return Inquiry(prompt=prompt, ruling=RIGHT_OR_WRONG)


ASKING = Judge(name="{name}", metric="accuracy by a model", ask=asking(inquire))
"""


def write_asking(folder: Path, name: str = "asking") -> Path:
    path = folder / f"judge_{name}.py"
    path.write_text(ASKING.format(name=name))
    return path


def scripted(_: Checkpoint) -> Model:
    return ScriptedModel(play)


def begun(folder: Path, n: int = 6, **changes: Any) -> Path:
    write_benchmark(folder, n, judge=write_asking(folder))
    write_pair(folder)
    values: dict[str, Any] = {
        "model": "m",
        "benchmarks": folder / "small.py",
        "pairs": folder / "small_pair.py",
        "output_dir": folder / "run",
        "open_model": scripted,
        **changes,
    }
    return medeval.run(**values).folder.path


def asking_of(server: StubServer, **changes: Any) -> dict[str, Any]:
    return {
        "judge_model": "stub",
        "judge_base_url": server.base_url,
        "judge_args": {"timeout_s": 5, "max_retries": 0},
        **changes,
    }


def flags_of(server: StubServer) -> list[object]:
    return ["--judge-model", "stub", "--judge-base-url", server.base_url]


def verdicts(run: Path) -> list[Verdict]:
    folder = RunFolder.open(run)
    return [verdict for key in folder.cells() for verdict in folder.cell(key).verdicts()]


def failures(run: Path) -> list[str]:
    folder = RunFolder.open(run)
    return [failure.error for key in folder.cells() for failure in folder.cell(key).failures()]


def test_a_slow_judge_holds_up_no_generation_and_every_verdict_is_written(
    tmp_path: Path, serve: Serve
) -> None:
    judge = serve(StubServer(answer="correct", latency_s=0.4))
    asked: list[float] = []

    def script(request: Request) -> str:
        asked.append(time.monotonic())
        return play(request)

    run = begun(
        tmp_path, 8, concurrency=1, judge_concurrency=4, **asking_of(judge),
        open_model=lambda _: ScriptedModel(script),
    )  # fmt: skip
    assert len(asked) == 24
    assert asked[-1] - judge.started[0] < 0.4
    assert judge.most_in_flight == 4
    assert len(verdicts(run)) == 16
    assert {verdict.status for verdict in verdicts(run)} == {"correct"}


def test_judging_again_asks_nobody(tmp_path: Path, serve: Serve, medeval_main: MedevalMain) -> None:
    judge = serve(StubServer(answer='{"verdict": "incorrect"}'))
    run = begun(tmp_path, **asking_of(judge))
    n_answers = len(verdicts(run))
    assert n_answers == 12
    # samples whose answers are equal in both arms are asked about once
    assert judge.requests == 10
    assert len((run / "judge_replies.jsonl").read_text().splitlines()) == 10
    before = (run / "tables/summary.csv").read_text()
    assert medeval_main("grade", run, "--again") == 0
    assert medeval_main("grade", run, "--again", *flags_of(judge)) == 0
    assert judge.requests == 10
    assert (run / "tables/summary.csv").read_text() == before
    assert len(verdicts(run)) == n_answers


def test_a_plan_without_the_model_its_judge_asks_is_refused_before_anything_starts(
    tmp_path: Path, serve: Serve, medeval_main: MedevalMain, capsys: Capture
) -> None:
    write_benchmark(tmp_path, 2, judge=write_asking(tmp_path))
    write_pair(tmp_path)
    server = serve(StubServer())
    command = (
        *("run", "--model", "stub", "--base-url", server.base_url),
        *("--benchmarks", tmp_path / "small.py", "--pairs", tmp_path / "small_pair.py"),
        *("--output-dir", tmp_path / "run"),
    )
    assert medeval_main(*command) != 0
    errors = capsys.readouterr().err
    assert "judge 'asking' of 'small' asks a model, and none is named" in errors
    assert "--defer-grading" in errors
    assert medeval_main(*command, "--judge-base-url", server.base_url) != 0
    assert "--judge-model NAME" in capsys.readouterr().err
    down = ("--judge-model", "x", "--judge-base-url", "http://127.0.0.1:1")
    assert medeval_main(*command, *down, "--judge-args", "max_retries=0") != 0
    assert "the judge's model cannot be reached" in capsys.readouterr().err
    assert server.requests == 0
    assert not list(tmp_path.glob("run/cells/**/trajectories*"))


def test_deferred_answers_are_judged_later_by_a_model_named_then(
    tmp_path: Path, serve: Serve, medeval_main: MedevalMain, capsys: Capture
) -> None:
    run = begun(tmp_path, defer_grading=True)
    assert medeval_main("grade", run) != 0
    assert "asks a model, and none is named" in capsys.readouterr().err
    judge = serve(StubServer(answer="correct"))
    assert medeval_main("grade", run, *flags_of(judge)) == 0
    seen = capsys.readouterr()
    assert "judge stub: 10 calls" in seen.err
    record = RunFolder.open(run).record()
    assert record.judges["small"].startswith("asking@stub#")
    assert {key.judge for key in RunFolder(run).outcome_keys()} == {None}
    assert {verdict.judge for verdict in verdicts(run)} == {record.judges["small"]}
    # what was deferred is now judged like anything else
    assert medeval_main("grade", run) == 0
    resumed = begun(tmp_path, **asking_of(judge))
    assert resumed == run
    assert judge.requests == 10


def test_another_model_stands_beside_and_never_in_place_of_the_first(
    tmp_path: Path, serve: Serve, medeval_main: MedevalMain, capsys: Capture
) -> None:
    first = serve(StubServer(answer="correct"))
    second = serve(StubServer(answer="incorrect", models=("second",)))
    run = begun(tmp_path, **asking_of(first))
    named = ("--judge-model", "second", "--judge-base-url", second.base_url)
    assert medeval_main("grade", run, *named) != 0
    assert "not by 'second'" in capsys.readouterr().err
    assert medeval_main("grade", run, "--judge", tmp_path / "judge_asking.py", *named) == 0
    judges = {verdict.judge.partition("#")[0]: verdict.status for verdict in verdicts(run)}
    assert judges == {"asking@stub": "correct", "asking@second": "incorrect"}
    assert RunFolder.open(run).record().judges["small"].startswith("asking@stub#")


def test_what_the_endpoint_did_not_answer_is_unscored_and_a_resume_judges_it_alone(
    tmp_path: Path, serve: Serve
) -> None:
    judge = serve(
        StubServer(answer="correct", faults=lambda index, _: "500" if index < 3 else "ok")
    )
    run = begun(tmp_path, **asking_of(judge))
    assert len(verdicts(run)) < 12
    assert all(verdict.status == "correct" for verdict in verdicts(run))
    assert len(failures(run)) == 12 - len(verdicts(run))
    assert all(failure.startswith("not judged: ") for failure in failures(run))
    with (run / "tables/summary.csv").open() as file:
        unscored = sum(int(row["unscored"]) for row in csv.DictReader(file))
    assert unscored == len(failures(run)) > 0

    def no_engine(_: Checkpoint) -> Model:
        raise AssertionError("everything was generated")

    asked = judge.requests
    begun(tmp_path, **asking_of(judge), open_model=no_engine)
    assert len(verdicts(run)) == 12
    assert judge.requests - asked <= 3


def test_a_budget_leaves_the_rest_unscored(tmp_path: Path, serve: Serve) -> None:
    judge = serve(StubServer(answer="correct"))
    run = begun(tmp_path, **asking_of(judge, judge_max_calls=4))
    assert judge.requests == 4
    assert any("budget of 4 calls is spent" in failure for failure in failures(run))
    begun(tmp_path, **asking_of(judge))
    assert (judge.requests, len(verdicts(run))) == (10, 12)


def test_answers_in_plenty_wait_for_the_judge_in_turn(
    tmp_path: Path, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("medeval.scoring.judging.MAX_WAITING", 1)
    judge = serve(StubServer(answer="correct", latency_s=0.01))
    run = begun(tmp_path, 20, judge_concurrency=2, **asking_of(judge))
    assert len(verdicts(run)) == 40
    assert judge.most_in_flight <= 2


def test_an_interrupted_run_leaves_its_queue_for_the_resume(tmp_path: Path) -> None:
    write_benchmark(tmp_path, 12, judge=write_asking(tmp_path))
    write_pair(tmp_path)
    with stub_process() as model, stub_process("--answer", "correct", "--latency", 0.5) as judge:
        command = (
            *("run", "--model", "stub", "--base-url", model),
            *("--benchmarks", tmp_path / "small.py", "--pairs", tmp_path / "small_pair.py"),
            *("--output-dir", tmp_path / "run", "--judge-concurrency", 1),
            *("--judge-model", "stub", "--judge-base-url", judge),
        )
        process = start_medeval(*command)
        deadline = time.monotonic() + 60
        while not list(tmp_path.glob("run/judge_replies.jsonl")):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
        assert process.returncode == 3
        assert 0 < len(verdicts(tmp_path / "run")) < 24
        faster = start_medeval(*command, "--judge-concurrency", 16)
        faster.communicate(timeout=60)
        assert faster.returncode == 0
    assert len(verdicts(tmp_path / "run")) == 24


def test_judges_are_compared_and_their_disagreements_listed(
    tmp_path: Path, serve: Serve, medeval_main: MedevalMain, capsys: Capture
) -> None:
    run = begun(tmp_path, **asking_of(serve(StubServer(answer="correct"))))
    server = serve(StubServer(answer="incorrect", models=("second",)))
    letter = tmp_path / "judge_letter.py"
    letter.write_text(
        "from medeval import Grade, Judge\n\n\n"
        "def grade(sample, answer):\n"
        "    return Grade(score=float(answer.text in sample.targets))\n\n\n"
        'LETTER = Judge(name="letter", metric="m", grade=grade)\n'
    )
    asking = tmp_path / "judge_asking.py"
    capsys.readouterr()
    assert medeval_main(
        *("grade", run, "--judge", letter, "--judge", asking),
        *("--judge-model", "second", "--judge-base-url", server.base_url),
    ) == 0  # fmt: skip
    shown = capsys.readouterr().out
    assert "Cohen's kappa" in shown
    # free answers are A: right for 2 of 6; available ones all are; the model denies all
    with (run / "tables/disagreements.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 8
    assert {(row["first verdict"], row["second verdict"]) for row in rows} == {
        ("correct", "incorrect")
    }
    assert "x small x available, s000 (repeat 0): letter#" in shown


def test_a_judge_of_two_parts_shows_how_far_they_agree(
    tmp_path: Path, serve: Serve, medeval_main: MedevalMain, capsys: Capture
) -> None:
    run = begun(tmp_path, defer_grading=True)
    server = serve(StubServer(answer="incorrect"))
    capsys.readouterr()
    assert medeval_main("grade", run, "--judge", "rule_then_model", *flags_of(server)) == 0
    shown = capsys.readouterr().out
    assert ": rule  model" in " ".join(shown.split()).replace("rule model", "rule  model")
    parts = [dict(verdict.parts) for verdict in verdicts(run)]
    assert parts.count({"rule": 1.0}) == 8
    assert parts.count({"rule": 0.0, "model": 0.0}) == 4


def test_predictions_are_judged_side_by_side_and_come_in_order(serve: Serve) -> None:
    server = serve(StubServer(answer="correct", latency_s=0.05))
    lines = [{"answer": f"{number}", "targets": ["1"], "id": number} for number in range(20)]
    lines.append({"answer": None, "targets": ["1"], "id": 20})
    scored = medeval.score(
        lines, "model", judge_model="stub", judge_base_url=server.base_url, judge_concurrency=8
    )
    assert [line["id"] for line in scored] == [str(number) for number in range(21)]
    assert [line["verdict"] for line in scored] == ["correct"] * 20 + ["incorrect"]
    assert server.most_in_flight == 8


def test_score_tells_what_it_took(
    tmp_path: Path, serve: Serve, medeval_main: MedevalMain, capsys: Capture
) -> None:
    server = serve(StubServer(answer="correct"))
    path = tmp_path / "predictions.jsonl"
    path.write_text('{"answer": "Paris", "targets": ["paris"], "question": "Which?"}\n')
    assert medeval_main("score", path, "--judge", "model", *flags_of(server)) == 0
    seen = capsys.readouterr()
    assert json.loads(seen.out)["verdict"] == "correct"
    assert "judge stub: 1 calls" in seen.err
    assert medeval_main("score", path, "--judge", "model") != 0
    assert "asks a model, and none is named" in capsys.readouterr().err


def test_no_event_loop_is_left_behind(serve: Serve) -> None:
    server = serve(StubServer(answer="correct"))
    options = {"judge_model": "stub", "judge_base_url": server.base_url}
    medeval.score([{"answer": "a", "targets": ["b"]}], "model", **options)
    with pytest.raises(RuntimeError):
        asyncio.get_running_loop()
