"""The fixed price of one more tape segment: `python -m benchmarks.executor.segment_price`.

The same steps are taped and reversed in n segments and in twice as many, all stored, so that the difference
is what a segment costs besides its steps: entering it, its leaves, its inner backward call, the additions to
the gradients. For scale, the same by hand: truncated backpropagation without an executor.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from benchmarks.arguments import without_arguments
from benchmarks.machine import RESULTS, description
from executor import unroll
from executor.plan import tape_everything

STEPS = 400
ROUNDS = 40
HIDDEN, BATCH = 32, 4

CELLS = {"LSTMCell": nn.LSTMCell, "GRUCell": nn.GRUCell}
Cells = Callable[[int], None]
"""Forward and backward in segments of that many steps."""


def executor_loop(kind: str) -> Cells:
    """Under `unroll`, every segment taped."""
    cell, x, state = _problem(kind)

    def step(state: tuple[Tensor, ...], x_t: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        after = _step(cell, x_t, state)
        return after, after[0].sum()

    def run(segment_steps: int) -> None:
        plan = tape_everything(STEPS, segment_steps)
        loss, _ = unroll(step, state, x, plan=plan, module=cell, reduce="sum", final_state="detached")
        loss.backward()

    return run


def loop_by_hand(kind: str) -> Cells:
    """Truncated: detach, run, call backward; what torch itself asks for a segment."""
    cell, x, state = _problem(kind)

    def run(segment_steps: int) -> None:
        carried = state
        for part in x.split(segment_steps):
            carried = tuple(leaf.detach() for leaf in carried)
            loss = torch.zeros(())
            for x_t in part.unbind(0):
                carried = _step(cell, x_t, carried)
                loss = loss + carried[0].sum()
            loss.backward()

    return run


def _problem(kind: str) -> tuple[nn.Module, Tensor, tuple[Tensor, ...]]:
    parts = 2 if kind == "LSTMCell" else 1
    state = tuple(torch.zeros(BATCH, HIDDEN) for _ in range(parts))
    return CELLS[kind](HIDDEN, HIDDEN), torch.randn(STEPS, BATCH, HIDDEN), state


def _step(cell: nn.Module, x_t: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    after = cell(x_t, state if len(state) == 2 else state[0])
    return after if len(state) == 2 else (after,)


def price_seconds(run: Cells) -> float:
    """Seconds per additional segment: one step against two steps per segment, the least of all rounds each,
    which is what a machine with other work on it disturbs least.
    """
    run(1)
    run(2)
    times = [(_seconds(lambda: run(1)), _seconds(lambda: run(2))) for _ in range(ROUNDS)]
    one, two = (min(column) for column in zip(*times, strict=True))
    return (one - two) / (STEPS - STEPS // 2)


def _seconds(function: Callable[[], None]) -> float:
    begin = time.thread_time()
    function()
    return time.thread_time() - begin


def main() -> int:
    """Measure, print and write benchmarks/results/executor-segment-price.json."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    rows = [
        {
            "case": f"{kind} H{HIDDEN} B{BATCH}",
            "executor_seconds": price_seconds(executor_loop(kind)),
            "by_hand_seconds": price_seconds(loop_by_hand(kind)),
        }
        for kind in CELLS
    ]
    found = {"machine": description("torch"), "rounds": ROUNDS, "steps": STEPS, "rows": rows}
    path = RESULTS / "executor-segment-price.json"
    path.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    for row in rows:
        print(json.dumps(row))
    return 0


if __name__ == "__main__":
    without_arguments(__doc__)
    raise SystemExit(main())
