"""A hundred thousand steps: `python -m benchmarks.executor.long`. Takes minutes.

The inputs are one step seen a hundred thousand times, without a copy, so that the loop's own memory is
all there is.
"""

from __future__ import annotations

import json

import torch
from torch import Tensor, nn

from benchmarks.executor.__main__ import peak_bytes, seconds
from benchmarks.machine import RESULTS, description
from executor import unroll
from executor.recurrence import Recurrence, State, segment_of

BUDGET_BYTES = 256 * 2**20
LENGTHS = (1_000, 100_000)


def measured(steps: int) -> dict[str, float]:
    """Peak bytes, and CPU seconds per step, of an LSTM H256 B16 inside the budget."""
    module = nn.LSTM(256, 256)
    recurrence = Recurrence.of(module)
    run = segment_of(module, recurrence)
    x = torch.randn(1, 16, 256).expand(steps, -1, -1)
    state = recurrence.initial_state(x, batch_size=16)

    def segment(state: State, part: Tensor) -> tuple[State, Tensor]:
        state, y = run(state, part)
        return state, y.square().sum() / steps

    def iteration() -> None:
        module.zero_grad(set_to_none=True)
        loss, _ = unroll(
            None,
            state,
            x,
            segment=segment,
            module=module,
            budget=BUDGET_BYTES,
            reduce="sum",
            final_state="detached",
        )
        torch.autograd.backward(loss)

    iteration()
    return {
        "steps": steps,
        "measured_peak_bytes": peak_bytes(iteration),
        "cpu_seconds_per_step": min(seconds(iteration) for _ in range(2)) / steps,
    }


def main() -> int:
    """Measure both lengths, print and write them."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    rows = [measured(steps) for steps in LENGTHS]
    found = {"machine": description("torch"), "budget_bytes": BUDGET_BYTES, "rows": rows}
    (RESULTS / "executor-long.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    for row in rows:
        print(json.dumps(row))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
