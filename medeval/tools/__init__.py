"""The visual tools. `remake` makes an image again from the recipe that a trajectory records."""

from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING

from medeval.errors import DataError

if TYPE_CHECKING:
    from medeval.images.picture import Picture
    from medeval.types.sample import JsonValue

# For each operation of the tools, the function that makes the image again from its recipe.
REMAKERS = {
    "crop": ("medeval.tools.crop", "remake_crop"),
    "rotate": ("medeval.tools.rotate_flip", "remake_rotate"),
    "flip": ("medeval.tools.rotate_flip", "remake_flip"),
    "draw_line": ("medeval.tools.draw", "remake_line"),
    "draw_point": ("medeval.tools.draw", "remake_point"),
    "focus": ("medeval.tools.focus", "remake_focus"),
}
OPERATIONS = tuple(REMAKERS)


def remake(operation: str, arguments: "Mapping[str, JsonValue]", parent: "Picture") -> "Picture":
    """The image that an operation made from `parent`, byte for byte.

    `arguments` is the recipe that a trajectory records. Raises DataError for an operation or a
    recipe that no tool writes.
    """
    if operation == "function":
        raise DataError(
            f"this image was made by a protocol's own function, {arguments.get('function')!r}",
            hint="only the protocol's file can make it again",
        )
    if operation not in REMAKERS:
        raise DataError(
            f"no tool makes images by the operation {operation!r}; known: {', '.join(OPERATIONS)}",
            hint="read the run with the version of medeval that wrote it",
        )
    module, function = REMAKERS[operation]
    made: Picture = getattr(import_module(module), function)(arguments, parent)
    return made
