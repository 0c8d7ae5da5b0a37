"""The address of a server that a run starts: a private socket, or a loopback port."""

import contextlib
import os
import socket
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from medeval.errors import FatalModelError
from medeval.models.openai.connection import UNIX

# The longest path of a socket, in bytes, that every system supports.
LONGEST_SOCKET_PATH = 103
SOCKET_NAME = "socket"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerAddress:
    """A socket in a folder that only this user may enter, or a port of the loopback interface.

    Every user of the machine, and any page in their browsers, can reach the port.
    """

    url: str
    socket: Path | None = None
    port: int | None = None

    @classmethod
    def private(cls) -> "ServerAddress":
        """The path of a future socket, in a new folder of mode 0700.

        Raises FatalModelError where the file system does not support sockets there.
        """
        try:
            place = _new_folder() / SOCKET_NAME
        except OSError as error:
            raise _refusal(error) from error
        address = cls(url=f"{UNIX}{place}", socket=place)
        try:
            # some file systems have no sockets; a server would report that only in its log
            with socket.socket(socket.AF_UNIX) as one:
                one.bind(str(place))
        except OSError as error:
            address.clear()
            raise _refusal(error) from error
        place.unlink()
        return address

    @classmethod
    def on_port(cls, port: int | None) -> "ServerAddress":
        """A port of the loopback interface; None chooses a free one."""
        chosen = _free_port() if port is None else port
        return cls(url=f"http://127.0.0.1:{chosen}", port=chosen)

    def clear(self) -> None:
        """Remove the socket and its folder after the server has ended; may be called again."""
        if self.socket is not None:
            self.socket.unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                self.socket.parent.rmdir()


def connector_to(url: str, **settings: Any) -> aiohttp.BaseConnector:
    """An aiohttp connector to a server's address; `settings` are the connector's own."""
    if url.startswith(UNIX):
        return aiohttp.UnixConnector(url.removeprefix(UNIX), **settings)
    return aiohttp.TCPConnector(**settings)


def _new_folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="medeval-server-"))
    if len(os.fsencode(folder / SOCKET_NAME)) <= LONGEST_SOCKET_PATH:
        return folder
    folder.rmdir()
    return Path(tempfile.mkdtemp(prefix="medeval-server-", dir="/tmp"))


def _refusal(error: OSError) -> FatalModelError:
    return FatalModelError(
        f"cannot create a server's socket in the folder for temporary files: {error}",
        hint="name another with TMPDIR=FOLDER in the environment, or have the server listen on a "
        "port: port=PORT in --model-args or --judge-args",
    )


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])
