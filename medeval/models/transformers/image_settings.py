"""Settings of a checkpoint's image processor that a user overrides, such as bounds on the area."""

from collections.abc import Mapping
from typing import Any

from medeval.errors import FatalModelError

# Image processors that bound an area in pixels know it by these names.
AREA_NAMES = {"min_pixels": "shortest_edge", "max_pixels": "longest_edge"}
# Arguments of a call, which are no settings.
CALL_NAMES = frozenset(
    {"return_tensors", "data_format", "input_data_format", "device", "disable_grouping"}
    | {"image_processor_type", "processor_class"}
)
# No edge is so long: a `size` of more means an area in pixels.
LEAST_AREA_PX = 2**14


def with_image_settings(images: Any, settings: Mapping[str, Any]) -> Any:
    """The image processor with some settings changed, under its own names of them.

    `min_pixels` and `max_pixels` bound an image's area. Raises FatalModelError for a name that the
    processor does not know, and for a lower bound above the upper one.
    """
    if images is None:
        raise FatalModelError(
            f"the model takes no images, so it has no setting {', '.join(settings)}"
        )
    known = setting_names(images)
    for name in settings:
        if name not in known:
            raise FatalModelError(
                f"{type(images).__name__} has no setting {name!r}",
                hint=f"--model-args image_processor={{...}} takes {', '.join(sorted(known))}",
            )
    for name in set(AREA_NAMES) & set(settings):
        if not isinstance(settings[name], int) or settings[name] < 1:
            raise FatalModelError(f"{name} is {settings[name]!r}, not a number of pixels")
    try:
        made = type(images).from_dict(_changed(images, settings))
    except (TypeError, ValueError, LookupError, AttributeError) as error:
        raise FatalModelError(
            f"{type(images).__name__} does not take {dict(settings)!r}: {error}"
        ) from error
    if _is_area(images):
        _check_area(made)
    return made


def _changed(images: Any, settings: Mapping[str, Any]) -> dict[str, Any]:
    current: dict[str, Any] = images.to_dict()
    size, others = dict(getattr(images, "size", None) or {}), dict(settings)
    for name, edge in AREA_NAMES.items():
        if name in others:
            size[edge] = others.pop(name)
            current["size"] = size
            current.pop(name, None)
    return current | others


def _check_area(images: Any) -> None:
    low, high = (getattr(images.size, edge, None) for edge in AREA_NAMES.values())
    if low is None or high is None:
        raise FatalModelError(
            f"{type(images).__name__} bounds an image's area by shortest_edge and longest_edge in "
            f"its size, not by {dict(images.size)!r}"
        )
    if low > high:
        raise FatalModelError(f"min_pixels {low!r} is more than max_pixels {high!r}")


def call_settings(images: Any, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that a call of the processor takes too, where its own defaults would win."""
    taken = getattr(getattr(images, "valid_kwargs", None), "__annotations__", {})
    return {n: value for n, value in settings.items() if n in taken and n not in AREA_NAMES}


def setting_names(images: Any) -> set[str]:
    """The names of an image processor's settings."""
    names = set(getattr(getattr(images, "valid_kwargs", None), "__annotations__", {}))
    names |= {name for name in images.to_dict() if not name.startswith("_")}
    names -= CALL_NAMES | set(AREA_NAMES)
    return names | set(AREA_NAMES) if _is_area(images) else names


def _is_area(images: Any) -> bool:
    """Whether the processor's `size` holds bounds on an area."""
    size = dict(getattr(images, "size", None) or {})
    edges = set(AREA_NAMES.values())
    declared = getattr(getattr(images, "valid_kwargs", None), "__annotations__", {})
    return set(size) >= edges and (
        set(AREA_NAMES) <= set(declared) or int(size["longest_edge"]) >= LEAST_AREA_PX
    )
