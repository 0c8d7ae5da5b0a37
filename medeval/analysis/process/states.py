"""The states of a conversation, measured against a sample's targets.

A state is the conversation after a call that made an image, and its image is that one. The metrics
are reported for three states: the best, the final, and the one whose image the answer cites.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from medeval.analysis.process.marks import (
    line_similarity,
    mapped_line,
    mapped_point,
    matched_similarity,
    point_similarity,
    raw_to_root,
)
from medeval.analysis.process.regions import Rectangle, seen_region
from medeval.scoring.answers import cited_image_index
from medeval.types.geometry import AxisLine, Frame, Point, Size, pixels
from medeval.types.sample import JsonValue, Sample
from medeval.types.trajectory import Trajectory, TrajectoryImage

CROP: Final = "crop"
TURNING: Final = ("rotate", "flip")
DRAW_LINE: Final = "draw_line"
DRAW_POINT: Final = "draw_point"


@dataclass(frozen=True, slots=True, kw_only=True)
class Targets:
    """The targets of one sample, in raw pixels of its first image, whose size is `root`."""

    root: Size
    boxes: tuple[Rectangle, ...]
    lines: tuple[AxisLine, ...]
    points: tuple[Point, ...]
    transform: str | None

    @classmethod
    def of(cls, sample: Sample, root: Size) -> "Targets":
        """The targets of a sample whose first image has the given size, empty boxes left out."""
        frame = frame_of(root)
        boxes = (Rectangle.of(box, root) for box in sample.target_boxes)
        return cls(
            root=root,
            boxes=tuple(box for box in boxes if box.area > 0.0),
            lines=tuple(line.to(frame) for line in sample.target_lines),
            points=tuple(point.to(frame) for point in sample.target_points),
            transform=sample.transform,
        )


def frame_of(root: Size) -> Frame:
    """The pixel frame of a sample's first image."""
    return pixels(root.width_px, root.height_px, "the first image")


def made_images(trajectory: Trajectory) -> list[TrajectoryImage]:
    """The images that calls made, in order."""
    return [image for image in trajectory.images if image.parent is not None]


def cited_image(trajectory: Trajectory) -> TrajectoryImage | None:
    """The image that the final answer names by its index, the last one where it names several.

    None where it names none, or there is no image of that index.
    """
    if trajectory.answer is None:
        return None
    index = cited_image_index(trajectory.answer.reply, trajectory.answer.text)
    if index is None or index >= len(trajectory.images):
        return None
    return trajectory.images[index]


def chain(image: TrajectoryImage, images: Sequence[TrajectoryImage]) -> list[TrajectoryImage]:
    """An image and those it was made from, newest first."""
    found = [image]
    while found[-1].parent is not None:
        found.append(images[found[-1].parent])
    return found


def crop_region(image: TrajectoryImage, trajectory: Trajectory, root: Size) -> Rectangle | None:
    """The part of the first image that a cropped image shows; None if it was made without a crop.

    Empty for a crop of another of the sample's images.
    """
    if not any(each.operation == CROP for each in chain(image, trajectory.images)):
        return None
    return seen_region(image, root) if image.root == 0 else NOTHING


NOTHING: Final = Rectangle(0.0, 0.0, 0.0, 0.0)


def line_score(image: TrajectoryImage, trajectory: Trajectory, targets: Targets) -> float | None:
    """How well the lines drawn on an image, and on those it was made from, mark the targets."""
    drawn = [
        mapped
        for each in _drawn_on(image, trajectory, DRAW_LINE)
        if (line := _line(each.arguments, frame_of(targets.root))) is not None
        and (mapped := mapped_line(line, raw_to_root(each), line.frame)) is not None
    ]
    return matched_similarity(drawn, targets.lines, targets.root, line_similarity)


def point_score(image: TrajectoryImage, trajectory: Trajectory, targets: Targets) -> float | None:
    """How well the points drawn on an image, and on those it was made from, mark the targets."""
    drawn = [
        mapped_point(point, raw_to_root(each), point.frame)
        for each in _drawn_on(image, trajectory, DRAW_POINT)
        if (point := _point(each.arguments, frame_of(targets.root))) is not None
    ]
    return matched_similarity(drawn, targets.points, targets.root, point_similarity)


def _drawn_on(
    image: TrajectoryImage, trajectory: Trajectory, operation: str
) -> list[TrajectoryImage]:
    """The images by which the operation made this one, if it was made from the first image."""
    if image.root != 0:
        return []
    return [each for each in chain(image, trajectory.images) if each.operation == operation]


def _line(arguments: Mapping[str, JsonValue], frame: Frame) -> AxisLine | None:
    match arguments:
        case {"axis": "x" | "y" as axis, "value_px": int() | float() as value}:
            return AxisLine(axis, value, frame)
    return None


def _point(arguments: Mapping[str, JsonValue], frame: Frame) -> Point | None:
    match arguments:
        case {"x_px": int() | float() as x, "y_px": int() | float() as y}:
            return Point(x, y, frame)
    return None
