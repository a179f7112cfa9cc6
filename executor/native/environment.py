"""Variables of the environment that workers and kernels read."""

from __future__ import annotations

import os
import platform

API_KEY = "TIGHTFIT_API_KEY"
"""A key for services that ask for one. A job gets its launch token instead, good for that job alone."""
LAUNCH_TOKEN = "TIGHTFIT_LAUNCH_TOKEN"  # noqa: S105 - the variable's name, not a token
"""The right to open attempts at one job."""
PLANNER_URL = "TIGHTFIT_PLANNER_URL"
"""The service that is asked where none is named."""
SLURM_NODE = "SLURMD_NODENAME"

FUSED_KERNELS = "TIGHTFIT_FUSED_KERNELS"
"""Where it says "off", the three of these leave our own kernels out, and torch's do their work."""
SPARSE_KERNELS = "TIGHTFIT_SPARSE_KERNELS"
REVERSIBLE_KERNELS = "TIGHTFIT_REVERSIBLE_KERNELS"


MAXIMUM_NODE_CHARACTERS = 200


def node_name() -> str:
    """Slurm's name of this node where there is one, or the host's; both agents and attempts are called so."""
    return os.environ.get(SLURM_NODE) or platform.node()


def checked_node_name(name: str) -> str:
    """`name`, which is to be a part of a path and a cell of a table. Raises ValueError with the reason."""
    is_path = "/" in name or name in {".", ".."}
    is_word = name.isprintable() and name == name.strip() and 0 < len(name) <= MAXIMUM_NODE_CHARACTERS
    if is_path or not is_word:
        raise ValueError(
            f"{name!r} cannot be a node's name: give 1 to {MAXIMUM_NODE_CHARACTERS} printable characters "
            "without a slash, such as gpu-17"
        )
    return name
