"""Reads the image column of a row: bytes, base64 text, a path, or the hub's own form."""

import base64
import io
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass

from medeval.data.files import Folder, shown
from medeval.data.tables import Table
from medeval.errors import DataError
from medeval.types.geometry import Size

# How the base64 of a JPEG, PNG, GIF, WebP, BMP or TIFF begins; a path would have a dot by then.
_BASE64_IMAGE = re.compile(
    r"data:image/|(?:/9j/|iVBORw0KGgo|R0lGOD|UklGR|Qk|SUkq|TU0A)[A-Za-z0-9+/=\s]{48}"
)


@dataclass(frozen=True, slots=True)
class NamedFile:
    """An image cell that names a file instead of holding an image."""

    name: str


def image_cell(value: object, where: str) -> bytes | str | NamedFile:
    """The content of an image cell: bytes, base64 text, or the name of a file.

    Raises DataError for anything else; `where` names the cell in its message.
    """
    if isinstance(value, Mapping):
        stored = value.get("bytes")
        value = value.get("path") if stored is None else stored
    if isinstance(value, str) and value:
        return value if _BASE64_IMAGE.match(value) else NamedFile(value)
    if isinstance(value, bytes) and value:
        return value
    raise DataError(
        f"{where}: expected an image, got {shown(value)}",
        hint="supported: bytes, base64 text, a path relative to the table, and the hub's own form",
    )


def read_embedded(table: Table, index: int, column: str, position: int | None, where: str) -> bytes:
    """Read an image that is stored in its row; the row is read again."""
    value: object = table.read(index)[column]
    if position is not None and isinstance(value, list | tuple):
        value = value[position]
    cell = image_cell(value, where)
    if isinstance(cell, bytes):
        return cell
    if isinstance(cell, NamedFile):
        raise DataError(f"{where}: the row changed after it was first read")
    encoded = cell.partition(",")[2] if cell.startswith("data:") else cell
    try:
        return base64.b64decode("".join(encoded.split()), validate=True)
    except ValueError as error:
        raise DataError(f"{where}: cannot decode the base64 text: {error}") from error


def read_file(folder: Folder, name: str, where: str) -> bytes:
    """Read an image from a file; raises DataError where it is missing."""
    data = folder.read(name)
    if data is None:
        raise DataError(
            f"{where}: no file {shown(name)}",
            hint="image paths are relative to the folder of the table",
        )
    return data


def header_size(data: bytes, where: str) -> Size:
    """The stored size of an image, read from its header alone."""
    from PIL import Image

    try:
        with warnings.catch_warnings():
            # no pixel is decoded here
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data), formats=("JPEG", "PNG", "WEBP")) as opened:
                return Size(*opened.size)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"{where}: cannot read the size of the image: {error}") from error
