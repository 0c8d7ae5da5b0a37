import errno
import fcntl
import logging
import os
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from medeval.errors import RecordError
from medeval.store.locks import Lock
from tests.processes import start_python, wait_for_line

HOLD = """
import os, sys, time
from pathlib import Path
from medeval.store.locks import Lock

with Lock(Path(sys.argv[1]), subject="the cell"):
    if sys.argv[2] == "fork" and os.fork() == 0:
        print("child", os.getpid(), flush=True)
        time.sleep(60)
    elif sys.argv[2] != "fork":
        print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    with start_python(HOLD, str(tmp_path / "lock"), "alone") as process:
        assert wait_for_line(process) == "held"
        yield process
        process.kill()


def test_lock_of_another_process_is_refused_with_its_host_and_pid(
    tmp_path: Path, holder: subprocess.Popen[str]
) -> None:
    with pytest.raises(RecordError) as caught, Lock(tmp_path / "lock", subject="the cell"):
        pass

    assert caught.value.message == (
        f"the cell is in use by host {socket.gethostname()} pid {holder.pid}"
    )


def test_lock_vanishes_when_its_holder_is_killed(
    tmp_path: Path, holder: subprocess.Popen[str]
) -> None:
    holder.send_signal(signal.SIGKILL)
    holder.wait()

    with Lock(tmp_path / "lock", subject="the cell"):
        pass


def test_lock_is_waited_for(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    holder.kill()

    with Lock(tmp_path / "lock", subject="the cell", wait_s=10):
        pass


def test_forked_child_does_not_hold_its_killed_parents_lock(tmp_path: Path) -> None:
    with start_python(HOLD, str(tmp_path / "lock"), "fork") as process:
        child = int(wait_for_line(process).split()[1])
        process.kill()
        process.wait()
        try:
            with Lock(tmp_path / "lock", subject="the cell"):
                pass
        finally:
            os.kill(child, signal.SIGKILL)


def test_forked_child_that_leaves_the_block_keeps_its_parents_lock(tmp_path: Path) -> None:
    with Lock(tmp_path / "lock", subject="the cell") as held:
        child = os.fork()
        if child == 0:
            held.__exit__(None, None, None)
            os._exit(0)
        os.waitpid(child, 0)

        with pytest.raises(RecordError, match="in use"):
            Lock(tmp_path / "lock", subject="the cell").__enter__()


def test_second_lock_in_the_same_process_is_refused_until_the_first_is_released(
    tmp_path: Path,
) -> None:
    lock = Lock(tmp_path / "lock", subject="the cell")
    with lock, pytest.raises(RecordError, match=f"pid {os.getpid()}"):
        Lock(tmp_path / "lock", subject="the cell", wait_s=0.1).__enter__()

    with Lock(tmp_path / "lock", subject="the cell"):
        assert (tmp_path / "lock").exists()


def test_lock_in_what_is_no_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(RecordError, match=r"cannot lock .*lock"):
        Lock(tmp_path / "file" / "lock", subject="the cell").__enter__()


def test_lock_of_another_host_is_refused_with_its_name_and_what_to_do_there(
    tmp_path: Path, holder: subprocess.Popen[str]
) -> None:
    (tmp_path / "lock").write_text("host elsewhere pid 7")

    with pytest.raises(RecordError, match="in use by host elsewhere pid 7") as caught:
        Lock(tmp_path / "lock", subject="the cell").__enter__()

    assert "stop it on its host" in str(caught.value.hint)


def test_text_that_a_released_lock_left_behind_does_not_block(tmp_path: Path) -> None:
    (tmp_path / "lock").write_text("host elsewhere pid 7")

    with Lock(tmp_path / "lock", subject="the cell"):
        assert (tmp_path / "lock").read_text().endswith(f"pid {os.getpid()}")


def refuse_with(number: int) -> Callable[..., object]:
    def refuse(*arguments: object) -> None:
        raise OSError(number, os.strerror(number))

    return refuse


def test_file_system_without_locks_is_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(fcntl, "flock", refuse_with(errno.ENOSYS))

    with caplog.at_level(logging.WARNING), Lock(tmp_path / "lock", subject="the cell"):
        pass

    assert "this file system has no locks" in caplog.text


def test_lock_that_fails_otherwise_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fcntl, "flock", refuse_with(errno.EIO))

    with pytest.raises(RecordError, match=r"cannot lock .*lock"):
        Lock(tmp_path / "lock", subject="the cell").__enter__()


def test_lock_that_cannot_be_signed_is_an_error_and_is_not_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", refuse_with(errno.ENOSPC))
        with pytest.raises(RecordError, match="No space left on device\n\nhint: free some space"):
            Lock(tmp_path / "lock", subject="the cell").__enter__()

    with Lock(tmp_path / "lock", subject="the cell"):
        pass
