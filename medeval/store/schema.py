"""What every record guarantees: no undeclared field, a schema version, and JSON that reads back.

Numbers that JSON lacks are written as strings ("NaN", "Infinity"), lone surrogates are
replaced, and arguments nested deeper than MAX_ARGUMENT_DEPTH are cut off with a note (a call's
`raw_text` keeps what the model wrote).
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, JsonValue, ValidationError
from pydantic_core import PydanticSerializationError

from medeval.errors import RecordError
from medeval.types.sample import JsonValue as Json

SCHEMA_VERSION: Literal[1] = 1

# JSON readers give up on deep nesting (pydantic's at 200), and a model may write any depth.
MAX_ARGUMENT_DEPTH = 64

LONGEST_SHOWN = 200


class Part(BaseModel):
    """A part of a record: immutable, with no field that is not declared."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, from_attributes=True, ser_json_inf_nan="strings"
    )


class Record(Part):
    """One JSONL line or JSON file."""

    schema_version: Literal[1] = SCHEMA_VERSION

    def line(self) -> bytes:
        """The record as one JSONL line, its newline included."""
        try:
            return self.model_dump_json().encode() + b"\n"
        except PydanticSerializationError:
            mended = type(self).model_validate(_without_surrogates(self.model_dump()))
            return mended.model_dump_json().encode() + b"\n"

    def pretty(self) -> bytes:
        """The record as an indented JSON file."""
        return self.model_dump_json(indent=2).encode() + b"\n"


AnyRecord = TypeVar("AnyRecord", bound=Record)


def parse_record(kind: type[AnyRecord], data: bytes, where: str) -> AnyRecord:
    """A record from its JSON. Raises RecordError, naming `where`, the field and what was seen."""
    try:
        return kind.model_validate_json(data)
    except ValidationError as error:
        raise unfit(error, where) from None


def unfit(error: ValidationError, where: str) -> RecordError:
    """The error that tells people why a value is not a record: the first field that is wrong."""
    first = error.errors(include_url=False)[0]
    field = ".".join(str(part) for part in first["loc"])
    if field == "schema_version":
        return RecordError(
            f"{where}: schema version {first['input']!r}, but this medeval reads "
            f"{SCHEMA_VERSION!r}",
            hint="use the medeval version that wrote it; run.json names it",
        )
    if first["type"] == "json_invalid":
        return RecordError(
            f"{where} is garbled: {first['msg']}",
            hint="restore the file from a copy, or delete the line to have it made again",
        )
    seen = repr(first["input"])
    shown = seen if len(seen) <= LONGEST_SHOWN else f"{seen[:LONGEST_SHOWN]}..."
    return RecordError(f"{where}: field {field!r}: {first['msg']}; seen {shown}")


def _without_surrogates(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, dict):
        return {_without_surrogates(key): _without_surrogates(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_surrogates(item) for item in value]
    return value


def _bounded(value: Any, depth: int = 0) -> Any:
    """The same JSON value with whatever lies deeper than MAX_ARGUMENT_DEPTH cut off."""
    if not isinstance(value, Mapping | list | tuple):
        return value
    if depth >= MAX_ARGUMENT_DEPTH:
        return f"(nested deeper than {MAX_ARGUMENT_DEPTH})"
    if isinstance(value, Mapping):
        return {key: _bounded(item, depth + 1) for key, item in value.items()}
    return [_bounded(item, depth + 1) for item in value]


Arguments = Annotated[dict[str, JsonValue], BeforeValidator(_bounded)]


def as_mapping(value: Mapping[str, Any]) -> Mapping[str, Json]:
    """Pydantic's JSON type as ours; both mean the same values."""
    return value
