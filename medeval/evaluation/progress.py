"""Where a run reports how far it is."""

from typing import Protocol

from medeval.evaluation.conversation import Conversation, Kind


class Progress(Protocol):
    """Where a walk tells how far it is."""

    def engine_ready(self, checkpoint: str, seconds: float) -> None:
        """A checkpoint's engine has started, and took so long."""
        ...

    def begin(self, conversation: Conversation) -> None:
        """A conversation has begun."""
        ...

    def advance(self, conversation: Conversation, *, seconds: float | None) -> None:
        """A conversation is over, after so long; None where its sample is left unscored."""
        ...

    def skip(self, conversation: Conversation) -> None:
        """A sample is left unscored of which no conversation began."""
        ...

    def stop(self, checkpoint: str, kind: Kind) -> None:
        """No more conversations of a kind will begin."""
        ...

    def tell(self, message: str) -> None:
        """Something people should read."""
        ...
