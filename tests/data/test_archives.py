"""Files in zip archives, found by the end of their path."""

import zipfile
from pathlib import Path

import pytest

from medeval.data import files as archives
from medeval.data.files import read_member
from medeval.errors import DataError


def archive(path: Path, *names: str) -> tuple[Path, ...]:
    with zipfile.ZipFile(path, "w") as opened:
        for name in names:
            opened.writestr(name, b"" if name.endswith("/") else name.encode())
    return (path,)


@pytest.mark.parametrize(
    ("name", "member"),
    [
        ("data/set/png/1.png", b"set/png/1.png"),
        ("elsewhere/png/1.png", b"set/png/1.png"),
        ("val/1.png", b"set/val/1.png"),
        ("png/2.png", None),
        ("1.jpg", None),
        ("png", None),
        ("", None),
        (".", None),
    ],
)
def test_the_member_that_agrees_with_most_trailing_parts_is_read(
    tmp_path: Path, name: str, member: bytes | None
) -> None:
    names = ("set/png/1.png", "set/val/1.png", "set/png/", "__MACOSX/set/png/1.png")
    assert read_member(archive(tmp_path / "a.zip", *names), name) == member


def test_a_name_that_may_be_two_members_is_refused(tmp_path: Path) -> None:
    two = archive(tmp_path / "a.zip", "a/1.png") + archive(tmp_path / "b.zip", "b/1.png")
    with pytest.raises(DataError, match=r"'1\.png' may be any of 'a/1\.png', 'b/1\.png'"):
        read_member(two, "1.png")


def test_no_archive_has_no_member() -> None:
    assert read_member((), "1.png") is None


def test_what_is_no_archive_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(b"PK\3\4 but no more")
    with pytest.raises(DataError, match=r"cannot read the archive 'a\.zip'"):
        read_member((tmp_path / "a.zip",), "1.png")


def test_a_damaged_member_is_told(tmp_path: Path) -> None:
    (path,) = archive(tmp_path / "a.zip", "1.png")
    data = path.read_bytes()
    path.write_bytes(data.replace(b"1.png1.png", b"1.png2.png", 1))
    with pytest.raises(DataError, match=r"cannot read '1\.png' in 'a\.zip'"):
        read_member((path,), "1.png")


def test_a_member_that_claims_too_much_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives, "MAX_MEMBER_BYTES", 3)
    with pytest.raises(DataError, match="has 5 bytes, more than"):
        read_member(archive(tmp_path / "a.zip", "1.png"), "1.png")
