"""A hard cap around a training run: the allocator refuses what the budget does not allow.

CUDA: the caching allocator's share of the device, fragments included. CPU: RLIMIT_DATA, the process's
private writable memory: tensors, but also Python's objects, autograd's nodes and thread stacks, hence the
slack. It does not see file mappings, nor what the job's data loader would hold in other processes.
"""

from __future__ import annotations

import ctypes
import gc
import re
import resource
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import torch

from executor.memory.cuda_memory import indexed
from executor.memory.hard_cap import reserved_at_most

SLACK_RATIO = 0.1
CPU_SLACK_BYTES = 128 * 2**20
"""For what is no tensor: a live tape costs some 17 kB of nodes per step of a cell."""
CUDA_SLACK_BYTES = 64 * 2**20
"""For what the caching allocator holds and cannot use; the matrix library's workspaces are there before."""

_STATUS = Path("/proc/self/status")
_CPU_REQUEST = re.compile(r"you tried to allocate (\d+) bytes")
_SILENT_REQUEST = re.compile(r"std::bad_alloc|Cannot allocate memory")
"""What the standard library's and the system's own allocations say, of no number of bytes."""
_CUDA_REQUEST = re.compile(r"Tried to allocate ([0-9.]+) (KiB|MiB|GiB|bytes)")
_UNITS = {"bytes": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}


class OutOfMemory(Exception):
    """Training was refused memory.

    `excess_bytes` is how far it went over the cap, or what `missing_bytes` says of how little there was to
    get, whichever is more: a budget that is smaller by it has a chance.
    """

    def __init__(self, *, excess_bytes: int, reason: str) -> None:
        self.excess_bytes = excess_bytes
        super().__init__(reason)


@dataclass(frozen=True)
class MemoryCap:
    """What may be added to what the process holds now; `kind` says what is watched."""

    allowed_bytes: int
    kind: str
    """cuda, data (RLIMIT_DATA), or none where the system has no such limit."""


@contextmanager
def memory_cap(added_bytes: int, device: torch.device, *, recorded_bytes: int = 0) -> Iterator[MemoryCap]:
    """Within the context the process may add `added_bytes` and the slack to what it holds on `device`; on the
    CPU `recorded_bytes` as well, of what is recorded there and no budget could spare.

    Raises OutOfMemory for an allocation that the cap (or the device itself) refuses.
    """
    if device.type == "cuda":
        with _cuda_cap(added_bytes, device) as cap:
            yield cap
        return
    with _data_cap(added_bytes, recorded_bytes) as cap:
        yield cap


def slack_bytes(added_bytes: int, kind: str) -> int:
    """What a cap leaves beside `added_bytes` for what is no tensor; `kind` is the device's: cpu or cuda."""
    return (CUDA_SLACK_BYTES if kind == "cuda" else CPU_SLACK_BYTES) + int(SLACK_RATIO * added_bytes)


def missing_bytes(added_bytes: int, got_bytes: int, kind: str) -> int:
    """How much smaller than `added_bytes` a budget must be where only `got_bytes` could be had.

    The slack is part of what could be had, or half of it where that is less: a budget of all that a process
    got would again leave nothing for what is no tensor.
    """
    room_bytes = min(slack_bytes(added_bytes, kind), max(got_bytes, 0) // 2)
    return added_bytes - (got_bytes - room_bytes)


def missing_after(error: BaseException, added_bytes: int, before_bytes: int) -> int:
    """The same after a fault outside the cap: by what CUDA's allocator got where it refused, else by what the
    process's private memory grew from `before_bytes`.
    """
    if isinstance(error, torch.OutOfMemoryError):
        return missing_bytes(added_bytes, torch.cuda.memory_reserved(), "cuda")
    return missing_bytes(added_bytes, (data_bytes() or 0) - before_bytes, "cpu")


def data_bytes() -> int | None:
    """The process's private writable memory in bytes, as RLIMIT_DATA counts it; None off Linux."""
    if not _STATUS.exists():
        return None
    match = re.search(r"VmData:\s+(\d+) kB", _STATUS.read_text())
    return None if match is None else int(match[1]) * 1024


def give_back_freed() -> None:
    """Have the C library return what was freed: what it keeps would come on top of the next cap."""
    gc.collect()
    with suppress(AttributeError, OSError):  # not glibc
        ctypes.CDLL(None).malloc_trim(0)


def used_bytes(device: torch.device) -> int:
    """What the cap counts now, in bytes: reserved by CUDA's allocator, or the process's private memory."""
    return torch.cuda.memory_reserved(device) if device.type == "cuda" else data_bytes() or 0


@contextmanager
def _data_cap(added_bytes: int, recorded_bytes: int) -> Iterator[MemoryCap]:
    before_bytes = data_bytes()
    allowed_bytes = added_bytes + slack_bytes(added_bytes, "cpu") + recorded_bytes
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if before_bytes is None:
        limit = soft
    else:
        limit = before_bytes + allowed_bytes
        limit = limit if soft == resource.RLIM_INFINITY else min(limit, soft)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))
    try:
        yield MemoryCap(allowed_bytes, "none" if before_bytes is None else "data")
    except (MemoryError, RuntimeError) as error:
        asked = refused_bytes(error)
        if asked is None:
            raise
        now_bytes = data_bytes() or 0
        # The report needs memory too: the cap goes first.
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))
        over = now_bytes + asked - limit
        missing = missing_bytes(added_bytes, now_bytes - (before_bytes or 0), "cpu")
        raise OutOfMemory(excess_bytes=max(1, over, missing), reason=_first_line(error)) from error
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def refused_bytes(error: BaseException) -> int | None:
    """Bytes of the allocation that was refused; 0 for one that does not say; None for another fault."""
    if isinstance(error, torch.OutOfMemoryError):
        return _cuda_request(error)
    if isinstance(error, MemoryError):
        return 0
    if match := _CPU_REQUEST.search(str(error)):
        return int(match[1])
    return 0 if _SILENT_REQUEST.search(str(error)) else None


@contextmanager
def _cuda_cap(added_bytes: int, device: torch.device) -> Iterator[MemoryCap]:
    allowed_bytes = added_bytes + slack_bytes(added_bytes, "cuda")
    device = indexed(device)
    with reserved_at_most(allowed_bytes, device) as before_bytes:
        try:
            yield MemoryCap(allowed_bytes, "cuda")
        except torch.OutOfMemoryError as error:
            now_bytes = torch.cuda.memory_reserved(device)
            over = now_bytes + _cuda_request(error) - before_bytes - allowed_bytes
            missing = missing_bytes(added_bytes, now_bytes - before_bytes, "cuda")
            raise OutOfMemory(excess_bytes=max(1, over, missing), reason=_first_line(error)) from error


def _cuda_request(error: BaseException) -> int:
    match = _CUDA_REQUEST.search(str(error))
    return 0 if match is None else int(float(match[1]) * _UNITS[match[2]])


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0] or type(error).__name__
