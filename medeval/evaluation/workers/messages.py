"""Progress that is told to another process, message by message: who tells, and who hears."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from medeval.evaluation.conversation import Conversation, Kind
from medeval.evaluation.progress import Progress

# What one line of JSON can hold.
Message = Mapping[str, Any]


class Reporting:
    """Progress as messages, which `say` takes to whoever asked for the work."""

    def __init__(self, say: Callable[[Message], None]) -> None:
        self.say = say

    def engine_ready(self, checkpoint: str, seconds: float) -> None:
        """A checkpoint's engine has started, and took so long."""
        self.say({"engine_ready": checkpoint, "seconds": seconds})

    def begin(self, conversation: Conversation) -> None:
        """A conversation has begun."""
        self.say({"begin": conversation.words})

    def advance(self, conversation: Conversation, *, seconds: float | None) -> None:
        """A conversation is over."""
        self.say({"advance": conversation.words, "seconds": seconds})

    def skip(self, conversation: Conversation) -> None:
        """A sample of which no conversation began."""
        self.say({"skip": conversation.words})

    def stop(self, checkpoint: str, kind: Kind) -> None:
        """No more conversations of a kind will begin."""
        self.say({"stop": (checkpoint, kind.benchmark, kind.protocol)})

    def tell(self, message: str) -> None:
        """Something people should read."""
        self.say({"tell": message})


class Overview(Progress, Protocol):
    """Where workers together tell how far they are."""

    def at_once(self, n_engines: int) -> None:
        """So many engines work side by side."""
        ...

    def drop(self, conversation: Conversation) -> None:
        """A conversation was lost with its worker."""
        ...


class Conversations:
    """Passes on what one worker tells of its conversations, and which were lost with it."""

    def __init__(self, progress: Overview) -> None:
        self._progress = progress
        self._under_way: set[Conversation] = set()

    def pass_on(self, message: Message) -> None:
        """What the worker says of them, and whatever else all progress is told."""
        match message:
            case {"begin": words}:
                self.begin(Conversation.of(words))
            case {"advance": words, "seconds": seconds}:
                self.advance(Conversation.of(words), seconds=seconds)
            case {"skip": words}:
                self._progress.skip(Conversation.of(words))
            case {"stop": (checkpoint, benchmark, protocol)}:
                self._progress.stop(checkpoint, Kind(benchmark, protocol))
            case {"engine_ready": checkpoint, "seconds": seconds}:
                self._progress.engine_ready(checkpoint, seconds)
            case {"tell": text}:
                self._progress.tell(text)

    def begin(self, conversation: Conversation) -> None:
        """One has begun."""
        self._under_way.add(conversation)
        self._progress.begin(conversation)

    def advance(self, conversation: Conversation, *, seconds: float | None) -> None:
        """One is done."""
        self._under_way.discard(conversation)
        self._progress.advance(conversation, seconds=seconds)

    def lose(self) -> None:
        """The worker is no more."""
        for conversation in self._under_way:
            self._progress.drop(conversation)
        self._under_way.clear()
