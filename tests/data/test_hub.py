import io
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from PIL import Image

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def png(width: int = 8, height: int = 6, colour: str = "red") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), colour).save(buffer, "PNG")
    return buffer.getvalue()


class Hub(BaseHTTPRequestHandler):
    """As much of the hub's interface as fetching one repository takes.

    `api` and `root` are where the repository's information and its files are.
    """

    files: Mapping[str, bytes] = {}
    api = "/api/datasets/owner/set"
    root = "/datasets/owner/set"

    def log_message(self, format: str, *args: object) -> None:
        pass

    def _send(self, status: int, body: bytes, headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {"Content-Type": "application/json"}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _entry(self, name: str) -> dict[str, object]:
        return {"type": "file", "oid": "0" * 40, "size": len(self.files[name]), "path": name}

    def _tree(self, folder: str, recursive: bool) -> list[dict[str, object]]:
        entries: dict[str, dict[str, object]] = {}
        for name in self.files:
            if folder and not name.startswith(f"{folder}/"):
                continue
            rest = name.removeprefix(f"{folder}/") if folder else name
            top, _, deeper = rest.partition("/")
            if deeper:
                path = f"{folder}/{top}" if folder else top
                entries[path] = {"type": "directory", "oid": "1" * 40, "size": 0, "path": path}
            if recursive or not deeper:
                entries[name] = self._entry(name)
        return list(entries.values())

    def do_GET(self) -> None:
        address = urlsplit(self.path)
        path = unquote(address.path)
        missing = {"X-Error-Code": "EntryNotFound"}
        if path in (
            self.api,
            f"{self.api}/revision/{COMMIT}",
            f"{self.api}/revision/main",
        ):
            siblings = [{"rfilename": name} for name in self.files]
            info = {
                "id": "owner/set",
                "sha": COMMIT,
                "private": False,
                "tags": [],
                "siblings": siblings,
            }
            self._send(200, json.dumps(info).encode())
        elif path.startswith(f"{self.api}/tree/"):
            folder = path.removeprefix(f"{self.api}/tree/").partition("/")[2]
            recursive = "recursive=true" in address.query.lower()
            self._send(200, json.dumps(self._tree(folder, recursive)).encode())
        elif path.startswith(f"{self.root}/resolve/"):
            name = path.removeprefix(f"{self.root}/resolve/").partition("/")[2]
            if name in self.files:
                headers = {"ETag": f'"{abs(hash(name)):040x}"', "X-Repo-Commit": COMMIT}
                self._send(200, self.files[name], headers)
            else:
                self._send(404, b"", {**missing, "X-Repo-Commit": COMMIT})
        else:
            self._send(404, b"", {"X-Error-Code": "RepoNotFound"})

    do_HEAD = do_GET

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        asked = (
            json.loads(body)["paths"]
            if body.startswith(b"{")
            else [
                unquote(part.partition("=")[2])
                for part in body.decode().split("&")
                if part.startswith("paths=")
            ]
        )
        found = []
        for name in asked:
            if name in self.files:
                found.append(self._entry(name))
            elif any(file.startswith(f"{name}/") for file in self.files):
                found.append({"type": "directory", "oid": "1" * 40, "size": 0, "path": name})
        self._send(200, json.dumps(found).encode())


@contextmanager
def hub(files: Mapping[str, bytes], **places: str) -> Iterator[str]:
    handler = type("ThisHub", (Hub,), {"files": files, **places})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


# The hub's address is read when its library is imported: each reading is a process of its own.
READ = """
import json, sys
from medeval.errors import DataError
from medeval.data.rows import HubFiles, HubRows, open_rows
try:
    rows = open_rows({source})
    origin = rows.origin
    print(json.dumps({{
        "rows": [[row.text("question"), row.image("image").read().hex()] for row in rows],
        "origin": [origin.description, origin.revision, origin.files],
    }}))
except DataError as error:
    print(json.dumps({{"message": error.message, "hint": error.hint}}))
"""


def read_in_process(
    source: str, folder: Path, endpoint: str, **environment: str
) -> dict[str, object]:
    folder.mkdir(exist_ok=True)
    done = subprocess.run(
        [sys.executable, "-c", READ.format(source=source)],
        env={
            **{name: value for name, value in os.environ.items() if not name.startswith("HF_")},
            "PYTHONPATH": str(Path(__file__).parents[2]),
            "HF_ENDPOINT": endpoint,
            "HF_HOME": str(folder / "home"),
            "HF_HUB_DISABLE_TELEMETRY": "1",
            **environment,
        },
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    result: dict[str, object] = json.loads(done.stdout)
    return result


def test_a_split_of_a_hub_data_set_is_read_with_its_commit_and_again_offline(
    tmp_path: Path,
) -> None:
    import pyarrow
    from pyarrow import parquet

    buffer = io.BytesIO()
    rows = [{"question": "Which?", "image": {"bytes": png(), "path": "a.png"}}]
    parquet.write_table(pyarrow.Table.from_pylist(rows), buffer)
    name = "data/test-00000-of-00001.parquet"
    expected = {
        "rows": [["Which?", png().hex()]],
        "origin": ["hub owner/set test", COMMIT, []],
    }
    source = 'HubRows("owner/set", split="test")'
    with hub({name: buffer.getvalue(), "README.md": b"# a set"}) as endpoint:
        assert read_in_process(source, tmp_path, endpoint) == expected
        unknown = read_in_process('HubRows("owner/set", split="nope")', tmp_path, endpoint)
    assert "nope" in str(unknown["message"])
    assert read_in_process(source, tmp_path, "http://127.0.0.1:9", HF_HUB_OFFLINE="1") == expected


def test_files_of_a_hub_repository_are_read_with_their_commit_and_again_offline(
    tmp_path: Path,
) -> None:
    table = json.dumps({"question": "Which?", "image": "images/a.png"}).encode()
    files = {"questions.jsonl": table, "images/a.png": png(), "other/b.bin": b"x"}
    expected = {
        "rows": [["Which?", png().hex()]],
        "origin": ["hub owner/set", COMMIT, [["questions.jsonl", len(table)]]],
    }
    source = 'HubFiles("owner/set", table="questions.jsonl", allow_patterns=("images/*",))'
    with hub(files) as endpoint:
        assert read_in_process(source, tmp_path, endpoint) == expected
        assert not list(tmp_path.rglob("b.bin"))
        absent = read_in_process('HubFiles("owner/set", "absent.jsonl")', tmp_path, endpoint)
    assert absent["message"] == "'owner/set' has no table 'absent.jsonl'"
    assert read_in_process(source, tmp_path, "http://127.0.0.1:9", HF_HUB_OFFLINE="1") == expected


@pytest.mark.parametrize("offline", ["0", "1"])
@pytest.mark.parametrize(
    "source", ['HubRows("owner/set", split="test")', 'HubFiles("owner/set", "questions.jsonl")']
)
def test_a_hub_that_cannot_be_reached_is_told_with_what_to_do(
    tmp_path: Path, source: str, offline: str
) -> None:
    told = read_in_process(source, tmp_path, "http://127.0.0.1:9", HF_HUB_OFFLINE=offline)
    assert "from the hub" in str(told["message"])
    assert "--data-dir" in str(told["hint"])


def test_a_data_set_that_is_not_on_the_hub_is_told(tmp_path: Path) -> None:
    with hub({}) as endpoint:
        for source in ('HubRows("owner/other", split="test")', 'HubFiles("owner/other", "q.json")'):
            told = read_in_process(source, tmp_path, endpoint)
            assert "'owner/other'" in str(told["message"])


def test_a_folder_with_the_name_of_a_hub_data_set_is_not_taken_for_it(tmp_path: Path) -> None:
    (tmp_path / "owner" / "set").mkdir(parents=True)
    told = read_in_process('HubRows("owner/set", split="test")', tmp_path, "http://127.0.0.1:9")
    assert "also a folder here" in str(told["message"])
