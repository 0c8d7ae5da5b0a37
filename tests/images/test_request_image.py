import hashlib
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from medeval.errors import DataError
from medeval.images.request_image import (
    HASHED_PX,
    FileImage,
    MadeImage,
    image_hash,
    pixels_sha256,
    png_of,
    sha256_of,
)
from medeval.types.geometry import Size
from tests.png_encodings import counted_encodings


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    data = hashlib.shake_256(bytes([seed])).digest(3 * width * height)
    return Image.frombytes("RGB", (width, height), data)


def test_a_made_image_is_known_by_its_mode_size_and_pixels_and_not_encoded_for_it() -> None:
    pixels = noise(7, 5)
    with counted_encodings() as written:
        image = MadeImage(pixels)

    assert image.sha256 == hashlib.sha256(b"RGB 7x5\n" + pixels.tobytes()).hexdigest()
    assert (image.width_px, image.height_px) == (7, 5)
    assert image.pixels().tobytes() == pixels.tobytes()
    assert (image.is_encoded, image.held_bytes, written) == (False, 4 * 35, [])


def test_a_made_image_is_encoded_once_and_then_held_as_its_png() -> None:
    pixels = noise(40, 30)
    image = MadeImage(pixels)
    with counted_encodings() as written, ThreadPoolExecutor(8) as pool:
        made = {bytes(data) for data in pool.map(lambda _: image.encoded(), range(40))}

    assert written == [(40, 30)]
    assert made == {png_of(pixels)}
    assert image.is_encoded
    assert image.held_bytes == len(image.encoded())
    assert image.pixels().tobytes() == pixels.tobytes()
    assert image.sha256 == MadeImage(pixels).sha256


@pytest.mark.parametrize("is_encoded", [False, True])
def test_the_pixels_of_a_made_image_are_the_caller_s_own(is_encoded: bool) -> None:
    image = MadeImage(noise(9, 9))
    if is_encoded:
        image.encoded()
    image.pixels().paste("red", (0, 0, 9, 9))
    assert image.pixels().tobytes() == noise(9, 9).tobytes()


def test_a_file_is_known_by_its_bytes_and_sent_as_it_is() -> None:
    data = png_of(noise(6, 4))
    image = FileImage.of(data, "image/png", Size(6, 4))

    assert image.sha256 == sha256_of(data)
    assert image.encoded() is data
    assert image.pixels().tobytes() == noise(6, 4).tobytes()
    assert (image.is_encoded, image.held_bytes) == (True, len(data))


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 3))
def test_the_hash_of_pixels_tells_sizes_apart_and_survives_a_png(
    width: int, height: int, seed: int
) -> None:
    image = noise(width, height, seed)
    found = pixels_sha256(image)
    assert image_hash(png_of(image), of_pixels=True) == found
    assert image_hash(png_of(image), of_pixels=False) == sha256_of(png_of(image)) != found
    reshaped = Image.frombytes("RGB", (height, width), image.tobytes())
    assert (pixels_sha256(reshaped) == found) is (width == height)


@pytest.mark.parametrize("size", [(1, HASHED_PX + 3), (HASHED_PX + 3, 2), (700, 900)])
def test_pixels_are_hashed_in_bands_as_they_would_be_at_once(size: tuple[int, int]) -> None:
    image = Image.effect_noise(size, 80).convert("RGB")
    head = f"RGB {size[0]}x{size[1]}\n".encode()
    assert pixels_sha256(image) == hashlib.sha256(head + image.tobytes()).hexdigest()


def test_the_pixels_of_a_damaged_file_are_an_error() -> None:
    with pytest.raises(DataError, match="'kept'"):
        image_hash(b"\x89PNG\r\n\x1a\n no more", of_pixels=True)
