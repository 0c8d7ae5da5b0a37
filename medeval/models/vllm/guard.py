"""Runs a server for as long as its parent lives: `python guard.py COMMAND...`.

A separate program that uses only the standard library. Its standard input is a pipe from the
parent: when the pipe closes, because the parent closed it or was killed, the guard ends the server.
When the server ends, the guard kills the processes that it left.
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
    """Run the command; return its exit code, or 128 plus the signal that ended it."""
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
    """Prepare the server's process: restore Ctrl-C, and end it where the guard is killed."""
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
