"""Decodes image files: checks format and size, and returns upright RGB pixels."""

import io
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from medeval.errors import DataError
from medeval.types.geometry import Size
from medeval.types.sample import MediaType

if TYPE_CHECKING:
    from PIL import Image
    from PIL.ImageFile import ImageFile

# 600 MB once decoded. Above the largest images of the benchmarks we know (10,000 x 10,000).
MAX_PIXELS: Final = 200_000_000

MEDIA_TYPES: Final[dict[str, MediaType]] = {
    "JPEG": "image/jpeg",
    "PNG": "image/png",
    "WEBP": "image/webp",
}

# Format, offset and magic number. Files of any other format are refused.
SIGNATURES: Final = (
    ("JPEG", 0, b"\xff\xd8\xff"),
    ("PNG", 0, b"\x89PNG\r\n\x1a\n"),
    ("WEBP", 8, b"WEBP"),
    ("GIF", 0, b"GIF8"),
    ("BMP", 0, b"BM"),
    ("TIFF", 0, b"II*\0"),
    ("TIFF", 0, b"MM\0*"),
)

# A PNG has an orientation only in one of these. Pillow decodes the whole image to find it.
PNG_ORIENTATION_MARKS: Final = (b"eXIf", b"Raw profile type exif", b"com.adobe.xmp")

# Errors that Pillow's readers raise on damaged files.
UNREADABLE: Final = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    EOFError,
    ArithmeticError,
    AttributeError,
    RuntimeError,
    AssertionError,
    struct.error,
    zlib.error,
)


def decode(data: bytes, name: str) -> "Image.Image":
    """The RGB pixels of a file that `prepare` has accepted."""
    image = _read_header(data, name)
    return upright(image, orientation_of(image, data, name), name)


def open_image(data: bytes, name: str, max_pixels: int) -> "ImageFile":
    """The image with its header read and its size checked, not decoded yet.

    Raises DataError, naming the image, if it is empty, not an image, without pixels or too large.
    """
    _check_claimed_size(data, name)
    image = _read_header(data, name)
    if image.width * image.height > max_pixels:
        raise _too_large(name, f"{image.width} x {image.height}", max_pixels)
    return image


def _check_claimed_size(data: bytes, name: str) -> None:
    """Raise DataError for a PNG without pixels; Pillow's own message is "not identified"."""
    if _format_of(data) == "PNG" and len(data) >= 24:
        width, height = struct.unpack(">II", data[16:24])
        if not (width and height):
            raise DataError(
                f"image {name!r} has no pixels: its size is {width} x {height}",
                hint="replace the file; it was written without an image",
            )


def _too_large(name: str, size: str, max_pixels: int) -> DataError:
    return DataError(
        f"image {name!r} has {size} pixels, over the bound of {max_pixels:,}; "
        "it may be a decompression bomb",
        hint="shrink the image, or raise max_pixels if the file is trusted",
    )


def _format_of(data: bytes) -> str | None:
    for name, offset, magic in SIGNATURES:
        if data.startswith(magic, offset):
            return name
    return None


def _read_header(data: bytes, name: str) -> "ImageFile":
    file_format = _format_of(data)
    if file_format is None:
        seen = f"starts with {data[:12]!r}" if data else "is empty (0 bytes)"
        raise DataError(
            f"image {name!r} is not an image we read: it {seen}; "
            f"known formats: {', '.join(dict.fromkeys(entry[0] for entry in SIGNATURES))}",
            hint="fetch the file again, or save it as PNG or JPEG",
        )
    with _as_data_errors(name, f"is truncated or damaged: its {file_format} header cannot be read"):
        return _reader(file_format)(io.BytesIO(data), "")


def _reader(file_format: str) -> "Callable[[io.BytesIO, str], ImageFile]":
    """Pillow's reader of one format.

    `Image.open` is not used, because its bound on image sizes is global to the process.
    """
    match file_format:
        case "JPEG":
            from PIL.JpegImagePlugin import JpegImageFile

            return JpegImageFile
        case "PNG":
            from PIL.PngImagePlugin import PngImageFile

            return PngImageFile
        case "WEBP":
            from PIL.WebPImagePlugin import WebPImageFile

            return WebPImageFile
        case "GIF":
            from PIL.GifImagePlugin import GifImageFile

            return GifImageFile
        case "BMP":
            from PIL.BmpImagePlugin import BmpImageFile

            return BmpImageFile
        case _:
            from PIL.TiffImagePlugin import TiffImageFile

            return TiffImageFile


@contextmanager
def _as_data_errors(name: str, fault: str) -> Iterator[None]:
    """Turn any error from Pillow into a DataError that names the image and the `fault`."""
    from PIL import Image

    try:
        yield
    except Image.DecompressionBombError as error:
        raise _too_large(name, "too many", Image.MAX_IMAGE_PIXELS or MAX_PIXELS) from error
    except UNREADABLE as error:
        raise DataError(
            f"image {name!r} {fault} ({error or type(error).__name__})",
            hint="fetch the file again and compare its size with the source's",
        ) from error


def load(image: "ImageFile", name: str) -> None:
    """Decode the file; raises DataError if it is truncated or damaged."""
    with _as_data_errors(
        name, f"is truncated or damaged: its {image.format} data cannot be decoded"
    ):
        image.load()


def orientation_of(image: "ImageFile", data: bytes, name: str) -> int | None:
    """The EXIF orientation to apply, 2 to 8, or None if the image is upright."""
    if image.format == "PNG":
        if not any(mark in data for mark in PNG_ORIENTATION_MARKS):
            return None
        load(image, name)
    try:
        tag = image.getexif().get(0x0112)
    except UNREADABLE:
        # Like other readers, ignore EXIF data that cannot be parsed; the pixels are intact.
        return None
    return tag if isinstance(tag, int) and 2 <= tag <= 8 else None


def upright_size(image: "ImageFile", orientation: int | None) -> Size:
    """The size after the orientation is applied, from the header alone."""
    turned = orientation is not None and orientation >= 5 and image.format != "TIFF"
    width, height = image.size
    return Size(height, width) if turned else Size(width, height)


def upright(image: "ImageFile", orientation: int | None, name: str) -> "Image.Image":
    """The image in RGB with its orientation applied; Pillow's TIFF reader has already done so.

    The result may share its pixels with `image`, so do not use `image` afterwards.
    """
    from PIL.Image import Transpose

    load(image, name)
    stored = _own_rgb(image, name)
    if orientation is None or image.format == "TIFF":
        return stored
    return stored.transpose(
        {
            2: Transpose.FLIP_LEFT_RIGHT,
            3: Transpose.ROTATE_180,
            4: Transpose.FLIP_TOP_BOTTOM,
            5: Transpose.TRANSPOSE,
            6: Transpose.ROTATE_270,
            7: Transpose.TRANSVERSE,
            8: Transpose.ROTATE_90,
        }[orientation]
    )


def _own_rgb(image: "ImageFile", name: str) -> "Image.Image":
    """The same as `to_rgb`, without a copy (133 MB at 8K) if nothing has to be converted.

    The result has the pixels only, while Pillow's own image may keep the file and its EXIF data.
    """
    if image.mode != "RGB" or image.has_transparency_data or image.format not in ("JPEG", "PNG"):
        return to_rgb(image, name)
    own = image._new(image.im)  # as Pillow makes a new image of the same pixels
    own.info = {}
    return own


def to_rgb(image: "Image.Image", name: str) -> "Image.Image":
    """A copy of the image in RGB: transparency on white, 16 bits cut to the upper 8.

    The copy has the pixels only, because Pillow would write a colour profile or EXIF data into the
    file that is sent.
    """
    if image.mode in ("I", "F"):
        raise DataError(
            f"image {name!r} has the pixel mode {image.mode!r}, "
            "in which black and white are not defined",
            hint="convert it to 8 bits a channel first",
        )
    with _as_data_errors(name, f"cannot be converted from {image.mode!r} to RGB"):
        if image.mode.startswith("I;16"):
            image = image.convert("I").point(lambda level: level * (1 / 256))
        elif image.has_transparency_data:
            image = _on_white(image.convert("RGBA"))
        converted = image.convert("RGB")
    converted.info = {}
    return converted


def _on_white(image: "Image.Image") -> "Image.Image":
    from PIL import Image

    white = Image.new("RGBA", image.size, "white")
    white.alpha_composite(image)
    return white.convert("RGB")


def is_plain(image: "ImageFile", data: bytes, name: str) -> bool:
    """Whether every engine reads the same pixels from the file's own bytes.

    An image with an alpha channel is decoded, because the channel of many charts is opaque.
    """
    return (
        image.format in MEDIA_TYPES
        and image.mode in ("RGB", "L", "RGBA")
        and getattr(image, "n_frames", 1) == 1
        and "transparency" not in image.info
        and not (image.format == "PNG" and data[24] != 8)
        and (image.mode != "RGBA" or _is_opaque(image, name))
    )


def _is_opaque(image: "ImageFile", name: str) -> bool:
    load(image, name)
    return image.getchannel("A").getextrema() == (255, 255)


def has_end_mark(image: "ImageFile", data: bytes) -> bool:
    """Whether the file has the end mark of its format; a valid file without one must be decoded."""
    match image.format:
        case "JPEG":
            return data.endswith(b"\xff\xd9")
        case "PNG":
            return data.endswith(b"IEND\xaeB`\x82")
        case _:
            return int.from_bytes(data[4:8], "little") + 8 == len(data)
