"""A job's needs in Ray's words: GPUs of an accelerator type, or a fraction of one.

A custom resource that counts memory is a sum over a node: it is given only where no node has two devices.
Ray waits for ever for what no node has, so an infeasible job must be refused before it is submitted.
"""

from __future__ import annotations

from dataclasses import dataclass

from planner_service.placement.holes import Hole
from planner_service.placement.wanted import Wanted, mebibytes

MEMORY_RESOURCE = "gpu_mem_mib"
ANY_SHARE = 0.001
"""Of an accelerator type: asks for the type and takes nothing of it."""


@dataclass(frozen=True, kw_only=True)
class RayWords:
    """Resources of a Ray job's entry point. Each alternative is complete in itself."""

    alternatives: tuple[dict[str, float], ...]
    """The quickest first: `num_gpus`, and custom resources by name."""
    memory_mib: int | None
    """For the custom resource `gpu_mem_mib`; None where a node has several devices, whose sum says
    nothing about one of them."""
    notes: tuple[str, ...] = ()


def ray_words(wanted: Wanted) -> RayWords:
    """The alternatives for Ray."""
    if wanted.on_cpu:
        memory = {"num_cpus": float(wanted.devices), "memory": float(wanted.devices * wanted.request_bytes)}
        return RayWords(alternatives=(memory,), memory_mib=None)
    packed = wanted.one_device_nodes and wanted.devices == 1
    notes = []
    if not packed:
        notes.append(f"{MEMORY_RESOURCE} is a sum over a node and nodes here have several devices: not used")
    if any(each.smallest.fraction is not None for each in wanted.types):
        notes.append("a fraction of a GPU is a count for Ray: it isolates no memory")
    named = [each.smallest for each in wanted.types if accelerator_of(each.smallest)]
    if len(named) < len(wanted.types):
        notes.append("types without an accelerator_type are left out: GPUs without one are any GPUs")
    return RayWords(
        alternatives=tuple(_resources(hole, wanted.devices) for hole in named),
        memory_mib=mebibytes(wanted.limit_bytes) if packed else None,
        notes=tuple(notes),
    )


def accelerator_of(hole: Hole) -> str:
    """Ray's name for the type; empty where it has none. A slice is not the device that it is a part of."""
    return hole.names.ray or (hole.device if hole.mig_slice is None else "")


def _resources(hole: Hole, devices: int) -> dict[str, float]:
    return {"num_gpus": devices * hole.share, f"accelerator_type:{accelerator_of(hole)}": ANY_SHARE}
