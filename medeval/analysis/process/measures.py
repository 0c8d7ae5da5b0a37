"""The process metrics of one trajectory and of each of its calls, as numbers by name."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from medeval.analysis.process.focus import focus_quality
from medeval.analysis.process.misuse import attempted_tools, axis_of_chart, is_misuse
from medeval.analysis.process.orientation import is_restored
from medeval.analysis.process.regions import (
    HIT_IOU,
    Rectangle,
    hull,
    intersection_over_union,
    is_inside,
    modified_f1,
)
from medeval.analysis.process.states import (
    Targets,
    cited_image,
    crop_region,
    line_score,
    made_images,
    point_score,
)
from medeval.types.sample import Sample
from medeval.types.trajectory import CallStatus, ToolCall, Trajectory, TrajectoryImage

# A number that is undefined for a trajectory or a call has no entry.
Values = Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredCall:
    """One call of a trajectory: its tool, its status, and its numbers by name."""

    tool: str
    status: CallStatus
    values: Values


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredTrajectory:
    """One trajectory of the available arm: its calls in order, and its numbers by name."""

    sample_id: str
    repeat: int
    calls: tuple[MeasuredCall, ...]
    values: Values

    @property
    def executed(self) -> tuple[str, ...]:
        """The tools that ran, in order."""
        return tuple(call.tool for call in self.calls if call.status == "executed")


def measured(trajectory: Trajectory, sample: Sample) -> MeasuredTrajectory:
    """A trajectory measured against the targets of its sample."""
    values = _counts(trajectory)
    calls = [MeasuredCall(tool=_name(c), status=c.status, values={}) for c in trajectory.calls]
    if trajectory.images:
        targets = Targets.of(sample, trajectory.images[0].raw)
        calls = [_call(call, trajectory, sample, targets) for call in trajectory.calls]
        values |= _zoom(trajectory, targets)
        values |= _orientation(trajectory, targets)
        values |= _marks(trajectory, targets, "line", bool(targets.lines), line_score)
        values |= _marks(trajectory, targets, "point", bool(targets.points), point_score)
        values |= _focus(focus_quality(made_images(trajectory), sample, targets))
    values |= _misuse(trajectory, sample)
    return MeasuredTrajectory(
        sample_id=trajectory.sample_id,
        repeat=trajectory.repeat,
        calls=tuple(calls),
        values=values,
    )


def _name(call: ToolCall) -> str:
    return call.name or "(unreadable)"


def _counts(trajectory: Trajectory) -> dict[str, float]:
    tools = {_name(call) for call in trajectory.calls if call.status == "executed"}
    return {
        "attempted": trajectory.attempted,
        "executed": trajectory.executed,
        "observed": trajectory.observed,
        "tools": len(tools),
        "composite": float(len(tools) > 1),
    }


def _zoom(trajectory: Trajectory, targets: Targets) -> dict[str, float]:
    if not targets.boxes:
        return {}
    made = made_images(trajectory)
    regions = [
        region
        for image in made
        if (region := crop_region(image, trajectory, targets.root)) is not None
    ]
    if not regions:
        return {"cropped": 0.0}
    values = {"cropped": 1.0, **_crop_quality(regions, targets)}
    for state, image in (("final", made[-1]), ("cited", cited_image(trajectory))):
        if image is not None:
            region = crop_region(image, trajectory, targets.root)
            values[f"modf1_{state}"] = _modf1(_or_whole(region, targets), targets)
    return values


def _or_whole(region: Rectangle | None, targets: Targets) -> Rectangle:
    """The region of a crop, or for an image without one, the whole of the first image."""
    root = targets.root
    return region or Rectangle(0.0, 0.0, root.width_px, root.height_px)


def _modf1(region: Rectangle, targets: Targets) -> float:
    return max(modified_f1(region, target) for target in targets.boxes)


def _crop_quality(regions: Sequence[Rectangle], targets: Targets) -> dict[str, float]:
    """How well crops frame each target, and all targets together."""
    boxes, around = targets.boxes, hull(targets.boxes)
    ious = [max(intersection_over_union(each, box) for each in regions) for box in boxes]
    inside = [any(is_inside(box, each) for each in regions) for box in boxes]
    values = {
        "modf1_best": max(_modf1(each, targets) for each in regions),
        "hit_iou_50": float(max(ious) >= HIT_IOU),
        "target_inside": sum(inside) / len(boxes),
        "all_targets_inside": float(all(inside)),
        "all_targets_in_one": float(
            any(all(is_inside(box, each) for box in boxes) for each in regions)
        ),
        "target_iou": sum(ious) / len(boxes),
        "all_targets_iou": max(intersection_over_union(each, around) for each in regions),
    }
    shown = [each for each in regions if each.area > 0.0]
    if shown:
        values["log_crop_over_target"] = sum(_log_ratio(box, shown) for box in boxes) / len(boxes)
        closest = max(shown, key=lambda each: modified_f1(each, around))
        values["log_crop_over_all_targets"] = math.log(closest.area / around.area)
    return values


def _log_ratio(target: Rectangle, regions: Sequence[Rectangle]) -> float:
    """The logarithm of crop area over target area, for the crop that frames the target best."""
    best = max(regions, key=lambda each: modified_f1(each, target))
    return math.log(best.area / target.area)


def _orientation(trajectory: Trajectory, targets: Targets) -> dict[str, float]:
    if targets.transform is None:
        return {}
    own = [image for image in trajectory.images if image.root == 0]
    upright = [is_restored(targets.transform, image.to_root) for image in own]
    if None in upright:
        return {}
    values = {
        "upright_at_start": float(bool(upright[0])),
        "upright_best": float(any(upright)),
        "upright_final": float(bool(_is_upright(trajectory.images[-1], targets.transform))),
    }
    cited = cited_image(trajectory)
    if cited is not None:
        values["upright_cited"] = float(_is_upright(cited, targets.transform))
    return values


def _is_upright(image: TrajectoryImage, transform: str) -> bool:
    return image.root == 0 and bool(is_restored(transform, image.to_root))


def _marks(
    trajectory: Trajectory,
    targets: Targets,
    kind: str,
    has_targets: bool,
    score: Callable[[TrajectoryImage, Trajectory, Targets], float | None],
) -> dict[str, float]:
    """The scores of lines or points at each state; undefined for a sample without such targets."""
    if not has_targets:
        return {}
    states = [score(image, trajectory, targets) or 0.0 for image in trajectory.images]
    values = {f"{kind}_best": max(states), f"{kind}_final": states[-1]}
    cited = cited_image(trajectory)
    if cited is not None:
        values[f"{kind}_cited"] = states[cited.index]
    return values


def _focus(quality: tuple[float, float] | None) -> dict[str, float]:
    if quality is None:
        return {}
    precision, recall = quality
    return {"focus_precision": precision, "focus_recall": recall}


def _misuse(trajectory: Trajectory, sample: Sample) -> dict[str, float]:
    """Calls along the wrong axis, for charts that have a right one.

    `misused` is defined for every such chart, `wrong_axis` only for those that a call focused on.
    """
    if axis_of_chart(sample.groups) is None:
        return {}
    calls = [
        (is_misuse(tool, sample.groups), call.status)
        for call in trajectory.calls
        for tool in attempted_tools(call)
    ]
    focusing = [(wrong, status) for wrong, status in calls if wrong is not None]
    ran = [wrong for wrong, status in focusing if status == "executed"]
    wrong = sum(bool(wrong) for wrong, _ in focusing)
    values = {
        "focus_attempted": len(focusing),
        "misused_attempted": wrong,
        "focus_executed": len(ran),
        "misused_executed": sum(map(bool, ran)),
        "misused": float(wrong > 0),
    }
    return values | ({"wrong_axis": float(wrong > 0)} if focusing else {})


def _call(call: ToolCall, trajectory: Trajectory, sample: Sample, targets: Targets) -> MeasuredCall:
    values: dict[str, float] = {}
    wrong = is_misuse(call.name, sample.groups)
    if wrong is not None:
        values["misused"] = float(wrong)
    if call.image is not None and call.image < len(trajectory.images):
        values |= _call_image(trajectory.images[call.image], trajectory, sample, targets)
    return MeasuredCall(tool=_name(call), status=call.status, values=values)


def _call_image(
    image: TrajectoryImage,
    trajectory: Trajectory,
    sample: Sample,
    targets: Targets,
) -> dict[str, float]:
    """The numbers of the image that one call made, by the operation of the call."""
    values: dict[str, float] = {}
    region = crop_region(image, trajectory, targets.root)
    if image.operation == "crop" and region is not None and targets.boxes:
        values["modf1"] = _modf1(region, targets)
        values["any_target_inside"] = float(any(is_inside(box, region) for box in targets.boxes))
        if region.area > 0.0:
            best = max(targets.boxes, key=lambda box: modified_f1(region, box))
            values["log_crop_over_target"] = math.log(region.area / best.area)
    if targets.transform is not None and image.operation in ("rotate", "flip"):
        values["upright"] = float(_is_upright(image, targets.transform))
    if targets.lines and image.operation == "draw_line":
        values["line"] = line_score(image, trajectory, targets) or 0.0
    if targets.points and image.operation == "draw_point":
        values["point"] = point_score(image, trajectory, targets) or 0.0
    return values | _focus(focus_quality([image], sample, targets))
