"""Published environments that guess the unit of coordinates from the values, guess by guess.

Nothing else in medeval infers a frame. Each rule follows the code that it names, so that a
checkpoint is evaluated in the environment it was trained in.
"""

from collections.abc import Sequence
from typing import Final, Literal

from medeval.types.geometry import PERMILLE, RELATIVE, Frame, Size, pixels

Guess = Literal["guess_med", "guess_med_older", "guess_pixel_reasoner"]

PERMILLE_LIMIT: Final = 1000.0


def guessed_frame(guess: Guess, values: Sequence[float], raw: Size) -> Frame:
    """The frame that a published environment takes coordinates of a raw image to be in.

    `guess_med` (GAIR-NLP/Med, recipe/med/vision_tool_fn.py): all magnitudes up to 1000 are
    per-mille, so that 0..1 fractions become a tiny box; larger ones are pixels where all lie
    inside the image, and otherwise thousandths of the largest. `guess_med_older` (the same
    repository's first tool) takes values within 0..1 as fractions before that, and larger ones
    always as pixels. `guess_pixel_reasoner` (TIGER-AI-Lab/Pixel-Reasoner, experience_maker.py):
    fractions where every value is below 1, else pixels; so a coordinate of exactly 1.0 turns the
    whole box into pixels.
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
