"""The messages that a worker sends to the process that started it."""

from collections.abc import Callable, Mapping
from typing import Any

from medeval.evaluation.progress import Progress

# One JSON object.
WorkerMessage = Mapping[str, Any]


class WorkerProgress:
    """Progress as messages; `send` transfers each to the process that started the worker."""

    def __init__(self, send: Callable[[WorkerMessage], None]) -> None:
        self.send = send

    def advance(self, *, scored: bool) -> None:
        """Report that one trajectory is done."""
        self.send({"advance": scored})

    def tell(self, message: str) -> None:
        """Report a message for people."""
        self.send({"tell": message})


def pass_on(message: WorkerMessage, progress: Progress) -> None:
    """Report a message of a `WorkerProgress` to `progress`."""
    match message:
        case {"advance": scored}:
            progress.advance(scored=scored)
        case {"tell": text}:
            progress.tell(text)
