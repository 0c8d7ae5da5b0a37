"""The interface through which a run reports its progress."""

from collections.abc import Callable
from typing import Protocol


class Progress(Protocol):
    """Receives a run's progress and messages: a bar, a log, or the process that started the run."""

    def advance(self, *, scored: bool) -> None:
        """Count one trajectory as done: made (`scored`), or failed and left unscored."""
        ...

    def tell(self, message: str) -> None:
        """Show a message to people."""
        ...


# Starts the report on a run, given the number of missing trajectories.
OpenProgress = Callable[[int], Progress]
