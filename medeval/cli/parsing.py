"""How flags are read: comma-separated lists, key=value pairs, and which ones were given."""

import json
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

if TYPE_CHECKING:
    ParamType = click.ParamType[Any]
else:
    # ParamType is generic only in newer versions of click
    ParamType = click.ParamType


class CommaSeparated(ParamType):
    """`a,b,c` as a tuple, each item converted."""

    def __init__(self, item: ParamType = click.STRING) -> None:
        self.item = item
        self.name = "name,..." if item is click.STRING else f"{item.name},..."

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[Any, ...]:
        """The items of a text, without the empty ones."""
        if isinstance(value, tuple):
            return value
        items = [item.strip() for item in str(value).split(",")]
        return tuple(self.item.convert(item, param, ctx) for item in items if item)


class KeyValues(ParamType):
    """`k=v,k=v` as a dict; a value that is not JSON is text.

    Text that begins with a brace is one JSON object, for values that contain commas.
    """

    name = "k=v,..."

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> dict[str, Any]:
        """The pairs of a text; fails on an item without `=`."""
        if isinstance(value, dict):
            return value
        if str(value).lstrip().startswith("{"):
            return self._object(str(value), param, ctx)
        pairs: dict[str, Any] = {}
        for item in filter(None, str(value).split(",")):
            key, separator, text = item.partition("=")
            if not separator:
                self.fail(f"{item!r} is not k=v", param, ctx)
            pairs[key.strip()] = _json_or_text(text.strip())
        return pairs

    def _object(
        self, text: str, param: click.Parameter | None, ctx: click.Context | None
    ) -> dict[str, Any]:
        try:
            pairs: dict[str, Any] = json.loads(text)
        except ValueError as error:
            self.fail(f"{text!r} is not a JSON object: {error}", param, ctx)
        return pairs


def _json_or_text(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def given_flags(ctx: click.Context) -> dict[str, Any]:
    """The options given on the command line, without defaults; lists of lists are flattened."""
    return {
        name: _flat(value)
        for name, value in ctx.params.items()
        if ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE
    }


def _flat(value: Any) -> Any:
    if isinstance(value, tuple) and value and all(isinstance(item, tuple) for item in value):
        return tuple(item for group in value for item in group)
    return value
