"""Settings with which pydantic writes types as JSON and reads them; pydantic is imported late.

A record is a frozen dataclass that names one of the settings below as its
`__pydantic_config__`; `medeval.store.records` reads and writes it.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler
    from pydantic_core import CoreSchema

# Undeclared fields are refused; values are checked when they are read and when they are written.
STRICT: Final[Mapping[str, object]] = {"extra": "forbid", "revalidate_instances": "always"}
# The same, and numbers are finite.
FINITE: Final[Mapping[str, object]] = {**STRICT, "allow_inf_nan": False}
# The same, but undeclared fields are ignored.
OPEN: Final[Mapping[str, object]] = {**STRICT, "extra": "ignore"}

# JSON readers refuse deep nesting (pydantic at 200), but a model may write any depth.
MAX_DEPTH: Final = 64


class Storable:
    """Marks an annotated JSON object: `storable` is applied to it before it is written."""

    @staticmethod
    def __get_pydantic_core_schema__(
        source: object, handler: "GetCoreSchemaHandler"
    ) -> "CoreSchema":
        from pydantic import JsonValue
        from pydantic_core import core_schema

        return core_schema.no_info_before_validator_function(
            storable, handler.generate_schema(dict[str, JsonValue])
        )


def storable(value: Any, *, depth_left: float = MAX_DEPTH) -> Any:
    """A JSON value that reads back: lone surrogates replaced, objects nested too deep cut off.

    A value without JSON form stays unchanged.
    """
    if isinstance(value, str):
        if value.isascii():
            return value
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if not isinstance(value, Mapping | list | tuple):
        return value
    if depth_left <= 0:
        return f"(nested deeper than {MAX_DEPTH})"
    if isinstance(value, Mapping):
        return {
            storable(name): storable(item, depth_left=depth_left - 1)
            for name, item in value.items()
        }
    return [storable(item, depth_left=depth_left - 1) for item in value]
