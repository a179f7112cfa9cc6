"""Requests that the tests vary."""

from __future__ import annotations

import copy
from typing import Any

LSTM: dict[str, Any] = {
    "model": {
        "kind": "lstm",
        "input_size": 256,
        "hidden_size": 1024,
        "num_layers": 1,
        "dtype": "float32",
        "head": {"output_size": 10000},
    },
    "sequence": {"length": 1000, "batch_size": 64},
    "training": {"optimizer": "adam"},
    "memory": {"device_budget_bytes": "2GiB"},
    "strategy": "auto",
}
REPORT: dict[str, Any] = {
    "job": "night-run",
    "budget_bytes": 1000,
    "projected_peak_bytes": 900,
    "measured_peak_bytes": 890,
    "seconds_per_iteration": 0.5,
    "iterations": 3,
    "torch": "2.13.0+cpu",
    "device": "cpu",
}
"""What a worker tells of a run."""
CHAIN: dict[str, Any] = {
    "model": {
        "kind": "chain",
        "input_bytes": 0,
        "static_bytes": 0,
        "loss_gradient_bytes": 0,
        "stages": [
            {
                "count": 1000,
                "forward_cost": 1,
                "taped_forward_cost": 1,
                "backward_cost": 2,
                "state_bytes": 1,
                "tape_bytes": 4,
                "forward_workspace_bytes": 0,
                "taped_forward_workspace_bytes": 0,
                "backward_workspace_bytes": 0,
            }
        ],
    },
    "memory": {"device_budget_bytes": 250},
    "strategy": "auto",
}

MISSING = object()
"""Given to `changed` to take a field away."""


def changed(request: dict[str, Any], *path: int | str, to: object) -> dict[str, Any]:
    """A copy of `request` with the value at `path` replaced or taken away."""
    result = copy.deepcopy(request)
    place: Any = result
    for part in path[:-1]:
        place = place[part]
    if to is MISSING:
        del place[path[-1]]
    else:
        place[path[-1]] = to
    return result


def stage_of(
    forward: float, taped: float, backward: float, state: int, tape: int, **more: Any
) -> dict[str, Any]:
    """Stages as a request has them: three costs, and the bytes of the state and the tape."""
    return {
        "forward_cost": forward,
        "taped_forward_cost": taped,
        "backward_cost": backward,
        "state_bytes": state,
        "tape_bytes": tape,
        **more,
    }
