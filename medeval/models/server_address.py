"""Where a server that a run starts listens: where nobody else gets in, if that can be had."""

import contextlib
import os
import socket
import tempfile
from dataclasses import dataclass
from pathlib import Path

from medeval.models.address import UNIX

# What the narrowest system takes as a socket's path, in bytes.
LONGEST_SOCKET_PATH = 103
SOCKET_NAME = "socket"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerAddress:
    """A socket in a folder that only this user may enter, or a port of the loopback interface.

    The port is open to every user of the machine, and to what runs in their browsers.
    """

    url: str
    socket: Path | None = None
    port: int | None = None

    @classmethod
    def private(cls) -> "ServerAddress":
        """A socket that is not there yet, in a new folder of mode 0700."""
        folder = Path(tempfile.mkdtemp(prefix="medeval-server-"))
        if len(os.fsencode(folder / SOCKET_NAME)) > LONGEST_SOCKET_PATH:
            folder.rmdir()
            folder = Path(tempfile.mkdtemp(prefix="medeval-server-", dir="/tmp"))
        place = folder / SOCKET_NAME
        return cls(url=f"{UNIX}{place}", socket=place)

    @classmethod
    def on_port(cls, port: int | None) -> "ServerAddress":
        """A port of the loopback interface; None takes one that nobody listens on now."""
        chosen = _free_port() if port is None else port
        return cls(url=f"http://127.0.0.1:{chosen}", port=chosen)

    def clear(self) -> None:
        """Remove the socket and its folder, once the server is gone; may be called again."""
        if self.socket is not None:
            self.socket.unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                self.socket.parent.rmdir()


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])
