"""The recipe of an image that a tool made: written as JSON, read back with care."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING

from medeval.errors import DataError, DefinitionError
from medeval.images import PixelBudget

if TYPE_CHECKING:
    from medeval.images import Picture
    from medeval.types import JsonValue


def budget_recipe(budget: PixelBudget | None) -> "JsonValue":
    """A pixel budget as a recipe holds it; None where nothing is resized."""
    return None if budget is None else asdict(budget)


def read_budget(limits: "JsonValue") -> PixelBudget | None:
    """The pixel budget of a recipe. Raises DataError for what is none."""
    match limits:
        case None:
            return None
        case {"min_px": int(smallest), "max_px": int(largest), "factor": int(factor)}:
            try:
                return PixelBudget(min_px=smallest, max_px=largest, factor=factor)
            except DefinitionError as error:
                raise DataError(error.message, hint="the record was changed") from error
    raise DataError(f"no pixel budget: {limits!r}", hint="the record was changed")


def no_recipe(what: str, arguments: "Mapping[str, JsonValue]", parent: "Picture") -> DataError:
    """The error for a recipe that no tool wrote for this image; `what` is "a crop"."""
    return DataError(
        f"no recipe of {what} from an image of {parent.raw.width_px} x {parent.raw.height_px} "
        f"pixels: {dict(arguments)!r}",
        hint="the record was changed, or its image is not the one that the tool worked on",
    )
