"""What to ask an engine for: the job's bytes, and the types of devices that hold them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import ceil
from typing import Literal

from planner_service.contract.jobs import Job
from planner_service.dispatch.engine import EngineRefused, Resources
from planner_service.placement import DEFAULT_CONTEXT_BYTES, DEFAULT_DRIVER_RESERVE_RATIO, Hole

DeviceKind = Literal["cpu", "cuda"]


def resources_for(job: Job, engine: str, device_kind: DeviceKind, holes: Sequence[Hole]) -> Resources:
    """What one process of `job` needs under `engine`.

    With `holes`, only types whose smallest device holds it when nobody else is there: an engine hands
    out any device of a type. Raises EngineRefused when there is no such type.
    """
    needed_bytes: int = getattr(job.needed_bytes, device_kind)
    context_bytes = max((hole.context_bytes for hole in holes), default=DEFAULT_CONTEXT_BYTES)
    request_bytes = needed_bytes + context_bytes
    ratio = DEFAULT_DRIVER_RESERVE_RATIO if device_kind == "cuda" else 0.0
    types = _holding(needed_bytes, device_kind, holes)
    if holes and not types:
        kind = [hole for hole in holes if hole.device_kind == device_kind]
        largest = max((hole.empty_bytes for hole in kind), default=0)
        raise EngineRefused(
            engine,
            f"it needs {needed_bytes} bytes and the largest {device_kind} device of the cluster has "
            f"{largest} for it: {needed_bytes - largest} bytes are missing; give the job a smaller budget",
        )
    return Resources(
        device=device_kind,
        request_bytes=request_bytes,
        limit_bytes=ceil(request_bytes / (1 - ratio)),
        device_types=tuple(dict.fromkeys(_name(hole, engine) for hole in types if _name(hole, engine))),
    )


def _holding(needed_bytes: int, device_kind: DeviceKind, holes: Iterable[Hole]) -> list[Hole]:
    """The smallest hole of every type that holds so much."""
    smallest: dict[tuple[object, ...], Hole] = {}
    for hole in holes:
        known = smallest.get(hole.type_key)
        if hole.device_kind == device_kind and (known is None or hole.empty_bytes < known.empty_bytes):
            smallest[hole.type_key] = hole
    return [hole for hole in smallest.values() if hole.empty_bytes >= needed_bytes]


def _name(hole: Hole, engine: str) -> str:
    """The type in the engine's own word."""
    named = getattr(hole.names, engine, None)
    return named or hole.mig_slice or hole.device
