"""How well calls that focus on rows or columns cover the regions that a question is about."""

import re
from collections.abc import Sequence
from typing import Final

from medeval.analysis.process.marks import raw_to_root
from medeval.analysis.process.misuse import AXIS_OF_NAME, AXIS_OF_REGION, ChartAxis
from medeval.analysis.process.regions import Rectangle, precision_and_recall
from medeval.analysis.process.states import Targets
from medeval.types.geometry import RELATIVE, Box, Size
from medeval.types.sample import JsonValue, Sample
from medeval.types.trajectory import TrajectoryImage

FOCUS: Final = "focus"


def focused_regions(image: TrajectoryImage, root: Size) -> list[Rectangle] | None:
    """The regions that a call focused on, in the first image; None for any other operation.

    Empty where the call named no region of the image, or focused on another image than the first.
    A call that displays an image unchanged has no axis, and counts as no focus.
    """
    if focused_axis(image) is None:
        return None
    boxes = image.arguments.get("focused_px")
    if image.root != 0 or not isinstance(boxes, list):
        return []
    return [rectangle for box in boxes if (rectangle := _mapped(box, image, root)) is not None]


def focused_axis(image: TrajectoryImage) -> ChartAxis | None:
    """The axis that a call focused along; None where it did not focus."""
    axis = image.arguments.get("axis") if image.operation == FOCUS else None
    return AXIS_OF_NAME.get(axis) if isinstance(axis, str) else None


def _mapped(box: JsonValue, image: TrajectoryImage, root: Size) -> Rectangle | None:
    match box:
        case [
            int() | float() as x1,
            int() | float() as y1,
            int() | float() as x2,
            int() | float() as y2,
        ] if x1 < x2 and y1 < y2:
            to_root = raw_to_root(image)
            corners = [to_root.apply(x1, y1), to_root.apply(x2, y2)]
            (left, right), (top, bottom) = (sorted(each) for each in zip(*corners, strict=True))
            return Rectangle(left, top, right, bottom).within(root)
    return None


def focus_quality(
    images: Sequence[TrajectoryImage], sample: Sample, targets: Targets
) -> tuple[float, float] | None:
    """Precision and recall of the area that the calls behind these images focused on.

    The area to focus on is that of the target boxes; for a sample without any, that of
    `named_regions` along the axes of the calls. None, undefined, where no call focused or there is
    no area to focus on.
    """
    found = [
        regions for each in images if (regions := focused_regions(each, targets.root)) is not None
    ]
    axes = {focused_axis(each) for each in images}
    wanted = targets.boxes or [
        region for axis in axes if axis for region in named_regions(sample, targets.root, axis)
    ]
    if not found or not wanted:
        return None
    return precision_and_recall([each for regions in found for each in regions], wanted)


def named_regions(sample: Sample, root: Size, axis: ChartAxis) -> list[Rectangle]:
    """The regions along an axis whose name is in the question or in an accepted answer.

    They replace target boxes for samples that have regions but no boxes (ReFocus). The data do not
    say which regions a question is about, so this rule is medeval's own.
    """
    text = " ".join([sample.question, *sample.targets]).casefold()
    found = []
    for region in _listed(sample.metadata.get("regions")):
        match region:
            case {"axis": str(along), "name": str(name), "box": [float() | int(), *_] as box}:
                if AXIS_OF_REGION.get(along) == axis and _is_named(name, text):
                    found.append(_relative(box, root))
    return [each for each in found if each is not None and each.area > 0.0]


def _listed(value: JsonValue) -> Sequence[JsonValue]:
    return value if isinstance(value, list) else ()


def _is_named(name: str, text: str) -> bool:
    words = name.casefold().strip()
    return bool(words) and re.search(rf"(?<!\w){re.escape(words)}(?!\w)", text) is not None


def _relative(box: list[JsonValue], root: Size) -> Rectangle | None:
    try:
        left, top, right, bottom = (float(side) for side in box)  # type: ignore[arg-type]
        return Rectangle.of(Box(left, top, right, bottom, RELATIVE), root)
    except (TypeError, ValueError):
        return None
