"""The original file is sent if every engine reads it alike; otherwise its pixels as a PNG."""

import io
import struct
import warnings
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from medeval.errors import DataError, DefinitionError
from medeval.images.picture import made_picture, prepare, sent_size_and_type
from medeval.images.request_image import sha256_of
from medeval.images.resize import PixelBudget, smart_resize
from medeval.types.geometry import Size

CHARTS = Path(__file__).parents[2] / "../shared/data/chartqa/images"
BUDGET = PixelBudget(min_px=4 * 28 * 28, max_px=64 * 28 * 28, factor=28)


def speckled(width: int = 40, height: int = 20, mode: str = "RGB") -> Image.Image:
    """An image in which no two of the first 256 x 256 pixels are alike, and no symmetry holds."""
    image = Image.new("RGB", (width, height))
    image.putdata([(x % 256, y % 256, (x * y) % 256) for y in range(height) for x in range(width)])
    return image.convert(mode)


def file(image: Image.Image, file_format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def raster(image: Image.Image) -> tuple[str, tuple[int, int], bytes]:
    """The properties that two images of the same pixels share, whatever their files contain."""
    return image.mode, image.size, image.tobytes()


def decoded(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data)).convert("RGB")


def png(header: bytes, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG of hand-made chunks."""
    body = b"\x89PNG\r\n\x1a\n"
    for name, content in ((b"IHDR", header), *chunks, (b"IEND", b"")):
        body += struct.pack(">I", len(content)) + name + content
        body += struct.pack(">I", zlib.crc32(name + content))
    return body


def png_header(width: int, height: int, depth: int = 8, colour: int = 2) -> bytes:
    return struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)


@pytest.mark.parametrize(
    ("data", "media_type"),
    [
        (file(speckled(), "JPEG"), "image/jpeg"),
        (file(speckled(), "JPEG", progressive=True), "image/jpeg"),
        (file(speckled(mode="L"), "JPEG"), "image/jpeg"),
        (file(speckled(), "PNG"), "image/png"),
        (file(speckled(mode="L"), "PNG"), "image/png"),
        (file(speckled(), "WEBP"), "image/webp"),
        (file(speckled(), "WEBP", lossless=True), "image/webp"),
    ],
)
def test_a_plain_file_is_sent_byte_for_byte(data: bytes, media_type: str) -> None:
    picture = prepare(data, name="plain")
    assert picture.sent_image.encoded() is data
    assert picture.sent_image.media_type == media_type
    assert picture.sent_image.sha256 == sha256_of(data)
    assert picture.raw == picture.sent == Size(40, 20)
    assert picture.exif_orientation is None
    assert raster(picture.pixels()) == raster(decoded(data))


def test_a_plain_file_is_sent_byte_for_byte_where_its_size_meets_the_budget() -> None:
    data = file(speckled(84, 56), "PNG")
    assert prepare(data, name="plain", budget=BUDGET).sent_image.encoded() is data


def palette_image() -> Image.Image:
    return speckled().quantize(16)


def transparent_image(mode: str = "RGBA") -> Image.Image:
    image = speckled().convert("RGBA")
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    return image.convert(mode)


def on_white(image: Image.Image) -> Image.Image:
    white = Image.new("RGBA", image.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        pytest.param(file(palette_image(), "PNG"), palette_image().convert("RGB"), id="palette"),
        pytest.param(
            file(speckled(mode="1"), "PNG"), speckled(mode="1").convert("RGB"), id="1 bit"
        ),
        pytest.param(file(speckled(), "BMP"), speckled(), id="BMP"),
        pytest.param(file(speckled(), "TIFF"), speckled(), id="TIFF"),
        pytest.param(file(speckled(), "TIFF", compression="jpeg"), None, id="TIFF of JPEG"),
        pytest.param(file(palette_image(), "GIF"), palette_image().convert("RGB"), id="GIF"),
        pytest.param(file(speckled(mode="CMYK"), "JPEG"), None, id="CMYK JPEG"),
        pytest.param(file(transparent_image(), "PNG"), on_white(transparent_image()), id="RGBA"),
        pytest.param(
            file(transparent_image("LA"), "PNG"), on_white(transparent_image("LA")), id="LA"
        ),
        pytest.param(
            file(transparent_image(), "WEBP", lossless=True, exact=True),
            on_white(transparent_image()),
            id="RGBA WEBP",
        ),
    ],
)
def test_any_other_file_becomes_a_png_of_the_same_pixels(
    data: bytes, expected: Image.Image | None
) -> None:
    picture = prepare(data, name="other")
    wanted = decoded(data) if expected is None else expected
    assert picture.sent_image.media_type == "image/png"
    assert raster(decoded(picture.sent_image.encoded())) == raster(wanted)
    assert raster(picture.pixels()) == raster(wanted)
    assert (
        prepare(picture.sent_image.encoded(), name="again").sent_image.encoded()
        == picture.sent_image.encoded()
    )


def test_an_opaque_alpha_channel_is_sent_as_it_is() -> None:
    data = file(speckled(mode="RGBA"), "PNG")
    picture = prepare(data, name="opaque")
    assert picture.sent_image.encoded() is data
    assert raster(picture.pixels()) == raster(speckled())


def test_a_transparent_colour_is_white() -> None:
    image = Image.new("RGB", (2, 1), (10, 20, 30))
    image.putpixel((1, 0), (1, 2, 3))
    picture = prepare(file(image, "PNG", transparency=(1, 2, 3)), name="tRNS")
    assert picture.pixels().tobytes() == bytes([10, 20, 30, 255, 255, 255])


def test_a_transparent_palette_entry_is_white() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 1, 2, 3])
    image.putpixel((1, 0), 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        picture = prepare(file(image, "PNG", transparency=b"\xff\x00"), name="palette")
    assert picture.pixels().tobytes() == bytes([10, 20, 30, 255, 255, 255])


def test_sixteen_bits_of_gray_are_cut_to_the_upper_eight() -> None:
    levels = [0, 255, 256, 32767, 32768, 65535]
    image = Image.frombytes("I;16", (6, 1), struct.pack("<6H", *levels))
    for data in (file(image, "PNG"), file(image, "TIFF")):
        picture = prepare(data, name="scan")
        assert picture.sent_image.media_type == "image/png"
        assert list(picture.pixels().getchannel(0).tobytes()) == [level >> 8 for level in levels]


def test_sixteen_bits_of_colour_are_cut_to_the_upper_eight() -> None:
    row = b"\0" + struct.pack(">6H", 0, 255, 256, 32768, 65280, 65535)
    picture = prepare(png(png_header(2, 1, 16), (b"IDAT", zlib.compress(row))), name="deep")
    assert list(picture.pixels().tobytes()) == [0, 0, 1, 128, 255, 255]
    assert picture.sent_image.encoded()[24] == 8


@pytest.mark.parametrize("mode", ["I", "F"])
def test_levels_without_a_defined_white_are_refused(mode: str) -> None:
    with pytest.raises(DataError, match=f"'scan.tif' has the pixel mode '{mode}'"):
        prepare(file(speckled(mode="L").convert(mode), "TIFF"), name="scan.tif")


def test_a_mode_without_a_way_to_rgb_is_refused() -> None:
    with pytest.raises(DataError, match="cannot be converted from 'La' to RGB"):
        made_picture(Image.new("La", (4, 4)), budget=None)


@pytest.mark.parametrize("file_format", ["GIF", "PNG", "WEBP"])
def test_of_several_frames_the_first_is_sent(file_format: str) -> None:
    frames = [Image.new("RGB", (30, 20), colour) for colour in ("red", "blue")]
    options = {"lossless": True} if file_format == "WEBP" else {}
    data = file(frames[0], file_format, save_all=True, append_images=frames[1:], **options)
    picture = prepare(data, name="animation")
    assert picture.sent_image.media_type == "image/png"
    assert raster(picture.pixels()) == raster(frames[0])


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("budget", [None, BUDGET])
def test_an_exif_orientation_is_applied_once_and_recorded(
    orientation: int, file_format: str, budget: PixelBudget | None
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = file(speckled(), file_format, exif=exif)
    picture = prepare(data, name="photo", budget=budget)
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
    assert picture.exif_orientation == (None if orientation == 1 else orientation)
    assert picture.raw == Size(*expected.size) == Size(*picture.pixels().size)
    assert raster(picture.pixels()) == raster(expected)
    sent = decoded(picture.sent_image.encoded())
    assert Size(*sent.size) == picture.sent
    assert budget is not None or raster(sent) == raster(expected)
    assert b"eXIf" not in picture.sent_image.encoded() or orientation == 1


def test_an_orientation_after_a_png_s_pixels_is_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    content = exif.tobytes().removeprefix(b"Exif\0\0")
    pixels = (b"IDAT", zlib.compress(b"\0" + bytes(range(6))))
    picture = prepare(png(png_header(2, 1), pixels, (b"eXIf", content)), name="late")
    assert (picture.exif_orientation, picture.raw) == (6, Size(1, 2))


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
@pytest.mark.parametrize("exif", [b"garbage", b"II*\0\xff\xff\xff\xff", b""])
@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP"])
def test_exif_data_that_cannot_be_parsed_is_ignored(exif: bytes, file_format: str) -> None:
    data = file(speckled(), file_format, exif=b"Exif\0\0" + exif)
    assert prepare(data, name="photo").sent_image.encoded() is data


@pytest.mark.parametrize("value", [0, 9, 65535])
def test_an_orientation_that_means_nothing_is_ignored(value: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = value
    data = file(speckled(), "JPEG", exif=exif)
    assert prepare(data, name="photo").sent_image.encoded() is data


def cut_tail(data: bytes) -> bytes:
    return data[: len(data) * 2 // 3]


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
@pytest.mark.parametrize("budget", [None, BUDGET])
def test_a_truncated_file_is_refused_by_name(file_format: str, budget: PixelBudget | None) -> None:
    data = cut_tail(file(speckled(200, 100), file_format))
    with pytest.raises(DataError, match=r"'cut\.img' is truncated or damaged") as caught:
        prepare(data, name="cut.img", budget=budget)
    assert caught.value.hint is not None


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
def test_a_file_cut_in_its_header_is_refused(file_format: str) -> None:
    with pytest.raises(DataError, match="'cut' is truncated or damaged"):
        prepare(file(speckled(), file_format)[:20], name="cut")


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP"])
def test_a_whole_file_with_a_tail_of_other_bytes_is_sent_as_it_is(file_format: str) -> None:
    data = file(speckled(), file_format) + b"\0\0tail"
    picture = prepare(data, name="tailed")
    assert picture.sent_image.encoded() is data
    assert picture.pixels().size == (40, 20)


def test_damage_that_only_decoding_reaches_is_told_when_pixels_are_read() -> None:
    body = (b"IDAT", zlib.compress(b"\0" * 10))
    picture = prepare(png(png_header(40, 20), body), name="hollow")
    with pytest.raises(DataError, match="'hollow' is truncated or damaged"):
        picture.pixels()


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", r"is empty \(0 bytes\)"),
        (b"<html>not found</html>", "starts with b'<html>not fo'"),
        (b"version https://git-lfs.github.com/spec/v1", "not an image we read"),
        (b"RIFF\0\0\0\0WAVE", "not an image we read"),
        (png(png_header(0, 5)), "has no pixels: its size is 0 x 5"),
        (b"GIF89a" + bytes(30), "GIF header cannot be read"),
        (b"\x89PNG\r\n\x1a\n", "PNG header cannot be read"),
    ],
)
def test_what_is_no_image_is_refused_with_what_was_seen(data: bytes, said: str) -> None:
    with pytest.raises(DataError, match=said) as caught:
        prepare(data, name="row 3")
    assert "'row 3'" in str(caught.value) and caught.value.hint is not None


@pytest.mark.parametrize(
    "data",
    [
        png(png_header(100_000, 100_000), (b"IDAT", b"")),
        b"BM" + struct.pack("<IHHI", 54, 0, 0, 54)
        + struct.pack("<IiiHHIIiiII", 40, 60_000, 60_000, 1, 24, 0, 0, 0, 0, 0, 0),
        b"RIFF" + struct.pack("<I", 22) + b"WEBPVP8X" + struct.pack("<I", 10) + b"\0" * 4
        + b"\xfe\x3f\0" * 2,
    ],
    ids=["PNG", "BMP", "WEBP"],
)  # fmt: skip
def test_a_decompression_bomb_is_refused_from_its_header(data: bytes) -> None:
    limit = Image.MAX_IMAGE_PIXELS
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(DataError, match=r"over the bound of .* decompression bomb"):
            prepare(data, name="bomb")
    assert limit == Image.MAX_IMAGE_PIXELS


def test_the_bound_on_pixels_is_the_caller_s() -> None:
    data = file(speckled(40, 20), "PNG")
    assert prepare(data, name="fits", max_pixels=800).raw == Size(40, 20)
    with pytest.raises(DataError, match="has 40 x 20 pixels, over the bound of 799"):
        prepare(data, name="large", max_pixels=799)


def test_an_image_above_pillow_s_own_bound_passes_without_its_warning() -> None:
    data = file(Image.new("L", (10_000, 9_000)), "PNG")
    assert (Image.MAX_IMAGE_PIXELS or 0) < 10_000 * 9_000
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert prepare(data, name="map").sent_image.encoded() is data


def test_a_resize_is_bicubic_from_the_raw_pixels() -> None:
    data = file(speckled(400, 300), "PNG")
    picture = prepare(data, name="large", budget=BUDGET)
    assert (picture.raw, picture.sent) == (Size(400, 300), Size(252, 168))
    expected = speckled(400, 300).resize((252, 168), Image.Resampling.BICUBIC)
    assert raster(decoded(picture.sent_image.encoded())) == raster(expected)
    assert raster(picture.pixels()) == raster(speckled(400, 300))


def test_the_same_image_is_encoded_to_the_same_bytes_in_every_thread() -> None:
    data = file(transparent_image(), "PNG")
    with ThreadPoolExecutor(8) as pool:
        made = pool.map(
            lambda _: prepare(data, name="x", budget=BUDGET).sent_image.sha256, range(40)
        )
    assert len(set(made)) == 1


def test_a_colour_profile_is_not_carried_into_what_is_sent() -> None:
    data = file(speckled(), "TIFF", icc_profile=b"a profile")
    assert b"iCCP" not in prepare(data, name="photo").sent_image.encoded()


def test_pixels_are_the_caller_s_own() -> None:
    picture = prepare(file(speckled(), "PNG"), name="plain")
    picture.pixels().paste("red", (0, 0, 40, 20))
    assert raster(picture.pixels()) == raster(speckled())


def made_again() -> Image.Image:
    return speckled(10, 10)


@pytest.mark.parametrize("budget", [None, BUDGET])
@pytest.mark.parametrize("again", [None, made_again])
def test_a_made_picture_keeps_its_raw_pixels(
    budget: PixelBudget | None, again: Callable[[], Image.Image] | None
) -> None:
    pixels = speckled(10, 10)
    picture = made_picture(pixels, budget=budget, again=again)
    if again is None:
        pixels.paste("red", (0, 0, 10, 10))
    picture.pixels().paste("blue", (0, 0, 10, 10))
    picture.sent_image.pixels().paste("blue", (0, 0, 10, 10))
    assert raster(picture.pixels()) == raster(speckled(10, 10))
    assert picture.raw == Size(10, 10)
    assert picture.sent == (Size(10, 10) if budget is None else Size(56, 56))
    assert picture.sent_image.pixels().size == (picture.sent.width_px, picture.sent.height_px)
    if budget is None:
        assert raster(picture.sent_image.pixels()) == raster(speckled(10, 10))


def test_a_tool_that_makes_nothing_is_a_fault() -> None:
    with pytest.raises(DataError, match="an image of 0 x 5 pixels"):
        made_picture(Image.new("RGB", (0, 5)), budget=None)


@pytest.mark.skipif(not CHARTS.exists(), reason="the ChartQA images are not at hand")
def test_real_charts_are_sent_with_the_pixels_that_pillow_reads() -> None:
    for path in sorted(CHARTS.iterdir())[:20]:
        data = path.read_bytes()
        picture = prepare(data, name=path.name)
        image = Image.open(io.BytesIO(data))
        assert raster(picture.pixels()) == raster(on_white(image))
        assert picture.sent_image.encoded() is data


@settings(deadline=None)
@given(st.sampled_from(["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"]), st.data())
def test_damaged_bytes_are_read_or_refused_and_nothing_else(
    file_format: str, data: st.DataObject
) -> None:
    whole = bytearray(file(speckled(16, 12), file_format))
    places = st.tuples(st.integers(0, len(whole) - 1), st.integers(0, 255))
    for place, value in data.draw(st.lists(places, max_size=12)):
        whole[place] = value
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            prepare(bytes(whole), name="fuzz", max_pixels=100_000).pixels()
        except DataError as error:
            assert "'fuzz'" in str(error)


budgets = st.builds(
    lambda factor, smallest, more: PixelBudget(
        min_px=smallest, max_px=max(smallest, factor**2) + more, factor=factor
    ),
    st.sampled_from([1, 14, 28, 32]),
    st.integers(1, 2_000_000),
    st.integers(0, 16_000_000),
)
sizes = st.builds(Size, st.integers(1, 60_000), st.integers(1, 60_000))


@given(sizes, budgets)
def test_a_smart_size_fits_the_budget_in_whole_tiles(size: Size, budget: PixelBudget) -> None:
    made = smart_resize(size, budget)
    assert made.width_px % budget.factor == made.height_px % budget.factor == 0
    assert min(made.width_px, made.height_px) >= budget.factor
    assert made.width_px * made.height_px <= budget.max_px


@given(
    st.integers(1, 20_000),
    st.floats(0.05, 20),
    st.sampled_from([1, 14, 28, 32]),
    st.integers(100, 2_000),
    st.integers(4, 16),
)
def test_a_smart_size_is_no_smaller_than_a_usual_budget_says(
    height: int, ratio: float, factor: int, tiles: int, room: int
) -> None:
    smallest = tiles * factor**2
    budget = PixelBudget(min_px=smallest, max_px=room * smallest, factor=factor)
    made = smart_resize(Size(max(1, round(height * ratio)), height), budget)
    assert made.width_px * made.height_px >= budget.min_px


@given(sizes, budgets)
@example(Size(3, 4), PixelBudget(min_px=262, max_px=392, factor=14))
def test_a_wide_image_stays_wide(size: Size, budget: PixelBudget) -> None:
    made = smart_resize(size, budget)
    if size.width_px >= size.height_px:
        assert made.width_px >= made.height_px
    else:
        assert made.width_px <= made.height_px


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (Size(84, 56), Size(84, 56)),
        (Size(85, 55), Size(84, 56)),
        (Size(98, 70), Size(112, 56)),
        (Size(1000, 600), Size(280, 168)),
        (Size(10, 10), Size(56, 56)),
        (Size(1, 400), Size(28, 392)),
        (Size(100_000, 1), Size(1792, 28)),
        (Size(1, 100_000), Size(28, 1792)),
    ],
)
def test_smart_sizes_by_hand(size: Size, expected: Size) -> None:
    assert smart_resize(size, BUDGET) == expected


@pytest.mark.parametrize(
    ("size", "area_px", "expected"),
    [
        (Size(100, 60), 9 * 28 * 28, Size(84, 84)),
        (Size(30, 30), 800, Size(28, 28)),
        (Size(100, 3000), 800, Size(28, 28)),
    ],
)
def test_a_narrow_budget_is_not_overrun(size: Size, area_px: int, expected: Size) -> None:
    narrow = PixelBudget(min_px=area_px, max_px=area_px, factor=28)
    assert smart_resize(size, narrow) == expected


@pytest.mark.parametrize(
    ("smallest", "largest", "factor"), [(0, 100, 1), (2, 1, 1), (1, 783, 28), (1, 1, 0)]
)
def test_a_budget_that_nothing_can_meet_is_refused(
    smallest: int, largest: int, factor: int
) -> None:
    with pytest.raises(DefinitionError, match="a pixel budget needs"):
        PixelBudget(min_px=smallest, max_px=largest, factor=factor)


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "turned"])
def test_the_recorded_size_and_type_are_those_of_what_is_sent(file_format: str, mode: str) -> None:
    exif = Image.Exif()
    if mode == "turned":
        exif[0x0112] = 6
    image = Image.effect_noise((40, 30), 90).convert("RGB" if mode == "turned" else mode)
    if (file_format, mode) in {("JPEG", "RGBA"), ("JPEG", "P")}:
        pytest.skip("a JPEG has neither an alpha channel nor a palette")
    data = file(image, file_format, exif=exif)
    sent = prepare(data, name="a file")
    assert sent_size_and_type(data, name="a file") == (sent.raw, sent.sent_image.media_type)


def test_a_png_from_elsewhere_is_sent_in_place_of_one_that_would_be_made() -> None:
    data = file(Image.effect_noise((300, 200), 90).convert("RGB"), "JPEG")
    made = prepare(data, name="a file", budget=BUDGET).sent_image
    again = prepare(data, name="a file", budget=BUDGET, re_encode=lambda _: made.encoded())
    assert again.sent_image == made
    own = prepare(data, name="a file", re_encode=lambda _: made.encoded())
    assert own.sent_image.encoded() is data


@pytest.mark.parametrize("file_format", ["JPEG", "PNG"])
def test_pixels_hold_neither_the_file_nor_what_it_says_beside_them(file_format: str) -> None:
    exif = Image.Exif()
    exif[0x010E] = "a description"
    data = file(Image.effect_noise((300, 200), 90).convert("RGB"), file_format, exif=exif)
    pixels = prepare(data, name="a file").pixels()
    assert type(pixels) is Image.Image
    assert not pixels.info
    assert not pixels.getexif()
