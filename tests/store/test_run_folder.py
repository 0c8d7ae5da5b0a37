import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from medeval.errors import RecordError
from medeval.store.records import pretty
from medeval.store.run_folder import CellKey, OutcomeKey, RunFolder
from medeval.types.outcome import OutcomeRecord
from medeval.types.run import RunRecord, Session
from medeval.types.sample import ImageRecord, ImageSource, Sample, SampleRecord
from tests.processes import start_python, wait_for_line

RUN = RunRecord(
    sessions=(
        Session(
            created="2026-01-01T00:00:00+00:00",
            medeval_version="0.1.0",
            command=("medeval", "run", "--benchmarks", "vstar"),
            plan={"benchmarks": ["vstar"]},
            git_commit="0" * 40,
            python="3.11",
            platform="linux",
            seed=0,
            extra={"engine": {"dtype": "bfloat16"}},
        ),
    ),
    judges={"vstar": "choice#12345678"},
)


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder.create(tmp_path / "run", RUN)


def sample(name: str, question: str = "Which?", sha256: str = "aa" * 32) -> SampleRecord:
    image = ImageRecord(
        source="row",
        sha256=sha256,
        width_px=4,
        height_px=3,
        media_type="image/png",
        size_bytes=9,
    )
    source = ImageSource(name="row", read=lambda: b"")
    return SampleRecord.from_sample(
        Sample(id=name, question=question, images=(source,), targets=("A",)), [image]
    )


def outcome(name: str) -> OutcomeRecord:
    return OutcomeRecord(
        checkpoint="rl/20",
        series="rl",
        step=20,
        benchmark="vstar",
        pair="crop_zoom",
        sample_id=name,
        groups={"category": "colour"},
        cluster=None,
        repeat=0,
        free_correct=True,
        available_correct=None,
        free_score=1.0,
        available_score=None,
        called=True,
        calls_attempted=2,
        calls_executed=1,
        calls_observed=1,
        free_answer="A",
        available_answer=None,
        targets=("A",),
        free_stop="answered",
        available_stop="turn_limit",
        judge="choice#12345678",
    )


def test_run_record_is_read_back(folder: RunFolder) -> None:
    opened = RunFolder.open(folder.path)

    assert opened.record() == RUN
    assert RunFolder.exists(folder.path)


def test_run_record_is_replaced_by_an_extended_one(folder: RunFolder) -> None:
    with folder.lock():
        folder.write_record(folder.record().extended(RUN))

    assert len(folder.record().sessions) == 2


def test_folder_that_holds_a_run_is_not_begun_again(folder: RunFolder) -> None:
    with pytest.raises(RecordError, match=r"there is a run in .* already"):
        RunFolder.create(folder.path, RUN)


def broken_folders(tmp_path: Path) -> dict[str, Path]:
    folders = {
        name: tmp_path / name for name in ("missing", "empty", "garbled", "newer", "in_place")
    }
    for name in ("empty", "garbled", "newer", "in_place"):
        folders[name].mkdir()
    (folders["garbled"] / "run.json").write_text("{")
    newer = {**json.loads(pretty(RUN)), "schema_version": 2}
    (folders["newer"] / "run.json").write_text(json.dumps(newer))
    (folders["in_place"] / "run.json").mkdir()
    return folders


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("missing", r"is not a run folder: it has no run\.json\n\nhint: name the folder"),
        ("empty", r"is not a run folder: it has no run\.json\n\nhint: name the folder"),
        ("garbled", r"run\.json is garbled.*\n\nhint: restore"),
        ("newer", r"schema version 2, but this medeval reads 1\n\nhint: use the medeval version"),
        ("in_place", "cannot read .*: Is a directory"),
    ],
)
def test_folder_that_cannot_be_opened_says_why(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(RecordError, match=message):
        RunFolder.open(broken_folders(tmp_path)[name])


def test_file_in_place_of_a_folder_is_not_a_run(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")

    with pytest.raises(RecordError):
        RunFolder.open(tmp_path / "file")
    with pytest.raises(RecordError, match="cannot make the folder"):
        RunFolder.create(tmp_path / "file", RUN)


def test_samples_are_read_back(folder: RunFolder) -> None:
    folder.write_samples("hr/bench", [sample("a"), sample("b")])

    assert list(folder.samples("hr/bench")) == [sample("a"), sample("b")]
    assert folder.benchmarks() == ["hr/bench"]


def test_samples_are_extended_and_never_lost(folder: RunFolder) -> None:
    folder.write_samples("vstar", [sample("a"), sample("b")])
    folder.write_samples("vstar", [sample("c"), sample("a")])
    folder.write_samples("vstar", [])

    assert [found.id for found in folder.samples("vstar")] == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (sample("b", question="Where?"), "its question was 'Which\\?', now 'Where\\?'"),
        (sample("b", sha256="bb" * 32), "its images was .*aaaa.*, now .*bbbb"),
    ],
)
def test_sample_that_changed_is_refused_with_its_id_and_field(
    folder: RunFolder, changed: SampleRecord, message: str
) -> None:
    folder.write_samples("vstar", [sample("a"), sample("b")])

    with pytest.raises(RecordError, match=f"sample 'b' of benchmark 'vstar' .*{message}"):
        folder.write_samples("vstar", [sample("c"), changed])

    assert list(folder.samples("vstar")) == [sample("a"), sample("b")]


def test_sample_id_given_twice_is_refused(folder: RunFolder) -> None:
    with pytest.raises(RecordError, match="benchmark 'vstar' has sample id 'a' twice"):
        folder.write_samples("vstar", [sample("a"), sample("a")])

    assert folder.benchmarks() == []


def test_samples_that_fail_to_come_leave_those_before(folder: RunFolder) -> None:
    def coming() -> Iterator[SampleRecord]:
        yield sample("b")
        raise RecordError("the rows ended")

    folder.write_samples("vstar", [sample("a")])
    with pytest.raises(RecordError, match="the rows ended"):
        folder.write_samples("vstar", coming())

    assert list(folder.samples("vstar")) == [sample("a")]


def test_samples_of_a_benchmark_that_was_not_run_are_refused(folder: RunFolder) -> None:
    folder.write_samples("vstar", [sample("a")])

    with pytest.raises(RecordError, match=r"no samples of benchmark 'vstr'; it has: \['vstar'\]"):
        folder.samples("vstr")


def test_shortened_samples_file_is_refused(folder: RunFolder) -> None:
    folder.write_samples("vstar", [sample("a"), sample("b")])
    path = folder.path / "samples" / "vstar.jsonl"
    path.write_bytes(path.read_bytes()[:-5])

    with pytest.raises(RecordError, match="line 2: the file ends in the middle of a line"):
        list(folder.samples("vstar"))


def test_sample_with_text_that_utf8_lacks_is_the_same_sample_again(folder: RunFolder) -> None:
    odd = sample("a", question="what\ud800?")
    folder.write_samples("vstar", [odd])
    folder.write_samples("vstar", [odd])

    assert [found.question for found in folder.samples("vstar")] == ["what\ufffd?"]


def test_cells_are_listed_in_order_of_step(folder: RunFolder) -> None:
    keys = [
        CellKey("api/model", None, "vstar", "tool_free"),
        CellKey("rl", 0, "vstar", "tool_free"),
        CellKey("rl", 20, "vstar", "tool_available"),
        CellKey("rl", 100, "chartqa", "tool_free"),
    ]
    for key in reversed(keys):
        folder.cell(key).claim({"seed": 0}, {})

    assert folder.cells() == keys


def test_cell_that_was_not_begun_is_not_listed(folder: RunFolder) -> None:
    folder.cell(CellKey("rl", 0, "vstar", "tool_free"))

    assert folder.cells() == []


def test_outcomes_are_read_back_and_listed(folder: RunFolder) -> None:
    folder.write_outcomes("rl", 20, "vstar", "crop_zoom", [outcome("a"), outcome("b")])
    path = folder.write_outcomes("rl", 20, "vstar", "crop_zoom", [outcome("a")], "ask@org/m#1")

    assert list(folder.outcomes("rl", 20, "vstar", "crop_zoom")) == [outcome("a"), outcome("b")]
    assert list(folder.outcomes("rl", 20, "vstar", "crop_zoom", "ask@org/m#1")) == [outcome("a")]
    assert path == folder.path / "outcomes/rl/20/vstar/crop_zoom.ask%40org%2Fm%231.jsonl"
    assert folder.outcome_keys() == [
        OutcomeKey("rl", 20, "vstar", "crop_zoom"),
        OutcomeKey("rl", 20, "vstar", "crop_zoom", "ask@org/m#1"),
    ]


def test_rebuilt_outcomes_replace_those_before(folder: RunFolder) -> None:
    folder.write_outcomes("rl", None, "vstar", "crop_zoom", [outcome("a"), outcome("b")])
    folder.write_outcomes("rl", None, "vstar", "crop_zoom", [outcome("c")])

    assert list(folder.outcomes("rl", None, "vstar", "crop_zoom")) == [outcome("c")]


def test_outcomes_that_were_not_written_are_refused(folder: RunFolder) -> None:
    with pytest.raises(RecordError, match=r"there are no outcomes in .*\n\nhint: `medeval grade`"):
        folder.outcomes("rl", 20, "vstar", "crop_zoom")


def test_definition_is_kept_word_for_word(folder: RunFolder, tmp_path: Path) -> None:
    source = tmp_path / "mine.py"
    source.write_bytes(b"x = 1\r\n")

    name = folder.keep_definition(source, "benchmark", "org/mine")

    assert name == "benchmark-org%2Fmine.py"
    assert (folder.path / "definitions" / name).read_bytes() == b"x = 1\r\n"
    assert folder.keep_definition(source, "benchmark", "org/mine") == name


def test_both_versions_of_a_definition_are_kept(folder: RunFolder, tmp_path: Path) -> None:
    source = tmp_path / "mine.py"
    names = []
    for content in (b"x = 1\n", b"x = 2\n", b"x = 2\n", b"x = 1\n"):
        source.write_bytes(content)
        names.append(folder.keep_definition(source, "judge", "mine"))

    digest = hashlib.sha256(b"x = 2\n").hexdigest()[:8]
    second = f"judge-mine-{digest}.py"
    assert names == ["judge-mine.py", second, second, "judge-mine.py"]
    assert (folder.path / "definitions" / second).read_bytes() == b"x = 2\n"


def test_copy_that_was_changed_by_hand_is_refused(folder: RunFolder, tmp_path: Path) -> None:
    source = tmp_path / "mine.py"
    for content in (b"x = 1\n", b"x = 2\n"):
        source.write_bytes(content)
        name = folder.keep_definition(source, "judge", "mine")
    (folder.path / "definitions" / name).write_bytes(b"x = 3\n")

    with pytest.raises(RecordError, match="does not have the hash in its name"):
        folder.keep_definition(source, "judge", "mine")


def test_definition_that_cannot_be_read_is_refused(folder: RunFolder, tmp_path: Path) -> None:
    with pytest.raises(RecordError, match=r"cannot read .*No such file"):
        folder.keep_definition(tmp_path / "none.py", "judge", "none")


PNG = b"\x89PNG bytes"
PNG_SHA256 = hashlib.sha256(PNG).hexdigest()


def test_image_is_kept_once_under_its_hash(folder: RunFolder) -> None:
    path = folder.keep_image(PNG_SHA256, "image/png", PNG)
    written = path.stat().st_mtime_ns

    assert folder.keep_image(PNG_SHA256, "image/png", PNG) == path
    assert path.stat().st_mtime_ns == written
    assert path.name == f"{PNG_SHA256}.png"
    assert folder.image_file(PNG_SHA256) == (path, "image/png")
    assert path.read_bytes() == PNG


def test_image_that_was_not_kept_is_none(folder: RunFolder) -> None:
    assert folder.image_file("00" * 32) is None


def test_table_is_written(folder: RunFolder) -> None:
    path = folder.write_table("summary.csv", "a,ü\n")

    assert path == folder.path / "tables" / "summary.csv"
    assert path.read_bytes() == "a,ü\n".encode()


HOLD_RUN = """
import sys, time
from pathlib import Path
from medeval.store.run_folder import RunFolder

with RunFolder.open(Path(sys.argv[1])).lock():
    print("held", flush=True)
    time.sleep(60)
"""


def test_run_locked_by_another_process_is_refused_until_that_is_killed(folder: RunFolder) -> None:
    with start_python(HOLD_RUN, str(folder.path)) as process:
        wait_for_line(process)
        with (
            pytest.raises(RecordError, match=f"in use by host .* pid {process.pid}"),
            folder.lock(),
        ):
            pass
        process.kill()

    with folder.lock():
        pass


def test_run_folder_names_its_path(folder: RunFolder) -> None:
    assert repr(folder) == f"RunFolder({str(folder.path)!r})"
