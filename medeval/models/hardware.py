"""How much of the machine this process may use: its CPUs and memory, as its container has them."""

import math
import os
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")
MEMINFO = Path("/proc/meminfo")
# Where people say how many threads a process computes with.
THREADS = "OMP_NUM_THREADS"


def usable_cpus(cgroup: Path = CGROUP) -> int:
    """The CPUs that this process may run on, at most as many as its container pays for."""
    affinity = getattr(os, "sched_getaffinity", None)
    cpus = len(affinity(0)) if affinity else os.cpu_count() or 1
    quota, _, period = _text(cgroup / "cpu.max").partition(" ")
    if not (quota.isdecimal() and period.isdecimal()):
        return cpus
    return max(1, min(cpus, math.ceil(int(quota) / int(period))))


def free_memory(cgroup: Path = CGROUP, meminfo: Path = MEMINFO) -> int:
    """Bytes of memory that can be had, at most what is left of the container's.

    Files that the system holds in memory count as free. All of it, where the system does not tell.
    """
    kilobytes = _table(meminfo).get("MemAvailable:")
    free = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if kilobytes is not None:
        free = 1024 * kilobytes
    limit, used = _text(cgroup / "memory.max"), _text(cgroup / "memory.current")
    if not (limit.isdecimal() and used.isdecimal()):
        return free
    held = _table(cgroup / "memory.stat").get("file", 0)
    return min(free, max(0, int(limit) - int(used) + held))


def _table(file: Path) -> dict[str, int]:
    """Names and numbers, one of each on a line."""
    rows = [line.split() for line in _text(file).splitlines()]
    return {row[0]: int(row[1]) for row in rows if len(row) > 1 and row[1].isdecimal()}


def _text(file: Path) -> str:
    """What a file of the system's says; nothing, where it is not there."""
    try:
        return file.read_text(encoding="ascii").strip()
    except OSError:
        return ""
