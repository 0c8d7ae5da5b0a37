"""How many bytes of images that tools made are held at once: bounded, and nobody waits for ever.

A conversation holds every image it makes until its end, so that one which holds some may need more
before it lets go of any. Room is given in the order of their first calls, and the first of them
never waits: it will end. So the bytes held are at most the limit and what one conversation takes.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

# 4 bytes a pixel decoded, 3 as a PNG that nothing shrinks: a tool's image is rarely as large.
BYTES_A_PIXEL: Final = 3

# As many 8K images as nothing shrinks, or 40 of a megapixel.
LEAST_BYTES: Final = 128 << 20


class MadeRoom:
    """Room for the bytes of images that tools make, over all conversations under way."""

    def __init__(self, limit_bytes: int = LEAST_BYTES) -> None:
        self.limit_bytes = limit_bytes
        self.held_bytes = 0
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

    async def wait(self, share: "Share", n_bytes: int) -> None:
        """Wait until a conversation may hold so much more, and set it aside."""
        if share not in self._shares:
            self._shares.append(share)
        share.is_waiting = True
        try:
            while not self._may_take(share, n_bytes):
                self._changed.clear()
                await self._changed.wait()
        finally:
            share.is_waiting = False
        self.change(share, n_bytes)

    def _may_take(self, share: "Share", n_bytes: int) -> bool:
        before = self._shares[: self._shares.index(share)]
        fits = self.held_bytes + n_bytes <= self.limit_bytes
        return not before or (fits and not any(other.is_waiting for other in before))

    def change(self, share: "Share", n_bytes: int) -> None:
        """A conversation holds so many bytes more, or less where negative."""
        share.held_bytes += n_bytes
        self.held_bytes += n_bytes
        self._changed.set()

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
        n_bytes = BYTES_A_PIXEL * pixels
        await self._room.wait(self, n_bytes)
        return n_bytes

    def made(self, set_aside: int, taken: int) -> None:
        """An image was made for which bytes were set aside; so many it takes, 0 for none."""
        self._room.change(self, taken - set_aside)
        self._room.leave(self)
