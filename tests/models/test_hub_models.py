"""Models on the hub: fetched from a server in this process, and found again in the cache."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from medeval.models.hub import is_hub_name
from tests.data.test_hub import COMMIT, hub
from tests.model_folders import safetensors, write_adapter, write_cache, write_model

PLACES = {"api": "/api/models/owner/model", "root": "/owner/model"}
FILES = {
    "config.json": b'{"model_type": "qwen2_5_vl"}',
    "model.safetensors": safetensors(),
    "chat_template.jinja": b"",
    "merges.txt": b"",
    "code.py": b"",
    "consolidated.safetensors": safetensors(),
    "original/params.json": b"{}",
    "pytorch_model.bin": b"pickled",
    "README.md": b"",
}

# The hub's address is read when its library is imported: each plan is a process of its own.
RESOLVE = """
import json, sys
from medeval.errors import UsageError
from medeval.evaluation.plan import resolve
from medeval.evaluation.plan_file import PlanFile
try:
    plan = resolve(PlanFile.model_validate({"benchmarks": ["markers"], **json.loads(sys.argv[1])}))
    print(json.dumps([
        [one.id, one.location, one.base, one.hub_commits] for one in plan.all_checkpoints
    ]))
except UsageError as error:
    print(json.dumps([error.message, error.hint]))
"""


def resolved(folder: Path, endpoint: str = "http://127.0.0.1:9", **options: object) -> list[object]:
    done = subprocess.run(
        [sys.executable, "-c", RESOLVE, json.dumps(options)],
        env={
            **{name: value for name, value in os.environ.items() if not name.startswith("HF_")},
            "PYTHONPATH": str(Path(__file__).parents[2]),
            "HF_ENDPOINT": endpoint,
            "HF_HOME": str(folder / "home"),
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        },
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    found: list[object] = json.loads(done.stdout)
    return found


def snapshot(folder: Path) -> Path:
    return folder / "home/hub/models--owner--model/snapshots" / COMMIT


def test_a_model_is_fetched_with_its_commit_and_found_again_offline(tmp_path: Path) -> None:
    name = "owner/model@main"
    expected = [[name, str(snapshot(tmp_path)), None, [f"owner/model@{COMMIT}"]]]
    with hub(FILES, **PLACES) as endpoint:
        assert resolved(tmp_path, endpoint, model=[name]) == expected
    assert {path.name for path in snapshot(tmp_path).iterdir()} == {
        "config.json", "model.safetensors", "chat_template.jinja", "merges.txt",
    }  # fmt: skip
    assert resolved(tmp_path, model=[name]) == expected
    assert resolved(tmp_path, model=["mine=owner/model"])[0][0] == "mine"  # type: ignore[index]


def test_a_models_code_is_fetched_only_when_it_is_trusted(tmp_path: Path) -> None:
    with hub(FILES, **PLACES) as endpoint:
        resolved(tmp_path, endpoint, model=["owner/model"], model_args={"trust_remote_code": True})
    assert (snapshot(tmp_path) / "code.py").is_file()


def test_a_model_that_is_nowhere_is_one_line_with_the_command_that_fetches_it(
    tmp_path: Path,
) -> None:
    assert resolved(tmp_path, baseline="owner/other@v1", checkpoints=[]) == [
        "there is no folder 'owner/other@v1', the hub's cache has no such model, and "
        "the hub does not answer",
        "hf download owner/other --revision v1, where there is a network; HF_HOME says where the "
        "cache is",
    ]
    with hub(FILES, **PLACES) as endpoint:
        message, hint = resolved(tmp_path, endpoint, model=["owner/other"])
    assert str(message).startswith("cannot fetch model 'owner/other' from the hub: ")
    assert "hf auth login" in str(hint)


def test_a_model_that_is_in_the_cache_in_part_is_not_whole(tmp_path: Path) -> None:
    model = write_model(tmp_path / "m")
    (model / "model.safetensors").unlink()
    write_cache(tmp_path / "home", "owner/model", model, "c" * 40)
    message, hint = resolved(tmp_path, model=["owner/model"])
    assert "model 'owner/model' is not whole in the hub's cache: " in str(message)
    assert str(hint).startswith("hf download owner/model,")


def test_an_adapters_base_comes_from_the_cache_in_the_revision_it_names(tmp_path: Path) -> None:
    base = write_cache(tmp_path / "home", "owner/base", write_model(tmp_path / "b"), "c" * 40, "v2")
    adapter = write_adapter(tmp_path / "adapter", base="owner/base", revision="v2")
    assert resolved(tmp_path, model=[str(adapter)]) == [
        ["adapter", str(adapter), str(base), [f"owner/base@{'c' * 40}"]]
    ]
    message, hint = resolved(tmp_path, model=[str(adapter)], base="owner/gone")
    assert "the base 'owner/gone' of the LoRA adapter" in str(message)
    assert "or hf download owner/gone, where there is a network" in str(hint)


def test_a_folder_wins_over_the_hub(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "owner" / "model")
    assert resolved(tmp_path, model=["owner/model"]) == [["model", str(folder), None, []]]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Qwen/Qwen2.5-VL-7B-Instruct", True),
        ("Qwen/Qwen2.5-VL-7B-Instruct@refs/pr/3", True),
        ("qwen", False),
        ("/models/qwen", False),
        ("./qwen", False),
        ("runs/rl/qwen", False),
    ],
)
def test_a_name_of_the_hub_has_an_organisation(name: str, expected: bool) -> None:
    assert is_hub_name(name) is expected
