"""For runs in which nothing is computed: what steps return is whatever lay in memory, so that no step could
be seen to do the same twice. A pytest plugin, and a program that runs a module.

    python -m tests.cuda_stand_in.nothing benchmarks.gpu.gaps --seconds 60
"""

from __future__ import annotations

import runpy
import sys

from executor.rules import dry_run

dry_run.alike = lambda *_: True  # type: ignore[assignment]

if __name__ == "__main__":
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
