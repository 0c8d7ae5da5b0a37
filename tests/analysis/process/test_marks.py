"""Drawn lines and points against their targets: by hand, and in general."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medeval.analysis.process.marks import (
    line_similarity,
    mapped_line,
    mapped_point,
    matched_similarity,
    point_similarity,
)
from medeval.types.geometry import Affine, AxisLine, Point, Size, pixels

ROOT = Size(400, 200)
FRAME = pixels(400, 200)


def x(value: float) -> AxisLine:
    return AxisLine("x", value, FRAME)


def y(value: float) -> AxisLine:
    return AxisLine("y", value, FRAME)


def at(across: float, down: float) -> Point:
    return Point(across, down, FRAME)


@pytest.mark.parametrize(
    ("drawn", "target", "expected"),
    [
        (x(100), x(100), 1.0),
        (x(125), x(100), 0.75),  # a quarter of the width is 100
        (x(300), x(100), 0.0),
        (y(125), y(100), 0.5),  # a quarter of the height is 50
        (y(150), y(100), 0.0),
        (x(100), y(100), 0.0),
    ],
)
def test_lines_by_hand(drawn: AxisLine, target: AxisLine, expected: float) -> None:
    assert line_similarity(drawn, target, ROOT) == pytest.approx(expected)


def test_points_by_hand() -> None:
    # a quarter of each side is 100 and 50: the reach is their hypotenuse
    reach = math.hypot(100, 50)
    assert point_similarity(at(130, 140), at(100, 100), ROOT) == pytest.approx(1 - 50 / reach)
    assert point_similarity(at(200, 150), at(100, 100), ROOT) == pytest.approx(0.0)
    assert point_similarity(at(390, 190), at(10, 10), ROOT) == 0.0


@pytest.mark.parametrize(
    ("drawn", "targets", "expected"),
    [
        ([x(100), y(50)], [y(50), x(100)], 1.0),
        ([x(100)], [x(100), x(200)], 2 / 3),
        ([x(100), x(100)], [x(100)], 2 / 3),
        # each target is matched once: 0.75 and 0.9, not 1.0 and then nothing near
        ([x(125), x(110)], [x(100), x(150)], (0.9 + 0.75) * 2 / 4),
        ([x(100)], [y(100)], 0.0),
        ([], [x(100)], 0.0),
        ([x(100)], [], 0.0),
    ],
)
def test_matching_by_hand(drawn: list[AxisLine], targets: list[AxisLine], expected: float) -> None:
    found = matched_similarity(drawn, targets, ROOT, line_similarity)
    assert found == pytest.approx(expected)


def test_nothing_drawn_where_nothing_is_asked_for_is_undefined() -> None:
    assert matched_similarity([], [], ROOT, line_similarity) is None


def test_lines_and_points_are_mapped_through_a_rotation() -> None:
    # an image of 200 x 400 turned by 90 degrees from the root of 400 x 200
    to_root = Affine(0.0, 1.0, 0.0, -1.0, 0.0, 200.0)
    assert mapped_line(x(50), to_root, FRAME) == y(150)
    assert mapped_line(y(30), to_root, FRAME) == x(30)
    assert mapped_point(at(50, 30), to_root, FRAME) == at(30, 150)


def test_a_slanted_line_is_none_along_an_axis() -> None:
    assert mapped_line(x(5), Affine(0.8, -0.6, 0.0, 0.6, 0.8, 0.0), FRAME) is None


points = st.builds(at, st.integers(0, 400), st.integers(0, 200))
lines = st.one_of(st.integers(0, 400).map(x), st.integers(0, 200).map(y))


@given(st.lists(points, max_size=5), st.lists(points, max_size=5))
def test_matching_is_a_share_symmetric_and_blind_to_order(
    drawn: list[Point], targets: list[Point]
) -> None:
    found = matched_similarity(drawn, targets, ROOT, point_similarity)
    if found is None:
        assert not drawn
        assert not targets
        return
    assert 0.0 <= found <= 1.0
    assert found == pytest.approx(matched_similarity(targets, drawn, ROOT, point_similarity))
    assert found == pytest.approx(
        matched_similarity(drawn[::-1], sorted(targets, key=repr), ROOT, point_similarity)
    )


@given(st.lists(lines, min_size=1, max_size=5))
def test_each_target_marked_exactly_is_perfect(targets: list[AxisLine]) -> None:
    found = matched_similarity(targets[::-1], targets, ROOT, line_similarity)
    assert found == pytest.approx(1.0)


@given(st.lists(lines, min_size=1, max_size=4), lines)
def test_a_mark_too_many_costs(targets: list[AxisLine], more: AxisLine) -> None:
    found = matched_similarity([*targets, more], targets, ROOT, line_similarity)
    assert found == pytest.approx(2 * len(targets) / (2 * len(targets) + 1))
