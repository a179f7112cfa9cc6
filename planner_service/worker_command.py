"""`tightfit-worker`, a command that is there wherever the planner is installed, with PyTorch or without."""

from __future__ import annotations

import runpy
import sys
from importlib.util import find_spec


def main() -> int:
    """Run the executor's command line; where it cannot be loaded, one line says why, and the status is 2."""
    if find_spec("torch") is None:
        sys.stderr.write("tightfit-worker: training needs PyTorch: pip install 'tightfit[worker]'\n")
        return 2
    runpy.run_module("executor.cli", run_name="__main__")  # which exits
    return 0
