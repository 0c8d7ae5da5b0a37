"""How many pixels are decoded at once: memory is bounded by this, and not by how many threads run.

An image of 33 megapixels (8K) takes 133 MB decoded, and twice that while it is copied.
"""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

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
