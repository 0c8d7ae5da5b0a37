"""Writes records as the JSONL lines and JSON files of a run folder, and reads them.

A record is one of the frozen dataclasses of `medeval.types`. Its JSON has the type's fields and
`schema_version`; a field that is not declared is refused. Numbers that JSON lacks are written as
strings ("NaN", "Infinity"), lone surrogates are replaced, and arguments nested deeper than
`MAX_DEPTH` are cut off with a note (a call's `raw_text` keeps what the model wrote).
"""

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from typing import Any, Final, TypeVar, cast

from pydantic import TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError, from_json, to_json, to_jsonable_python

from medeval.errors import RecordError
from medeval.types.json import storable
from medeval.types.trajectory import ImageRef, Trajectory

# The schema versions that are read, by type if not 1 alone; the last of them is written.
# Since version 2 of a trajectory, an image that a tool made is known by the hash of its pixels.
SCHEMA_VERSIONS: Final[Mapping[type, tuple[int, ...]]] = {Trajectory: (1, 2)}

MAX_SHOWN_LENGTH: Final = 200

# Extra fields of a trajectory's line, for readers without medeval.
COUNTS: Final = ("attempted", "executed", "observed", "called", "usage")

T = TypeVar("T")


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def line(record: object, subject: str = "a record") -> bytes:
    """A record as one JSONL line, its newline included.

    Raises RecordError, naming `subject` and the field, if a value has no JSON form.
    """
    return _json(_versioned(record, subject)) + b"\n"


def pretty(record: object, subject: str = "a record") -> bytes:
    """A record as an indented JSON file; raises as `line` does."""
    return _json(_versioned(record, subject), indent=2) + b"\n"


def json_values(record: object, subject: str = "a record") -> dict[str, Any]:
    """A record as part of another JSON object, without `schema_version`; raises as `line` does."""
    values: dict[str, Any] = to_jsonable_python(_values(record, subject), inf_nan_mode="strings")
    return values


def _versions(kind: type) -> tuple[int, ...]:
    return SCHEMA_VERSIONS.get(kind, (1,))


def _versioned(record: object, subject: str) -> dict[str, Any]:
    return {"schema_version": _versions(type(record))[-1], **_values(record, subject)}


def _json(whole: Mapping[str, Any], indent: int | None = None) -> bytes:
    try:
        return to_json(whole, indent=indent, inf_nan_mode="strings")
    except PydanticSerializationError:
        # lone surrogates are too rare to search every text for them
        mended = storable(whole, depth_left=math.inf)
        return to_json(mended, indent=indent, inf_nan_mode="strings")


def _values(record: object, subject: str) -> dict[str, Any]:
    kind: Any = type(record)
    adapter = _adapter(kind)
    try:
        checked = adapter.validate_python(record)
    except ValidationError as error:
        raise _field_error(error, subject) from None
    values: dict[str, Any] = adapter.dump_python(checked)
    if isinstance(checked, Trajectory):
        values |= {name: getattr(checked, name) for name in COUNTS}
        _name_images(checked, values["messages"])
    return values


def _name_images(trajectory: Trajectory, messages: list[dict[str, Any]]) -> None:
    """Put the hash of each image next to its index, under the name that it has in the record."""
    for message, values in zip(trajectory.messages, messages, strict=True):
        for part, content in zip(message.content, values["content"], strict=True):
            if isinstance(part, ImageRef):
                image = trajectory.images[part.image]
                name = "sha256" if image.pixels_sha256 is None else "pixels_sha256"
                content[name] = image.identity


def parse_record(kind: type[T], data: bytes, where: str) -> T:
    """A record from its JSON. Raises RecordError, naming `where`, the field and its value."""
    try:
        values = from_json(data)
    except ValueError as error:
        raise RecordError(
            f"{where} is garbled: {error}",
            hint="restore the file from a copy, or delete the line to have it made again",
        ) from None
    return record_of(kind, values, where)


def record_of(kind: type[T], values: object, where: str) -> T:
    """A record from the values of its JSON; raises as `parse_record` does."""
    if isinstance(values, dict):
        known = _versions(kind)
        version = values.pop("schema_version", known[-1])
        if version not in known:
            readable = " and ".join(map(str, known))
            raise RecordError(
                f"{where}: schema version {version!r}, but this medeval reads {readable}",
                hint="use the medeval version that wrote it; run.json names it",
            )
        if kind is Trajectory:
            for name in COUNTS:
                values.pop(name, None)
    adapter: TypeAdapter[T] = _adapter(cast(Any, kind))
    try:
        return adapter.validate_python(values)
    except ValidationError as error:
        raise _field_error(error, where) from None


def _field_error(error: ValidationError, where: str) -> RecordError:
    """The error with the name of the first wrong field."""
    first = error.errors(include_url=False)[0]
    field = ".".join(str(part) for part in first["loc"])
    seen = repr(first["input"])
    shown = seen if len(seen) <= MAX_SHOWN_LENGTH else f"{seen[:MAX_SHOWN_LENGTH]}..."
    return RecordError(f"{where}: field {field!r}: {first['msg']}; seen {shown}")


def now() -> str:
    """The time as ISO 8601 in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")
