"""How well a region frames a target: overlap of rectangles in the pixels of one root image."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from medeval.types.geometry import Box, Frame, Size, pixels
from medeval.types.trajectory import TrajectoryImage

# Weights of a pixel too many and of a pixel missed. Source: ToolsRL, arXiv 2604.19945.
W_FP: Final = 0.1
W_FN: Final = 1.0
# A crop counts as a hit from this overlap on; a hyper-parameter of the same paper.
HIT_IOU: Final = 0.5
# By how much rounding may make a share of pixels less than 1.
SLACK: Final = 1e-9


@dataclass(frozen=True, slots=True)
class Rectangle:
    """A region of the root image in its raw pixels; empty where it has no width or no height."""

    left: float
    top: float
    right: float
    bottom: float

    @classmethod
    def of(cls, box: Box, root: Size) -> "Rectangle":
        """A box of the root image in any frame, cut off at the image's edges."""
        found = box.to(_frame(root))
        return cls(found.left, found.top, found.right, found.bottom).within(root)

    @property
    def area(self) -> float:
        """The area in pixels."""
        return max(0.0, self.right - self.left) * max(0.0, self.bottom - self.top)

    def within(self, root: Size) -> "Rectangle":
        """The part inside the image."""
        return self.intersection(Rectangle(0.0, 0.0, root.width_px, root.height_px))

    def intersection(self, other: "Rectangle") -> "Rectangle":
        """The part that both share."""
        return Rectangle(
            max(self.left, other.left),
            max(self.top, other.top),
            min(self.right, other.right),
            min(self.bottom, other.bottom),
        )


def _frame(root: Size) -> Frame:
    return pixels(root.width_px, root.height_px, "the root image")


def seen_region(image: TrajectoryImage, root: Size) -> Rectangle:
    """The part of its root that an image shows, after all crops, rotations and flips."""
    corners = [
        image.to_root.apply(0.0, 0.0),
        image.to_root.apply(image.sent.width_px, image.sent.height_px),
    ]
    (x1, x2), (y1, y2) = (sorted(values) for values in zip(*corners, strict=True))
    return Rectangle(x1, y1, x2, y2).within(root)


def modified_f1(region: Rectangle, target: Rectangle) -> float:
    """How well a crop frames a target, in [0, 1]; 1 is the target exactly.

    2 TP / (2 TP + 0.1 FP + FN) in pixels: to miss a part costs ten times what to show too much
    does. 0 where either is empty. Source: ToolsRL, arXiv 2604.19945.

    >>> target = Rectangle(0, 0, 10, 10)
    >>> round(modified_f1(Rectangle(0, 0, 20, 10), target), 3)
    0.952
    >>> round(modified_f1(Rectangle(0, 0, 5, 10), target), 3)
    0.667
    """
    shared = region.intersection(target).area
    if shared <= 0.0:
        return 0.0
    extra, missed = region.area - shared, target.area - shared
    return 2.0 * shared / (2.0 * shared + W_FP * extra + W_FN * missed)


def intersection_over_union(region: Rectangle, target: Rectangle) -> float:
    """Shared pixels over the pixels of both together, in [0, 1]; 0 where either is empty."""
    shared = region.intersection(target).area
    return shared / (region.area + target.area - shared) if shared > 0.0 else 0.0


def is_inside(target: Rectangle, region: Rectangle) -> bool:
    """Whether all of a target, which is not empty, is in the region."""
    return target.area > 0.0 and region.intersection(target).area >= target.area * (1.0 - SLACK)


def hull(rectangles: Sequence[Rectangle]) -> Rectangle:
    """The smallest rectangle around some, of which there is at least one."""
    return Rectangle(
        min(each.left for each in rectangles),
        min(each.top for each in rectangles),
        max(each.right for each in rectangles),
        max(each.bottom for each in rectangles),
    )


def union_area(rectangles: Sequence[Rectangle]) -> float:
    """The area that rectangles cover together, overlaps counted once.

    >>> union_area([Rectangle(0, 0, 2, 2), Rectangle(1, 1, 3, 3)])
    7.0
    """
    kept = [each for each in rectangles if each.area > 0.0]
    edges = sorted({x for each in kept for x in (each.left, each.right)})
    covered = 0.0
    for left, right in pairwise(edges):
        spans = [(e.top, e.bottom) for e in kept if e.left <= left and e.right >= right]
        covered += (right - left) * _length(spans)
    return covered


def _length(spans: Sequence[tuple[float, float]]) -> float:
    """The length that intervals cover together."""
    covered, reached = 0.0, float("-inf")
    for start, end in sorted(spans):
        covered += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return covered


def shared_area(first: Sequence[Rectangle], second: Sequence[Rectangle]) -> float:
    """The area covered by both of two sets of rectangles."""
    return union_area([one.intersection(other) for one in first for other in second])


def precision_and_recall(
    focused: Sequence[Rectangle], targets: Sequence[Rectangle]
) -> tuple[float, float]:
    """The share of the focused area that is target, and of the target area that is focused.

    Both in [0, 1]; 0 where nothing is focused. The targets are not empty.
    """
    shared, area = shared_area(focused, targets), union_area(focused)
    return (shared / area if area > 0.0 else 0.0), shared / union_area(targets)
