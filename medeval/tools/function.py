"""Makes a tool of a Python function, with a schema from its type hints and its docstring."""

import hashlib
import inspect
import re
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal, get_args, get_origin

from medeval.errors import DefinitionError, ToolError
from medeval.images.picture import Picture, made_picture
from medeval.images.resize import PixelBudget
from medeval.tools.arguments import (
    SAFE_JSON,
    check_names,
    image_parameter,
    read_choice,
    read_image,
    read_number,
    required,
    seen,
)
from medeval.tools.base import Tool, ToolContext, ToolResult
from medeval.types.geometry import IDENTITY, Affine
from medeval.types.sample import JsonValue

if TYPE_CHECKING:
    from PIL import Image

OPERATION: Final = "function"
IMAGE_ARGUMENT: Final = "image_index"

KINDS: Final[Mapping[object, str]] = {
    int: "integer",
    float: "number",
    str: "string",
    bool: "boolean",
}

# A docstring's line on an argument: "factor: how many times as bright", or "factor (int): ...".
ARGUMENT_LINE: Final = re.compile(r"^\s*(\w+)(?:\s*\([^)]*\))?:\s+(\S.*)$")


def tool(function: "Callable[..., Image.Image]", *, budget: PixelBudget | None = None) -> Tool:
    """The tool that runs a function on an image, and shows the image that the function returns.

    The first parameter gets the image that a call names by `image_index`, in RGB and at its raw
    size; the function may change it. Each further parameter is an argument of the tool, with the
    hint int, float, str, bool, a Literal of strings or a list of one of these; one with a default
    may be left out. Numbers arrive as the model wrote them, in the frame that the docstring names.
    The tool has the function's name. Its description is the docstring, in which lines "name: text"
    describe the arguments. A ToolError or ValueError that the function raises refuses the call, and
    the model reads the message.

    An image of another size is taken for its whole parent, scaled. It is sent within `budget`
    (None: not resized). Raises DefinitionError for a function that these rules cannot describe.
    """
    name = function.__name__
    parameters = _parameters(function)
    description, texts = _described(inspect.getdoc(function) or "", set(parameters))
    if not description:
        raise DefinitionError(
            f"tool {name!r}: its function has no docstring",
            hint="the docstring is the description that the model reads",
        )
    properties: dict[str, JsonValue] = {
        key: {**parameter.schema(), **({"description": texts[key]} if key in texts else {})}
        for key, parameter in parameters.items()
    }
    return Tool(
        name=name,
        description=description,
        parameters={
            "type": "object",
            "properties": {**properties, IMAGE_ARGUMENT: image_parameter("work on")},
            "required": [key for key, each in parameters.items() if each.is_required],
            "additionalProperties": False,
        },
        run=partial(_run, function, parameters, budget),
        settings={"source_sha256": _source_hash(function)},
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Parameter:
    """One argument: its type (a key of KINDS), its `choices` if any, and whether it is a list."""

    name: str
    kind: object
    choices: tuple[str, ...]
    is_list: bool
    default: object

    @property
    def is_required(self) -> bool:
        return self.default is inspect.Parameter.empty

    def schema(self) -> dict[str, JsonValue]:
        one: dict[str, JsonValue] = {"type": KINDS[self.kind]}
        if self.choices:
            one["enum"] = list(self.choices)
        whole: dict[str, JsonValue] = {"type": "array", "items": one} if self.is_list else one
        return whole if self.is_required else {**whole, "default": _default(self.default)}

    def read(self, value: JsonValue) -> object:
        """The value that the function gets; ToolError for a value of another type."""
        if not self.is_list:
            return self._read_one(value)
        if not isinstance(value, list):
            raise ToolError(f"{self.name!r} is a list, not {seen(value)}")
        return [self._read_one(item) for item in value]

    def _read_one(self, value: JsonValue) -> object:
        if self.choices:
            return read_choice(value, self.name, self.choices)
        if self.kind is float:
            return read_number(value, self.name)
        if self.kind is int and isinstance(value, float) and value.is_integer():
            return int(value)
        is_other = self.kind is int and isinstance(value, bool)
        if isinstance(value, typing.cast("type", self.kind)) and not is_other:
            return value
        raise ToolError(f"{self.name!r} is of the type {KINDS[self.kind]}, not {seen(value)}")


def _default(value: object) -> JsonValue:
    return list(value) if isinstance(value, tuple | list) else typing.cast("JsonValue", value)


def _parameters(function: Callable[..., object]) -> dict[str, _Parameter]:
    """The parameters after the first, by name."""
    listed = list(inspect.signature(function).parameters.values())
    if not listed:
        raise DefinitionError(
            f"tool {function.__name__!r}: its function takes no image",
            hint="the first parameter gets the image",
        )
    hints = _hints(function, [parameter.name for parameter in listed[1:]])
    return {
        parameter.name: _parameter(function.__name__, parameter, hints.get(parameter.name))
        for parameter in listed[1:]
    }


def _hints(function: Callable[..., object], names: list[str]) -> dict[str, object]:
    """The evaluated type hints of the named parameters; the image's is not evaluated."""
    written = inspect.get_annotations(function)
    hinted = types.SimpleNamespace(
        __annotations__={name: written[name] for name in names if name in written}
    )
    return typing.get_type_hints(hinted, globalns=getattr(function, "__globals__", {}))


def _parameter(owner: str, parameter: inspect.Parameter, hint: object) -> _Parameter:
    is_list = get_origin(hint) is list and len(get_args(hint)) == 1
    one = get_args(hint)[0] if is_list else hint
    choices: tuple[Any, ...] = get_args(one) if get_origin(one) is Literal else ()
    kind: object = str if choices else one
    fits = kind in KINDS and all(isinstance(choice, str) for choice in choices)
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    if not fits or parameter.kind in variadic or parameter.name == IMAGE_ARGUMENT:
        raise DefinitionError(
            f"tool {owner!r}: its parameter {parameter.name!r} has the type {hint!r}, which has no "
            "schema",
            hint="int, float, str, bool, a Literal of strings, or a list of one of these; "
            f"{IMAGE_ARGUMENT!r} is taken",
        )
    return _Parameter(
        name=parameter.name,
        kind=kind,
        choices=choices,
        is_list=is_list,
        default=parameter.default,
    )


def _described(docstring: str, names: set[str]) -> tuple[str, dict[str, str]]:
    """The description in one paragraph, and the texts of the arguments by `names`."""
    texts: dict[str, str] = {}
    description: list[str] = []
    for line in docstring.splitlines():
        found = ARGUMENT_LINE.match(line)
        if found and found[1] in names:
            texts[found[1]] = found[2].strip()
        elif line.strip() not in ("", "Args:"):
            description.append(line.strip())
    return " ".join(description), texts


def _source_hash(function: Callable[..., object]) -> str:
    """The SHA-256 of the function's source, so that a changed function is another tool."""
    try:
        source = inspect.getsource(function).encode()
    except (OSError, TypeError):
        code = getattr(function, "__code__", None)
        source = repr((code.co_code, code.co_consts) if code else function).encode()
    return hashlib.sha256(source).hexdigest()


def _run(
    function: "Callable[..., Image.Image]",
    parameters: Mapping[str, _Parameter],
    budget: PixelBudget | None,
    arguments: Mapping[str, JsonValue],
    context: ToolContext,
) -> ToolResult:
    check_names(arguments, (*parameters, IMAGE_ARGUMENT))
    index = read_image(arguments, IMAGE_ARGUMENT)
    context.check_index(index)
    given = {
        key: parameter.read(required(arguments, key, f"of the type {KINDS[parameter.kind]}"))
        for key, parameter in parameters.items()
        if parameter.is_required or key in arguments
    }
    parent = context.picture(index)
    try:
        made = function(parent.pixels(), **given)
    except ValueError as error:
        message = str(error)
        shown = message if SAFE_JSON.fullmatch(message) else "its arguments are refused"
        raise ToolError(shown or "its arguments are refused") from error
    return ToolResult(
        picture=_made(function.__name__, made, budget),
        parent=index,
        operation=OPERATION,
        arguments={
            "function": function.__name__,
            "arguments": {key: arguments[key] for key in parameters if key in arguments},
        },
        raw_to_parent=_scaling(made.size, parent),
    )


def _made(name: str, made: object, budget: PixelBudget | None) -> Picture:
    from PIL import Image

    if not isinstance(made, Image.Image):
        raise DefinitionError(f"tool {name!r} returned {type(made).__name__!r}, not an image")
    return made_picture(made, budget=budget)


def _scaling(size: tuple[int, int], parent: Picture) -> Affine:
    width, height = size
    if (width, height) == (parent.raw.width_px, parent.raw.height_px):
        return IDENTITY
    return Affine(parent.raw.width_px / width, 0.0, 0.0, 0.0, parent.raw.height_px / height, 0.0)
