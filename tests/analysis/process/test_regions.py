"""How well a crop frames its targets: hand-made cases, and what holds for any rectangles."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medeval.analysis.process.regions import (
    Rectangle,
    hull,
    intersection_over_union,
    is_inside,
    modified_f1,
    precision_and_recall,
    seen_region,
    union_area,
)
from medeval.types.geometry import RELATIVE, Affine, Box, Size, pixels
from medeval.types.trajectory import TrajectoryImage

TARGET = Rectangle(10, 10, 20, 20)
ROOT = Size(100, 50)


@pytest.mark.parametrize(
    ("region", "expected"),
    [
        (TARGET, 1.0),
        # 100 shared, 100 too many: 200 / (200 + 10)
        (Rectangle(10, 10, 30, 20), 200 / 210),
        # 50 shared, 50 missed: 100 / (100 + 50)
        (Rectangle(10, 10, 15, 20), 100 / 150),
        # 50 shared, 50 too many, 50 missed: 100 / (100 + 5 + 50)
        (Rectangle(15, 10, 25, 20), 100 / 155),
        # the whole image: 100 shared, 4900 too many: 200 / (200 + 490)
        (Rectangle(0, 0, 100, 50), 200 / 690),
        (Rectangle(30, 30, 40, 40), 0.0),
        # touching at an edge shares no pixel
        (Rectangle(20, 10, 30, 20), 0.0),
        (Rectangle(10, 10, 10, 20), 0.0),
        (Rectangle(15, 10, 5, 20), 0.0),
    ],
)
def test_modified_f1_by_hand(region: Rectangle, expected: float) -> None:
    assert modified_f1(region, TARGET) == pytest.approx(expected)


def test_an_empty_target_is_framed_by_nothing() -> None:
    assert modified_f1(TARGET, Rectangle(12, 12, 12, 14)) == 0.0
    assert not is_inside(Rectangle(12, 12, 12, 14), TARGET)


@pytest.mark.parametrize(
    ("region", "iou", "inside"),
    [
        (TARGET, 1.0, True),
        (Rectangle(10, 10, 30, 20), 0.5, True),
        (Rectangle(15, 10, 25, 20), 50 / 150, False),
        (Rectangle(11, 10, 20, 20), 0.9, False),
        (Rectangle(30, 30, 40, 40), 0.0, False),
    ],
)
def test_overlap_and_containment_by_hand(region: Rectangle, iou: float, inside: bool) -> None:
    assert intersection_over_union(region, TARGET) == pytest.approx(iou)
    assert is_inside(TARGET, region) is inside


@pytest.mark.parametrize(
    ("focused", "targets", "expected"),
    [
        # one column of two, in full
        ([Rectangle(0, 0, 10, 20)], [Rectangle(0, 0, 10, 20)], (1.0, 1.0)),
        # two columns where one was wanted
        ([Rectangle(0, 0, 10, 20), Rectangle(10, 0, 20, 20)], [Rectangle(0, 0, 10, 20)], (0.5, 1)),
        # a column where a cell of a quarter of it was wanted
        ([Rectangle(0, 0, 10, 20)], [Rectangle(0, 0, 10, 5)], (0.25, 1.0)),
        # a row across a column
        ([Rectangle(0, 0, 20, 5)], [Rectangle(0, 0, 10, 20)], (0.5, 0.25)),
        # the same column twice counts once
        ([Rectangle(0, 0, 10, 20)] * 2, [Rectangle(0, 0, 10, 20)] * 2, (1.0, 1.0)),
        ([], [TARGET], (0.0, 0.0)),
    ],
)
def test_precision_and_recall_by_hand(
    focused: list[Rectangle], targets: list[Rectangle], expected: tuple[float, float]
) -> None:
    assert precision_and_recall(focused, targets) == pytest.approx(expected)


def test_a_box_of_any_frame_is_cut_off_at_the_image() -> None:
    assert Rectangle.of(Box(0.5, 0.5, 1.5, 0.75, RELATIVE), ROOT) == Rectangle(50, 25, 100, 37.5)
    assert Rectangle.of(Box(1, 2, 3, 4, pixels(10, 10)), ROOT) == Rectangle(10, 10, 30, 20)


def test_what_an_image_shows_is_read_off_its_map() -> None:
    # cut from (20, 10), enlarged twice, then turned by 90 degrees: sent as 20 x 40
    image = TrajectoryImage(
        index=1,
        sha256="",
        media_type="image/png",
        parent=0,
        root=0,
        operation="rotate",
        arguments={},
        to_root=Affine(0.0, 0.5, 20.0, -0.5, 0.0, 20.0),
        raw=Size(20, 40),
        sent=Size(20, 40),
    )
    assert seen_region(image, ROOT) == Rectangle(20, 10, 40, 20)


sides = st.tuples(st.integers(0, 60), st.integers(0, 60)).map(sorted)
rectangles = st.builds(lambda x, y: Rectangle(x[0], y[0], x[1], y[1]), sides, sides)
whole = rectangles.filter(lambda each: each.area > 0)


@given(rectangles, whole)
def test_scores_are_shares_and_1_only_for_the_target_itself(
    region: Rectangle, target: Rectangle
) -> None:
    for score in (modified_f1, intersection_over_union):
        assert 0.0 <= score(region, target) <= 1.0
        assert score(target, target) == 1.0
        assert (score(region, target) == 1.0) == (region == target)
    assert intersection_over_union(region, target) == intersection_over_union(target, region)


@given(whole, whole, st.integers(1, 7))
def test_scores_do_not_depend_on_the_unit(region: Rectangle, target: Rectangle, scale: int) -> None:
    def scaled(each: Rectangle) -> Rectangle:
        return Rectangle(
            each.left * scale, each.top * scale, each.right * scale, each.bottom * scale
        )

    assert modified_f1(scaled(region), scaled(target)) == pytest.approx(modified_f1(region, target))


@given(whole, whole)
def test_too_much_costs_less_than_too_little(region: Rectangle, target: Rectangle) -> None:
    if is_inside(target, region) and region != target:
        assert modified_f1(region, target) > modified_f1(target, region)


@given(st.lists(rectangles, max_size=5))
def test_the_union_is_counted_as_single_pixels_are(listed: list[Rectangle]) -> None:
    covered = {
        (x, y)
        for each in listed
        for x in range(int(each.left), int(each.right))
        for y in range(int(each.top), int(each.bottom))
    }
    assert union_area(listed) == len(covered)


@given(st.lists(whole, min_size=1, max_size=4), st.lists(whole, min_size=1, max_size=4))
def test_precision_and_recall_change_places_with_their_sides(
    first: list[Rectangle], second: list[Rectangle]
) -> None:
    precision, recall = precision_and_recall(first, second)
    assert (recall, precision) == pytest.approx(precision_and_recall(second, first))
    assert 0.0 <= precision <= 1.0 + 1e-12
    assert precision_and_recall(first, first) == pytest.approx((1.0, 1.0))


@given(st.lists(whole, min_size=1, max_size=4))
def test_the_hull_holds_all(listed: list[Rectangle]) -> None:
    assert all(is_inside(each, hull(listed)) for each in listed)
