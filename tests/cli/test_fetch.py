"""Benchmarks fetched ahead from a hub, and found again where there is none."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from medeval.cli.fetch import _line
from tests.data.test_hub import COMMIT, hub, png
from tests.medeval_processes import MedevalMain

ROOT = Path(__file__).parents[2]

DEFINITION = """from medeval import Benchmark, DrawnRows, HubFiles, HubRows, Sample


def to_sample(row):
    return Sample(id="s", question="?", images=(row.image("image"),), targets=("A",))


def named(name, rows, count):
    return Benchmark(
        name=name, title="t", rows=rows, count=count, to_sample=to_sample, judge="choice"
    )


FILES = named("files", HubFiles("owner/set", "q.jsonl", allow_patterns=("images/*",)), 1)
SPLIT = named("split", HubRows("owner/gone", split="test", mirrors=("owner/set",)), 3)
DRAWN = named("drawn", DrawnRows(1, lambda index: {"image": b"png"}), 1)
ABSENT = named("absent", HubFiles("owner/other", "q.jsonl"), 1)
"""


def fetch(
    folder: Path, endpoint: str, *names: str, offline: bool = False
) -> subprocess.CompletedProcess[str]:
    path = folder / "mine.py"
    path.write_text(DEFINITION, encoding="utf-8")
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    return subprocess.run(
        [sys.executable, "-m", "medeval", "fetch", *(f"{path}::{name}" for name in names)],
        env={
            **kept,
            "PYTHONPATH": str(ROOT),
            "HF_ENDPOINT": endpoint,
            "HF_HOME": str(folder / "home"),
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_OFFLINE": "1" if offline else "0",
        },
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


@pytest.fixture
def files() -> dict[str, bytes]:
    import io

    import pyarrow
    from pyarrow import parquet

    buffer = io.BytesIO()
    row = {"question": "Which?", "image": {"bytes": png(), "path": "a.png"}}
    parquet.write_table(pyarrow.Table.from_pylist([row, row]), buffer)
    line = json.dumps({"question": "Which?", "image": "images/a.png"}).encode()
    return {
        "q.jsonl": line,
        "images/a.png": png(),
        "other/b.bin": b"x" * 5000,
        "data/test-00000-of-00001.parquet": buffer.getvalue(),
        "README.md": b"---\nconfigs:\n- config_name: default\n  data_files:\n"
        b"  - split: test\n    path: data/test-*\n---\n",
    }


def test_what_was_fetched_is_named_with_its_size_and_found_again_offline(
    tmp_path: Path, files: dict[str, bytes]
) -> None:
    with hub(files) as endpoint:
        done = fetch(tmp_path, endpoint, "files", "split", "drawn")
    assert done.returncode == 0, done.stderr
    size = len(files["q.jsonl"]) + len(files["images/a.png"])
    of_files, of_split, of_drawn = done.stdout.splitlines()
    assert of_files == f"files: 1 rows, {size} B, hub owner/set at {COMMIT}"
    # the repository named first is gone, so a mirror was read
    assert of_split.startswith("split: 2 rows, ")
    assert of_split.endswith(f"hub owner/set test at {COMMIT}, but 3 rows were published")
    assert of_drawn == "drawn: 1 rows, nothing to fetch, drawn by the definition"

    again = fetch(tmp_path, "http://127.0.0.1:9", "files", "split", offline=True)
    assert again.returncode == 0, again.stderr
    told = "from the cache, the hub did not answer"
    assert again.stdout.splitlines() == [
        f"{of_files}, {told}",
        of_split.replace(", but", f", {told}, but"),
    ]


def test_a_benchmark_that_cannot_be_had_is_told_and_the_others_fetched(
    tmp_path: Path, files: dict[str, bytes]
) -> None:
    with hub(files) as endpoint:
        done = fetch(tmp_path, endpoint, "absent", "files")
    assert done.returncode == 1
    assert "error: absent: cannot fetch 'owner/other' from the hub" in done.stderr
    assert done.stdout.startswith("files: 1 rows, ")


def test_json_says_the_same_for_a_script(
    tmp_path: Path, medeval_main: MedevalMain, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.py").write_text(DEFINITION, encoding="utf-8")
    drawn = f"{tmp_path / 'mine.py'}::drawn"
    assert medeval_main("fetch", f"{drawn},{drawn}", "--json") == 0
    assert json.loads(capsys.readouterr().out) == {
        "benchmark": "drawn",
        "rows": 1,
        "published": 1,
        "size_bytes": None,
        "origin": "drawn by the definition",
        "revision": None,
        "offline": False,
    }


def test_a_folder_with_the_name_of_the_data_set_is_told_for_it_alone(
    tmp_path: Path,
    medeval_main: MedevalMain,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = tmp_path / "mine.py"
    path.write_text(DEFINITION.replace("owner/gone", "owner/set"), encoding="utf-8")
    (tmp_path / "owner" / "set").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert medeval_main("fetch", f"{path}::split", f"{path}::drawn") == 1
    told = capsys.readouterr()
    assert "error: split: 'owner/set' is a data set on the hub, and also a folder here" in told.err
    assert told.out == "drawn: 1 rows, nothing to fetch, drawn by the definition\n"


@pytest.mark.parametrize(
    ("told", "line"),
    [
        ({}, "b: 1,500 rows, 430 MB, hub o/s at c0ffee"),
        ({"offline": True}, "b: 1,500 rows, 430 MB, hub o/s at c0ffee, from the cache, the hub "
         "did not answer"),
        ({"size_bytes": 999, "revision": None}, "b: 1,500 rows, 999 B, hub o/s"),
        ({"size_bytes": 4_630_000_000, "published": 1600}, "b: 1,500 rows, 4.63 GB, hub o/s at "
         "c0ffee, but 1,600 rows were published"),
    ],
)  # fmt: skip
def test_a_line_says_how_much_of_what(told: dict[str, object], line: str) -> None:
    whole = {"benchmark": "b", "rows": 1500, "published": 1500, "size_bytes": 430_000_000,
             "origin": "hub o/s", "revision": "c0ffee", "offline": False}  # fmt: skip
    assert _line({**whole, **told}) == line
