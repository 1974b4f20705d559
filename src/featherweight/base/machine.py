"""Facts about this machine and its free resources, for the preflight check, for `doctor` and for
the records of measurements.

No function returns a host name, a user name or a path, so records can be published. The facts come
from /proc where it exists, else from the standard library; torch is not imported. In a container,
the memory is that of its control group, because the system kills a process that exceeds this limit.
"""

from __future__ import annotations

import os
import platform
import shutil
import sys
from importlib import metadata
from pathlib import Path

PACKAGES = (
    "featherweight",
    "torch",
    "transformers",
    "safetensors",
    "tokenizers",
    "numpy",
    "huggingface_hub",
    "gguf",
)


def cpu_name() -> str:
    """The name of the processor, such as "AMD EPYC 9B14"."""
    for line in _lines("/proc/cpuinfo"):
        if line.startswith(("model name", "Model")):
            return " ".join(line.partition(":")[2].split())
    return platform.processor() or platform.machine() or "unknown"


def num_cores() -> int:
    """The number of cores that this process may use. In a container or under taskset it is smaller
    than the number of the machine.
    """
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def total_memory_bytes() -> int:
    """Memory of the machine, or of the control group when that is less."""
    total = _meminfo("MemTotal") or _sysconf_memory()
    limit = _group_limit()
    return min(total, limit) if limit else total


def available_memory_bytes() -> int:
    """Memory that can be allocated now without swapping, or the free memory of the control group
    when that is less.
    """
    available = _meminfo("MemAvailable") or _sysconf_memory()
    limit = _group_limit()
    return min(available, max(0, limit - _group_used())) if limit else available


def free_disk_bytes(path: Path | str) -> int:
    """Free bytes on the disk of `path`, which need not exist (then that of its nearest existing
    parent).
    """
    path = Path(path).absolute()
    while not path.exists():
        path = path.parent
    return shutil.disk_usage(path).free


def load_average() -> float:
    """Mean number of runnable processes in the last minute. When it is above 0 before a timing,
    other processes use the cores as well.
    """
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0


def peak_memory_bytes() -> int:
    """The largest resident memory that this process has had; 0 when the system does not report
    it.
    """
    # Linux resets VmHWM at exec. getrusage would report the peak of the parent for a forked worker.
    for line in _lines("/proc/self/status"):
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    try:
        import resource
    except ImportError:
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def resident_memory_bytes() -> int:
    """The resident memory of this process now, with mapped files; 0 when the system does not report
    it.
    """
    for line in _lines("/proc/self/status"):
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    return 0


def cache_bytes() -> int:
    """The size of the largest cache of a core, usually the L3; 0 when the system does not report
    it.
    """
    sizes = [
        _lines(path) for path in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size")
    ]
    units = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
    texts = [line[0].strip() for line in sizes if line]
    return max(
        (int(text[:-1]) * units[text[-1]] for text in texts if text[-1:] in units), default=0
    )


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that results depend on. Packages that are not
    installed are left out.
    """
    numbers = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            numbers[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return numbers


def describe() -> dict[str, str | int | float]:
    """The machine for a record: system, processor, cores, memory and load average."""
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": cpu_name(),
        "cores": num_cores(),
        "memory_bytes": total_memory_bytes(),
        "load_average": round(load_average(), 2),
    }


def _lines(path: str | Path) -> list[str]:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []


def _meminfo(key: str) -> int:
    for line in _lines("/proc/meminfo"):
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    return 0


def _sysconf_memory() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 0


def _group_folder() -> Path:
    """The folder of this process's control group (version 2); inside a container it is usually the
    root.
    """
    root = Path("/sys/fs/cgroup")
    for line in _lines("/proc/self/cgroup"):
        if line.startswith("0::") and (root / line[3:].lstrip("/") / "memory.max").exists():
            return root / line[3:].lstrip("/")
    return root


def _group_limit() -> int:
    lines = _lines(_group_folder() / "memory.max")
    return int(lines[0]) if lines and lines[0].isdigit() else 0


def _group_used() -> int:
    """The memory of the control group that the system cannot reclaim: its use without the inactive
    file cache.
    """
    folder = _group_folder()
    lines = _lines(folder / "memory.current")
    bytes_in_use = int(lines[0]) if lines and lines[0].isdigit() else 0
    for line in _lines(folder / "memory.stat"):
        if line.startswith("inactive_file "):
            bytes_in_use -= int(line.split()[1])
    return max(0, bytes_in_use)
