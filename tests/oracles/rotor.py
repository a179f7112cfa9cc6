"""The chains on which rotor's C solver was measured, in rotor's grid of memory units and in bytes."""

from __future__ import annotations

from typing import Any

from planner_service.chain import Chain, Stage
from tests.oracles.golden import golden

LENGTHS = ("20", "50", "100", "200", "336")


def record(length: str) -> dict[str, Any]:
    """The golden record of the chain of `length` stages."""
    return golden("rotor_chains")["chains"][length]


def chain(length: str, *, unit_bytes: int = 1) -> tuple[Chain, int]:
    """The chain and its budget; every size is rounded up to whole units of `unit_bytes`."""
    given = record(length)

    def units(size: int) -> int:
        return -(-size // unit_bytes)

    stages = [
        Stage(
            forward_cost=given["ftime"][index],
            taped_forward_cost=given["ftime"][index],
            backward_cost=given["btime"][index],
            state_bytes=units(given["x"][index + 1]),
            tape_bytes=units(given["xbar"][index + 1]),
            forward_workspace_bytes=units(given["ftmp"][index]),
            taped_forward_workspace_bytes=units(given["ftmp"][index]),
            backward_workspace_bytes=units(given["btmp"][index]),
        )
        for index in range(given["L"])
    ]
    sizes = {"input_bytes": units(given["x"][0]), "loss_gradient_bytes": units(given["x"][-1])}
    return Chain.of(stages, **sizes), given["budget"] // unit_bytes


def chain_on_the_grid(length: str) -> tuple[Chain, int]:
    """The chain and its budget in rotor's own units, of which the budget has about 500."""
    given = record(length)
    on_grid, _ = chain(length, unit_bytes=given["budget"] // given["slots"])
    return on_grid, given["slots"]
