import asyncio
import dataclasses
import json
from pathlib import Path

import pytest
from PIL import Image

from medeval.errors import RecordError
from medeval.evaluation.loader import load
from medeval.images.picture import made_picture, prepare
from medeval.images.request_image import png_of, sha256_of
from medeval.models.openai.client import OpenAIModel
from medeval.rollout.conversation import Rollout, roll_out
from medeval.rollout.images import ConversationImages, kept_image
from medeval.rollout.protocol import Pair
from medeval.store.run_folder import RunFolder
from medeval.tools.base import ToolContext
from medeval.tools.crop import crop_and_zoom
from medeval.types.sample import ImageSource, Sample
from medeval.types.trajectory import TrajectoryImage
from tests.medeval_processes import Serve
from tests.png_encodings import counted_encodings
from tests.small_benchmark import png
from tests.stub_server import StubServer

FILE = png((90, 30, 10))
PARENT = prepare(FILE, name="a")
CROPPED = crop_and_zoom().run(
    {"bbox_2d": [0, 0, 500, 500]}, ToolContext(pictures=(PARENT,), frame="permille")
)


def recorded() -> tuple[TrajectoryImage, TrajectoryImage]:
    """The records of a sample's image and of a crop of it."""
    images = ConversationImages()
    images.add(PARENT)
    images.add(CROPPED.picture, CROPPED)
    own, made = images.recorded
    return own, made


OWN, MADE = recorded()
PNG = png_of(CROPPED.picture.sent_image.pixels())
OLDER = dataclasses.replace(MADE, pixels_sha256=None, sha256=sha256_of(PNG), media_type="image/png")


def test_a_sample_s_image_is_known_by_its_bytes_and_a_made_one_by_its_pixels() -> None:
    assert (OWN.sha256, OWN.media_type, OWN.pixels_sha256) == (sha256_of(FILE), "image/png", None)
    pixels = CROPPED.picture.sent_image.pixels()
    head = f"RGB {pixels.width}x{pixels.height}\n".encode()
    assert MADE.pixels_sha256 == sha256_of(head + pixels.tobytes())
    assert (MADE.sha256, MADE.media_type) == (None, None)


@pytest.mark.parametrize("image", [MADE, OLDER], ids=["by pixels", "by its PNG"])
def test_a_kept_image_is_read_and_checked_by_the_hash_of_its_record(
    tmp_path: Path, image: TrajectoryImage
) -> None:
    folder = RunFolder(tmp_path)
    assert kept_image(folder, image) is None
    path = folder.keep_image(image.identity, "image/png", PNG)
    assert kept_image(folder, image) == ("image/png", PNG)
    path.write_bytes(png())
    with pytest.raises(RecordError, match="was changed: it has the hash"):
        kept_image(folder, image)
    path.write_bytes(PNG[:50])
    with pytest.raises(RecordError, match="was changed"):
        kept_image(folder, image)


def test_a_file_of_other_bytes_is_the_same_made_image_if_its_pixels_are(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    path = folder.keep_image(MADE.identity, "image/png", PNG)
    with Image.open(path) as image:
        image.save(path, "PNG", compress_level=9)
    assert path.read_bytes() != PNG
    assert kept_image(folder, MADE) == ("image/png", path.read_bytes())


def test_two_images_of_the_same_pixels_are_one() -> None:
    again = made_picture(CROPPED.picture.sent_image.pixels(), budget=None)
    assert again.sent_image.sha256 == MADE.pixels_sha256


def test_each_made_image_is_encoded_once_for_a_server_however_often_it_is_sent(
    serve: Serve,
) -> None:
    call = {"name": "crop_and_zoom", "arguments": {"bbox_2d": [0, 0, 500, 500]}}
    server = serve(
        StubServer(answer="A", call=f"<tool_call>\n{json.dumps(call)}\n</tool_call>", n_calls=2)
    )
    image = ImageSource(name="a", read=lambda: FILE)
    sample = Sample(id="a", question="?", images=(image,), targets=())
    protocol = load("crop_zoom", Pair).value.available

    async def converse() -> Rollout:
        model = OpenAIModel(model="stub", base_url=server.base_url)
        await model.start()
        try:
            return await roll_out(sample, (PARENT,), protocol, model)
        finally:
            await model.close()

    with counted_encodings() as written:
        rollout = asyncio.run(converse())
    assert len(rollout.trajectory.turns) == 3
    assert len(written) == len(rollout.made) == 2
