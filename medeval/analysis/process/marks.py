"""How near drawn lines and points are to their targets, matched one to one.

Source of the formulas: ToolsRL, arXiv 2604.19945.
"""

import math
from collections.abc import Callable, Sequence
from typing import Final, TypeVar

import numpy as np

from medeval.types.geometry import Affine, AxisLine, Frame, Point, Size
from medeval.types.trajectory import TrajectoryImage

Mark = TypeVar("Mark", AxisLine, Point)

# The distance from which the similarity of two marks is 0, as a share of the image's side.
REACH: Final = 0.25
# By how many pixels rounding may tilt a vertical or horizontal line.
CROOKED_PX: Final = 1e-6


def line_similarity(drawn: AxisLine, target: AxisLine, root: Size) -> float:
    """1 - d / T, at least 0, with T a quarter of the side that is measured along; 1 on the target.

    Both in pixels of the root. 0 for lines of different axes.
    """
    if drawn.axis != target.axis:
        return 0.0
    side = root.width_px if drawn.axis == "x" else root.height_px
    return max(0.0, 1.0 - abs(drawn.value - target.value) / (REACH * side))


def point_similarity(drawn: Point, target: Point, root: Size) -> float:
    """1 - d / T, at least 0, with T a quarter of the image's diagonal; 1 on the target.

    Both in pixels of the root.
    """
    distance = math.hypot(drawn.x - target.x, drawn.y - target.y)
    return max(0.0, 1.0 - distance / (REACH * math.hypot(root.width_px, root.height_px)))


def matched_similarity(
    drawn: Sequence[Mark],
    targets: Sequence[Mark],
    root: Size,
    similarity: Callable[[Mark, Mark, Size], float],
) -> float | None:
    """2 S / (drawn + targets), S the largest sum of similarities of a one-to-one matching.

    In [0, 1]; 1.0 if each target is marked exactly and nothing else is. None, undefined, where
    there is neither a mark nor a target.
    """
    if not drawn and not targets:
        return None
    if not drawn or not targets:
        return 0.0
    from scipy.optimize import linear_sum_assignment

    table = np.array([[similarity(mark, target, root) for target in targets] for mark in drawn])
    rows, columns = linear_sum_assignment(table, maximize=True)
    return float(2.0 * table[rows, columns].sum() / (len(drawn) + len(targets)))


def raw_to_root(image: TrajectoryImage) -> Affine:
    """The map from an image's raw pixels, in which recipes are written, to those of its root."""
    return image.to_root.after(
        Affine(
            image.sent.width_px / image.raw.width_px,
            0.0,
            0.0,
            0.0,
            image.sent.height_px / image.raw.height_px,
            0.0,
        )
    )


def mapped_line(line: AxisLine, to_root: Affine, frame: Frame) -> AxisLine | None:
    """A line in the root's pixels; None where it is not along an axis there."""
    along = (0.0, 1.0) if line.axis == "x" else (1.0, 0.0)
    start = (line.value, 0.0) if line.axis == "x" else (0.0, line.value)
    x1, y1 = to_root.apply(*start)
    x2, y2 = to_root.apply(start[0] + along[0], start[1] + along[1])
    if abs(x1 - x2) < CROOKED_PX:
        return AxisLine("x", x1, frame)
    return AxisLine("y", y1, frame) if abs(y1 - y2) < CROOKED_PX else None


def mapped_point(point: Point, to_root: Affine, frame: Frame) -> Point:
    """A point in the root's pixels."""
    return Point(*to_root.apply(point.x, point.y), frame)
