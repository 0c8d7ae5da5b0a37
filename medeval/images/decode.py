"""Image files: which are read, how large they may be, and the upright RGB pixels in them."""

import hashlib
import io
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
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

# Format, offset and magic number. Only these readers are ever given a file.
SIGNATURES: Final = (
    ("JPEG", 0, b"\xff\xd8\xff"),
    ("PNG", 0, b"\x89PNG\r\n\x1a\n"),
    ("WEBP", 8, b"WEBP"),
    ("GIF", 0, b"GIF8"),
    ("BMP", 0, b"BM"),
    ("TIFF", 0, b"II*\0"),
    ("TIFF", 0, b"MM\0*"),
)

# Where a PNG may keep an orientation. Pillow decodes the whole image to look for one.
PNG_ORIENTATION_MARKS: Final = (b"eXIf", b"Raw profile type exif", b"com.adobe.xmp")

# All that Pillow's readers raise on files that are not what they claim to be.
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


def code_digest(*names: str) -> str:
    """The SHA-256 of some of the package's modules; to be asked while they are imported."""
    digest = hashlib.sha256()
    for name in names:
        digest.update((Path(__file__).parent / name).read_bytes())
    return digest.hexdigest()


def decode(data: bytes, name: str) -> "Image.Image":
    """The RGB pixels of a file that `prepare` has accepted."""
    image = _read_header(data, name)
    return upright(image, orientation_of(image, data, name), name)


def open_image(data: bytes, name: str, max_pixels: int) -> "ImageFile":
    """The file with its header read and its size within bounds; nothing is decoded.

    Raises DataError, naming the image, for what is empty, no image, without pixels or too large.
    """
    _check_claimed_size(data, name)
    image = _read_header(data, name)
    if image.width * image.height > max_pixels:
        raise _too_large(name, f"{image.width} x {image.height}", max_pixels)
    return image


def _check_claimed_size(data: bytes, name: str) -> None:
    """Refuse a PNG without pixels by that name: Pillow's word is "not identified"."""
    if _format_of(data) == "PNG" and len(data) >= 24:
        width, height = struct.unpack(">II", data[16:24])
        if not (width and height):
            raise DataError(
                f"image {name!r} has no pixels: its size is {width} x {height}",
                hint="replace the file; whatever wrote it had nothing to write",
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
    with _faults_named(name, f"is truncated or damaged: its {file_format} header cannot be read"):
        return _reader(file_format)(io.BytesIO(data), "")


def _reader(file_format: str) -> "Callable[[io.BytesIO, str], ImageFile]":
    """Pillow's reader of one format.

    `Image.open` is not used: it warns of sizes, or refuses them, by a bound that is global to the
    process.
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
def _faults_named(name: str, fault: str) -> Iterator[None]:
    """Turn whatever Pillow raises into a DataError that says which image and what is wrong."""
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
    """Decode the file; raises DataError where it is truncated or damaged."""
    with _faults_named(name, f"is truncated or damaged: its {image.format} data cannot be decoded"):
        image.load()


def orientation_of(image: "ImageFile", data: bytes, name: str) -> int | None:
    """The orientation tag that is to be applied, 2 to 8, or None where the image stands upright."""
    if image.format == "PNG":
        if not any(mark in data for mark in PNG_ORIENTATION_MARKS):
            return None
        load(image, name)
    try:
        tag = image.getexif().get(0x0112)
    except UNREADABLE:
        # Readers agree to ignore EXIF data that cannot be parsed; the pixels are not touched by it.
        return None
    return tag if isinstance(tag, int) and 2 <= tag <= 8 else None


def upright_size(image: "ImageFile", orientation: int | None) -> Size:
    """The size with the orientation applied, from the header alone."""
    turned = orientation is not None and orientation >= 5 and image.format != "TIFF"
    width, height = image.size
    return Size(height, width) if turned else Size(width, height)


def upright(image: "ImageFile", orientation: int | None, name: str) -> "Image.Image":
    """The image in RGB with its orientation applied; Pillow's TIFF reader has already done so.

    It may have the pixels of `image` itself, which is the caller's no longer.
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
    """What `to_rgb` makes, without a copy where there is nothing to convert: 133 MB at 8K.

    Its pixels alone: Pillow's readers may hold on to the file, and to its EXIF data.
    """
    if image.mode != "RGB" or image.has_transparency_data or image.format not in ("JPEG", "PNG"):
        return to_rgb(image, name)
    own = image._new(image.im)  # Pillow's own way to go on with the pixels
    own.info = {}
    return own


def to_rgb(image: "Image.Image", name: str) -> "Image.Image":
    """A copy of the image in RGB: transparency on white, 16 bits cut to the upper 8.

    It holds pixels only: Pillow would copy a colour profile or EXIF data into what is sent.
    """
    if image.mode in ("I", "F"):
        raise DataError(
            f"image {name!r} has the pixel mode {image.mode!r}, "
            "in which black and white are not defined",
            hint="convert it to 8 bits a channel first",
        )
    with _faults_named(name, f"cannot be converted from {image.mode!r} to RGB"):
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
    """Whether every engine reads the file's own bytes as the same pixels.

    An alpha channel is looked at, which decodes the image: many charts carry one that is opaque.
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
    """Whether the file ends as its format demands; where not, only decoding can tell."""
    match image.format:
        case "JPEG":
            return data.endswith(b"\xff\xd9")
        case "PNG":
            return data.endswith(b"IEND\xaeB`\x82")
        case _:
            return int.from_bytes(data[4:8], "little") + 8 == len(data)
