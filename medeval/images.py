"""Images as a run holds them: the bytes that are sent, their hash, and the pixels behind them.

An image's original bytes are sent untouched where no resize is due and every engine reads the
file alike; any other is re-encoded once, without loss. Pixels are decoded each time they are asked
for: a tool call is rare, and a decoded image is many times the size of its file.
"""

import hashlib
import io
import math
import struct
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from threading import Lock
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, TypeAlias

from medeval.errors import DataError, DefinitionError
from medeval.image_files import (
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
from medeval.packed import Table
from medeval.pixel_room import PixelRoom
from medeval.types import Affine, EncodedImage, MediaType, Size

if TYPE_CHECKING:
    from PIL import Image
    from PIL.ImageFile import ImageFile

# Of PNG's levels, the fastest that still shrinks a chart several times.
PNG_COMPRESS_LEVEL: Final = 1

# Below this, computing an image's hash anew takes less than a tenth of a millisecond or two.
MIN_KEPT_BYTES: Final = 1 << 15

# What is kept of a known file: its SHA-256, width, height, and the place of its type in this list.
_FOUND: Final = struct.Struct("<32sIIB")
_MEDIA_TYPES: Final = tuple(MEDIA_TYPES.values())

ResizeRule: TypeAlias = Literal["smart", "area"]
Resample: TypeAlias = Literal["nearest", "bilinear", "bicubic", "lanczos"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PixelBudget:
    """How large an image is sent: its area in pixels; its sides are multiples of the factor.

    `rule` "smart" is `smart_resize`; "area" leaves an image within the bounds as it is and
    scales any other to the nearer bound, cut to whole pixels, as verl's data sets do. `resample`
    is the filter of the resize.

    Raises DefinitionError unless factor >= 1, min_px <= max_px, and one tile of factor x factor
    fits into max_px.
    """

    min_px: int
    max_px: int
    factor: int
    rule: ResizeRule = "smart"
    resample: Resample = "bicubic"

    def size_of(self, raw: Size) -> Size:
        """The size that an image of the given size is sent at."""
        return self.size_of_sides(raw.width_px, raw.height_px)

    def size_of_sides(self, width: float, height: float) -> Size:
        """The same for sides that need not be whole pixels, as boxes have them."""
        rule = _smart_resize if self.rule == "smart" else _area_resize
        return rule(width, height, self)

    def __post_init__(self) -> None:
        if not (self.factor >= 1 and 1 <= self.min_px <= self.max_px >= self.factor**2):
            raise DefinitionError(
                "a pixel budget needs factor >= 1 and 1 <= min_px <= max_px >= factor**2, "
                f"got {self!r}"
            )


def smart_resize(size: Size, budget: PixelBudget) -> Size:
    """The size that an image is resized to: sides multiples of the factor, area within the budget.

    The aspect ratio is kept as far as the factor allows. Where both bounds cannot be met (a very
    long image, a narrow budget), the area stays within the upper one; no side is below the factor.
    Source: the rule of the Qwen2-VL image processor, which refuses ratios above 200; here these
    are squeezed into the budget instead.

    >>> smart_resize(Size(1000, 600), PixelBudget(min_px=256 * 784, max_px=512 * 784, factor=28))
    Size(width_px=812, height_px=476)
    """
    return _smart_resize(size.width_px, size.height_px, budget)


def _smart_resize(across: float, down: float, budget: PixelBudget) -> Size:
    factor = budget.factor
    width = max(factor, round(across / factor) * factor)
    height = max(factor, round(down / factor) * factor)
    if width * height > budget.max_px:
        shrink = math.sqrt(across * down / budget.max_px)
        width = max(factor, math.floor(across / shrink / factor) * factor)
        height = max(factor, math.floor(down / shrink / factor) * factor)
    elif width * height < budget.min_px:
        grow = math.sqrt(budget.min_px / (across * down))
        width = math.ceil(across * grow / factor) * factor
        height = math.ceil(down * grow / factor) * factor
    return _squeezed(width, height, budget, is_wide=across >= down)


def _area_resize(width: float, height: float, budget: PixelBudget) -> Size:
    """The size scaled to the nearer bound of the area where it is outside, cut to whole pixels."""
    area = width * height
    bound = min(max(area, budget.min_px), budget.max_px)
    scale = 1.0 if area == bound else math.sqrt(bound / area)
    return whole_size(width * scale, height * scale, least=budget.factor)


def whole_size(width: float, height: float, least: int = 1) -> Size:
    """Sides cut to whole pixels, none below the least."""
    return Size(max(least, int(width)), max(least, int(height)))


def _squeezed(width: int, height: int, budget: PixelBudget, *, is_wide: bool) -> Size:
    """The size with its longer side cut until the area fits; of a square, the raw shorter one."""
    if width * height <= budget.max_px:
        return Size(width, height)
    short = min(width, height)
    long = max(budget.factor, budget.max_px // short // budget.factor * budget.factor)
    if short * long > budget.max_px:
        short = budget.max_px // long // budget.factor * budget.factor
    short, long = sorted((short, long))
    return Size(long, short) if is_wide else Size(short, long)


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """One image of a conversation: what is sent, and the pixels that tools work on.

    `raw` is the size before any resize for sending, upright. `exif_orientation` is the tag that
    was applied, None where there was none to apply.
    """

    encoded: EncodedImage
    raw: Size
    exif_orientation: int | None = None
    read_pixels: "Callable[[], Image.Image]" = field(repr=False, compare=False)

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
    known: "KnownFiles | None" = None,
    room: PixelRoom | None = None,
) -> Picture:
    """A sample's image, ready to be sent; `name` tells people which one it is.

    The original bytes are kept where no resize is due and the file is a JPEG, PNG or WEBP of one
    frame, 8-bit RGB or gray, without transparency or an orientation to apply; of such a file only
    the header and the end mark are read, unless it has an alpha channel, which may prove opaque.
    Any other becomes a PNG in RGB: orientation applied, the first frame, transparency on white,
    16 bits cut to the upper 8. A file that is `known` to be sent as it is, is not looked into; an
    image is decoded in `room`.

    Raises DataError for what is empty, no image or truncated, and before decoding for what is over
    `max_pixels`.
    """
    own = None if known is None else known.find(data)
    if own is not None and own.width_px * own.height_px <= max_pixels:
        raw = Size(own.width_px, own.height_px)
        if budget is None or budget.size_of(raw) == raw:
            return Picture(encoded=own, raw=raw, read_pixels=partial(decode, data, name))
    image = open_image(data, name, max_pixels)
    with nullcontext() if room is None else room.taken(image.width * image.height):
        return _prepared(image, data, name, budget)


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


class SentAs(NamedTuple):
    """What an image is sent as where no resize is due; `is_own` where that is its own file."""

    size: Size
    media_type: MediaType
    is_own: bool


def sent_as(data: bytes, *, name: str, max_pixels: int = MAX_PIXELS) -> SentAs:
    """The upright size and the type of what `prepare` makes where no resize is due.

    Raises DataError as `prepare` does, but neither hashes nor encodes anything.
    """
    image = open_image(data, name, max_pixels)
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
    own = to_rgb(pixels, "made by a tool")
    resample = resample or ("bicubic" if budget is None else budget.resample)
    encoded = _as_png(resampled(own, sent, resample))
    if again is not None:
        read_pixels = again
    else:
        read_pixels = partial(decode, encoded.data, "made by a tool") if sent == raw else own.copy
    return Picture(encoded=encoded, raw=raw, read_pixels=read_pixels)


def sha256_of(data: bytes) -> str:
    """The SHA-256 of some bytes in lower-case hex, by which images are named.

    >>> sha256_of(b"")[:8]
    'e3b0c442'
    """
    return hashlib.sha256(data).hexdigest()


class KnownFiles:
    """Image files that are sent as they are and read more than once in a run: looked into once.

    Found again by what the file holds, not by its name, so that a file that changes is another: by
    a checksum of 128 bits, which takes a fraction of the SHA-256's time. Some 90 bytes of memory
    a file; small files are not kept. Safe to use from threads.
    """

    def __init__(self) -> None:
        self._known = Table()
        self._found = bytearray()
        self._lock = Lock()

    def note(self, data: bytes, sha256: str, sent: SentAs) -> None:
        """Remember what a file was found to be, if it is sent as it is."""
        if sent.is_own and len(data) >= MIN_KEPT_BYTES:
            size, kind = sent.size, _MEDIA_TYPES.index(sent.media_type)
            found = _FOUND.pack(bytes.fromhex(sha256), size.width_px, size.height_px, kind)
            checksum = _checksum(data)
            with self._lock:
                place = _FOUND.size * self._known.add(checksum)
                self._found[place : place + _FOUND.size] = found

    def find(self, data: bytes) -> EncodedImage | None:
        """What a file was found to be when it was read before; None where it was not."""
        is_kept = bool(self._known) and len(data) >= MIN_KEPT_BYTES
        place = self._place(_checksum(data)) if is_kept else None
        if place is None:
            return None
        sha256, width_px, height_px, kind = _FOUND.unpack_from(self._found, place)
        return EncodedImage(
            data=data,
            media_type=_MEDIA_TYPES[kind],
            sha256=sha256.hex(),
            width_px=width_px,
            height_px=height_px,
        )

    def _place(self, checksum: bytes) -> int | None:
        with self._lock:
            place = self._known.place(checksum)
            return None if place is None else _FOUND.size * place


def _checksum(data: bytes) -> bytes:
    import xxhash

    return xxhash.xxh3_128_digest(data)


def encoded_image(data: bytes, media_type: MediaType, size: Size) -> EncodedImage:
    """The bytes of an image of a known type and size, with their hash."""
    return EncodedImage(
        data=data,
        media_type=media_type,
        sha256=sha256_of(data),
        width_px=size.width_px,
        height_px=size.height_px,
    )


def _as_png(image: "Image.Image") -> EncodedImage:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=PNG_COMPRESS_LEVEL)
    return encoded_image(buffer.getvalue(), "image/png", Size(*image.size))


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
