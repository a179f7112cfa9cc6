"""What a device is, and what it has left."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from executor.memory import cgroup
from executor.memory.cuda_memory import indexed

_MEMINFO = Path("/proc/meminfo")


def free_bytes(device: torch.device) -> int:
    """Bytes that can still be allocated on `device`.

    On CUDA what the driver has left plus what the caching allocator holds unused, and no more than a limit on
    this process allows; on the CPU the memory that the system can give away without swapping, and no more
    than this process's control groups allow.
    """
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        used = torch.cuda.memory_allocated(device)
        unused = torch.cuda.memory_reserved(device) - used
        return min(int(free) + unused, max(0, most_reserved_bytes(device) - used))
    return _available_host_bytes()


def most_reserved_bytes(device: torch.device) -> int:
    """What CUDA's caching allocator may reserve on `device`: all of it, or what
    torch.cuda.set_per_process_memory_fraction or a hard cap said last.
    """
    chosen = indexed(device)
    total_bytes: int = torch.cuda.get_device_properties(chosen).total_memory
    return round(torch.cuda.get_per_process_memory_fraction(chosen) * total_bytes)


def device_name(device: torch.device) -> str:
    """`cpu`, or the name of the GPU."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def driver_version(device: torch.device) -> str | None:
    """The GPU driver's version, or None where there is none or it is not told."""
    version = Path("/proc/driver/nvidia/version")
    if device.type != "cuda" or not version.exists():
        return None
    words = version.read_text().partition("Kernel Module")[2].split()
    return next((word for word in words if word[:1].isdigit()), None)


def _available_host_bytes() -> int:
    available, left = _system_bytes(), cgroup.left_bytes()
    return available if left is None else min(available, left)


def _system_bytes() -> int:
    if _MEMINFO.exists():
        for line in _MEMINFO.read_text().splitlines():
            name, _, amount = line.partition(":")
            if name == "MemAvailable":
                return int(amount.split()[0]) * 1024
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
