"""How many threads share the steps of a layer: each has some units, and waits for the others in all steps."""

from __future__ import annotations

import os

import torch

_LEAST_PRODUCTS = 500_000
"""Of a thread, in a step: some 10 microseconds of work, many times what a wait takes."""
_LEAST_UNITS = 8
"""Of a thread: what the kernels hand out at once, STEP_UNITS."""
_forked = False


def team_size(*, most: int, batch: int, inputs: int, hidden: int, rows: int) -> int:
    """Threads for steps of `rows` gates per unit; at most `most` and as many as torch may use.

    A forked process gets one: the threads that its parent had exist there in name only, and OpenMP would wait
    for them for ever.
    """
    available = min(most, torch.get_num_threads())
    if available == 1 or _forked:
        return 1
    products = batch * rows * hidden * (inputs + hidden)
    return max(1, min(available, products // _LEAST_PRODUCTS, hidden // _LEAST_UNITS))


def _in_forked_process() -> None:
    global _forked
    _forked = True


os.register_at_fork(after_in_child=_in_forked_process)
