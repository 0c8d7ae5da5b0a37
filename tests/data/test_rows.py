import base64
import io
import json
import os
import zlib
from collections.abc import Mapping
from pathlib import Path

import pytest
from PIL import Image

from medeval.data.rows import DrawnRows, HubRows, Rows, open_rows
from medeval.errors import DataError
from medeval.types.geometry import Size

HUB = HubRows("owner/nowhere", split="test")


def png(width: int = 8, height: int = 6, colour: str = "red") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), colour).save(buffer, "PNG")
    return buffer.getvalue()


def write_lines(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def drawn(row: Mapping[str, object]) -> Rows:
    return open_rows(DrawnRows(1, lambda index: row))


def test_a_missing_column_names_those_there_are() -> None:
    row = drawn({"question": "?", "answer": "!"})[0]
    with pytest.raises(DataError) as raised:
        row.text("Question")
    assert raised.value.message == (
        "drawn rows, row 0: no column 'Question'; its columns: ['answer', 'question']"
    )
    assert row.get("Question") is None
    assert row.get("question", "x") == "?"
    assert "question" in row and "Question" not in row
    assert list(row) == ["question", "answer"] and len(row) == 2


@pytest.mark.parametrize(("value", "expected"), [("x", "x"), (12, "12"), (0.5, "0.5"), ("", "")])
def test_numbers_are_written_out_as_text(value: object, expected: str) -> None:
    assert drawn({"a": value})[0].text("a") == expected


@pytest.mark.parametrize("value", [None, True, ["x"], {"a": 1}, b"x"])
def test_anything_else_is_no_text(value: object) -> None:
    with pytest.raises(DataError, match="row 0, a: expected text, got"):
        drawn({"a": value})[0].text("a")


def test_texts_are_several_or_one() -> None:
    row = drawn({"many": ["a", 2], "one": "a", "bad": ["a", None]})[0]
    assert row.texts("many") == ("a", "2")
    assert row.texts("one") == ("a",)
    with pytest.raises(DataError, match=r"bad\[1\]: expected text, got None"):
        row.texts("bad")


@pytest.mark.parametrize(
    "value",
    [
        png(),
        base64.b64encode(png()).decode(),
        base64.encodebytes(png()).decode(),
        "data:image/png;base64," + base64.b64encode(png()).decode(),
        {"bytes": png(), "path": None},
        {"bytes": png(), "path": "/etc/passwd"},
    ],
)
def test_an_image_in_a_row_is_read_each_time_it_is_asked_for(
    value: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("medeval.data.tables.KEPT_DRAWN_BYTES", 0)
    readings: list[int] = []

    def draw(index: int) -> Mapping[str, object]:
        readings.append(index)
        return {"image": value, "images": [value, value]}

    row = open_rows(DrawnRows(3, draw))[2]
    source = row.image("image")
    assert source.name == "drawn rows, row 2, image"
    assert [source.read(), source.read()] == [png(), png()]
    assert readings == [2, 2, 2]
    assert [image.read() for image in row.images("images")] == [png(), png()]
    assert [image.name for image in row.images("images")][1] == "drawn rows, row 2, images[1]"
    assert len(row.images("image")) == 1
    assert row.image_size("image") == Size(8, 6)


@pytest.mark.parametrize("value", [None, b"", "", 5, {"bytes": None, "path": None}, {}, ["a"]])
def test_what_is_no_image_is_refused(value: object) -> None:
    with pytest.raises(DataError, match="expected an image, got"):
        drawn({"image": value})[0].image("image")


def test_rows_are_drawn_once_while_there_is_room_for_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("medeval.data.tables.KEPT_DRAWN_BYTES", 2_500)
    drawings: list[int] = []

    def draw(index: int) -> Mapping[str, object]:
        drawings.append(index)
        return {"image": bytes([index]) * 1_000}

    rows = open_rows(DrawnRows(3, draw))
    read = [rows[index].image("image").read() for _ in range(2) for index in range(3)]
    assert read == [bytes([index]) * 1_000 for _ in range(2) for index in range(3)]
    # of the third there is no room: drawn for the row and for its image, both times
    assert drawings == [0, 1, 2, 2, 2, 2]


def test_garbled_base64_is_told_when_it_is_read() -> None:
    source = drawn({"image": base64.b64encode(png()).decode()[:-2]})[0].image("image")
    with pytest.raises(DataError, match="cannot decode the base64 text"):
        source.read()


def test_a_row_that_changed_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("medeval.data.tables.KEPT_DRAWN_BYTES", 0)
    values: list[object] = [png(), "a.png"]
    source = open_rows(DrawnRows(1, lambda _: {"image": values.pop(0)}))[0].image("image")
    with pytest.raises(DataError, match="changed after it was first read"):
        source.read()


def test_rows_without_a_folder_hold_no_paths() -> None:
    row = drawn({"image": "a.png"})[0]
    with pytest.raises(DataError, match=r"no folder that could hold 'a\.png'"):
        row.image("image")
    with pytest.raises(DataError, match="no folder"):
        row.file("a.txt")


def test_no_rows_drawn_is_an_error() -> None:
    with pytest.raises(DataError, match="drawn by the definition has no rows"):
        open_rows(DrawnRows(0, lambda index: {}))


def test_an_image_path_is_relative_to_the_table(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").write_bytes(png())
    (tmp_path / "images" / "a.json").write_text("{}", encoding="utf-8")
    row = open_rows(HUB, write_lines(tmp_path / "rows.jsonl", {"image": "images/a.png"}))[0]
    assert row.image("image").name == "images/a.png"
    assert row.image("image").read() == png()
    assert row.image_size("image") == Size(8, 6)
    assert row.file("images/a.json") == b"{}"
    assert row.file("images/b.json") is None


@pytest.mark.parametrize("name", ["absent.png", "images", "x" * 5000 + ".png", "a\nb.png"])
def test_an_absent_image_is_told_when_it_is_read(tmp_path: Path, name: str) -> None:
    (tmp_path / "images").mkdir()
    source = open_rows(HUB, write_lines(tmp_path / "rows.jsonl", {"image": name}))[0].image("image")
    with pytest.raises(DataError, match="row 0, image: no file") as raised:
        source.read()
    assert len(raised.value.message) < 200


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
def test_an_unreadable_image_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png())
    (tmp_path / "a.png").chmod(0)
    row = open_rows(HUB, write_lines(tmp_path / "rows.jsonl", {"image": "a.png"}))[0]
    with pytest.raises(DataError, match=r"cannot read 'a\.png'"):
        row.image("image").read()


@pytest.mark.parametrize(
    "name",
    [
        "../secret.png",
        "images/../../secret.png",
        "/etc/passwd",
        "leads_out/secret.png",
        "loop/x.png",
        "nul\0.png",
    ],
)
def test_a_path_that_leads_outside_is_refused_before_it_is_read(tmp_path: Path, name: str) -> None:
    (tmp_path / "secret.png").write_bytes(png())
    inside = tmp_path / "inside"
    inside.mkdir()
    (inside / "leads_out").symlink_to(tmp_path)
    (inside / "loop").symlink_to(inside / "loop")
    row = open_rows(HUB, write_lines(inside / "rows.jsonl", {"image": name}))[0]
    with pytest.raises(DataError):
        row.image("image")
    with pytest.raises(DataError):
        row.image_size("image")
    with pytest.raises(DataError):
        row.file(name)


def test_a_link_inside_the_folder_is_followed(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png())
    (tmp_path / "b.png").symlink_to("a.png")
    row = open_rows(HUB, write_lines(tmp_path / "rows.jsonl", {"image": "b.png"}))[0]
    assert row.image("image").read() == png()


def test_what_has_no_image_header_has_no_size() -> None:
    with pytest.raises(DataError, match="cannot read the size of the image"):
        drawn({"image": b"not an image"})[0].image_size("image")


def test_the_size_of_a_huge_image_is_read_without_its_pixels() -> None:
    header = bytearray(png())
    header[16:24] = (11_000).to_bytes(4, "big") + (10_000).to_bytes(4, "big")
    header[29:33] = zlib.crc32(header[12:29]).to_bytes(4, "big")
    assert drawn({"image": bytes(header)})[0].image_size("image") == Size(11_000, 10_000)
