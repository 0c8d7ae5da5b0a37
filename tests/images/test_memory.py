import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from medeval.images.memory import PixelRoom
from tests.medeval_processes import ROOT

PILLOW_MEMORY = """
from PIL import Image

from medeval.images.memory import PixelRoom

PixelRoom()
Image.new("RGB", (7680, 4320)).resize((64, 36))
stats = Image.core.get_stats()
print(Image.core.get_block_size() >> 20, Image.core.get_blocks_max(), stats["blocks_cached"])
"""


def most_at_once(room: PixelRoom, sizes: list[int], n_threads: int = 8) -> int:
    """The most pixels that were in the room at one time."""
    lock, inside, most = threading.Lock(), 0, 0

    def work(pixels: int) -> None:
        nonlocal inside, most
        with room.taken(pixels):
            with lock:
                inside += pixels
                most = max(most, inside)
            threading.Event().wait(0.002)
            with lock:
                inside -= pixels

    with ThreadPoolExecutor(n_threads) as pool:
        list(pool.map(work, sizes))
    return most


@pytest.mark.parametrize("sizes", [[30] * 20, [100, 1, 1, 1, 100, 50, 50, 60], [1] * 40])
def test_no_more_pixels_are_in_the_room_than_it_holds(sizes: list[int]) -> None:
    assert most_at_once(PixelRoom(100), sizes) <= 100


def test_small_images_are_worked_on_side_by_side() -> None:
    barrier = threading.Barrier(8, timeout=20)
    room = PixelRoom(100)

    def meet(pixels: int) -> None:
        with room.taken(pixels):
            barrier.wait()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(meet, [10] * 8))


def test_an_image_larger_than_the_room_is_worked_on_alone() -> None:
    assert most_at_once(PixelRoom(10), [500, 5, 500, 5]) == 500


def test_an_error_leaves_the_room_as_it_was() -> None:
    room = PixelRoom(10)
    with pytest.raises(ValueError, match="damaged"), room.taken(10):
        raise ValueError("damaged")
    with room.taken(10):
        pass


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ({}, "64 2 2"),
        ({"PILLOW_BLOCK_SIZE": "32m"}, "32 2 2"),
        ({"PILLOW_BLOCKS_MAX": "1"}, "64 1 1"),
        ({"PILLOW_BLOCKS_MAX": "0"}, "64 0 0"),
    ],
)
def test_pillow_holds_large_blocks_and_keeps_two_unless_it_was_told_otherwise(
    told: dict[str, str], expected: str
) -> None:
    others = {name: value for name, value in os.environ.items() if not name.startswith("PILLOW_")}
    shown = subprocess.run(
        [sys.executable, "-c", PILLOW_MEMORY],
        env={**others, **told},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout
    assert shown.strip() == expected
