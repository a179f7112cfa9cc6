"""Where jobs run: on this machine, by agents, or under an engine that users run already."""

from planner_service.dispatch.engine import (
    LAUNCH_TOKEN,
    Engine,
    EngineBusy,
    EngineRefused,
    EngineState,
    EngineStatus,
    EngineUnreachable,
    Launch,
    Resources,
    attempt_command,
    launch_name,
)
from planner_service.dispatch.fitting import resources_for
from planner_service.dispatch.registry import (
    ENGINES,
    EngineNotConfigured,
    UnknownEngine,
    claimed_engines,
    dispatched_engines,
    engine_of,
    require_engine,
)

__all__ = [
    "ENGINES",
    "LAUNCH_TOKEN",
    "Engine",
    "EngineBusy",
    "EngineNotConfigured",
    "EngineRefused",
    "EngineState",
    "EngineStatus",
    "EngineUnreachable",
    "Launch",
    "Resources",
    "UnknownEngine",
    "attempt_command",
    "claimed_engines",
    "dispatched_engines",
    "engine_of",
    "launch_name",
    "require_engine",
    "resources_for",
]
