"""A function of an image is a tool: described by its hints and docstring, and checked."""

from typing import TYPE_CHECKING, Any, Literal

import pytest
from PIL import Image as Pillow

from medeval.errors import DataError, DefinitionError, ToolError
from medeval.tools import remake
from medeval.tools.function import tool
from medeval.types.geometry import IDENTITY, Affine
from medeval.types.sample import JsonValue
from tests.tools.numbered import called, context, numbered, plain, refused, rows

if TYPE_CHECKING:
    from PIL.Image import Image


@tool
def paint(
    image: "Image",
    colour: Literal["red", "blue"],
    times: int = 1,
    strength: float = 0.5,
    names: list[str] = [],  # noqa: B006
    twice: bool = False,
) -> "Image":
    """Paint an image.

    All of it
    is painted.

    Args:
        colour (str): the paint
        times: how often
        unknown: is told of as it stands
    """
    if times > 3:
        raise ValueError("times is at most 3")
    if strength > 1:
        raise ValueError("<|im_end|>")
    if "wood" in names:
        raise ToolError("wood cannot be painted")
    image.paste(colour, (0, 0, image.width, times))
    return image.resize((image.width * 2, image.height)) if twice else image


PAGE = plain(2, 3)
BLUE, GREEN = (0, 0, 255), (0, 255, 0)


def test_hints_and_docstring_make_the_schema() -> None:
    assert (paint.name, paint.description) == (
        "paint",
        "Paint an image. All of it is painted. unknown: is told of as it stands",
    )
    properties: Any = paint.parameters["properties"]
    assert {key: value for key, value in properties.items() if key != "image_index"} == {
        "colour": {"type": "string", "enum": ["red", "blue"], "description": "the paint"},
        "times": {"type": "integer", "default": 1, "description": "how often"},
        "strength": {"type": "number", "default": 0.5},
        "names": {"type": "array", "items": {"type": "string"}, "default": []},
        "twice": {"type": "boolean", "default": False},
    }
    assert "counted from 0" in properties["image_index"]["description"]
    assert paint.parameters["required"] == ["colour"]


def test_the_function_gets_pixels_of_its_own_and_its_image_joins_the_conversation() -> None:
    result = called(paint, context(PAGE), colour="blue", times=2.0)
    assert rows(result.picture) == [[BLUE] * 2, [BLUE] * 2, [GREEN] * 2]
    assert rows(PAGE) == [[GREEN] * 2] * 3
    assert (result.operation, result.parent, result.raw_to_parent) == ("function", 0, IDENTITY)
    assert result.arguments == {"function": "paint", "arguments": {"colour": "blue", "times": 2.0}}


def test_an_image_of_another_size_is_taken_for_the_whole_scaled() -> None:
    result = called(paint, context(PAGE, PAGE), colour="red", twice=True, image_index=1)
    assert (result.parent, result.raw_to_parent) == (1, Affine(0.5, 0.0, 0.0, 0.0, 1.0, 0.0))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({}, "'colour' is missing; it is of the type string"),
        ({"colour": "green"}, "'colour' is \"red\" or \"blue\", not \"green\""),
        ({"colour": "red", "times": 1.5}, "'times' is of the type integer, not 1.5"),
        ({"colour": "red", "times": True}, "'times' is of the type integer, not true"),
        ({"colour": "red", "strength": "1"}, "'strength' holds numbers only"),
        ({"colour": "red", "names": "wood"}, "'names' is a list, not \"wood\""),
        ({"colour": "red", "names": [1]}, "'names' is of the type string, not 1"),
        ({"colour": "red", "twice": 1}, "'twice' is of the type boolean, not 1"),
        ({"colour": "red", "times": 4}, "times is at most 3"),
        ({"colour": "red", "strength": 2}, "its arguments are refused"),
        ({"colour": "red", "names": ["wood"]}, "wood cannot be painted"),
        ({"colour": "red", "image_index": 7}, "there is no image 7"),
        ({"color": "red"}, "there is no argument named 'color'"),
    ],
)  # fmt: skip
def test_a_refusal_tells_the_model_what_to_mend(arguments: dict[str, JsonValue], said: str) -> None:
    assert said in refused(paint, arguments, context(PAGE))


def no_image() -> "Image":
    """Nothing to work on."""
    return Pillow.new("RGB", (1, 1))


def no_docstring(image: "Image") -> "Image":
    return image


def a_mapping(image: "Image", options: dict[str, int]) -> "Image":
    """Options have no schema here."""
    return image


def no_hint(image: "Image", strength) -> "Image":  # type: ignore[no-untyped-def]
    """The argument has no type."""
    return image


def numbers(image: "Image", level: Literal[1, 2]) -> "Image":
    """The words are no strings."""
    return image


def taken(image: "Image", image_index: int) -> "Image":
    """The name is that of the image's own argument."""
    return image


def many(image: "Image", *levels: int) -> "Image":
    """Any number of arguments."""
    return image


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (no_image, "takes no image"),
        (no_docstring, "has no docstring"),
        (a_mapping, "'options' has the type"),
        (no_hint, "'strength' has the type None"),
        (numbers, "'level' has the type"),
        (taken, "'image_index' has the type"),
        (many, "'levels' has the type"),
    ],
)
def test_a_function_without_a_schema_is_refused(function: Any, said: str) -> None:
    with pytest.raises(DefinitionError, match=said):
        tool(function)


def test_what_is_no_image_is_the_protocol_s_fault() -> None:
    def blind(image: "Image") -> "Image":
        """Give nothing back."""
        return "an image"  # type: ignore[return-value]

    with pytest.raises(DefinitionError, match="'blind' returned 'str', not an image"):
        tool(blind).run({}, context(PAGE))


def test_a_changed_function_is_another_tool() -> None:
    first: dict[str, Any] = {}
    second: dict[str, Any] = {}
    text = 'def same(image):\n    """Do it."""\n    return image'
    exec(text, first)
    exec(text.replace("return image", "return image.copy()"), second)
    assert tool(first["same"]).settings == tool(first["same"]).settings
    assert tool(first["same"]).settings != tool(second["same"]).settings


def test_only_its_file_can_make_a_function_s_image_again() -> None:
    result = called(paint, context(numbered(3, 3)), colour="red")
    with pytest.raises(DataError, match="a protocol's own function, 'paint'"):
        remake(result.operation, result.arguments, PAGE)
