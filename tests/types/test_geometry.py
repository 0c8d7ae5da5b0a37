"""Boxes keep what they cover through every conversion."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medeval.types.geometry import (
    PERCENT,
    PERMILLE,
    RELATIVE,
    AxisLine,
    Box,
    Frame,
    PixelBox,
    Point,
    pixels,
)

FRAMES = (RELATIVE, PERCENT, PERMILLE, pixels(640, 480), pixels(7680, 4320, "image 2"))
shares = st.integers(0, 10_000).map(lambda value: value / 10_000)


@st.composite
def boxes(draw: st.DrawFn) -> Box:
    """A box inside its image, in any frame, at least 1/10,000 of the image a side."""
    frame = draw(st.sampled_from(FRAMES))
    left, right = sorted(draw(st.lists(shares, min_size=2, max_size=2, unique=True)))
    top, bottom = sorted(draw(st.lists(shares, min_size=2, max_size=2, unique=True)))
    return Box(
        left * frame.width, top * frame.height, right * frame.width, bottom * frame.height, frame
    )


def corners(box: Box) -> list[float]:
    return [box.left, box.top, box.right, box.bottom]


@given(boxes(), st.sampled_from(FRAMES))
def test_a_box_survives_the_way_to_another_frame_and_back(box: Box, frame: Frame) -> None:
    back = box.to(frame).to(box.frame)
    assert back.frame == box.frame
    assert corners(back) == pytest.approx(corners(box), rel=1e-12, abs=1e-9)


@given(st.integers(1, 10_000), st.integers(1, 10_000), st.data())
def test_whole_pixels_come_back_unchanged_from_per_mille(
    width: int, height: int, data: st.DataObject
) -> None:
    left, top = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
    right = data.draw(st.integers(left + 1, width))
    bottom = data.draw(st.integers(top + 1, height))
    frame = pixels(width, height)
    there = Box(left, top, right, bottom, frame).to(PERMILLE)
    assert there.to(frame).rounded_out() == PixelBox(left, top, right, bottom)


@given(boxes())
def test_rounding_out_loses_nothing_but_float_error(box: Box) -> None:
    whole = box.to(pixels(640, 480)).rounded_out()
    inside = box.to(pixels(640, 480))
    assert whole.left <= inside.left + 1e-6 and whole.right >= inside.right - 1e-6
    assert whole.top <= inside.top + 1e-6 and whole.bottom >= inside.bottom - 1e-6
    assert whole.width < inside.width + 2 and whole.height < inside.height + 2


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ((10, 10, 20, 20), (10, 10, 20, 20)),
        ((-5, -5, 20, 20), (0, 0, 20, 20)),
        ((10, 10, 200, 200), (10, 10, 100, 50)),
        ((-5, -5, 200, 200), (0, 0, 100, 50)),
        ((100, 0, 120, 20), None),
        ((0, 50, 20, 60), None),
        ((-20, 0, 0, 20), None),
    ],
)
def test_clamping_keeps_the_part_inside_the_image(
    values: tuple[float, float, float, float], expected: tuple[float, ...] | None
) -> None:
    clamped = Box(*values, pixels(100, 50)).clamped()
    assert (None if clamped is None else tuple(corners(clamped))) == expected


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ((0, 0, math.nan, 1), "finite"),
        ((0, 0, math.inf, 1), "finite"),
        ((1, 0, 1, 1), "left < right"),
        ((0, 2, 1, 1), "top < bottom"),
    ],
)
def test_a_box_without_extent_is_refused(
    values: tuple[float, float, float, float], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        Box(*values, RELATIVE)


@pytest.mark.parametrize("extent", [(0, 1), (1, 0), (-1, 1), (math.nan, 1)])
def test_a_frame_without_extent_is_refused(extent: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="positive extent"):
        Frame("odd", *extent)


def test_width_and_height_are_in_the_frame_s_unit() -> None:
    box = Box(100, 200, 400, 900, PERMILLE)
    assert (box.width, box.height) == (300, 700)
    assert (PixelBox(1, 2, 4, 9).width, PixelBox(1, 2, 4, 9).height) == (3, 7)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (AxisLine("x", 250, PERMILLE), AxisLine("x", 25, pixels(100, 50))),
        (AxisLine("y", 250, PERMILLE), AxisLine("y", 12.5, pixels(100, 50))),
    ],
)
def test_a_line_scales_along_its_own_axis(line: AxisLine, expected: AxisLine) -> None:
    assert line.to(pixels(100, 50)) == expected


def test_a_point_scales_along_both_axes() -> None:
    assert Point(250, 500, PERMILLE).to(pixels(100, 50)) == Point(25, 25, pixels(100, 50))


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_lines_and_points_are_finite_and_a_line_has_one_of_two_axes(value: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        AxisLine("x", value, RELATIVE)
    with pytest.raises(ValueError, match="finite"):
        Point(0.5, value, RELATIVE)
    with pytest.raises(ValueError, match="axis 'x' or 'y'"):
        AxisLine("z", 0.5, RELATIVE)  # type: ignore[arg-type]
