"""How many pixels are decoded at once: memory is bounded by this, and not by how many threads run.

An image of 33 megapixels (8K) takes 133 MB decoded, and twice that while it is copied.
"""

import asyncio
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from medeval.images.made_room import MadeRoom

# Two 8K images, or 64 of a megapixel: more of these are never worked on at once.
ROOM_PX: Final = 1 << 26

# glibc gives a block back at once where it is over 32 MB, and otherwise may keep it for the thread:
# with Pillow's 16 MB blocks, each thread that ever decoded an 8K image would keep all of it.
BLOCK_BYTES: Final = 64 << 20

# So many blocks are held for the next image, as an 8K image takes two: the kernel need not clear
# memory for it, a twentieth of what it takes to resize one. With more, the peak grows.
KEPT_BLOCKS: Final = 2


class PixelRoom:
    """Room for so many decoded pixels at once; who finds none waits. Safe to use from threads.

    First come, first served. An image larger than the whole room is worked on alone.
    """

    def __init__(self, size_px: int = ROOM_PX) -> None:
        _use_large_blocks()
        self._size_px = size_px
        self._taken_px = 0
        self._turn = threading.Lock()
        self._changed = threading.Condition()

    @contextmanager
    def taken(self, pixels: int) -> Iterator[None]:
        """Take room for an image while it is worked on, after waiting for it."""
        with self._turn, self._changed:
            self._changed.wait_for(lambda: self._fits(pixels))
            self._taken_px += pixels
        try:
            yield
        finally:
            with self._changed:
                self._taken_px -= pixels
                self._changed.notify_all()

    def _fits(self, pixels: int) -> bool:
        return not self._taken_px or self._taken_px + pixels <= self._size_px


def _use_large_blocks() -> None:
    """Have Pillow hold images in large blocks, and a few for the next one, unless it was told."""
    from PIL import Image

    # Pillow documents the settings as environment variables, which it reads when it is imported.
    core = Image.core  # type: ignore[attr-defined]
    if "PILLOW_BLOCK_SIZE" not in os.environ and core.get_block_size() < BLOCK_BYTES:
        core.set_block_size(BLOCK_BYTES)
    if "PILLOW_BLOCKS_MAX" not in os.environ and core.get_blocks_max() < KEPT_BLOCKS:
        core.set_blocks_max(KEPT_BLOCKS)


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
