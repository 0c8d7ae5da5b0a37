"""`medeval score`: predictions from a file or stdin, verdict lines on stdout."""

import io
import json
import sys
from pathlib import Path

import pytest

from tests.medeval_processes import MedevalMain, Serve
from tests.small_benchmark import write_judge
from tests.stub_server import StubServer

Capture = pytest.CaptureFixture[str]

LINES = (
    b'{"id": "a", "answer": "A.", "targets": ["A"], "options": ["red", "blue"]}\n'
    b'{"id": "b", "answer": null, "targets": ["A"], "options": ["red", "blue"]}\n'
)


def verdicts(output: str) -> list[tuple[str, str]]:
    lines = map(json.loads, output.splitlines())
    return [(line["id"], line["verdict"]) for line in lines]


def test_a_file_is_judged_line_by_line(
    medeval_main: MedevalMain, capsys: Capture, tmp_path: Path
) -> None:
    path = tmp_path / "predictions.jsonl"
    path.write_bytes(LINES)
    assert medeval_main("score", path, "--judge", "choice") == 0
    shown = capsys.readouterr()
    assert verdicts(shown.out) == [("a", "correct"), ("b", "incorrect")]
    assert set(json.loads(shown.out.splitlines()[0])) == {
        "id", "verdict", "score", "extracted", "reason", "judge",
    }  # fmt: skip
    assert shown.err == ""


@pytest.mark.parametrize("arguments", [[], ["-"]])
def test_stdin_is_judged_where_no_file_is_named(
    medeval_main: MedevalMain,
    capsys: Capture,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(LINES)))
    assert medeval_main("score", *arguments, "--judge", "choice") == 0
    assert verdicts(capsys.readouterr().out) == [("a", "correct"), ("b", "incorrect")]


def test_a_judge_of_ones_own_is_named_by_its_path(
    medeval_main: MedevalMain, capsys: Capture, tmp_path: Path
) -> None:
    path = tmp_path / "predictions.jsonl"
    path.write_bytes(LINES.replace(b"A.", b"A"))
    assert medeval_main("score", path, "--judge", write_judge(tmp_path)) == 0
    assert verdicts(capsys.readouterr().out) == [("a", "correct"), ("b", "incorrect")]


@pytest.mark.parametrize(
    ("second", "told"),
    [
        (b"{torn", "error: line 2 is not JSON: "),
        (b"\n", "error: line 2 is not JSON: "),
        (b'"\xff"\n', "error: line 2 is not JSON: "),
        (b"[1]\n", "error: line 2 is not a JSON object"),
        (b'{"answer": "A"}\n', "error: line 2 has no 'targets', which judge 'choice' reads"),
        (b'{"answer": 1, "targets": [], "options": []}\n',
         "error: line 2: 'answer': Input should be a valid string, got 1"),
        (b"[" * 100_000, "error: line 2 is not JSON: maximum recursion depth"),
    ],
)  # fmt: skip
def test_a_line_that_cannot_be_judged_is_named_after_those_before_it(
    medeval_main: MedevalMain, capsys: Capture, tmp_path: Path, second: bytes, told: str
) -> None:
    path = tmp_path / "predictions.jsonl"
    path.write_bytes(LINES.splitlines(keepends=True)[0] + second)
    assert medeval_main("score", path, "--judge", "choice") == 1
    shown = capsys.readouterr()
    assert verdicts(shown.out) == [("a", "correct")]
    assert shown.err.startswith(told)
    assert "Traceback" not in shown.err


def test_a_line_whose_judges_endpoint_failed_is_undecided_and_the_code_is_1(
    medeval_main: MedevalMain, capsys: Capture, tmp_path: Path, serve: Serve
) -> None:
    server = serve(StubServer(answer="correct", faults=["500"]))
    path = tmp_path / "predictions.jsonl"
    line = '{"answer": "%s", "targets": ["A"], "question": "?"}\n'
    path.write_text("".join(line % answer for answer in "xyz"))
    command = (
        *("score", path, "--judge", "model", "--judge-model", "stub", "--judge-concurrency", 1),
        *("--judge-base-url", server.base_url, "--judge-args", "max_retries=0"),
    )
    assert medeval_main(*command) == 1
    shown = capsys.readouterr()
    assert verdicts(shown.out) == [("1", "undecided"), ("2", "correct"), ("3", "correct")]
    assert json.loads(shown.out.splitlines()[0])["reason"].startswith("not judged: ")
    assert "judge_failed" not in shown.out
    assert "the judge failed on 1 of 3 lines: see their reasons" in shown.err
    assert medeval_main(*command) == 0


def test_what_a_judge_cannot_decide_is_no_failure_but_its_bug_is(
    medeval_main: MedevalMain, capsys: Capture, tmp_path: Path
) -> None:
    path = tmp_path / "predictions.jsonl"
    path.write_bytes(LINES)
    judge = write_judge(tmp_path, refuses=("a",))
    assert medeval_main("score", path, "--judge", judge) == 0
    assert verdicts(capsys.readouterr().out)[0] == ("a", "undecided")
    judge = write_judge(tmp_path, raises=("a",))
    assert medeval_main("score", path, "--judge", judge) == 1
    assert verdicts(capsys.readouterr().out)[0] == ("a", "undecided")


def test_half_a_surrogate_pair_in_an_answer_is_written_as_it_was_read(
    medeval_main: MedevalMain, capsys: Capture, tmp_path: Path
) -> None:
    path = tmp_path / "predictions.jsonl"
    path.write_bytes(b'{"answer": "\\ud800 \xc3\xa4", "targets": ["A"]}\n')
    assert medeval_main("score", path, "--judge", "exact_match") == 0
    assert json.loads(capsys.readouterr().out)["extracted"] == "\ud800 \u00e4"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["absent.jsonl", "--judge", "choice"], "'absent.jsonl': No such file or directory"),
        (["-"], "Missing option '--judge'"),
        (["-", "--judge", "chioce"], "hint: did you mean 'choice'?"),
    ],
)
def test_a_mistake_in_the_command_exits_with_2(
    medeval_main: MedevalMain, capsys: Capture, arguments: list[str], told: str
) -> None:
    assert medeval_main("score", *arguments) == 2
    shown = capsys.readouterr()
    assert told in shown.err
    assert (shown.out, "Traceback" in shown.err) == ("", False)
