"""Frames that published environments guess from the values of the coordinates.

Each guess follows the code that it names, so that a checkpoint is evaluated in the environment in
which it was trained. Nothing else in medeval infers a frame.
"""

from collections.abc import Sequence
from typing import Final, Literal

from medeval.types.geometry import PERMILLE, RELATIVE, Frame, Size, pixels

Guess = Literal["guess_med", "guess_med_older", "guess_pixel_reasoner"]

PERMILLE_LIMIT: Final = 1000.0


def guessed_frame(guess: Guess, values: Sequence[float], raw: Size) -> Frame:
    """The frame that a published environment takes the coordinates of a box to be in.

    `guess_med` (GAIR-NLP/Med, recipe/med/vision_tool_fn.py): per-mille where no value exceeds 1000,
    so that fractions from 0 to 1 become a tiny box; otherwise pixels where all values lie inside
    the image, and shares of the largest value where they do not.
    `guess_med_older` (the first tool of the same repository): fractions where all values are from 0
    to 1, otherwise per-mille where none exceeds 1000, otherwise pixels.
    `guess_pixel_reasoner` (TIGER-AI-Lab/Pixel-Reasoner, experience_maker.py): fractions where every
    value is below 1, otherwise pixels; so a coordinate of exactly 1.0 turns the whole box into
    pixels.
    """
    in_pixels = pixels(raw.width_px, raw.height_px)
    largest = max((abs(value) for value in values), default=0.0)
    if guess == "guess_pixel_reasoner":
        return RELATIVE if all(value < 1 for value in values) else in_pixels
    if guess == "guess_med_older":
        if all(0 <= value <= 1 for value in values):
            return RELATIVE
        return PERMILLE if largest <= PERMILLE_LIMIT else in_pixels
    if largest <= PERMILLE_LIMIT:
        return PERMILLE
    if _inside(values, raw):
        return in_pixels
    return Frame("share of the largest value", largest, largest)


def _inside(values: Sequence[float], raw: Size) -> bool:
    sides = (raw.width_px, raw.height_px) * 2
    return all(0 <= value <= side for value, side in zip(values, sides, strict=False))
