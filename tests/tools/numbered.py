"""Pictures whose pixels tell where they are, and the tool calls that tests make on them."""

from collections.abc import Mapping
from itertools import chain

import pytest
from PIL import Image

from medeval.errors import ToolError
from medeval.images.picture import Picture, made_picture
from medeval.images.resize import PixelBudget
from medeval.tools.base import FrameKind, Tool, ToolContext, ToolResult
from medeval.types.sample import JsonValue


def numbered(width: int, height: int, budget: PixelBudget | None = None) -> Picture:
    """A picture whose pixel at (x, y) is (x, y, 0)."""
    values = [(x, y, 0) for y in range(height) for x in range(width)]
    data = bytes(chain.from_iterable(values))
    return made_picture(Image.frombytes("RGB", (width, height), data), budget=budget)


def plain(width: int, height: int, colour: tuple[int, int, int] = (0, 255, 0)) -> Picture:
    return made_picture(Image.new("RGB", (width, height), colour), budget=None)


def rows(picture: Picture) -> list[list[tuple[int, ...]]]:
    """The pixels, row by row."""
    data, (width, height) = picture.pixels().tobytes(), picture.pixels().size
    pixels = [tuple(data[at : at + 3]) for at in range(0, len(data), 3)]
    return [pixels[row * width : (row + 1) * width] for row in range(height)]


def context(*pictures: Picture, frame: FrameKind = "permille") -> ToolContext:
    return ToolContext(pictures=pictures, frame=frame)


def called(tool: Tool, where: ToolContext, **arguments: JsonValue) -> ToolResult:
    return tool.run(arguments, where)


def refused(tool: Tool, arguments: Mapping[str, JsonValue], where: ToolContext) -> str:
    with pytest.raises(ToolError) as caught:
        tool.run(arguments, where)
    return caught.value.message
