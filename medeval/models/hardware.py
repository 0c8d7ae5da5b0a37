"""The CPUs and the memory that this process may use, by the limits of its container."""

import math
import os
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")
MEMINFO = Path("/proc/meminfo")
# The environment variable by which users set the number of threads.
THREADS = "OMP_NUM_THREADS"


def usable_cpus(cgroup: Path = CGROUP) -> int:
    """The number of CPUs that this process may use, at most its container's quota."""
    affinity = getattr(os, "sched_getaffinity", None)
    cpus = len(affinity(0)) if affinity else os.cpu_count() or 1
    quota, _, period = _text(cgroup / "cpu.max").partition(" ")
    if not (quota.isdecimal() and period.isdecimal()):
        return cpus
    return max(1, min(cpus, math.ceil(int(quota) / int(period))))


def free_memory(cgroup: Path = CGROUP, meminfo: Path = MEMINFO) -> int:
    """Free memory in bytes, at most what is left of the container's limit.

    The system's file cache counts as free. Where the system reports nothing, all memory does.
    """
    kilobytes = _table(meminfo).get("MemAvailable:")
    free = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if kilobytes is not None:
        free = 1024 * kilobytes
    limit, used = _text(cgroup / "memory.max"), _text(cgroup / "memory.current")
    if not (limit.isdecimal() and used.isdecimal()):
        return free
    file_cache = _table(cgroup / "memory.stat").get("file", 0)
    return min(free, max(0, int(limit) - int(used) + file_cache))


def _table(file: Path) -> dict[str, int]:
    """The numbers of a file by name: a name and a number on each line."""
    rows = [line.split() for line in _text(file).splitlines()]
    return {row[0]: int(row[1]) for row in rows if len(row) > 1 and row[1].isdecimal()}


def _text(file: Path) -> str:
    """The text of a system file, stripped; empty where it is missing."""
    try:
        return file.read_text(encoding="ascii").strip()
    except OSError:
        return ""
