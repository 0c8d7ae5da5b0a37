"""An image that was re-encoded once is found again, whole, or prepared anew: never a failure."""

import errno
import io
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from subprocess import PIPE
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, features

from medeval.errors import DataError
from medeval.images import cache as prepared_images
from medeval.images.cache import FOLDER, LEAST_PX, PreparedImages, kept_in
from medeval.images.known_files import KnownFiles
from medeval.images.memory import PixelRoom
from medeval.images.picture import Picture, prepare
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


def told(picture: Picture) -> tuple[object, ...]:
    """All there is to a picture."""
    return (
        *(picture.encoded, picture.raw, picture.exif_orientation, picture.kept_bytes),
        *(picture.pixels().tobytes(), picture.sent_pixels().tobytes(), picture.encoded.data),
    )


def without_decoding(images: PreparedImages, data: bytes, **options: Any) -> Picture:
    """What is found while nobody may decode: where all room for pixels is taken."""
    room = PixelRoom()
    with ThreadPoolExecutor(1) as pool, room.taken(1 << 40):
        found = pool.submit(images.prepare, data, name="a file", room=room, **options)
        return found.result(timeout=20)


def held(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("budget", [None, BUDGET, NEARLY])
def test_what_is_found_again_is_what_was_prepared_and_nothing_is_decoded(
    name: str, budget: PixelBudget | None, folder: Path
) -> None:
    data = FILES[name]
    expected = prepare(data, name="a file", budget=budget)
    if expected.encoded.data is data:
        pytest.skip("it is sent as it is")
    first = PreparedImages(folder).prepare(data, name="a file", budget=budget)
    assert told(first) == told(expected)
    again = without_decoding(PreparedImages(folder), data, budget=budget)
    assert told(again) == told(expected)


def test_a_file_that_is_sent_as_it_is_is_not_kept(folder: Path) -> None:
    known = KnownFiles()
    for _ in range(2):
        picture = PreparedImages(folder).prepare(JPEG, name="a file", known=known)
        assert picture.encoded.data is JPEG
    assert held(folder) == {}


def test_an_image_that_is_prepared_in_no_time_is_not_kept(folder: Path) -> None:
    side = int(LEAST_PX**0.5)
    for width in (side - 1, side):
        data = file(noise(width, side, "P"), "PNG")
        PreparedImages(folder).prepare(data, name="a file")
    assert len(held(folder)) == 1


def test_another_file_budget_or_filter_is_another_image(folder: Path) -> None:
    images = PreparedImages(folder)
    palette = FILES["palette"]
    for data, budget in ((JPEG, BUDGET), (JPEG, NEARLY), (palette, None), (palette, BUDGET)):
        picture = images.prepare(data, name="a file", budget=budget)
        assert told(picture) == told(prepare(data, name="a file", budget=budget))
    assert len(held(folder)) == 4


def test_what_other_libraries_have_made_is_not_found(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    PreparedImages(folder).prepare(JPEG, name="a file", budget=BUDGET)
    version = features.version
    with monkeypatch.context() as patched:
        patched.setattr(features, "version", lambda name: f"{version(name)}, patched")
        prepared_images._settings.cache_clear()
        PreparedImages(folder).prepare(JPEG, name="a file", budget=BUDGET)
    prepared_images._settings.cache_clear()
    assert len(held(folder)) == 2


def test_an_image_over_the_bound_is_refused_although_it_is_kept(folder: Path) -> None:
    images = PreparedImages(folder)
    images.prepare(JPEG, name="a file", budget=BUDGET)
    with pytest.raises(DataError, match="over the bound of 1,000"):
        images.prepare(JPEG, name="a file", budget=BUDGET, max_pixels=1000)


@pytest.mark.parametrize("data", [b"", b"no image", JPEG[:2000]])
def test_what_cannot_be_read_is_refused_each_time_and_not_kept(data: bytes, folder: Path) -> None:
    for _ in range(2):
        with pytest.raises(DataError, match="'a file'"):
            PreparedImages(folder).prepare(data, name="a file", budget=BUDGET)
    assert held(folder) == {}


SMALL = file(noise(160, 120), "JPEG")


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The one file of a folder in which the JPEG is kept."""
    folder = tmp_path_factory.mktemp("run")
    PreparedImages(folder).prepare(SMALL, name="a file", budget=BUDGET)
    (path,) = folder.iterdir()
    return path


@given(st.data())
@settings(max_examples=40)
def test_a_damaged_file_is_prepared_anew_and_mended(kept: Path, data: st.DataObject) -> None:
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
    picture = PreparedImages(kept.parent).prepare(SMALL, name="a file", budget=BUDGET)
    assert told(picture) == told(prepare(SMALL, name="a file", budget=BUDGET))
    assert kept.read_bytes() == whole


def jpegs(n: int) -> list[bytes]:
    """Files of which no two are alike, and which take about as much room as each other."""
    photo = noise(260, 200)
    photos = (photo.copy() for _ in range(n))
    return [file(_marked(image, number), "JPEG") for number, image in enumerate(photos)]


def _marked(image: Image.Image, number: int) -> Image.Image:
    image.paste((4 * number, 40, 90), (0, 0, 50, 50))
    return image


@pytest.mark.parametrize("most_bytes", [0, 1_000_000, 3_000_000])
def test_no_more_is_kept_than_there_is_room_for(most_bytes: int, folder: Path) -> None:
    several = [PreparedImages(folder, most_bytes=most_bytes) for _ in range(3)]
    small = PixelBudget(min_px=784, max_px=30 * 784, factor=28)
    for number, data in enumerate(jpegs(60)):
        images = several[number % 3]
        picture = images.prepare(data, name="a file", budget=small)
        assert picture.encoded == prepare(data, name="a file", budget=small).encoded
    taken = sum(map(len, held(folder).values()))
    assert taken <= most_bytes
    assert bool(taken) is bool(most_bytes)


def test_no_more_is_kept_than_a_share_of_what_is_free(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert os.statvfs(folder).f_bavail
    monkeypatch.setattr(prepared_images, "SHARE_OF_FREE", 0.0)
    PreparedImages(folder).prepare(JPEG, name="a file", budget=BUDGET)
    assert held(folder) == {}


def test_drafts_that_get_their_names_while_files_are_counted_do_not_end_the_keeping(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = PreparedImages(folder)
    (folder / "draft.tmp").write_bytes(b"by another process")
    scan = os.scandir

    @contextmanager
    def late(path: Path) -> Iterator[list[os.DirEntry[str]]]:
        with scan(path) as files:
            seen = list(files)
        (folder / "draft.tmp").unlink(missing_ok=True)
        yield seen

    monkeypatch.setattr(os, "scandir", late)
    images.prepare(JPEG, name="a file", budget=BUDGET)
    assert len(held(folder)) == 1


def refusing(number: int) -> Callable[..., None]:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    return refuse


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.EFBIG, errno.EIO])
def test_a_folder_that_cannot_be_written_is_told_of_once_and_read_all_the_same(
    number: int,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    images = PreparedImages(folder)
    images.prepare(JPEG, name="a file", budget=BUDGET)
    before = held(folder)
    monkeypatch.setattr(Path, "replace", refusing(number))
    for data in jpegs(3):
        picture = images.prepare(data, name="a file", budget=BUDGET)
        assert picture.encoded == prepare(data, name="a file", budget=BUDGET).encoded
    assert held(folder) == before, "no draft is left"
    assert [os.strerror(number) in text for text in caplog.messages] == [True]
    without_decoding(images, JPEG, budget=BUDGET)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_where_no_space_is_left_what_is_kept_gives_way_to_the_records(
    number: int, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, elsewhere = PreparedImages(folder), PreparedImages(folder)
    images.prepare(JPEG, name="a file", budget=BUDGET)
    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", refusing(number))
        images.prepare(FILES["palette"], name="a file")
    assert not folder.exists()
    for each in (images, elsewhere):
        picture = each.prepare(JPEG, name="a file", budget=BUDGET)
        assert picture.encoded == prepare(JPEG, name="a file", budget=BUDGET).encoded
    assert not folder.exists(), "nobody makes it anew"


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_read_only_folder_is_read(folder: Path) -> None:
    PreparedImages(folder).prepare(JPEG, name="a file", budget=BUDGET)
    folder.chmod(0o500)
    without_decoding(PreparedImages(folder), JPEG, budget=BUDGET)
    PreparedImages(folder).prepare(FILES["palette"], name="a file")
    assert len(held(folder)) == 1


def test_a_run_folder_that_cannot_hold_the_folder_goes_without(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / FOLDER).write_text("a file")
    with kept_in(tmp_path, is_worth_it=True, goes_on=lambda: False) as images:
        assert images is None
    assert FOLDER in caplog.text


class Decoded(PixelRoom):
    """Room for pixels that counts who took some."""

    count = 0

    @contextmanager
    def taken(self, pixels: int) -> Iterator[None]:
        self.count += 1
        with super().taken(pixels):
            yield


def test_threads_that_need_one_image_at_once_prepare_it_once(folder: Path) -> None:
    images, room = PreparedImages(folder), Decoded()
    with ThreadPoolExecutor(8) as pool:
        futures = [
            pool.submit(images.prepare, JPEG, name=str(n), budget=BUDGET, room=room)
            for n in range(24)
        ]
    assert len({future.result().encoded.sha256 for future in futures}) == 1
    assert room.count == 1


WRITER = """
import sys
from pathlib import Path

from medeval.images.picture import PixelBudget
from medeval.images.cache import PreparedImages

images = PreparedImages(Path(sys.argv[1]))
for path in sorted(Path(sys.argv[2]).iterdir()):
    budget = PixelBudget(min_px=28 * 28, max_px=128 * 28 * 28, factor=28)
    print(images.prepare(path.read_bytes(), name="a file", budget=budget).encoded.sha256)
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
    expected = [prepare(data, name="a file", budget=BUDGET).encoded.sha256 for data in files]
    for writer in writers:
        assert writer.communicate(timeout=60)[0].split() == expected
    assert len(held(folder)) == len(files)
    for data in files:
        without_decoding(PreparedImages(folder), data, budget=BUDGET)
