"""What is found in image files, kept between runs."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageFile

from medeval.evaluation.plan import resolve
from medeval.evaluation.plan_file import read_options
from medeval.evaluation.run import carry_out
from medeval.images import known_files
from medeval.images.known_files import (
    CACHE_VARIABLE,
    MIN_KEPT_BYTES,
    Found,
    KnownFiles,
    SentAs,
    kept_at,
)
from medeval.types.geometry import Size
from medeval.types.sample import MediaType
from tests.small_benchmark import scripted


def content(number: int, n_bytes: int = MIN_KEPT_BYTES) -> bytes:
    return number.to_bytes(4, "little") * (n_bytes // 4)


def found(number: int, media_type: MediaType = "image/png", *, is_own: bool = True) -> Found:
    digest = hashlib.sha256(content(number)).hexdigest()
    return Found(digest, SentAs(Size(number + 1, 4_000_000_000), media_type, is_own))


def never() -> Found:
    raise AssertionError("a known file was looked into")


def saved(path: Path, n: int = 3) -> None:
    known = KnownFiles(path)
    for number in range(n):
        known.note(content(number), found(number))
    known.save()


def test_what_was_saved_is_known_to_a_later_run(tmp_path: Path) -> None:
    path = tmp_path / "some folder" / "images"
    known = KnownFiles(path)
    kinds: tuple[MediaType, ...] = ("image/jpeg", "image/png", "image/webp")
    expected = {
        2 * number + is_own: found(2 * number + is_own, kind, is_own=bool(is_own))
        for number, kind in enumerate(kinds)
        for is_own in (0, 1)
    }
    for number, one in expected.items():
        known.note(content(number), one)
    known.save()
    later = KnownFiles(path)
    assert {number: later.found(content(number), never) for number in expected} == expected
    assert later.find(content(99)) is None


def test_a_file_is_looked_into_once() -> None:
    known = KnownFiles()
    assert known.found(content(5), lambda: found(5)) == found(5)
    assert known.found(content(5), never) == found(5)


def test_a_file_that_cannot_be_read_is_looked_into_again() -> None:
    known = KnownFiles()
    for _ in range(2):
        with pytest.raises(AssertionError, match="looked into"):
            known.found(content(5), never)
    assert known.find(content(5)) is None


def test_small_files_are_looked_into_each_time() -> None:
    known = KnownFiles()
    small = content(1, MIN_KEPT_BYTES - 4)
    known.note(small, found(1))
    assert known.find(small) is None
    with pytest.raises(AssertionError, match="looked into"):
        known.found(small, never)


def cut(data: bytes) -> bytes:
    return data[:-1]


def of_other_code(data: bytes) -> bytes:
    return b"medeval 0" + data[9:]


def with_a_bit_turned(data: bytes) -> bytes:
    return data[:-9] + bytes([data[-9] ^ 1]) + data[-8:]


def empty(data: bytes) -> bytes:
    return b""


@pytest.mark.parametrize("damage", [cut, of_other_code, with_a_bit_turned, empty])
def test_what_is_damaged_or_of_other_code_is_not_believed(
    tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    path = tmp_path / "images"
    saved(path)
    assert KnownFiles(path).find(content(0)) == found(0)
    path.write_bytes(damage(path.read_bytes()))
    known = KnownFiles(path)
    assert known.find(content(0)) is None
    known.note(content(7), found(7))
    known.save()
    assert KnownFiles(path).find(content(7)) == found(7)


def test_another_pillow_may_find_something_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "images"
    saved(path)
    monkeypatch.setattr("PIL.__version__", "12.0.0.other")
    assert KnownFiles(path).find(content(0)) is None


def test_what_was_found_while_the_code_was_changed_on_disk_is_the_old_codes(
    tmp_path: Path,
) -> None:
    """As where a run goes on in a working tree in which somebody changes branches."""
    package = tmp_path / "medeval"
    shutil.copytree(Path(known_files.__file__).parent, package, ignore=shutil.ignore_patterns("_*"))
    (package / "__init__.py").touch()
    rules = package / "images.py"
    asked = """
import sys
from pathlib import Path
from medeval.images.known_files import Found, KnownFiles, SentAs
from medeval.types.trajectory import Size

path, rules = map(Path, sys.argv[1:])
known = KnownFiles(path)
print(known.find(bytes(1 << 16)) is not None)
known.note(bytes(1 << 16), Found("0" * 64, SentAs(Size(1, 1), "image/png", True)))
rules.write_bytes(rules.read_bytes() + b"# changed\\n")
known.save()
"""
    command = [sys.executable, "-c", asked, str(tmp_path / "kept"), str(rules)]
    for _ in range(2):
        done = subprocess.run(command, cwd=tmp_path, env=alone(), capture_output=True, check=True)
        assert done.stdout == b"False\n"


def alone() -> dict[str, str]:
    """The environment of a process that imports the package of the folder it is in."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


def test_what_was_found_where_torn_files_are_read_is_not_believed_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "images"
    with monkeypatch.context() as patched:
        patched.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
        saved(path)
        assert KnownFiles(path).find(content(0)) == found(0)
    assert KnownFiles(path).find(content(0)) is None


def test_nothing_is_written_where_nothing_is_new(tmp_path: Path) -> None:
    path = tmp_path / "images"
    KnownFiles(path).save()
    assert not path.exists()
    saved(path)
    before = path.stat().st_ino, path.stat().st_mtime_ns
    known = KnownFiles(path)
    assert known.found(content(1), never) == found(1)
    known.save()
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == before


def test_a_later_run_adds_to_what_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "images"
    saved(path)
    known = KnownFiles(path)
    known.note(content(9), found(9))
    known.save()
    later = KnownFiles(path)
    assert [later.find(content(number)) for number in (0, 2, 9)] == [found(0), found(2), found(9)]


def test_of_very_many_files_the_latest_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(known_files, "MOST_KEPT", 2)
    path = tmp_path / "images"
    saved(path)
    later = KnownFiles(path)
    assert [later.find(content(number)) for number in range(3)] == [None, found(1), found(2)]


def test_a_cache_that_cannot_be_written_costs_nothing_but_time(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    saved(tmp_path / "file" / "images")
    assert KnownFiles(tmp_path / "file" / "images").find(content(0)) is None


def test_a_cache_that_refuses_even_to_look_for_a_draft_is_done_without(tmp_path: Path) -> None:
    # as a read-only disk does: here the name is within what systems take, the draft's is not
    saved(tmp_path / ("n" * 250))
    assert list(tmp_path.iterdir()) == []


def test_each_source_of_rows_has_its_own_file_in_the_users_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    first, second = kept_at("vstar", "one folder"), kept_at("vstar", "another")
    assert first is not None
    assert first != second
    assert first.parent == tmp_path / "images"
    assert first.name.startswith("vstar-")
    monkeypatch.setenv(CACHE_VARIABLE, "")
    assert kept_at("vstar", "one folder") is None
    monkeypatch.delenv(CACHE_VARIABLE)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    usual = kept_at("vstar", "one folder")
    assert usual is not None
    if os.name == "posix" and Path("/proc").exists():
        assert usual.is_relative_to(tmp_path / "cache" / "medeval")


@pytest.mark.parametrize(("home", "named"), [(None, None), ("", None), (None, "~/cache")])
def test_a_user_without_a_home_has_no_cache(
    home: str | None, named: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    pwd = pytest.importorskip("pwd")

    def nobody(_: int) -> None:
        raise KeyError("uid not found")

    monkeypatch.setattr(pwd, "getpwuid", nobody)
    for name, value in {CACHE_VARIABLE: named, "HOME": home, "XDG_CACHE_HOME": None}.items():
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, value)
    assert kept_at("vstar", "one folder") is None


def test_a_named_folder_may_be_below_the_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv(CACHE_VARIABLE, "~/some")
    path = kept_at("vstar", "one folder")
    assert path is not None
    assert path.parent == tmp_path / "some" / "images"


@pytest.mark.parametrize("name", ["/etc/vstar", "../../vstar", "one/vstar"])
def test_no_name_of_a_benchmark_leads_out_of_the_cache(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    path = kept_at(name, "one folder")
    assert path is not None
    assert path.parent.resolve() == tmp_path.resolve() / "images"


DEFINITION = """
from medeval import Benchmark, HubRows, Sample


def to_sample(row):
    name = str(row["file_name"])
    return Sample(
        id=name,
        question="Which colour?",
        options=("red", "green"),
        images=(row.image("file_name"),),
        targets=("A",),
    )


NOISE = Benchmark(
    name="noise",
    title="drawn for tests",
    rows=HubRows("somebody/noise", "test"),
    columns=("file_name",),
    to_sample=to_sample,
    judge="choice",
)
"""


def draw_files(folder: Path) -> dict[str, bytes]:
    """Files that are sent as they are, re-encoded, turned, broken and small."""
    noise = Image.effect_noise((300, 200), 90).convert("RGB")
    see_through = noise.convert("RGBA")
    see_through.putalpha(99)
    turned = Image.Exif()
    turned[0x0112] = 6
    drawn: dict[str, tuple[Image.Image, dict[str, Any]]] = {
        "own.png": (noise, {}),
        "own.jpg": (noise, {"quality": 95}),
        "see_through.png": (see_through, {}),
        "turned.jpg": (noise, {"quality": 95, "exif": turned}),
        "small.png": (Image.new("RGB", (8, 8)), {}),
    }
    folder.mkdir()
    for name, (image, how) in drawn.items():
        image.save(folder / name, **how)
    (folder / "broken.png").write_bytes((folder / "own.png").read_bytes()[:-5000])
    files = {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
    rows = "".join(json.dumps({"file_name": name}) + "\n" for name in files)
    (folder / "test.jsonl").write_text(rows)
    return files


def run_records(folder: Path, name: str) -> tuple[str, list[tuple[str, Any]]]:
    """The samples of a run over the files, and the images of its trajectories."""
    options = {
        "model": ("m",),
        "benchmarks": (str(folder / "noise.py"),),
        "protocols": ("tool_free",),
        "data_dir": (str(folder / "files"),),
        "output_dir": str(folder / name),
    }
    carry_out(resolve(read_options(None, options)), scripted, Silent)
    lines = next((folder / name).rglob("trajectories*.jsonl")).read_text().splitlines()
    images = {line["sample_id"]: line["images"] for line in map(json.loads, lines)}
    return (folder / name / "samples" / "noise.jsonl").read_text(), sorted(images.items())


class Silent:
    """Progress that nobody watches."""

    def __init__(self, n_missing: int) -> None: ...
    def advance(self, *, scored: bool) -> None: ...
    def tell(self, message: str) -> None: ...


def test_a_later_run_records_the_same_and_looks_into_no_file_it_knows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = draw_files(tmp_path / "files")
    (tmp_path / "noise.py").write_text(DEFINITION)
    without = run_records(tmp_path, "without")
    assert "broken.png" in without[0]
    assert len(without[1]) == 5
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    for number in range(2):
        assert run_records(tmp_path, f"run-{number}") == without
    (path,) = (tmp_path / "cache" / "images").iterdir()
    known = KnownFiles(path)
    assert {name for name, data in files.items() if known.find(data)} == {
        "own.png",
        "own.jpg",
        "see_through.png",
        "turned.jpg",
    }
    # what is kept is believed
    known.note(files["own.jpg"], Found("0" * 64, SentAs(Size(3, 4), "image/jpeg", is_own=True)))
    known.note(content(1), found(1))
    known.save()
    samples, images = run_records(tmp_path, "believing")
    assert samples.count("0" * 64) == 1
    assert str(images).count("0" * 64) == 1
