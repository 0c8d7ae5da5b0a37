"""The images of one sample: read once for all its conversations, within a budget of memory."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from medeval.images.cache import ImageCache
from medeval.images.memory import ConversationMemory, MemoryBudget
from medeval.images.picture import Picture, prepare
from medeval.rollout.protocol import EvalProtocol
from medeval.types.sample import ImageSource, Sample


class NotBegunError(Exception):
    """A conversation is left for the next start of the run; not a failure."""


class SampleImages:
    """A sample's images, read and encoded once for `n_conversations`, and let go with the last.

    Images are re-encoded through the `cache` where there is one. Once `is_over` says that the run
    ends, none is read.
    """

    def __init__(
        self,
        sample: Sample,
        memory: MemoryBudget,
        *,
        n_conversations: int,
        cache: ImageCache | None = None,
        is_over: Callable[[], bool],
    ) -> None:
        self._sample = sample
        self._memory = memory
        self._n_conversations = n_conversations
        self._prepare_file = prepare if cache is None else cache.prepare
        self._is_over = is_over
        self._held_bytes = 0
        self._lock = asyncio.Lock()
        self._pictures: dict[object, Sequence[Picture]] = {}

    @asynccontextmanager
    async def used(
        self, protocol: EvalProtocol
    ) -> AsyncIterator[tuple[Sequence[Picture], ConversationMemory]]:
        """One conversation: the images as the protocol sends them, and memory for its tools.

        Raises DataError where an image cannot be read, and NotBegunError where the run ends before
        the images are read.
        """
        try:
            with self._memory.conversation() as conversation:
                yield await self._read(protocol, conversation), conversation
        finally:
            self.skip()

    def skip(self) -> None:
        """Expect one conversation less."""
        self._n_conversations -= 1
        if not self._n_conversations:
            self._pictures.clear()
            self._memory.release(self._held_bytes)

    async def _read(
        self, protocol: EvalProtocol, conversation: ConversationMemory
    ) -> Sequence[Picture]:
        budget = protocol.pixel_budget
        async with self._lock:
            if budget not in self._pictures:
                reserved_bytes = await self._memory.reserve_for_sample(conversation)
                taken_bytes = 0
                try:
                    if self._is_over():
                        raise NotBegunError
                    self._pictures[budget], taken_bytes = await asyncio.to_thread(
                        self._prepare, protocol
                    )
                finally:
                    self._held_bytes += taken_bytes
                    self._memory.sample_read(reserved_bytes, taken_bytes)
            return self._pictures[budget]

    def _prepare(self, protocol: EvalProtocol) -> tuple[Sequence[Picture], int]:
        """The images, and how many bytes they take."""
        prepared = [self._prepare_one(source, protocol) for source in self._sample.images]
        return [picture for picture, _ in prepared], sum(n_bytes for _, n_bytes in prepared)

    def _prepare_one(self, source: ImageSource, protocol: EvalProtocol) -> tuple[Picture, int]:
        data = source.read()
        picture = self._prepare_file(data, name=source.name, budget=protocol.pixel_budget)
        # tools go back to the file of an image that is not sent as it is
        own_bytes = 0 if picture.encoded.data is data else len(picture.encoded.data)
        return picture, len(data) + own_bytes
