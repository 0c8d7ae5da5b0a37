"""The visual tools, and how an image that one of them made is made again."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from medeval.errors import DataError

if TYPE_CHECKING:
    from medeval.images import Picture
    from medeval.types import JsonValue

OPERATIONS = ("crop",)


def remake(operation: str, arguments: "Mapping[str, JsonValue]", parent: "Picture") -> "Picture":
    """The image that an operation once made from its parent, byte for byte.

    `arguments` is the recipe as a trajectory records it. Raises DataError for an operation or a
    recipe that no tool writes.
    """
    if operation == "crop":
        from medeval.tools.crop_recipe import remake_crop

        return remake_crop(arguments, parent)
    raise DataError(
        f"no tool makes images by the operation {operation!r}; known: {', '.join(OPERATIONS)}",
        hint="read the run with the version of medeval that wrote it",
    )
