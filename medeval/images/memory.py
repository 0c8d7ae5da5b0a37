"""Bounds on the memory that images take, independent of the data and the number of threads.

One bounds the pixels that the whole process decodes at once, the other the images that
conversations hold: the files of samples, and what tools made, as pixels or encoded. An image of
33 megapixels (8K) takes 133 MB decoded.
"""

import asyncio
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Final

# Two 8K images, or 64 images of one megapixel.
DECODED_PX: Final = 1 << 26

# 64 conversations with images of one megapixel hold 30 to 60 MB, with 8K images 2 GB. Images that
# tools make may double that.
BYTES_A_CONVERSATION: Final = 8 << 20
MIN_BYTES: Final = 256 << 20

# glibc frees a block over 32 MB at once, but may keep a smaller one for the thread: with Pillow's
# 16 MB blocks, each thread that decoded an 8K image once would keep its memory.
BLOCK_BYTES: Final = 64 << 20


class DecodingBudget:
    """A bound on the pixels that are decoded at the same time. Safe to use from threads.

    First come, first served. An image larger than the bound is decoded alone. There is no deadlock:
    a thread that decodes waits for no other.
    """

    def __init__(self, limit_px: int = DECODED_PX) -> None:
        _use_large_blocks()
        self._limit_px = limit_px
        self._decoded_px = 0
        self._turn = threading.Lock()
        self._changed = threading.Condition()

    @contextmanager
    def taken(self, pixels: int) -> Iterator[None]:
        """Wait until `pixels` more may be decoded, and count them while the block runs."""
        with self._turn, self._changed:
            self._changed.wait_for(lambda: self._fits(pixels))
            self._decoded_px += pixels
        try:
            yield
        finally:
            with self._changed:
                self._decoded_px -= pixels
                self._changed.notify_all()

    def _fits(self, pixels: int) -> bool:
        return not self._decoded_px or self._decoded_px + pixels <= self._limit_px


@cache
def decoding_budget() -> DecodingBudget:
    """The budget that the whole process shares."""
    return DecodingBudget()


def _use_large_blocks() -> None:
    """Make Pillow allocate large blocks, unless its environment variable sets their size."""
    from PIL import Image

    # Pillow documents only the environment variable, which it reads at import.
    core = Image.core  # type: ignore[attr-defined]
    if "PILLOW_BLOCK_SIZE" not in os.environ and core.get_block_size() < BLOCK_BYTES:
        core.set_block_size(BLOCK_BYTES)


# Bytes that Pillow takes for an RGB pixel.
DECODED_BYTES_A_PIXEL: Final = 4


class MemoryBudget:
    """A bound on the bytes of images that conversations hold, for one event loop.

    The images of samples may fill half of the limit, those that tools make all of it. The oldest
    running conversation never waits, so it can end and release its images; any other waits until
    there is room. So memory holds at most the limit plus the images of one conversation, and no
    two conversations wait for each other.
    """

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.held_bytes = 0
        self._largest_sample_bytes = 0
        self._conversations: dict[ConversationMemory, None] = {}
        self._changed = asyncio.Event()

    @classmethod
    def of_conversations(cls, n: int) -> "MemoryBudget":
        """The budget of `n` conversations at once."""
        return cls(max(MIN_BYTES, n * BYTES_A_CONVERSATION))

    @contextmanager
    def conversation(self) -> Iterator["ConversationMemory"]:
        """One conversation; its end releases the images that its tools made."""
        memory = ConversationMemory(self)
        self._conversations[memory] = None
        try:
            yield memory
        finally:
            del self._conversations[memory]
            self.release(memory.made_bytes)

    async def reserve_for_sample(self, conversation: "ConversationMemory") -> int:
        """Wait until a sample's images may be read; reserve bytes for them and return their number.

        The number is that of the largest sample so far. The first sample is read alone.
        """
        half = self.limit_bytes // 2
        return await self._reserve(conversation, lambda: self._largest_sample_bytes or half, half)

    def sample_read(self, reserved_bytes: int, taken_bytes: int) -> None:
        """Replace the reserved bytes by the bytes that a sample's images take."""
        self._largest_sample_bytes = max(self._largest_sample_bytes, taken_bytes)
        self.release(reserved_bytes - taken_bytes)

    async def reserve_for_tool(self, conversation: "ConversationMemory", pixels: int) -> int:
        """Wait until a tool may make an image; reserve bytes for it and return their number.

        `pixels` is the size of the conversation's largest image.
        """
        expected = DECODED_BYTES_A_PIXEL * pixels
        return await self._reserve(conversation, lambda: expected, self.limit_bytes)

    async def _reserve(
        self, conversation: "ConversationMemory", expected: Callable[[], int], limit_bytes: int
    ) -> int:
        while not (
            self.held_bytes + expected() <= limit_bytes
            or conversation is next(iter(self._conversations), conversation)
        ):
            self._changed.clear()
            await self._changed.wait()
        n_bytes = expected()
        self.held_bytes += n_bytes
        return n_bytes

    def release(self, n_bytes: int) -> None:
        """Release `n_bytes` bytes."""
        self.held_bytes -= n_bytes
        self._changed.set()


class ConversationMemory:
    """The bytes of the images that the tools of one conversation made, counted in a budget."""

    def __init__(self, budget: MemoryBudget) -> None:
        self.made_bytes = 0
        self._budget = budget

    async def reserve(self, pixels: int) -> int:
        """Wait until a tool may make an image of at most `pixels`; returns the reserved bytes."""
        return await self._budget.reserve_for_tool(self, pixels)

    def image_made(self, reserved_bytes: int, taken_bytes: int) -> None:
        """Replace the reserved bytes by those that the image takes, 0 if the tool made none."""
        self.made_bytes += taken_bytes
        self._budget.release(reserved_bytes - taken_bytes)

    def recount(self, made_bytes: int) -> None:
        """Count the images anew: once encoded, an image takes less than its pixels did."""
        self._budget.release(self.made_bytes - made_bytes)
        self.made_bytes = made_bytes
