"""What people are shown of the messages a model would read."""

import io
from dataclasses import replace

import pytest
from PIL import Image

from medeval.evaluation.loader import load
from medeval.images.picture import prepare
from medeval.images.resize import PixelBudget
from medeval.rollout.protocol import EvalProtocol, Pair
from medeval.rollout.render import EXAMPLE, render_difference, render_opening
from medeval.types.sample import ImageSource

PLAIN = EvalProtocol(name="plain", system="Be brief.", user="$question$options")
SAMPLE = replace(EXAMPLE, question="Which?", options=("x", "y"))


def jpeg(orientation: int | None = None) -> bytes:
    exif = Image.Exif()
    if orientation is not None:
        exif[0x0112] = orientation
    buffer = io.BytesIO()
    Image.new("RGB", (300, 200), "red").save(buffer, "JPEG", exif=exif)
    return buffer.getvalue()


def test_messages_stand_under_their_roles_with_images_by_name() -> None:
    assert render_opening(PLAIN, SAMPLE) == (
        "[system]\nBe brief.\n\n[user]\n<image 0: an image>\nWhich?\nA. x\nB. y\n"
    )


def test_an_image_is_described_as_it_would_be_sent() -> None:
    data = jpeg()
    shown = render_opening(PLAIN, SAMPLE, [prepare(data, name="a")])
    assert f"<image 0: 300x200, sent as 300x200 image/jpeg, {len(data)} bytes, sha256 " in shown


def test_a_resize_and_an_orientation_are_told() -> None:
    budget = PixelBudget(min_px=784, max_px=10_000, factor=28)
    shown = render_opening(PLAIN, SAMPLE, [prepare(jpeg(6), name="a", budget=budget)])
    assert (
        "<image 0: 200x300, turned upright by EXIF orientation 6, sent as 56x112 image/png" in shown
    )


def test_native_tools_are_listed_after_the_messages() -> None:
    pair = load("crop_zoom_native", Pair).value
    assert "[tools, in the request]" not in render_opening(pair.free, SAMPLE)
    assert render_opening(pair.available, SAMPLE).endswith(
        f"[tools, in the request]\n{pair.available.tools_text}\n"
    )


@pytest.mark.parametrize("name", ["crop_zoom", "crop_zoom_native"])
def test_the_difference_of_arms_adds_lines_and_takes_none_away(name: str) -> None:
    pair = load(name, Pair).value
    lines = render_difference(pair, SAMPLE).splitlines()
    assert lines[:2] == [f"--- {pair.free.name}", f"+++ {pair.available.name}"]
    assert not [line for line in lines[2:] if line.startswith("-")]
    added = "\n".join(line[1:] for line in lines[2:] if line.startswith("+"))
    assert "crop_and_zoom" in added


def test_the_examples_image_is_never_read() -> None:
    (image,) = EXAMPLE.images
    assert isinstance(image, ImageSource)
    with pytest.raises(AssertionError, match="never read"):
        image.read()
