"""What a worker process reports to the process that started it, message by message."""

from collections.abc import Callable, Mapping
from typing import Any

from medeval.evaluation.progress import Progress

# One JSON object.
WorkerMessage = Mapping[str, Any]


class WorkerProgress:
    """Progress as messages; `send` takes each to the process that started the worker."""

    def __init__(self, send: Callable[[WorkerMessage], None]) -> None:
        self.send = send

    def advance(self, *, scored: bool) -> None:
        """Report that one trajectory is done."""
        self.send({"advance": scored})

    def tell(self, message: str) -> None:
        """Report a message for people."""
        self.send({"tell": message})


def pass_on(message: WorkerMessage, progress: Progress) -> None:
    """Report what a `WorkerProgress` sent."""
    match message:
        case {"advance": scored}:
            progress.advance(scored=scored)
        case {"tell": text}:
            progress.tell(text)
