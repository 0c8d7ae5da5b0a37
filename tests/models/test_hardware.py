from pathlib import Path

import pytest
import torch

from medeval.models.hardware import free_memory, usable_cpus
from medeval.models.transformers.loading import load_config, load_model

GIGABYTE = 2**30


@pytest.mark.parametrize(
    ("quota", "expected"),
    [("150000 100000", 2), ("50000 100000", 1), ("max 100000", None), ("", None)],
)
def test_cpus_are_those_that_the_container_pays_for(
    quota: str, expected: int | None, tmp_path: Path
) -> None:
    (tmp_path / "cpu.max").write_text(quota)
    without = usable_cpus(tmp_path / "nowhere")
    assert without >= 1
    assert usable_cpus(tmp_path) == (without if expected is None else min(expected, without))


def test_free_memory_is_no_more_than_the_container_has_left(tmp_path: Path) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text(f"MemTotal: 9 kB\nMemAvailable: {8 * 2**20} kB\nHugePages_Total: 0\n")
    assert free_memory(tmp_path, meminfo) == 8 * GIGABYTE
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text(f"{3 * GIGABYTE}\n")
    assert free_memory(tmp_path, meminfo) == 8 * GIGABYTE
    (tmp_path / "memory.max").write_text(f"{4 * GIGABYTE}\n")
    assert free_memory(tmp_path, meminfo) == GIGABYTE
    # what it holds of files can be had too
    (tmp_path / "memory.stat").write_text(f"anon 5\nfile {2 * GIGABYTE}\n")
    assert free_memory(tmp_path, meminfo) == 3 * GIGABYTE


def test_a_system_that_tells_of_no_free_memory_has_all_of_it(tmp_path: Path) -> None:
    assert free_memory(tmp_path, tmp_path / "meminfo") >= free_memory(tmp_path)


@pytest.mark.parametrize(("told", "is_lowered"), [(None, True), ("", True), ("64", False)])
def test_a_loaded_model_runs_on_no_more_threads_than_there_are_cpus_unless_people_chose(
    told: str | None,
    is_lowered: bool,
    trained_checkpoint: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if told is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", told)
    before, many = torch.get_num_threads(), usable_cpus() + 3
    try:
        torch.set_num_threads(many)
        config = load_config(trained_checkpoint)
        loaded = load_model(trained_checkpoint, config, device="cpu", pad_id=0)
        assert torch.get_num_threads() == (usable_cpus() if is_lowered else many)
        assert loaded.identity["dtype"] == "float32"
    finally:
        torch.set_num_threads(before)
