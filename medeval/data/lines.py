"""Reads JSON lines files that people and other tools write."""

import json
from collections.abc import Iterable, Iterator
from typing import Any

from medeval.data.files import shown
from medeval.errors import DataError


def read_objects(
    lines: Iterable[bytes], *, where: str = "", hint: str | None = None, skip_blank: bool = True
) -> Iterator[dict[str, Any]]:
    """The object of each line of UTF-8 text, in order.

    Raises DataError with the line's number, counted from 1, where a line is not a JSON object.
    `where` precedes the number in that message, for example `"rows.jsonl, "`; `hint` is its hint.
    Blank lines are skipped, or refused where `skip_blank` is False.
    """
    import jsonlines

    reader = jsonlines.Reader(lines, loads=_loads)
    try:
        yield from reader.iter(type=dict, skip_empty=skip_blank)
    except jsonlines.InvalidLineError as error:
        cause = error.__cause__
        problem = f"JSON: {cause}" if cause else f"a JSON object, got {shown(error.line)}"
        raise DataError(f"{where}line {error.lineno} is not {problem}", hint=hint) from error


def _loads(text: str | bytes) -> Any:
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError(str(error)) from error
