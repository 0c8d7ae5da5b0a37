"""An image of a run: what is sent of it, and the pixels that tools work on.

A sample's original bytes are sent if no resize is needed and every engine reads the same pixels
from them; otherwise it is re-encoded once, without loss. Its pixels are decoded at each use,
because a tool call is rare, and a decoded image is many times the size of its file.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

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
from medeval.images.memory import DECODED_BYTES_A_PIXEL, decoding_budget
from medeval.images.request_image import FileImage, MadeImage, png_of
from medeval.images.resize import PixelBudget, Resample
from medeval.types.geometry import Affine, Size
from medeval.types.sample import MediaType, RequestImage

if TYPE_CHECKING:
    from PIL import Image
    from PIL.ImageFile import ImageFile


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """One image of a conversation: what is sent, and the pixels that tools work on.

    `sent_image` is the image as it is sent, a FileImage or a MadeImage. `raw` is the upright size
    before any resize for sending. `exif_orientation` is the tag that was applied, None if there was
    none. `kept_bytes` is the size of decoded pixels that stay in memory besides it.
    """

    sent_image: RequestImage
    raw: Size
    exif_orientation: int | None = None
    kept_bytes: int = 0
    read_pixels: "Callable[[], Image.Image]" = field(repr=False, compare=False)

    @property
    def held_bytes(self) -> int:
        """The memory that it takes in bytes, without the file that it was read from."""
        return self.sent_image.held_bytes + self.kept_bytes

    @property
    def sent(self) -> Size:
        """The size of the image as it is sent."""
        return Size(self.sent_image.width_px, self.sent_image.height_px)

    @property
    def sent_to_raw(self) -> Affine:
        """The map from pixels of the sent image to pixels of the raw image."""
        across = self.raw.width_px / self.sent.width_px
        down = self.raw.height_px / self.sent.height_px
        return Affine(across, 0.0, 0.0, 0.0, down, 0.0)

    def pixels(self) -> "Image.Image":
        """The image in RGB, upright and at raw size; a new copy at each call.

        Raises DataError for damage that only decoding finds.
        """
        return self.read_pixels()

    def sent_pixels(self) -> "Image.Image":
        """The image in RGB as it is sent; a new copy at each call."""
        return self.sent_image.pixels()


def prepare(
    data: bytes,
    *,
    name: str,
    budget: PixelBudget | None = None,
    max_pixels: int = MAX_PIXELS,
    re_encode: "Callable[[Callable[[], bytes]], bytes] | None" = None,
) -> Picture:
    """A sample's image, ready to be sent; messages call it `name`.

    The original bytes stay if no resize is needed and the file is a JPEG, PNG or WEBP of one
    frame, 8-bit RGB or gray, without transparency and orientation. Of such a file only the header
    and the end mark are read; one with an alpha channel is decoded to see if it is opaque. Any
    other file becomes a PNG in RGB: orientation applied, the first frame, transparency on white,
    16 bits cut to the upper 8. `re_encode` gets the function that makes this PNG, and may return
    the same bytes from a cache.

    Raises DataError for data that are empty, not an image or truncated, and, before decoding, for
    an image over `max_pixels`.
    """
    image = open_image(data, name, max_pixels)
    file_format = str(image.format)
    with decoding_budget().taken(image.width * image.height):
        orientation = orientation_of(image, data, name)
        raw = upright_size(image, orientation)
        sent = raw if budget is None else budget.size_of(raw)
        is_own_file = sent == raw and _is_sent_unchanged(image, data, name, orientation)
        del image  # frees its pixels, if it was decoded
    if is_own_file:
        own = FileImage.of(data, MEDIA_TYPES[file_format], raw)
        return Picture(sent_image=own, raw=raw, read_pixels=partial(decode, data, name))
    resample: Resample = "bicubic" if budget is None else budget.resample
    make = partial(_resized_png, data, name, raw, sent, resample)
    file = FileImage.of(re_encode(make) if re_encode else make(), "image/png", sent)
    # A PNG without a resize has the same pixels, so the original is not needed.
    source = file.data if sent == raw else data
    return Picture(
        sent_image=file,
        raw=raw,
        exif_orientation=orientation,
        read_pixels=partial(decode, source, name),
    )


def _is_sent_unchanged(image: "ImageFile", data: bytes, name: str, orientation: int | None) -> bool:
    """Whether a file's own bytes are sent if no resize is needed; DataError if it is torn."""
    if orientation is not None or not is_plain(image, data, name):
        return False
    if not has_end_mark(image, data):
        load(image, name)
    return True


def _resized_png(data: bytes, name: str, raw: Size, sent: Size, resample: Resample) -> bytes:
    with decoding_budget().taken(raw.area_px):
        return png_of(resampled(decode(data, name), sent, resample))


def sent_size_and_type(data: bytes, *, name: str) -> tuple[Size, MediaType]:
    """The upright size and the type of the image that `prepare` makes without a budget.

    Raises DataError as `prepare` does, but does not hash or encode the image.
    """
    image = open_image(data, name, MAX_PIXELS)
    with decoding_budget().taken(image.width * image.height):
        orientation = orientation_of(image, data, name)
        raw = upright_size(image, orientation)
        if _is_sent_unchanged(image, data, name, orientation):
            return raw, MEDIA_TYPES[str(image.format)]
        upright(image, orientation, name)
        return raw, "image/png"


def made_picture(
    pixels: "Image.Image",
    *,
    budget: PixelBudget | None,
    again: "Callable[[], Image.Image] | None" = None,
    sent: Size | None = None,
    resample: Resample | None = None,
) -> Picture:
    """An image that a tool made, sent after a resize into the budget, if one is given.

    `sent` and `resample` override the size and the filter of the budget. `again` makes the pixels
    a second time, and `pixels` are then the picture's own; without it, pixels that were resized for
    sending stay in memory. Raises
    DataError for an image without pixels.
    """
    raw = Size(*pixels.size)
    if not (raw.width_px and raw.height_px):
        raise DataError(f"a tool made an image of {raw.width_px} x {raw.height_px} pixels")
    if sent is None:
        sent = raw if budget is None else budget.size_of(raw)
    # pixels that `again` can make need no copy, which takes 133 MB for an 8K image
    own = pixels if again and _is_bare(pixels) else to_rgb(pixels, "made by a tool")
    resample = resample or ("bicubic" if budget is None else budget.resample)
    made = MadeImage(resampled(own, sent, resample))
    kept_bytes = 0
    if again is not None:
        read_pixels = again
    elif sent == raw:
        read_pixels = made.pixels
    else:
        read_pixels, kept_bytes = own.copy, DECODED_BYTES_A_PIXEL * raw.area_px
    return Picture(sent_image=made, raw=raw, kept_bytes=kept_bytes, read_pixels=read_pixels)


def _is_bare(pixels: "Image.Image") -> bool:
    """Whether an image has RGB pixels and nothing else."""
    return pixels.mode == "RGB" and not pixels.info


def resampled(image: "Image.Image", size: Size, resample: Resample) -> "Image.Image":
    """The image resized with the named filter; the same object if it has this size already."""
    from PIL import Image

    filters = {
        "nearest": Image.Resampling.NEAREST,
        "bilinear": Image.Resampling.BILINEAR,
        "bicubic": Image.Resampling.BICUBIC,
        "lanczos": Image.Resampling.LANCZOS,
    }
    wanted = (size.width_px, size.height_px)
    return image if image.size == wanted else image.resize(wanted, filters[resample])
