"""The engines by name; an engine's module loads when it is chosen."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

from planner_service.chain import PlanningError
from planner_service.dispatch.engine import Engine
from planner_service.settings import Settings, variable


class UnknownEngine(PlanningError, ValueError):
    """No engine has this name."""

    field = "engine"

    def __init__(self, engine: str) -> None:
        self.engine = engine
        self.known = tuple(ENGINES)
        super().__init__(f"engine={engine!r} is unknown: choose one of {', '.join(ENGINES)}")


class EngineNotConfigured(PlanningError, ValueError):
    """The service knows the engine and has none of it to hand jobs to."""

    field = "engine"

    def __init__(self, engine: str, reason: str) -> None:
        self.engine = engine
        self.reason = reason
        super().__init__(f"engine={engine!r} is not here: {reason}")


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
    from planner_service.dispatch.ray import LOCAL_DASHBOARD, RayEngine

    return RayEngine(
        settings.ray_url or LOCAL_DASHBOARD, token=settings.ray_token, setup=settings.worker_setup
    )


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


def require_engine(name: str, settings: Settings) -> None:
    """Raises EngineNotConfigured where jobs of the engine could only come back.

    The operator's default engine is taken at its word: it may be away for a while.
    """
    if name == settings.engine:
        return
    if name == "slurm" and shutil.which("sbatch") is None:
        raise EngineNotConfigured(name, "the service's machine has no sbatch")
    if name == "kubernetes" and not (
        settings.kubernetes_url or Path(settings.kubernetes_token_file).exists()
    ):
        raise EngineNotConfigured(name, f"{variable('kubernetes_url')} is not set, and this is no pod")
    if name == "ray" and not settings.ray_url:
        raise EngineNotConfigured(name, f"{variable('ray_url')} is not set")


def dispatched_engines(settings: Settings) -> list[Engine]:
    """The engines that are handed jobs: all but the claimed ones."""
    claimed = claimed_engines(settings)
    return [engine_of(name, settings) for name in ENGINES if name not in claimed]
