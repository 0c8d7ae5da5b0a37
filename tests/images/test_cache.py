"""A cached image is used if it is whole, and made again otherwise; the cache never fails."""

import errno
import io
import os
import shutil
import subprocess
import sys
from collections import namedtuple
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from subprocess import PIPE
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from medeval.errors import DataError
from medeval.images.cache import FOLDER, ImageCache, file_name
from medeval.images.picture import Picture, prepare
from medeval.images.request_image import sha256_of
from medeval.images.resize import PixelBudget
from tests.medeval_processes import ROOT

BUDGET = PixelBudget(min_px=28 * 28, max_px=128 * 28 * 28, factor=28)
NEARLY = PixelBudget(min_px=28 * 28, max_px=128 * 28 * 28, factor=28, resample="bilinear")


def noise(width: int = 420, height: int = 300, mode: str = "RGB") -> Image.Image:
    plane = Image.effect_noise((width, height), 60)
    other = plane.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return Image.merge("RGB", (plane, other, plane)).convert(mode)


def file(image: Image.Image, file_format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def turned(tag: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = tag
    return file(noise(), "JPEG", exif=exif)


def see_through() -> bytes:
    image = noise(mode="RGBA")
    image.putalpha(100)
    return file(image, "PNG")


FILES: dict[str, bytes] = {
    "jpeg": file(noise(), "JPEG"),
    "turned": turned(6),
    "mirrored": turned(2),
    "palette": file(noise(mode="P"), "PNG"),
    "16 bits": file(noise(mode="I").convert("I;16"), "PNG"),
    "see-through": see_through(),
    "tiff": file(noise(), "TIFF"),
    "gif": file(noise(mode="P"), "GIF"),
}
JPEG = FILES["jpeg"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / FOLDER
    path.mkdir()
    return path


def described(picture: Picture) -> tuple[object, ...]:
    """Every property of a picture."""
    return (
        *(picture.sent_image, picture.raw, picture.exif_orientation, picture.kept_bytes),
        *(
            picture.pixels().tobytes(),
            picture.sent_pixels().tobytes(),
            picture.sent_image.encoded(),
        ),
    )


def held(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("budget", [None, BUDGET, NEARLY])
def test_what_is_kept_is_what_was_prepared_and_is_sent_again(
    name: str, budget: PixelBudget | None, folder: Path
) -> None:
    data = FILES[name]
    expected = prepare(data, name="a file", budget=budget)
    if expected.sent_image.encoded() is data:
        pytest.skip("it is sent as it is")
    for _ in range(2):
        picture = ImageCache(folder).prepare(data, name="a file", budget=budget)
        assert described(picture) == described(expected)
    assert held(folder) == {file_name(sha256_of(data), budget): expected.sent_image.encoded()}
    other = file(Image.new("RGB", (picture.sent.width_px, picture.sent.height_px)), "PNG")
    (folder / file_name(sha256_of(data), budget)).write_bytes(other)
    again = ImageCache(folder).prepare(data, name="a file", budget=budget)
    assert again.sent_image.encoded() == other


def test_a_file_that_is_sent_as_it_is_is_not_kept(folder: Path) -> None:
    picture = ImageCache(folder).prepare(JPEG, name="a file")
    assert picture.sent_image.encoded() is JPEG
    assert held(folder) == {}


def test_another_file_budget_or_filter_is_another_image(folder: Path) -> None:
    images = ImageCache(folder)
    palette = FILES["palette"]
    for data, budget in ((JPEG, BUDGET), (JPEG, NEARLY), (palette, None), (palette, BUDGET)):
        picture = images.prepare(data, name="a file", budget=budget)
        assert described(picture) == described(prepare(data, name="a file", budget=budget))
    assert len(held(folder)) == 4


def test_an_image_over_the_bound_is_refused_although_it_is_kept(folder: Path) -> None:
    images = ImageCache(folder)
    images.prepare(JPEG, name="a file", budget=BUDGET)
    with pytest.raises(DataError, match="over the bound of 1,000"):
        images.prepare(JPEG, name="a file", budget=BUDGET, max_pixels=1000)


@pytest.mark.parametrize("data", [b"", b"no image", JPEG[:2000]])
def test_what_cannot_be_read_is_refused_each_time_and_not_kept(data: bytes, folder: Path) -> None:
    for _ in range(2):
        with pytest.raises(DataError, match="'a file'"):
            ImageCache(folder).prepare(data, name="a file", budget=BUDGET)
    assert held(folder) == {}


SMALL = file(noise(160, 120), "JPEG")


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The only file of the cache folder, with the JPEG as PNG."""
    folder = tmp_path_factory.mktemp("run")
    ImageCache(folder).prepare(SMALL, name="a file", budget=BUDGET)
    (path,) = folder.iterdir()
    return path


@given(st.data())
@settings(max_examples=40)
def test_a_damaged_file_is_made_anew_and_mended(kept: Path, data: st.DataObject) -> None:
    whole = kept.read_bytes()
    at = data.draw(st.integers(0, 120) | st.integers(0, len(whole) - 1))
    damage: Callable[[], bytes] = data.draw(
        st.sampled_from(
            [
                lambda: whole[:at],
                lambda: whole + b"x",
                lambda: whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :],
                lambda: bytes(len(whole)),
            ]
        )
    )
    kept.write_bytes(damage())
    picture = ImageCache(kept.parent).prepare(SMALL, name="a file", budget=BUDGET)
    assert described(picture) == described(prepare(SMALL, name="a file", budget=BUDGET))
    assert kept.read_bytes() == whole


def jpegs(n: int) -> list[bytes]:
    """Files with different contents."""
    photo = noise(260, 200)
    photos = (photo.copy() for _ in range(n))
    return [file(_marked(image, number), "JPEG") for number, image in enumerate(photos)]


def _marked(image: Image.Image, number: int) -> Image.Image:
    image.paste((4 * number, 40, 90), (0, 0, 50, 50))
    return image


def test_nothing_is_kept_while_the_disk_is_nearly_full(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(1 << 40, (1 << 40) - 9, 9))
    picture = ImageCache(folder).prepare(JPEG, name="a file", budget=BUDGET)
    assert picture.sent_image == prepare(JPEG, name="a file", budget=BUDGET).sent_image
    assert held(folder) == {}


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_where_an_image_cannot_be_written_all_give_way_to_the_records_and_one_warning_says_so(
    number: int, folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    images, elsewhere = ImageCache(folder), ImageCache(folder)
    images.prepare(JPEG, name="a file", budget=BUDGET)
    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", refuse)
        images.prepare(FILES["palette"], name="a file")
    for each in (images, elsewhere):
        picture = each.prepare(JPEG, name="a file", budget=BUDGET)
        assert picture.sent_image == prepare(JPEG, name="a file", budget=BUDGET).sent_image
    assert not folder.exists(), "nobody makes it anew"
    assert [os.strerror(number) in text for text in caplog.messages] == [True]


def test_threads_that_need_one_image_at_once_make_it_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = ImageCache(folder)
    written: list[Path] = []
    replace = Path.replace

    def counted(self: Path, target: Path) -> Path:
        written.append(target)
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", counted)
    with ThreadPoolExecutor(8) as pool:
        futures = [pool.submit(images.prepare, JPEG, name=str(n), budget=BUDGET) for n in range(24)]
    assert len({future.result().sent_image.sha256 for future in futures}) == 1
    assert len(written) == 1


WRITER = """
import sys
from pathlib import Path

from medeval.images.cache import ImageCache
from medeval.images.resize import PixelBudget

images = ImageCache(Path(sys.argv[1]))
for path in sorted(Path(sys.argv[2]).iterdir()):
    budget = PixelBudget(min_px=28 * 28, max_px=128 * 28 * 28, factor=28)
    print(images.prepare(path.read_bytes(), name="a file", budget=budget).sent_image.sha256)
"""


def test_processes_that_write_the_same_images_leave_each_once_and_whole(
    folder: Path, tmp_path: Path
) -> None:
    files = jpegs(12)
    (tmp_path / "files").mkdir()
    for number, data in enumerate(files):
        (tmp_path / f"files/{number:02d}.jpg").write_bytes(data)
    command = [sys.executable, "-c", WRITER, str(folder), str(tmp_path / "files")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    writers = [subprocess.Popen(command, stdout=PIPE, text=True, env=environment) for _ in range(2)]
    expected = [prepare(data, name="a file", budget=BUDGET).sent_image for data in files]
    for writer in writers:
        assert writer.communicate(timeout=60)[0].split() == [png.sha256 for png in expected]
    names = [file_name(sha256_of(data), BUDGET) for data in files]
    assert held(folder) == dict(zip(names, (png.encoded() for png in expected), strict=True))
