"""Which image a call means: an index, or a name as programs have them, `image_1` or `result_1`."""

import re
from typing import Final

from medeval.errors import ToolError
from medeval.tools.arguments import read_index, seen
from medeval.tools.base import ToolContext
from medeval.types.sample import JsonValue

# `image_1` is the first image of the sample; `result_1` what the reply's first call made.
NAME: Final = re.compile(r"(image|result)_([1-9][0-9]{0,5})")


def named_image(value: JsonValue, argument: str, context: ToolContext) -> int:
    """The index of an image that a call means. Raises ToolError where there is none."""
    if not isinstance(value, str):
        return read_index(value, argument)
    name = NAME.fullmatch(value)
    if name is None:
        raise ToolError(f"{argument!r} is an image, not {seen(value)}")
    place = int(name[2]) - 1
    if name[1] == "image":
        if place >= context.n_originals:
            raise ToolError(f"there is no {value}; the last is image_{context.n_originals}")
        return place
    made = context.earlier[place] if place < len(context.earlier) else None
    if made is None:
        raise ToolError("the call that was to make this image made none")
    return made
