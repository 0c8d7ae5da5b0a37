"""Runs a server for as long as its parent lives: `python guard.py SOCKET COMMAND...`.

A program of its own, on the standard library alone. Its standard input is a pipe that the parent
holds: when that ends, because it was closed or because the parent was killed, so does the server.
What the server leaves behind of its own processes when it ends is ended with it, and its socket,
if SOCKET is the path of one and not empty, is removed with the folder around it.
"""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

GRACE_S = 10.0
SET_DEATH_SIGNAL = 1


def main(socket: str, command: list[str]) -> int:
    """Run the command; its exit code, 128 and more for one that a signal ended."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    server = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        start_new_session=True,
        # no thread runs yet
        preexec_fn=_prepare,
    )
    signal.signal(signal.SIGTERM, lambda *_: server.terminate())
    threading.Thread(target=_end_with_parent, args=(server,), daemon=True).start()
    code = server.wait()
    _kill_group(server)
    _remove(socket)
    return code if code >= 0 else 128 - code


def _prepare() -> None:
    """In the server before it begins: it hears Ctrl-C again, and ends where the guard is killed."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(SET_DEATH_SIGNAL, signal.SIGTERM)


def _end_with_parent(server: "subprocess.Popen[bytes]") -> None:
    while os.read(0, 4096):
        pass
    server.terminate()
    try:
        server.wait(GRACE_S)
    except subprocess.TimeoutExpired:
        _kill_group(server)


def _kill_group(server: "subprocess.Popen[bytes]") -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(server.pid, signal.SIGKILL)


def _remove(socket: str) -> None:
    # the parent may have done so, and a server that failed early made none
    if socket:
        Path(socket).unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            Path(socket).parent.rmdir()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
