"""The images of samples that are under way: each read once, and so many bytes of them at once."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Final

from medeval.eval_protocol import EvalProtocol
from medeval.images import Picture, prepare
from medeval.known_files import KnownFiles
from medeval.made_room import MadeRoom
from medeval.pixel_room import PixelRoom
from medeval.prepared_images import PreparedImages
from medeval.types.sample import ImageSource, Sample

# 64 conversations of one megapixel hold 30 to 60 MB; at 8K as many would hold 2 GB.
BYTES_A_PLACE: Final = 4 << 20
LEAST_BYTES: Final = 128 << 20


class NotBegunError(Exception):
    """Nothing more is begun, and no image is read: not a failure."""


def _never() -> bool:
    return False


@dataclass(slots=True)
class Holding:
    """How many bytes of images are held by the conversations under way; who finds no room waits.

    What a sample's images take is known once they are read. Until then as much is set aside as the
    largest took, and all of `limit_bytes` for the first. Where none is under way, one may always
    begin. Images that tools make have as much again, in `made`. Once `is_over` says so, nobody who
    waits begins any more.
    """

    limit_bytes: int
    is_over: Callable[[], bool] = _never
    room: PixelRoom = field(default_factory=PixelRoom)
    made: MadeRoom = field(init=False)
    held_bytes: int = 0
    _largest_bytes: int | None = None
    _being_read: int = 0
    _under_way: int = 0
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.made = MadeRoom(self.limit_bytes)

    @classmethod
    def of_places(cls, places: int, is_over: Callable[[], bool] = _never) -> "Holding":
        """What so many conversations at once may hold."""
        return cls(max(LEAST_BYTES, places * BYTES_A_PLACE), is_over)

    async def set_aside(self) -> int:
        """Set bytes aside for images that will be read, after waiting for them; how many.

        Raises NotBegunError where by then nothing more is begun.
        """
        async with self._turn:
            while self._must_wait():
                self._changed.clear()
                await self._changed.wait()
            if self.is_over():
                raise NotBegunError
            expected = self._expected
            self.held_bytes += expected
            self._being_read += 1
            return expected

    def _must_wait(self) -> bool:
        is_full = self.held_bytes + self._expected > self.limit_bytes
        return is_full and self._is_busy and not self.is_over()

    @property
    def _is_busy(self) -> bool:
        """Whether something is under way that will let go of what it holds."""
        return bool(self._under_way or self._being_read)

    @property
    def _expected(self) -> int:
        return self.limit_bytes if self._largest_bytes is None else self._largest_bytes

    def read(self, set_aside: int, taken: int) -> None:
        """Images have been read for which bytes were set aside; so many were taken."""
        self._being_read -= 1
        if taken:
            self._largest_bytes = max(self._largest_bytes or 0, taken)
        self.let_go(set_aside - taken)

    def let_go(self, n_bytes: int) -> None:
        """So many bytes are held no longer."""
        self.held_bytes -= n_bytes
        self._changed.set()

    @contextmanager
    def conversation(self) -> Iterator[None]:
        """While a conversation is under way."""
        self._under_way += 1
        try:
            yield
        finally:
            self._under_way -= 1
            self._changed.set()


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
