"""The images of samples that are under way: each read once, and so many bytes of them at once."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from medeval.images.cache import PreparedImages
from medeval.images.known_files import KnownFiles
from medeval.images.memory import Holding
from medeval.images.picture import Picture, prepare
from medeval.rollout.protocol import EvalProtocol
from medeval.types.sample import ImageSource, Sample


class SharedPictures:
    """A sample's images, read and encoded once for its `n_jobs`, and let go with the last.

    What was `prepared` for other checkpoints is not encoded again.
    """

    def __init__(
        self,
        sample: Sample,
        known: KnownFiles,
        holding: Holding,
        *,
        n_jobs: int,
        prepared: PreparedImages | None = None,
    ) -> None:
        self._sample = sample
        self._prepare_file = prepare if prepared is None else prepared.prepare
        self._known = known
        self._holding = holding
        self._n_jobs = n_jobs
        self._n_bytes = 0
        self._lock = asyncio.Lock()
        self._pictures: dict[object, Sequence[Picture]] = {}

    @asynccontextmanager
    async def used(self, protocol: EvalProtocol) -> AsyncIterator[Sequence[Picture]]:
        """The images as the protocol sends them, for one job, which is then done with them.

        Raises DataError where one cannot be read, and NotBegunError where nothing more is begun.
        """
        try:
            pictures = await self._get(protocol)
            with self._holding.conversation():
                yield pictures
        finally:
            self.skip()

    def skip(self) -> None:
        """One job less that will use them."""
        self._n_jobs -= 1
        if not self._n_jobs:
            self._pictures.clear()
            self._holding.let_go(self._n_bytes)

    async def _get(self, protocol: EvalProtocol) -> Sequence[Picture]:
        budget = protocol.pixel_budget
        async with self._lock:
            if budget not in self._pictures:
                set_aside, taken = await self._holding.set_aside(), 0
                try:
                    pictures, taken = await asyncio.to_thread(self._prepare, protocol)
                    self._pictures[budget] = pictures
                finally:
                    self._n_bytes += taken
                    self._holding.read(set_aside, taken)
            return self._pictures[budget]

    def _prepare(self, protocol: EvalProtocol) -> tuple[Sequence[Picture], int]:
        """The images, and how many bytes they hold."""
        made = [self._prepare_one(source, protocol) for source in self._sample.images]
        return [picture for picture, _ in made], sum(n_bytes for _, n_bytes in made)

    def _prepare_one(self, source: ImageSource, protocol: EvalProtocol) -> tuple[Picture, int]:
        data = source.read()
        picture = self._prepare_file(
            data,
            name=source.name,
            budget=protocol.pixel_budget,
            known=self._known,
            room=self._holding.room,
        )
        # tools go back to the file of an image that is not sent as it is
        own = 0 if picture.encoded.data is data else len(picture.encoded.data)
        return picture, len(data) + own
