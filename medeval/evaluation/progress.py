"""Where a run reports how far it is."""

from collections.abc import Callable
from typing import Protocol


class Progress(Protocol):
    """A place for a run's progress and messages: a bar, a log, the process that started it."""

    def advance(self, *, scored: bool) -> None:
        """Count one missing trajectory as done: made (`scored`), or failed and left unscored."""
        ...

    def tell(self, message: str) -> None:
        """Show a message to people."""
        ...


# Begins to report on a run, given how many trajectories are missing.
OpenProgress = Callable[[int], Progress]
