"""How many bytes of images that tools made are held at once: bounded, and nobody waits for ever.

A conversation holds every image it makes until its end, so that one which holds some may need more
before it lets go of any. Room is given in the order of their first calls, and the first of them
never waits: it will end. So hardly more is held than the limit and what one conversation takes.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

# A PNG that nothing shrinks: a tool's image is rarely as large as what it was made from.
BYTES_A_PIXEL: Final = 3

# What is held where nothing else is said: 40 megapixels that nothing shrinks.
DEFAULT_BYTES: Final = 128 << 20


class MadeRoom:
    """Room for the bytes of images that tools make, over all conversations under way.

    What an image takes is known once it is made. Until then as much is set aside as the largest
    took, and for the first by its pixels.
    """

    def __init__(self, limit_bytes: int = DEFAULT_BYTES) -> None:
        self.limit_bytes = limit_bytes
        self.held_bytes = 0
        self._largest_bytes = 0
        self._shares: list[Share] = []
        self._changed = asyncio.Event()

    @contextmanager
    def share(self) -> Iterator["Share"]:
        """What one conversation holds, let go at the end of the block."""
        share = Share(self)
        try:
            yield share
        finally:
            self.change(share, -share.held_bytes)
            self.leave(share)

    async def set_aside(self, share: "Share", pixels: int) -> int:
        """Wait until a conversation may hold one more image, and set bytes aside for it."""
        if share not in self._shares:
            self._shares.append(share)
        share.is_waiting = True
        try:
            while not self._may_take(share, self._expected(pixels)):
                self._changed.clear()
                await self._changed.wait()
        finally:
            share.is_waiting = False
        expected = self._expected(pixels)
        self.change(share, expected)
        return expected

    def _expected(self, pixels: int) -> int:
        by_pixels = BYTES_A_PIXEL * pixels
        return min(by_pixels, self._largest_bytes) if self._largest_bytes else by_pixels

    def _may_take(self, share: "Share", n_bytes: int) -> bool:
        before = self._shares[: self._shares.index(share)]
        fits = self.held_bytes + n_bytes <= self.limit_bytes
        return not before or (fits and not any(other.is_waiting for other in before))

    def change(self, share: "Share", n_bytes: int) -> None:
        """A conversation holds so many bytes more, or less where negative."""
        share.held_bytes += n_bytes
        self.held_bytes += n_bytes
        self._changed.set()

    def note(self, taken: int) -> None:
        """An image took so many bytes."""
        self._largest_bytes = max(self._largest_bytes, taken)

    def leave(self, share: "Share") -> None:
        """A conversation that holds nothing has no place in the order any more."""
        if share in self._shares and not share.held_bytes:
            self._shares.remove(share)
            self._changed.set()


class Share:
    """What one conversation holds of the images that its calls made."""

    def __init__(self, room: MadeRoom) -> None:
        self.held_bytes = 0
        self.is_waiting = False
        self._room = room

    async def set_aside(self, pixels: int) -> int:
        """Set bytes aside for an image of so many pixels, after waiting for them; how many."""
        return await self._room.set_aside(self, pixels)

    def made(self, set_aside: int, taken: int) -> None:
        """An image was made for which bytes were set aside; so many it takes, 0 for none."""
        self._room.note(taken)
        self._room.change(self, taken - set_aside)
        self._room.leave(self)
