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


def node_name() -> str:
    """Slurm's name of this node where there is one, or the host's."""
    return os.environ.get(SLURM_NODE) or platform.node()
