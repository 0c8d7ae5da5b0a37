import logging
import os
import random
import signal
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from medeval.errors import RecordError
from medeval.store.cell_folder import CellFolder, read_record
from medeval.store.fingerprints import CellRecord
from medeval.store.keys import CellKey
from medeval.types.failure import FailureRecord
from medeval.types.trajectory import Answer, Message, Text, Trajectory, Turn, Usage
from medeval.types.verdict import Verdict
from tests.processes import run_python, start_python, wait_for_line

KEY = CellKey("rl", 20, "vstar", "tool_free")
FIELDS = {"seed": 0, "sampling": {"temperature": 0.0}}


def trajectory(sample_id: str, repeat: int = 0, text: str = "<answer>A</answer>") -> Trajectory:
    return Trajectory(
        sample_id=sample_id,
        repeat=repeat,
        protocol="tool_free",
        messages=(Message(role="assistant", content=(Text(text),)),),
        images=(),
        turns=(
            Turn(
                text=text,
                reasoning="",
                native_calls=(),
                finish="stop",
                seed=1,
                usage=Usage(),
                seconds=0.1,
            ),
        ),
        calls=(),
        answer=Answer(text="A", how_found="answer_tag", reply=text),
        stop="answered",
        seconds=0.1,
    )


def verdict(sample_id: str, judge: str = "choice#1", score: float = 1.0) -> Verdict:
    return Verdict(sample_id=sample_id, repeat=0, judge=judge, status="correct", score=score)


def failure(sample_id: str) -> FailureRecord:
    return FailureRecord(
        sample_id=sample_id,
        repeat=0,
        kind="model",
        try_number=1,
        error="HTTP 500",
        traceback="",
        when="2026-01-01T00:00:00+00:00",
    )


@pytest.fixture
def cell(tmp_path: Path) -> CellFolder:
    folder = CellFolder(tmp_path / "cell", KEY)
    folder.claim(FIELDS, {"concurrency": 8})
    return folder


def test_what_is_appended_is_read_back(cell: CellFolder) -> None:
    with cell.writer() as writer:
        for name in ("a", "b"):
            writer.append_trajectory(trajectory(name))
            writer.append_verdict(verdict(name))
            writer.append_failure(failure(name))

    assert list(cell.trajectories()) == [trajectory("a"), trajectory("b")]
    assert list(cell.verdicts()) == [verdict("a"), verdict("b")]
    assert list(cell.failures()) == [failure("a"), failure("b")]


def test_records_can_be_read_while_they_are_written(cell: CellFolder) -> None:
    with cell.writer() as writer:
        writer.append_trajectory(trajectory("a"))

        assert cell.done() == {("a", 0)}


def test_empty_cell_has_no_records(cell: CellFolder) -> None:
    assert (list(cell.trajectories()), list(cell.verdicts()), list(cell.failures())) == ([], [], [])
    assert (cell.done(), cell.judged()) == (set(), set())


def test_readers_take_the_files_of_all_writers(cell: CellFolder) -> None:
    with cell.writer("0") as first, cell.writer("1") as second:
        second.append_trajectory(trajectory("b"))
        first.append_trajectory(trajectory("a"))
        second.append_failure(failure("b"))
        first.append_failure(failure("a"))

    assert [found.sample_id for found in cell.trajectories()] == ["a", "b"]
    assert [found.sample_id for found in cell.failures()] == ["b", "a"]
    assert cell.done() == {("a", 0), ("b", 0)}


ODD_IDS = ['with "quotes"', "back\\slash", "a\nnewline", "Zürich 画像", "", '","repeat":9,']


@pytest.mark.parametrize("sample_id", ODD_IDS)
def test_odd_sample_ids_are_found_done_and_judged(cell: CellFolder, sample_id: str) -> None:
    with cell.writer() as writer:
        writer.append_trajectory(trajectory(sample_id, repeat=3))
        writer.append_verdict(verdict(sample_id, judge='ask@"m"#1'))

    assert cell.done() == {(sample_id, 3)}
    assert cell.judged() == {(sample_id, 0, 'ask@"m"#1')}


def test_lines_that_were_spaced_otherwise_are_found_done(cell: CellFolder) -> None:
    with cell.writer() as writer:
        writer.append_trajectory(trajectory("a"))
        writer.append_verdict(verdict("a"))
    for kind in ("trajectories", "verdicts"):
        path = cell.path / f"{kind}.0.jsonl"
        path.write_bytes(b"{ " + path.read_bytes().removeprefix(b"{"))

    assert cell.done() == {("a", 0)}
    assert cell.judged() == {("a", 0, "choice#1")}


def test_second_trajectory_of_a_sample_and_repeat_is_skipped_with_a_warning(
    cell: CellFolder, caplog: pytest.LogCaptureFixture
) -> None:
    with cell.writer("0") as first, cell.writer("1") as second:
        first.append_trajectory(trajectory("a", text="first"))
        first.append_trajectory(trajectory("a", repeat=1))
        second.append_trajectory(trajectory("a", text="second"))

    with caplog.at_level(logging.WARNING):
        found = list(cell.trajectories())

    assert found == [trajectory("a", text="first"), trajectory("a", repeat=1)]
    assert "trajectories.1.jsonl, line 1: skipped a second trajectory of ('a', 0)" in caplog.text


def test_last_verdict_of_each_judge_holds(cell: CellFolder) -> None:
    with cell.writer() as writer:
        for judge, score in (("x#1", 0.1), ("y#1", 0.2), ("x#1", 0.3)):
            writer.append_verdict(verdict("a", judge=judge, score=score))

    assert [(found.judge, found.score) for found in cell.verdicts()] == [("y#1", 0.2), ("x#1", 0.3)]
    assert cell.judged() == {("a", 0, "x#1"), ("a", 0, "y#1")}


def test_torn_line_is_skipped_by_readers_and_set_aside_by_the_next_writer(
    cell: CellFolder, caplog: pytest.LogCaptureFixture
) -> None:
    with cell.writer() as writer:
        writer.append_trajectory(trajectory("a"))
        writer.append_trajectory(trajectory("b"))
        writer.append_failure(failure("a"))
    for name in ("trajectories.0.jsonl", "failures.jsonl"):
        path = cell.path / name
        path.write_bytes(path.read_bytes()[:-20])

    with caplog.at_level(logging.WARNING):
        assert list(cell.trajectories()) == [trajectory("a")]
        assert cell.done() == {("a", 0)}
        assert list(cell.failures()) == []
        with cell.writer() as writer:
            writer.append_trajectory(trajectory("b", text="again"))
            writer.append_failure(failure("b"))

    assert list(cell.trajectories()) == [trajectory("a"), trajectory("b", text="again")]
    assert list(cell.failures()) == [failure("b")]
    assert (cell.path / "trajectories.0.jsonl.torn-1").exists()
    assert (cell.path / "failures.jsonl.torn-1").exists()
    assert "trajectories.0.jsonl.torn-1" in caplog.text


@pytest.mark.parametrize("reader", ["trajectories", "done"])
def test_garbled_line_in_the_middle_is_refused_with_its_place(
    cell: CellFolder, reader: str
) -> None:
    with cell.writer() as writer:
        for name in ("a", "b", "c"):
            writer.append_trajectory(trajectory(name))
    path = cell.path / "trajectories.0.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + lines[1][:-20] + b"\n" + lines[2])

    with pytest.raises(RecordError, match=r"trajectories\.0\.jsonl, line 2 is garbled"):
        list(getattr(cell, reader)())


@pytest.mark.parametrize("reader", ["trajectories", "done"])
def test_line_of_another_schema_version_is_refused(cell: CellFolder, reader: str) -> None:
    with cell.writer() as writer:
        writer.append_trajectory(trajectory("a"))
    path = cell.path / "trajectories.0.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"schema_version":2', b'"schema_version":3'))

    with pytest.raises(
        RecordError, match="line 1: schema version 3, but this medeval reads 1 and 2"
    ):
        list(getattr(cell, reader)())


def test_cell_is_claimed_again_with_equal_fields(cell: CellFolder) -> None:
    cell.claim({"sampling": {"temperature": 0}, "seed": 0}, {"concurrency": 8})
    cell.claim(FIELDS, {"concurrency": 64})
    cell.claim(FIELDS, {"concurrency": 8})

    record = cell.record()

    assert record is not None
    assert record.fields == FIELDS
    assert record.recorded == ({"concurrency": 8}, {"concurrency": 64})


def test_cell_begun_with_other_fields_is_refused_naming_each(cell: CellFolder) -> None:
    with pytest.raises(RecordError) as caught:
        cell.claim({"seed": 1, "sampling": {"temperature": 0.7}}, {})

    assert caught.value.message.splitlines() == [
        "cell 'rl/20' x 'vstar' x 'tool_free' was begun with other settings:",
        "  sampling.temperature: recorded 0, now 0.7",
        "  seed: recorded 0, now 1",
    ]
    assert "--fresh" in str(caught.value)
    assert "--output-dir" in str(caught.value)


def test_cell_whose_claim_was_lost_is_refused(cell: CellFolder) -> None:
    with cell.writer():
        pass
    (cell.path / "cell.json").unlink()

    with pytest.raises(RecordError, match=r"has trajectories but no cell\.json"):
        cell.claim(FIELDS, {})


def test_cell_that_was_not_claimed_is_not_written(tmp_path: Path) -> None:
    with (
        pytest.raises(RecordError, match=r"has no cell\.json"),
        CellFolder(tmp_path / "cell", KEY).writer(),
    ):
        pass


def test_cleared_cell_can_be_claimed_with_other_fields(cell: CellFolder) -> None:
    with cell.writer() as writer:
        writer.append_trajectory(trajectory("a"))
        writer.append_failure(failure("a"))

    cell.clear()
    cell.claim({"seed": 1}, {})

    assert (cell.done(), list(cell.failures())) == (set(), [])


def test_cell_in_use_is_not_cleared(cell: CellFolder) -> None:
    with cell.writer() as writer:
        writer.append_trajectory(trajectory("a"))
        with pytest.raises(RecordError, match="in use by host"):
            cell.clear()

    assert cell.done() == {("a", 0)}


@pytest.mark.parametrize("name", ["", "a.b", "../x", "a b"])
def test_writer_name_that_makes_no_file_name_is_refused(cell: CellFolder, name: str) -> None:
    with pytest.raises(RecordError, match="a writer's name"), cell.writer(name):
        pass


def test_record_that_is_not_there_is_none(tmp_path: Path) -> None:
    assert read_record(CellRecord, tmp_path / "cell.json") is None


def test_cell_folder_names_its_path(cell: CellFolder) -> None:
    assert repr(cell) == f"CellFolder({str(cell.path)!r})"


def write_numbered(cell: CellFolder, count: int) -> None:
    """Append the numbered trajectories that are missing."""
    with cell.writer() as writer:
        done = cell.done()
        for number in range(count):
            if (str(number), 0) not in done:
                writer.append_trajectory(trajectory(str(number), text="word " * 100))


def kill_writer_past(n_bytes: int, cell: CellFolder, count: int) -> None:
    """Kill -9 a process that writes, once it has added more than the given number of bytes."""
    path = cell.path / "trajectories.0.jsonl"
    limit = (path.stat().st_size if path.exists() else 0) + n_bytes
    child = os.fork()
    if child == 0:
        try:
            write_numbered(cell, count)
        finally:
            os._exit(0)
    while not path.exists() or path.stat().st_size <= limit:
        time.sleep(0)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def test_writer_killed_at_random_moments_loses_and_repeats_nothing(cell: CellFolder) -> None:
    generator = random.Random(0)
    done = []
    for _ in range(20):
        kill_writer_past(generator.randrange(20_000), cell, 50_000)
        done.append(len(cell.done()))
    total = done[-1] + 100
    write_numbered(cell, total)

    counts = Counter(found.sample_id for found in cell.trajectories())

    assert done == sorted(done), "what was done stays done"
    assert len(set(done)) > 15, "the kills fell while records were written"
    assert done[-1] < 50_000
    assert counts == Counter(str(number) for number in range(total))


WRITE_AND_WAIT = """
import sys, time
from pathlib import Path
from medeval.store.cell_folder import CellFolder
from medeval.store.keys import CellKey
from medeval.types.trajectory import Trajectory

cell = CellFolder(Path(sys.argv[1]), CellKey("rl", 20, "vstar", "tool_free"))
with cell.writer() as writer:
    writer.append_trajectory(
        Trajectory(
            sample_id="0", repeat=0, protocol="tool_free", messages=(), images=(), turns=(),
            calls=(), answer=None, stop="no_answer", seconds=0.0,
        )
    )
    print("waiting", flush=True)
    time.sleep(60)
"""


def test_second_process_is_refused_the_same_writer_and_given_another(cell: CellFolder) -> None:
    with start_python(WRITE_AND_WAIT, str(cell.path)) as process:
        assert wait_for_line(process) == "waiting"
        in_use = f"writer '0', is in use by host .* pid {process.pid}"
        with pytest.raises(RecordError, match=in_use):
            cell.writer().__enter__()
        with cell.writer("1") as writer:
            writer.append_trajectory(trajectory("x"))
        process.kill()

    with cell.writer() as writer:
        writer.append_trajectory(trajectory("y"))

    assert {name for name, _ in cell.done()} == {"0", "x", "y"}


FILL_DISK = """
import resource, sys
from pathlib import Path
from medeval.store.cell_folder import CellFolder
from medeval.errors import RecordError
from medeval.store.keys import CellKey
from medeval.types.verdict import Verdict

cell = CellFolder(Path(sys.argv[1]), CellKey("rl", 20, "vstar", "tool_free"))
resource.setrlimit(resource.RLIMIT_FSIZE, (5000, resource.RLIM_INFINITY))
kept = 0
with cell.writer() as writer:
    try:
        while True:
            writer.append_verdict(
                Verdict(sample_id=str(kept), repeat=0, judge="x#1", status="correct", score=1.0)
            )
            kept += 1
    except RecordError as error:
        print(kept)
"""


def test_full_disk_stops_the_writer_with_what_was_written_intact(cell: CellFolder) -> None:
    kept = int(run_python(FILL_DISK, str(cell.path)))

    assert kept > 10
    assert [found.sample_id for found in cell.verdicts()] == [str(n) for n in range(kept)]
    assert (cell.path / "verdicts.0.jsonl").read_bytes().endswith(b"\n")


def test_what_is_done_is_told_once_however_often_it_was_written(cell: CellFolder) -> None:
    with cell.writer() as writer:
        for number in range(1000):
            writer.append_trajectory(replace(trajectory(str(number)), seconds=float(number)))
    path = cell.path / "trajectories.0.jsonl"
    lines = path.read_bytes()
    path.write_bytes(lines * 20)

    assert cell.done() == {(str(number), 0) for number in range(1000)}


def test_a_verdict_without_its_trajectory_is_dropped_when_the_cell_is_opened(
    cell: CellFolder, caplog: pytest.LogCaptureFixture
) -> None:
    with cell.writer() as writer:
        for name in ("a", "b"):
            writer.append_trajectory(trajectory(name))
            writer.append_verdict(verdict(name))
    path = cell.path / "trajectories.0.jsonl"
    path.write_bytes(path.read_bytes().splitlines(keepends=True)[0])
    with cell.writer() as writer:
        assert cell.judged() == {("a", 0, "choice#1")}
        writer.append_trajectory(trajectory("b", text="<answer>nonsense</answer>"))
    assert list(cell.verdicts()) == [verdict("a")]
    assert "dropped 1 verdicts without a trajectory" in caplog.text


def test_clearing_takes_verdicts_first_and_the_settings_last(
    cell: CellFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    with cell.writer() as writer:
        writer.append_trajectory(trajectory("a"))
        writer.append_verdict(verdict("a"))
        writer.append_failure(failure("b"))
    gone: list[str] = []
    unlink = Path.unlink

    def told(path: Path) -> None:
        gone.append(path.name)
        unlink(path)

    monkeypatch.setattr(Path, "unlink", told)
    cell.clear()
    assert gone == ["verdicts.0.jsonl", "trajectories.0.jsonl", "failures.jsonl", "cell.json"]
