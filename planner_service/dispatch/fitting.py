"""What to ask an engine for: the job's bytes, and the types of devices that hold them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from math import ceil
from typing import Literal

from planner_service.contract.budget import FREE
from planner_service.contract.jobs import Job
from planner_service.dispatch.engine import EngineRefused, Resources
from planner_service.placement import DEFAULT_CONTEXT_BYTES, Hole
from planner_service.placement.holding import is_whole, types_that_hold
from planner_service.placement.holes import nominal_bytes
from planner_service.placement.kubernetes import product_of
from planner_service.placement.ray import accelerator_of
from planner_service.placement.slurm import gres_type

DeviceKind = Literal["cpu", "cuda"]

_WORDS: dict[str, Callable[[Hole], str]] = {
    "slurm": gres_type,
    "kubernetes": lambda hole: hole.mig_slice or product_of(hole),
    "ray": accelerator_of,
}
"""What each engine calls a type of device; empty where it has no name there."""
FREE_MARGIN_RATIO: dict[DeviceKind, float] = {"cpu": 1.25, "cuda": 1.12}
"""Of the leanest plan, where the budget is what is free: the worker leaves a tenth of it to what is no
tensor. Of main memory it takes no more than was asked for, and measures what is estimated here."""


def resources_for(job: Job, engine: str, device_kind: DeviceKind, holes: Sequence[Hole]) -> Resources:
    """What one process of `job` needs under `engine`.

    With `holes`, only types whose smallest device holds it when nobody else is there: an engine hands
    out any device of a type. Raises EngineRefused when there is no such type.
    """
    needed_bytes = _needed_bytes(job, device_kind)
    kind = [hole for hole in holes if is_whole(hole, device_kind)]
    context_bytes = max((hole.context_bytes for hole in kind), default=DEFAULT_CONTEXT_BYTES)
    request_bytes = needed_bytes + context_bytes
    types = types_that_hold(needed_bytes, device_kind, kind)
    if holes and not types:
        largest = max((hole.empty_bytes for hole in kind), default=0)
        raise EngineRefused(
            engine,
            f"it needs {needed_bytes} bytes and the largest {device_kind} device of the cluster has "
            f"{largest} for it: {needed_bytes - largest} bytes are missing; give the job a smaller budget",
        )
    # Ray places by a node's count of memory where no types are known: others may be on the same device.
    shares = device_kind == "cpu" or (engine == "ray" and not holes)
    return Resources(
        device=device_kind,
        request_bytes=request_bytes,
        limit_bytes=nominal_bytes(request_bytes) if device_kind == "cuda" else request_bytes,
        device_types=_words(engine, types, kind),
        any_type=not holes,
        memory_bytes=needed_bytes if shares else None,
    )


def _needed_bytes(job: Job, device_kind: DeviceKind) -> int:
    """What training needs; of a budget that says `free`, enough for the leanest plan."""
    needed_bytes: int = getattr(job.needed_bytes, device_kind)
    return ceil(FREE_MARGIN_RATIO[device_kind] * needed_bytes) if job.budget == FREE else needed_bytes


def _words(engine: str, types: Iterable[Hole], kind: Iterable[Hole]) -> tuple[str, ...]:
    """The names of these types, those left out by which a smaller one goes too."""
    word = _WORDS[engine]
    holding = {hole.type_key for hole in types}
    lacking = {word(hole) for hole in kind if hole.type_key not in holding}
    return tuple(dict.fromkeys(name for hole in types if (name := word(hole)) and name not in lacking))
