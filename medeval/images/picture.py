"""Images as a run holds them: the bytes that are sent, their hash, and the pixels behind them.

An image's original bytes are sent untouched where no resize is due and every engine reads the
file alike; any other is re-encoded once, without loss. Pixels are decoded each time they are asked
for: a tool call is rare, and a decoded image is many times the size of its file.
"""

import hashlib
import io
import zlib
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Final

from medeval.errors import DataError
from medeval.images.decode import (
    MAX_PIXELS,
    MEDIA_TYPES,
    decode,
    has_end_mark,
    is_plain,
    load,
    open_image,
    orientation_of,
    to_rgb,
    upright,
    upright_size,
)
from medeval.images.known_files import Found, KnownFiles, SentAs
from medeval.images.memory import PixelRoom
from medeval.images.resize import PixelBudget, Resample
from medeval.types.geometry import Affine, Size
from medeval.types.sample import EncodedImage, MediaType

if TYPE_CHECKING:
    from PIL import Image
    from PIL.ImageFile import ImageFile


# What Pillow takes for a pixel in RGB.
DECODED_BYTES: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """One image of a conversation: what is sent, and the pixels that tools work on.

    `raw` is the size before any resize for sending, upright. `exif_orientation` is the tag that
    was applied, None where there was none to apply. `kept_bytes` is what its pixels take where they
    stay decoded.
    """

    encoded: EncodedImage
    raw: Size
    exif_orientation: int | None = None
    kept_bytes: int = 0
    read_pixels: "Callable[[], Image.Image]" = field(repr=False, compare=False)

    @property
    def held_bytes(self) -> int:
        """How much memory it takes, a file that it was read from aside."""
        return len(self.encoded.data) + self.kept_bytes

    @property
    def sent(self) -> Size:
        """The size of the image as it is sent."""
        return Size(self.encoded.width_px, self.encoded.height_px)

    @property
    def sent_to_raw(self) -> Affine:
        """The map from pixels of the image as it is sent to its raw ones."""
        across = self.raw.width_px / self.sent.width_px
        down = self.raw.height_px / self.sent.height_px
        return Affine(across, 0.0, 0.0, 0.0, down, 0.0)

    def pixels(self) -> "Image.Image":
        """The image in RGB, upright and at raw size: a fresh one at each call, the caller's own.

        Raises DataError where the file is damaged in a place that only decoding reaches.
        """
        return self.read_pixels()

    def sent_pixels(self) -> "Image.Image":
        """The image in RGB as it is sent: a fresh one at each call, the caller's own."""
        return self.pixels() if self.sent == self.raw else decode(self.encoded.data, "sent")


def prepare(
    data: bytes,
    *,
    name: str,
    budget: PixelBudget | None = None,
    max_pixels: int = MAX_PIXELS,
    known: KnownFiles | None = None,
    room: PixelRoom | None = None,
) -> Picture:
    """A sample's image, ready to be sent; `name` tells people which one it is.

    The original bytes are kept where no resize is due and the file is a JPEG, PNG or WEBP of one
    frame, 8-bit RGB or gray, without transparency or an orientation to apply; of such a file only
    the header and the end mark are read, unless it has an alpha channel, which may prove opaque.
    Any other becomes a PNG in RGB: orientation applied, the first frame, transparency on white,
    16 bits cut to the upper 8. A file that is `known` to be sent as it is, is not looked into, and
    one that is found to be becomes known; an image is decoded in `room`.

    Raises DataError for what is empty, no image or truncated, and before decoding for what is over
    `max_pixels`.
    """
    own_file = known_picture(data, name=name, budget=budget, max_pixels=max_pixels, known=known)
    if own_file is not None:
        return own_file
    image = open_image(data, name, max_pixels)
    with nullcontext() if room is None else room.taken(image.width * image.height):
        picture = _prepared(image, data, name, budget)
    if known is not None and picture.encoded.data is data:
        own = picture.encoded
        known.note(data, Found(own.sha256, SentAs(picture.raw, own.media_type, is_own=True)))
    return picture


def known_picture(
    data: bytes,
    *,
    name: str,
    budget: PixelBudget | None,
    max_pixels: int,
    known: KnownFiles | None,
) -> Picture | None:
    """A sample's image that is `known` to be sent as it is; None for any other."""
    found = None if known is None else known.find(data)
    if found is not None and found.sent.is_own and found.sent.size.area_px <= max_pixels:
        raw = found.sent.size
        if budget is None or budget.size_of(raw) == raw:
            own = EncodedImage(
                data=data,
                media_type=found.sent.media_type,
                sha256=found.sha256,
                width_px=raw.width_px,
                height_px=raw.height_px,
            )
            return Picture(encoded=own, raw=raw, read_pixels=partial(decode, data, name))
    return None


def _prepared(image: "ImageFile", data: bytes, name: str, budget: PixelBudget | None) -> Picture:
    orientation = orientation_of(image, data, name)
    raw = upright_size(image, orientation)
    sent = raw if budget is None else budget.size_of(raw)
    if sent == raw and orientation is None and is_plain(image, data, name):
        if not has_end_mark(image, data):
            load(image, name)
        return Picture(
            encoded=encoded_image(data, MEDIA_TYPES[str(image.format)], raw),
            raw=raw,
            read_pixels=partial(decode, data, name),
        )
    resample = "bicubic" if budget is None else budget.resample
    encoded = _as_png(resampled(upright(image, orientation, name), sent, resample))
    # A PNG without a resize holds the same pixels, so that the original can be let go.
    source = encoded.data if sent == raw else data
    return Picture(
        encoded=encoded,
        raw=raw,
        exif_orientation=orientation,
        read_pixels=partial(decode, source, name),
    )


def sent_as(
    data: bytes, *, name: str, max_pixels: int = MAX_PIXELS, room: PixelRoom | None = None
) -> SentAs:
    """The upright size and the type of what `prepare` makes where no resize is due.

    Raises DataError as `prepare` does, but neither hashes nor encodes anything.
    """
    image = open_image(data, name, max_pixels)
    with nullcontext() if room is None else room.taken(image.width * image.height):
        return _sent_as(image, data, name)


def _sent_as(image: "ImageFile", data: bytes, name: str) -> SentAs:
    orientation = orientation_of(image, data, name)
    raw = upright_size(image, orientation)
    if orientation is not None or not is_plain(image, data, name):
        upright(image, orientation, name)
        return SentAs(raw, "image/png", is_own=False)
    if not has_end_mark(image, data):
        load(image, name)
    return SentAs(raw, MEDIA_TYPES[str(image.format)], is_own=True)


def made_picture(
    pixels: "Image.Image",
    *,
    budget: PixelBudget | None,
    again: "Callable[[], Image.Image] | None" = None,
    sent: Size | None = None,
    resample: Resample | None = None,
) -> Picture:
    """An image that a tool made, sent as PNG after a resize into the budget (None: as it is).

    `sent` and `resample` overrule the size and the filter that the budget says. `again` makes the
    pixels once more; without it they are kept in memory where a resize makes the sent image differ
    from them. Raises DataError for an image without pixels.
    """
    raw = Size(*pixels.size)
    if not (raw.width_px and raw.height_px):
        raise DataError(f"a tool made an image of {raw.width_px} x {raw.height_px} pixels")
    if sent is None:
        sent = raw if budget is None else budget.size_of(raw)
    # what can be made again is nobody else's: a copy of an 8K image takes 133 MB
    own = pixels if again and _is_bare(pixels) else to_rgb(pixels, "made by a tool")
    resample = resample or ("bicubic" if budget is None else budget.resample)
    encoded = _as_png(resampled(own, sent, resample))
    kept_bytes = 0
    if again is not None:
        read_pixels = again
    elif sent == raw:
        read_pixels = partial(decode, encoded.data, "made by a tool")
    else:
        read_pixels, kept_bytes = own.copy, DECODED_BYTES * raw.area_px
    return Picture(encoded=encoded, raw=raw, kept_bytes=kept_bytes, read_pixels=read_pixels)


def _is_bare(pixels: "Image.Image") -> bool:
    """Whether an image is pixels in RGB and nothing else."""
    return pixels.mode == "RGB" and not pixels.info


def sha256_of(data: bytes) -> str:
    """The SHA-256 of some bytes in lower-case hex, by which images are named.

    >>> sha256_of(b"")[:8]
    'e3b0c442'
    """
    return hashlib.sha256(data).hexdigest()


def encoded_image(data: bytes, media_type: MediaType, size: Size) -> EncodedImage:
    """The bytes of an image of a known type and size, with their hash."""
    return EncodedImage(
        data=data,
        media_type=media_type,
        sha256=sha256_of(data),
        width_px=size.width_px,
        height_px=size.height_px,
    )


def png_of(image: "Image.Image") -> bytes:
    """The pixels as a PNG: soon made, and still several times smaller than the pixels of a chart.

    Beside zlib's own strategy, runs alone (Z_RLE) take a tenth less time for photographs, which
    then are 7% smaller; charts take the same, and are 11% larger.
    """
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1, compress_type=zlib.Z_RLE)
    return buffer.getvalue()


def _as_png(image: "Image.Image") -> EncodedImage:
    return encoded_image(png_of(image), "image/png", Size(*image.size))


def resampled(image: "Image.Image", size: Size, resample: Resample) -> "Image.Image":
    """The image at another size by the named filter; the same image where the size is its own."""
    from PIL import Image

    filters = {
        "nearest": Image.Resampling.NEAREST,
        "bilinear": Image.Resampling.BILINEAR,
        "bicubic": Image.Resampling.BICUBIC,
        "lanczos": Image.Resampling.LANCZOS,
    }
    wanted = (size.width_px, size.height_px)
    return image if image.size == wanted else image.resize(wanted, filters[resample])
