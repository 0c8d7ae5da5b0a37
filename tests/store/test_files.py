import json
import logging
import os
from pathlib import Path

import pytest

from medeval.errors import RecordError
from medeval.store.files import Appender, is_torn, read_lines, set_aside_torn_line, write_whole
from tests.processes import run_python

TORN_LINES = [
    pytest.param(b'{"a": 2', id="cut off"),
    pytest.param(b'{"a": 2}', id="without its newline"),
    pytest.param(b'{"a": 2\n', id="not JSON"),
    pytest.param(b"\0" * 300, id="zeros after a power cut"),
    pytest.param(b'{"a": "' + b"x" * 200_000, id="longer than a block"),
    pytest.param(b"[" * 100_000 + b"\n", id="nested without end"),
    pytest.param(b"\xff\xfe\n", id="not UTF-8"),
]


@pytest.mark.parametrize("torn", TORN_LINES)
def test_torn_last_line_is_set_aside_and_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, torn: bytes
) -> None:
    path = tmp_path / "lines.jsonl"
    path.write_bytes(b'{"a": 1}\n' + torn)

    with Appender(path) as lines:
        lines.append(b'{"a": 3}\n')

    assert path.read_bytes() == b'{"a": 1}\n{"a": 3}\n'
    assert (tmp_path / "lines.jsonl.torn-1").read_bytes() == torn
    assert str(path) in caplog.text
    assert f"{len(torn)} bytes" in caplog.text


def test_file_of_nothing_but_a_torn_line_is_emptied(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    path.write_bytes(b"{")

    assert set_aside_torn_line(path) == tmp_path / "lines.jsonl.torn-1"
    assert path.read_bytes() == b""


def test_earlier_torn_lines_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    for torn in (b"{1", b"{2"):
        path.write_bytes(torn)
        set_aside_torn_line(path)

    assert (tmp_path / "lines.jsonl.torn-1").read_bytes() == b"{1"
    assert (tmp_path / "lines.jsonl.torn-2").read_bytes() == b"{2"


@pytest.mark.parametrize("content", [b"", b'{"a": 1}\n', b'{"a": 1}\n{"a": 2}\n'])
def test_whole_lines_are_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "lines.jsonl"
    path.write_bytes(content)

    assert set_aside_torn_line(path) is None
    assert path.read_bytes() == content


def test_last_line_longer_than_a_block_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    content = b'{"a": 1}\n' + json.dumps("x" * 200_000).encode() + b"\n"
    path.write_bytes(content)

    assert set_aside_torn_line(path) is None
    assert [number for number, _ in read_lines(path)] == [1, 2]


@pytest.mark.parametrize("torn", TORN_LINES)
def test_reader_skips_a_torn_last_line_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, torn: bytes
) -> None:
    path = tmp_path / "lines.jsonl"
    path.write_bytes(b'{"a": 1}\n' + torn)

    with caplog.at_level(logging.WARNING):
        assert list(read_lines(path)) == [(1, b'{"a": 1}\n')]

    assert f"torn last line of {len(torn)} bytes" in caplog.text


def test_torn_line_in_a_file_written_whole_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    path.write_bytes(b'{"a": 1}\n{"a"')

    with pytest.raises(RecordError, match="line 2: the file ends in the middle of a line"):
        list(read_lines(path, whole=True))


def test_file_that_is_not_there_has_no_lines(tmp_path: Path) -> None:
    assert list(read_lines(tmp_path / "none.jsonl")) == []
    assert set_aside_torn_line(tmp_path / "none.jsonl") is None


def test_folder_in_place_of_a_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="cannot read"):
        list(read_lines(tmp_path))
    with pytest.raises(RecordError, match="cannot read"):
        Appender(tmp_path)


def test_line_is_in_the_file_as_soon_as_it_is_appended(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "lines.jsonl"
    with Appender(path) as lines:
        lines.append(b"1\n")

        assert path.read_bytes() == b"1\n"


def test_disk_is_synced_at_most_once_a_second_and_on_close(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    sync = os.fsync
    clock = [0.0]

    def counted(descriptor: int) -> None:
        synced.append(descriptor)
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", counted)
    monkeypatch.setattr("time.monotonic", lambda: clock[0])

    counts = []
    with Appender(tmp_path / "lines.jsonl") as lines:
        for at in (0.1, 0.9, 1.0, 1.5, 2.1):
            clock[0] = at
            lines.append(b"1\n")
            counts.append(len(synced))

    assert counts == [0, 0, 1, 1, 2]


def test_close_syncs_what_was_not_yet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    lines = Appender(tmp_path / "lines.jsonl")
    lines.append(b"1\n")
    monkeypatch.setattr(os, "fsync", synced.append)

    lines.close()

    assert len(synced) == 2, "the file and its folder"


FILL = """
import resource, signal, sys
from pathlib import Path
from medeval.store.files import Appender
from medeval.errors import RecordError

path = Path(sys.argv[1])
with Appender(path) as lines:
    lines.append(b'"' + b"x" * 997 + b'"\\n')
    resource.setrlimit(resource.RLIMIT_FSIZE, (1500, resource.RLIM_INFINITY))
    try:
        lines.append(b'"' + b"y" * 997 + b'"\\n')
    except RecordError as error:
        print(error)
    print(path.stat().st_size)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    lines.append(b'"z"\\n')
"""


def test_line_that_does_not_fit_is_taken_back_and_what_was_written_stays(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"

    output = run_python(FILL, str(path))

    assert f"cannot append to {str(path)!r}: File too large" in output
    assert "hint:" in output
    assert output.splitlines()[-1] == "1000", "the half-written line is gone"
    assert [line[:2] for _, line in read_lines(path)] == [b'"x', b'"z']


def test_interrupted_append_leaves_no_half_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "lines.jsonl"
    write = os.write

    def half_then_interrupted(descriptor: int, data: bytes) -> int:
        if data.startswith(b"12"):
            return write(descriptor, data[:2])
        raise KeyboardInterrupt

    with Appender(path) as lines:
        lines.append(b'"a"\n')
        monkeypatch.setattr(os, "write", half_then_interrupted)
        with pytest.raises(KeyboardInterrupt):
            lines.append(b"1234\n")

    assert path.read_bytes() == b'"a"\n'


def test_file_written_whole_replaces_the_one_before(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file"
    write_whole(path, [b"one"])
    write_whole(path, [b"t", b"wo"])

    assert path.read_bytes() == b"two"
    assert list(path.parent.iterdir()) == [path]


def test_file_written_whole_stays_where_its_content_fails(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"before")

    with pytest.raises(ZeroDivisionError):
        write_whole(path, (bytes(1 // n) for n in (1, 0)))

    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]


def test_file_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")

    with pytest.raises(RecordError, match="cannot make the folder"):
        write_whole(tmp_path / "file" / "below", [b""])


@pytest.mark.parametrize(
    ("line", "torn"), [(b"{}\n", False), (b"{}", True), (b"{\n", True), (b"\n", True)]
)
def test_line_is_torn_without_newline_or_json(line: bytes, torn: bool) -> None:
    assert is_torn(line) == torn
