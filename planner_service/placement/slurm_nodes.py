"""The nodes of a Slurm cluster as holes, from what `scontrol show nodes --oneliner` prints.

Slurm knows a GPU's type and count, not its memory: the memory of each type is given.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from planner_service.chain import PlanningError

MIB = 2**20
_FIELD = re.compile(r"(\w+)=(\S*)")
_GPU = re.compile(r"(?:^|,)gpu:(?:([A-Za-z][\w.-]*):)?(\d+)")
_OUT_OF_SERVICE = ("DOWN", "FAIL", "NOT_RESPONDING", "FUTURE", "UNKNOWN")


class UnknownGpuMemory(PlanningError):
    """Nodes have GPUs of types whose memory was not given."""

    def __init__(self, types: tuple[str, ...]) -> None:
        self.types = types
        wanted = " ".join(f"--gpu-memory {name}=80GiB" for name in types)
        super().__init__(f"Slurm does not know the memory of GPUs of type {', '.join(types)}: add {wanted}")


def slurm_holes(listing: str, gpu_memory: Mapping[str, str]) -> list[dict[str, Any]]:
    """The holes of the nodes in `listing`: their main memory, and their GPUs by type.

    `gpu_memory` is the nominal memory of one GPU of each type, such as {"a100": "80GiB"}. Nodes that are
    down are left out. Raises UnknownGpuMemory for a type that it lacks.
    """
    nodes = [dict(_FIELD.findall(line)) for line in listing.splitlines() if "NodeName=" in line]
    serving = [node for node in nodes if not _is_out_of_service(node)]
    unknown = {kind for node in serving for kind, _ in _gpus(node) if kind not in gpu_memory}
    if unknown:
        raise UnknownGpuMemory(tuple(sorted(unknown)))
    return [hole for node in serving for hole in _holes(node, gpu_memory)]


def _is_out_of_service(node: Mapping[str, str]) -> bool:
    return any(word in node.get("State", "") for word in _OUT_OF_SERVICE)


def _gpus(node: Mapping[str, str]) -> Iterator[tuple[str, int]]:
    """Types and counts; an unnamed type is called `gpu`, as the GRES is."""
    for kind, count in _GPU.findall(node.get("Gres", "")):
        yield kind or "gpu", int(count)


def _holes(node: Mapping[str, str], gpu_memory: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    name = node["NodeName"]
    yield {
        "name": f"{name}/memory",
        "node": name,
        "device_kind": "cpu",
        "device": "cpu",
        "memory_total_bytes": int(node["RealMemory"]) * MIB,
    }
    for kind, count in _gpus(node):
        yield {
            "name": f"{name}/{kind}",
            "node": name,
            "device": kind,
            "names": {"slurm": kind},
            "memory_total_bytes": gpu_memory[kind],
            "count": count,
        }
