"""Divides the GPUs of this machine among worker processes."""

import os
from collections.abc import Mapping
from pathlib import Path

from medeval.errors import UsageError
from medeval.evaluation.plan import Plan
from medeval.models.hardware import THREADS, usable_cpus

VISIBLE = "CUDA_VISIBLE_DEVICES"
DRIVER = Path("/proc/driver/nvidia/gpus")


def devices_of(plan: Plan) -> list[str | None]:
    """The value of CUDA_VISIBLE_DEVICES in each local worker; None leaves the variable unchanged.

    Empty without local workers. Raises UsageError if the machine has too few GPUs. Workers of the
    openai backend need none.
    """
    n_workers, each = plan.options.workers, plan.options.gpus_per_worker
    if plan.options.cluster is not None:
        return []
    if n_workers is None:
        if each is not None:
            raise UsageError(f"--gpus-per-worker {each}, but no workers", hint="--workers N")
        return []
    if plan.options.judge_backend == "vllm-server":
        raise UsageError(
            "each worker would start its own server for the judges",
            hint="--defer-grading, then medeval grade RUN --backend vllm-server",
        )
    if plan.backend == "openai" and each is None:
        return [None] * n_workers
    return gpu_groups(n_workers, each)


def gpu_groups(
    n_workers: int,
    gpus_per_worker: int | None,
    *,
    environment: Mapping[str, str] = os.environ,
    driver: Path = DRIVER,
) -> list[str | None]:
    """The value of CUDA_VISIBLE_DEVICES in each worker; None leaves the variable unchanged.

    Without `gpus_per_worker`, each worker gets one GPU if the machine has any. Raises UsageError
    if the machine has too few.

    >>> gpu_groups(2, 2, environment={"CUDA_VISIBLE_DEVICES": "0,1,4,5"})
    ['0,1', '4,5']
    """
    devices = _devices(environment, driver)
    if gpus_per_worker is None and not devices:
        return [None] * n_workers
    each = gpus_per_worker or 1
    if n_workers * each > len(devices):
        raise UsageError(
            f"{n_workers} workers with {each} GPUs each need {n_workers * each}, but there are "
            f"{len(devices)}",
            hint="fewer --workers or --gpus-per-worker; CUDA_VISIBLE_DEVICES limits the GPUs",
        )
    return [",".join(devices[number * each : (number + 1) * each]) for number in range(n_workers)]


def worker_environment(
    devices: str | None,
    n_workers: int,
    backend: str,
    environment: Mapping[str, str] = os.environ,
) -> dict[str, str]:
    """The environment of one of `n_workers`: its GPUs, and its share of the CPUs.

    Only the transformers backend gets a number of threads, unless it is set already: vLLM chooses
    its own.

    >>> worker_environment("2,3", 4, "transformers", {"OMP_NUM_THREADS": "6"})
    {'OMP_NUM_THREADS': '6', 'CUDA_VISIBLE_DEVICES': '2,3'}
    """
    is_shared = n_workers > 1 and backend == "transformers"
    shared = {THREADS: str(max(1, usable_cpus() // n_workers))} if is_shared else {}
    return {**shared, **environment, **({} if devices is None else {VISIBLE: devices})}


def _devices(environment: Mapping[str, str], driver: Path) -> list[str]:
    if VISIBLE in environment:
        return [name.strip() for name in environment[VISIBLE].split(",") if name.strip()]
    return [str(number) for number in range(len(list(driver.glob("*"))))]
