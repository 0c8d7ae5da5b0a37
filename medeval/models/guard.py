"""Runs a server for as long as its parent lives: `python guard.py COMMAND...`.

A program of its own, on the standard library alone. Its standard input is a pipe that the parent
holds: when that ends, because it was closed or because the parent was killed, so does the server.
What the server leaves behind of its own processes when it ends is ended with it.
"""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading

GRACE_S = 10.0
SET_DEATH_SIGNAL = 1


def main(command: list[str]) -> int:
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


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
