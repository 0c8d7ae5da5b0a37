"""The real vLLM: in process, as a server that a run starts, and in place of transformers.

Left out unless MEDEVAL_VLLM_PYTHON names a Python that has vLLM and what medeval itself needs;
see test_vllm_server.py.
"""

import json
import os
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from operator import eq
from pathlib import Path
from typing import Any

import pytest

from medeval import load_run
from tests.medeval_processes import ROOT, MedevalMain

VLLM_PYTHON = os.environ.get("MEDEVAL_VLLM_PYTHON")
N_SAMPLES = 20
ALIKE = 0.96
TIMEOUT_S = 900
KEYS = ["protocol", "sample_id", "stop", "answer", "executed", "n_turns", "completion_tokens"]

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.skipif(VLLM_PYTHON is None, reason="MEDEVAL_VLLM_PYTHON names no Python with vLLM"),
]


def arguments(
    output: Path, backend: str, *more: object, n: int = N_SAMPLES, engine: str = ""
) -> list[str]:
    given: list[object] = [
        VLLM_PYTHON, "-m", "medeval", "run", "--backend", backend, "--benchmarks", "markers",
        "--limit", n, "--max-tokens", 64, "--output-dir", output, *more,
        "--model-args", f"dtype=float32,enforce_eager=true{engine}",
    ]  # fmt: skip
    return list(map(str, given))


@contextmanager
def started(arguments: list[str]) -> Iterator["subprocess.Popen[str]"]:
    path = f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    with subprocess.Popen(
        arguments,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def finished(arguments: list[str]) -> str:
    """Run to the end; what it told on stderr."""
    with started(arguments) as process:
        _, errors = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 0, errors[-3000:]
    return errors


def results(run: Path, **chosen: Any) -> list[list[object]]:
    trajectories = load_run(run).trajectories
    for column, value in chosen.items():
        trajectories = trajectories[trajectories[column] == value]
    rows: list[list[object]] = trajectories[KEYS].sort_values(KEYS).to_numpy().tolist()
    return rows


def fingerprints(run: Path) -> dict[str, str]:
    """What each cell was made with, by the cell's place in the run folder."""
    return {
        str(path.parent.relative_to(run)): json.loads(path.read_text())["fingerprint"]
        for path in run.glob("cells/**/cell.json")
    }


def descendants(process: int) -> dict[int, str]:
    """The processes below one, by id, with their command lines."""
    parents: dict[int, int] = {}
    for place in Path("/proc").glob("[0-9]*"):
        try:
            fields = (place / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if fields[0] != "Z":
            parents[int(place.name)] = int(fields[1])
    found, waiting = {}, [process]
    while waiting:
        parent = waiting.pop()
        children = [child for child, above in parents.items() if above == parent]
        waiting += children
        for child in children:
            found[child] = Path(f"/proc/{child}/cmdline").read_bytes().decode(errors="replace")
    return found


def wait_until(claim: Callable[[], object], timeout_s: float = TIMEOUT_S) -> None:
    deadline = time.monotonic() + timeout_s
    while not claim():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def n_done(run: Path) -> int:
    return sum(path.read_bytes().count(b"\n") for path in run.glob("cells/**/trajectories.*"))


def test_in_process_served_and_by_transformers_a_checkpoint_says_the_same(
    trained_checkpoint: Path, medeval_main: MedevalMain, tmp_path: Path
) -> None:
    model = ("--model", f"m={trained_checkpoint}")
    finished(arguments(tmp_path / "vllm", "vllm", *model))
    finished(arguments(tmp_path / "server", "vllm-server", *model))
    local = ["--benchmarks", "markers", "--limit", N_SAMPLES, "--max-tokens", 64]
    assert medeval_main("run", *model, *local, "--output-dir", tmp_path / "local") == 0
    expected = results(tmp_path / "local")
    assert len(expected) == 2 * N_SAMPLES
    assert results(tmp_path / "vllm") == expected
    assert results(tmp_path / "server") == expected


def test_native_calls_in_process_are_those_of_transformers(
    trained_checkpoint: Path, medeval_main: MedevalMain, tmp_path: Path
) -> None:
    model = ("--model", f"m={trained_checkpoint}", "--pairs", "crop_zoom_native")
    finished(arguments(tmp_path / "vllm", "vllm", *model))
    local = ["--benchmarks", "markers", "--limit", N_SAMPLES, "--max-tokens", 64]
    assert medeval_main("run", *model, *local, "--output-dir", tmp_path / "local") == 0
    assert results(tmp_path / "vllm") == results(tmp_path / "local")


def test_reloaded_weights_answer_as_a_cold_start_does(
    trained_checkpoint: Path, tmp_path: Path
) -> None:
    warm, cold = tmp_path / "warm", tmp_path / "cold"
    series = ("--checkpoints", f"m={trained_checkpoint.parent}", "--steps")
    told = finished(arguments(warm, "vllm", *series, "20,400,760"))
    assert "started anew" not in told
    (log,) = (warm / "logs").glob("*.log")
    assert log.read_text().count("Initializing a V1 LLM engine") == 1
    finished(arguments(cold, "vllm", *series, "400,760", engine=",reload_weights=false"))
    for step in (400, 760):
        assert results(warm, step=step) == results(cold, step=step)
    assert results(warm, step=400) != results(warm, step=760)
    assert fingerprints(cold).items() <= fingerprints(warm).items()


def write_series_of_adapters(folder: Path, base: Path) -> None:
    """Two adapters of a base in `adapters`, and the same merged into it in `merged`."""
    import torch
    from safetensors.torch import load_file, save_file

    weights = {name: value.float() for name, value in load_file(base / "model.safetensors").items()}
    chance, rank = torch.Generator().manual_seed(1), 8
    for step in (1, 2):
        adapter = folder / f"adapters/global_step_{step}"
        adapter.mkdir(parents=True)
        merged = shutil.copytree(base, folder / f"merged/global_step_{step}")
        tensors: dict[str, torch.Tensor] = {}
        whole = dict(weights)
        for name, value in weights.items():
            if "visual" in name or not name.endswith(("q_proj.weight", "o_proj.weight")):
                continue
            down = 0.1 * torch.randn(rank, value.shape[1], generator=chance)
            up = 0.1 * torch.randn(value.shape[0], rank, generator=chance)
            stem = f"base_model.model.{name.removesuffix('.weight')}"
            tensors |= {f"{stem}.lora_A.weight": down, f"{stem}.lora_B.weight": up}
            whole[name] = value + 2 * up @ down
        save_file(tensors, adapter / "adapter_model.safetensors")
        settings = {"peft_type": "LORA", "r": rank, "lora_alpha": 2 * rank, "bias": "none"}
        settings |= {"target_modules": ["q_proj", "o_proj"], "base_model_name_or_path": str(base)}
        (adapter / "adapter_config.json").write_text(json.dumps(settings))
        save_file(whole, merged / "model.safetensors", metadata={"format": "pt"})


def test_adapters_on_one_base_answer_as_the_merged_checkpoints_do(
    trained_checkpoint: Path, tmp_path: Path
) -> None:
    write_series_of_adapters(tmp_path, trained_checkpoint)
    told = finished(
        arguments(
            tmp_path / "a", "vllm", "--checkpoints", f"m={tmp_path}/adapters",
            "--baseline", trained_checkpoint,
        )
    )  # fmt: skip
    assert "started anew" not in told
    (log,) = (tmp_path / "a/logs").glob("*.log")
    assert log.read_text().count("Initializing a V1 LLM engine") == 1
    finished(arguments(tmp_path / "m", "vllm", "--checkpoints", f"m={tmp_path}/merged"))
    for step in (1, 2):
        assert results(tmp_path / "a", step=step) == results(tmp_path / "m", step=step)
    assert results(tmp_path / "a", step=1) != results(tmp_path / "a", step=0)


def test_a_server_that_is_killed_comes_back_with_the_same_checkpoint(
    trained_checkpoint: Path, medeval_main: MedevalMain, tmp_path: Path
) -> None:
    n, run = 100, tmp_path / "run"
    series = ("--checkpoints", f"m={trained_checkpoint.parent}", "--steps", "400,760")
    with started(arguments(run, "vllm-server", *series, n=n)) as process:
        wait_until(lambda: n_done(run) > 2 * n + 10)
        engine = [pid for pid, line in descendants(process.pid).items() if "EngineCore" in line]
        os.kill(engine[0], signal.SIGKILL)
        assert n_done(run) < 4 * n
        _, errors = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 0, errors[-3000:]
    assert "the engine died 1 times" in errors
    first, second = sorted((run / "logs").glob("*.log"))
    assert "global_step_400" in first.name
    assert "global_step_760" in second.name
    local = tmp_path / "local"
    more = ("--benchmarks", "markers", "--limit", n, "--max-tokens", 64, "--output-dir", local)
    assert medeval_main("run", "--model", f"m={trained_checkpoint}", *more) == 0
    ours, theirs = results(run, step=760), results(local)
    assert len(ours) == 2 * n
    # images and sums are rounded otherwise, which may tip a reply that was nearly even
    assert sum(map(eq, ours, theirs)) >= ALIKE * 2 * n


@pytest.mark.parametrize("backend", ["vllm", "vllm-server"])
def test_an_engine_that_is_killed_loses_nothing_and_does_nothing_twice(
    backend: str, trained_checkpoint: Path, tmp_path: Path
) -> None:
    n, run = 150, tmp_path / "run"
    with started(arguments(run, backend, "--model", f"m={trained_checkpoint}", n=n)) as process:
        wait_until(lambda: n_done(run) > 20)
        engine = [pid for pid, line in descendants(process.pid).items() if "EngineCore" in line]
        os.kill(engine[0], signal.SIGKILL)
        assert n_done(run) < 2 * n
        _, errors = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 0, errors[-3000:]
    assert "the engine died 1 times" in errors
    trajectories = load_run(run).trajectories
    done = Counter(zip(trajectories.protocol, trajectories.sample_id, strict=True))
    assert len(done) == 2 * n
    assert set(done.values()) == {1}


@pytest.mark.parametrize("backend", ["vllm", "vllm-server"])
def test_a_run_that_is_killed_leaves_no_engine(
    backend: str, trained_checkpoint: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    with started(arguments(run, backend, "--model", f"m={trained_checkpoint}", n=800)) as process:
        wait_until(lambda: n_done(run) > 20)
        engines = descendants(process.pid)
        assert engines
        process.kill()
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in engines), 90)
