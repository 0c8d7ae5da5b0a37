"""The same answers from a real vLLM server and from transformers, tool loop included.

Left out unless MEDEVAL_VLLM_PYTHON names a Python that has vLLM:
`MEDEVAL_VLLM_PYTHON=.../bin/python pytest -m vllm`. What that Python needs beside it goes into
the environment as well (PYTHONPATH, VLLM_CPU_KVCACHE_SPACE and the like).
"""

import os
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from medeval import load_run
from tests.medeval_processes import MedevalMain

VLLM_PYTHON = os.environ.get("MEDEVAL_VLLM_PYTHON")
START_TIMEOUT_S = 400
N_SAMPLES = 50
ALIKE = 0.96

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.skipif(VLLM_PYTHON is None, reason="MEDEVAL_VLLM_PYTHON names no Python with vLLM"),
]


@pytest.fixture(scope="module")
def vllm_url(trained_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a vLLM server with the last shipped checkpoint."""
    assert VLLM_PYTHON is not None
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        VLLM_PYTHON, "-m", "vllm.entrypoints.openai.api_server",
        "--model", str(trained_checkpoint), "--served-model-name", "trained",
        "--host", "127.0.0.1", "--port", str(port), "--dtype", "float32", "--enforce-eager",
        "--enable-auto-tool-choice", "--tool-call-parser", "hermes",
    ]  # fmt: skip
    log_path = tmp_path_factory.mktemp("vllm") / "server.log"
    with log_path.open("wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        url = f"http://127.0.0.1:{port}"
        await_server(url, server, log_path)
        yield url
    finally:
        server.terminate()
        server.wait(60)


def await_server(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        assert server.poll() is None, log.read_text()[-3000:]
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(1)
    pytest.fail(f"no vLLM server after {START_TIMEOUT_S} s: {log.read_text()[-3000:]}")


@pytest.mark.parametrize("pair", ["crop_zoom", "crop_zoom_native"])
def test_vllm_and_transformers_crop_look_again_and_answer_alike(
    pair: str,
    vllm_url: str,
    trained_checkpoint: Path,
    medeval_main: MedevalMain,
    tmp_path: Path,
) -> None:
    common = ["run", "--benchmarks", "markers", "--limit", N_SAMPLES, "--pairs", pair]
    common += ["--max-tokens", 64]
    server, local = tmp_path / "server", tmp_path / "local"
    assert (
        medeval_main(*common, "--model", "trained", "--base-url", vllm_url, "--output-dir", server)
        == 0
    )
    assert (
        medeval_main(*common, "--model", f"trained={trained_checkpoint}", "--output-dir", local)
        == 0
    )
    ours, theirs = (load_run(folder).trajectories for folder in (local, server))
    available = theirs[theirs.protocol.str.startswith("tool_available")]
    assert len(available) == N_SAMPLES
    assert set(available.executed) == {0, 1}
    assert (available.n_turns == available.executed + 1).all()
    assert (available.n_images == available.executed + 1).all()
    keys = ["protocol", "sample_id"]
    pairs = ours.merge(theirs, on=keys, suffixes=("", "_there"), validate="1:1")
    # images and sums are rounded otherwise, which may tip a reply that was nearly even
    for name in ("stop", "answer", "executed"):
        assert (pairs[name] == pairs[f"{name}_there"]).mean() >= ALIKE, name
