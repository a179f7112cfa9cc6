"""Why a queued job would wait for ever as things are: no worker that is there could be given it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from planner_service.jobs.needs import DeviceKind

_HOW = {
    "agents": "`tightfit-worker agent --planner URL` or `tightfit serve --with-worker`",
    "local": "`tightfit serve --with-worker`",
}
"""What starts a worker that claims the jobs of an engine."""


@dataclass(frozen=True, kw_only=True)
class Offer:
    """What a worker claims jobs for."""

    engines: frozenset[str]
    device_kind: DeviceKind
    memory_bytes: int
    """Of its device, whatever of it is free now."""


def why_it_waits(engine: str, needed_bytes: Mapping[DeviceKind, int], offers: Sequence[Offer]) -> str | None:
    """Why none of the workers will ever claim a job of `engine`; None where one may.

    `needed_bytes` are the bytes that the job needs free, by kind of device.
    """
    of_engine = [offer for offer in offers if engine in offer.engines]
    if not of_engine:
        return f"no worker that takes jobs of the engine {engine!r} is there: start {_HOW[engine]}"
    if any(needed_bytes[offer.device_kind] <= offer.memory_bytes for offer in of_engine):
        return None
    largest = max(of_engine, key=lambda offer: offer.memory_bytes - needed_bytes[offer.device_kind])
    needed = needed_bytes[largest.device_kind]
    return f"no worker has the memory: it needs {needed} bytes, and the nearest has {largest.memory_bytes}"
