"""The recipe of an image that a tool made: the parts that all tools write and read alike."""

from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING

from medeval.errors import DataError, DefinitionError
from medeval.images.resize import PixelBudget, Resample, ResizeRule

if TYPE_CHECKING:
    from medeval.images.picture import Picture
    from medeval.types.sample import JsonValue


def budget_recipe(budget: PixelBudget | None) -> "JsonValue":
    """A pixel budget as a recipe holds it: its limits, then settings that are not the default."""
    if budget is None:
        return None
    recipe: dict[str, JsonValue] = {
        "min_px": budget.min_px,
        "max_px": budget.max_px,
        "factor": budget.factor,
    }
    for item in fields(budget):
        if item.name not in recipe and getattr(budget, item.name) != item.default:
            recipe[item.name] = getattr(budget, item.name)
    return recipe


def read_budget(limits: "JsonValue") -> PixelBudget | None:
    """The pixel budget of a recipe, None for no resize; DataError for anything else."""
    match limits:
        case None:
            return None
        case {"min_px": int(smallest), "max_px": int(largest), "factor": int(factor), **rest}:
            match (rest.pop("rule", "smart"), rest.pop("resample", "bicubic"), rest):
                case (
                    ("smart" | "area") as rule,
                    ("nearest" | "bilinear" | "bicubic" | "lanczos") as resample,
                    {**unknown},
                ) if not unknown:
                    return _budget(smallest, largest, factor, rule, resample)
    raise DataError(f"{limits!r} is no pixel budget", hint="the record was changed")


def _budget(
    min_px: int, max_px: int, factor: int, rule: ResizeRule, resample: Resample
) -> PixelBudget:
    try:
        return PixelBudget(
            min_px=min_px, max_px=max_px, factor=factor, rule=rule, resample=resample
        )
    except DefinitionError as error:
        raise DataError(error.message, hint="the record was changed") from error


def no_recipe(what: str, arguments: "Mapping[str, JsonValue]", parent: "Picture") -> DataError:
    """The error for a recipe that no tool wrote for this image; `what` is such as "a crop"."""
    return DataError(
        f"{dict(arguments)!r} is no recipe of {what} from an image of "
        f"{parent.raw.width_px} x {parent.raw.height_px} pixels",
        hint="the record was changed, or its image is not the one that the tool worked on",
    )
