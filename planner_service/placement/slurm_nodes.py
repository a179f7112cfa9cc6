"""The nodes of a Slurm cluster as holes, from what `scontrol show nodes --oneliner` prints.

Slurm knows a GPU's type and count, not its memory: the memory of each type is given.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from planner_service.chain import PlanningError
from planner_service.placement.holes import is_mig_slice
from planner_service.placement.slurm import UNTYPED

MIB = 2**20
_FIELD = re.compile(r"(\w+)=(\S*)")
_GPU = re.compile(r"(?:^|,)gpu(?::([\w.+-]+))?:(\d+)(?=[,(]|$)")
_FLAG = re.compile(r"[A-Z_]+")
_OUT_OF_SERVICE = {"DOWN", "FAIL", "FAILING", "NOT_RESPONDING", "FUTURE", "UNKNOWN"}
"""Flags of a node's state. POWERED_DOWN is none of them: a cloud's node is started when a job wants it."""


class UnknownGpuMemory(PlanningError):
    """Nodes have GPUs of types whose memory was not given."""

    def __init__(self, types: tuple[str, ...]) -> None:
        self.types = types
        wanted = " ".join(f"--gpu-memory {name}=SIZE" for name in types)
        known = f"Slurm does not know the memory of GPUs of type {', '.join(types)}"
        super().__init__(f"{known}: add {wanted}, each SIZE such as 80GiB")


def slurm_holes(
    listing: str, gpu_memory: Mapping[str, str], *, with_gpus: bool = True
) -> list[dict[str, Any]]:
    """The holes of the nodes in `listing`: their main memory, and, if they are wanted, their GPUs by type.

    `gpu_memory` is the nominal memory of one GPU of each type, such as {"a100": "80GiB"}. Nodes that are
    down are left out. Raises UnknownGpuMemory for a type that it lacks.
    """
    nodes = [dict(_FIELD.findall(line)) for line in listing.splitlines() if "NodeName=" in line]
    serving = [node for node in nodes if not _is_out_of_service(node)]
    if not with_gpus:
        serving = [node | {"Gres": ""} for node in serving]
    unknown = {
        kind for node in serving for kind, _ in gpus_in(node.get("Gres", "")) if kind not in gpu_memory
    }
    if unknown:
        raise UnknownGpuMemory(tuple(sorted(unknown)))
    return [hole for node in serving for hole in _holes(node, gpu_memory)]


def _is_out_of_service(node: Mapping[str, str]) -> bool:
    return not _OUT_OF_SERVICE.isdisjoint(_FLAG.findall(node.get("State", "")))


def gpus_in(gres: str) -> Iterator[tuple[str, int]]:
    """Types and counts of the GPUs in a list of generic resources."""
    for kind, count in _GPU.findall(gres):
        yield kind or UNTYPED, int(count)


def _holes(node: Mapping[str, str], gpu_memory: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    name = node["NodeName"]
    yield {
        "name": f"{name}/memory",
        "node": name,
        "device_kind": "cpu",
        "device": "cpu",
        "memory_total_bytes": int(node["RealMemory"]) * MIB,
    }
    for kind, count in gpus_in(node.get("Gres", "")):
        yield {
            "name": f"{name}/{kind}",
            "node": name,
            "device": kind,
            "names": {"slurm": kind},
            "memory_total_bytes": gpu_memory[kind],
            "count": count,
            **({"mig_slice": kind} if is_mig_slice(kind) else {}),
        }
