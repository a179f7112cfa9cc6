"""A hundred thousand steps: `python -m benchmarks.executor.long`. Takes minutes.

The inputs are one step seen a hundred thousand times, without a copy, so that the loop's own memory is
all there is.
"""

from __future__ import annotations

import json

import torch
from torch import Tensor, nn

from benchmarks.arguments import without_arguments
from benchmarks.executor.__main__ import peak_bytes, seconds
from benchmarks.machine import RESULTS, description
from executor import unroll
from executor.drop_ins.recurrence import Recurrence, State, segment_of
from executor.replay import outputs_needed

BUDGET_BYTES = 256 * 2**20
CASES = ((1_000, BUDGET_BYTES), (1_000, 18 * 2**20), (100_000, BUDGET_BYTES))
"""Steps and budgets: a thousand steps with everything taped, and in so little that all run again."""
TIMED_STEPS = 5_000
"""A case is timed at least once, and until so many steps have run."""


def measured(steps: int, budget_bytes: int) -> dict[str, float]:
    """Peak bytes, and CPU seconds per step, of an LSTM H256 B16 inside the budget."""
    module = nn.LSTM(256, 256)
    recurrence = Recurrence.of(module)
    run = segment_of(module, recurrence)
    x = torch.randn(1, 16, 256).expand(steps, -1, -1)
    state = recurrence.initial_state(x, batch_size=16)

    def segment(state: State, part: Tensor) -> tuple[State, Tensor | None]:
        state, y = run(state, part)
        return state, y.square().sum() / steps if outputs_needed() else None

    def iteration() -> None:
        module.zero_grad(set_to_none=True)
        loss, _ = unroll(
            None,
            state,
            x,
            segment=segment,
            module=module,
            budget=budget_bytes,
            reduce="sum",
            final_state="detached",
        )
        torch.autograd.backward(loss)

    iteration()
    return {
        "steps": steps,
        "budget_bytes": budget_bytes,
        "measured_peak_bytes": peak_bytes(iteration),
        "cpu_seconds_per_step": min(seconds(iteration) for _ in range(max(1, TIMED_STEPS // steps))) / steps,
    }


def main() -> int:
    """Measure all cases, print and write them."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    rows = [measured(*case) for case in CASES]
    found = {"machine": description("torch"), "rows": rows}
    (RESULTS / "executor-long.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    for row in rows:
        print(json.dumps(row))
    return 0


if __name__ == "__main__":
    without_arguments(__doc__)
    raise SystemExit(main())
