"""The symmetries of a square: each moves pixels to where its name says."""

import io
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from medeval.data.symmetry import TURNS, Symmetry, drawn_turn, turned, turned_image
from medeval.types.geometry import RELATIVE, Box
from medeval.types.sample import ImageSource, Sample


def source(rows: Sequence[Sequence[int]], exif: int | None = None) -> ImageSource:
    """An image of one gray value a pixel."""
    image = Image.new("L", (len(rows[0]), len(rows)))
    image.putdata([value for row in rows for value in row])
    buffer = io.BytesIO()
    tags = Image.Exif()
    if exif is not None:
        tags[0x0112] = exif
    image.convert("RGB").save(buffer, "PNG", exif=tags)
    return ImageSource(name="page", read=buffer.getvalue)


def pixels(image: ImageSource) -> list[list[int]]:
    with Image.open(io.BytesIO(image.read())) as opened:
        width, height = opened.size
        red = list(opened.convert("RGB").tobytes()[::3])
    return [red[row * width : (row + 1) * width] for row in range(height)]


PAGE = [[1, 2, 3], [4, 5, 6]]


@pytest.mark.parametrize(
    ("turn", "expected"),
    [
        ("upright", [[1, 2, 3], [4, 5, 6]]),
        ("rotate_90", [[4, 1], [5, 2], [6, 3]]),
        ("rotate_180", [[6, 5, 4], [3, 2, 1]]),
        ("rotate_270", [[3, 6], [2, 5], [1, 4]]),
        ("flip_horizontal", [[3, 2, 1], [6, 5, 4]]),
        ("flip_vertical", [[4, 5, 6], [1, 2, 3]]),
        ("transpose", [[1, 4], [2, 5], [3, 6]]),
        ("transverse", [[6, 3], [5, 2], [4, 1]]),
    ],
)
def test_a_turn_moves_pixels_clockwise_and_by_name(
    turn: Symmetry, expected: list[list[int]]
) -> None:
    assert pixels(turned_image(source(PAGE), turn)) == expected


def test_the_camera_s_own_orientation_is_applied_first() -> None:
    assert pixels(turned_image(source(PAGE, exif=6), "upright")) == [[4, 1], [5, 2], [6, 3]]


def test_the_same_bytes_are_made_each_time() -> None:
    image = turned_image(source(PAGE), "rotate_90")
    assert image.read() == image.read()


def test_a_sample_records_its_turn_and_loses_boxes_that_no_longer_fit() -> None:
    sample = Sample(
        id="s",
        question="?",
        images=(source(PAGE),),
        targets=("x",),
        groups={"kind": "form"},
        target_boxes=(Box(0, 0, 0.5, 0.5, RELATIVE),),
    )
    moved = turned(sample, "transpose")
    assert (moved.transform, moved.groups) == (
        "transpose",
        {"kind": "form", "orientation": "transpose"},
    )
    assert moved.target_boxes == ()
    assert moved.images[0].name == "page (transpose)"


@given(st.text(max_size=20), st.text(max_size=20))
def test_a_draw_depends_on_seed_and_name_alone(seed: str, name: str) -> None:
    assert drawn_turn(seed, name) == drawn_turn(seed, name)
    assert drawn_turn(seed, name) in TURNS


def test_draws_are_frozen() -> None:
    drawn = [drawn_turn("medeval d4", str(number)) for number in (49153, 57349, 1)]
    assert drawn == ["flip_horizontal", "rotate_270", "rotate_90"]
