"""The engines by name; an engine's module loads when it is chosen."""

from __future__ import annotations

import shlex
from collections.abc import Callable

from planner_service.chain import PlanningError
from planner_service.dispatch.engine import Engine
from planner_service.settings import Settings


class UnknownEngine(PlanningError, ValueError):
    """No engine has this name."""

    field = "engine"

    def __init__(self, engine: str) -> None:
        self.engine = engine
        self.known = tuple(ENGINES)
        super().__init__(f"engine={engine!r} is unknown: choose one of {', '.join(ENGINES)}")


def _local(settings: Settings) -> Engine:
    from planner_service.dispatch.local import LocalEngine

    return LocalEngine(most_unfinished=settings.local_workers)


def _agents(settings: Settings) -> Engine:
    from planner_service.dispatch.agents import AgentsEngine

    return AgentsEngine()


def _slurm(settings: Settings) -> Engine:
    from planner_service.dispatch.slurm import SlurmEngine

    return SlurmEngine(options=shlex.split(settings.slurm_options), setup=settings.worker_setup)


def _ray(settings: Settings) -> Engine:
    from planner_service.dispatch.ray import RayEngine

    return RayEngine(settings.ray_url, token=settings.ray_token, setup=settings.worker_setup)


def _kubernetes(settings: Settings) -> Engine:
    from planner_service.dispatch.kubernetes import kubernetes_engine

    return kubernetes_engine(settings)


ENGINES: dict[str, Callable[[Settings], Engine]] = {
    "local": _local,
    "agents": _agents,
    "slurm": _slurm,
    "ray": _ray,
    "kubernetes": _kubernetes,
}
"""How each engine is made from the settings, in the order of the documents."""


def engine_of(name: str, settings: Settings) -> Engine:
    """The engine of that name, ready for use. Raises UnknownEngine."""
    if name not in ENGINES:
        raise UnknownEngine(name)
    return ENGINES[name](settings)


def claimed_engines(settings: Settings) -> frozenset[str]:
    """The engines whose jobs wait to be claimed, by agents or the local worker."""
    return frozenset({"agents", "local"} if settings.local_start == "agent" else {"agents"})


def dispatched_engines(settings: Settings) -> list[Engine]:
    """The engines that are handed jobs: all but the claimed ones."""
    claimed = claimed_engines(settings)
    return [engine_of(name, settings) for name in ENGINES if name not in claimed]
