"""Measure the profiles that the planner ships: `python -m benchmarks.shipped_profiles`.

Writes planner_service/memory/profiles/cpu-torch-<version>.json: recurrent layers without an embedding or
a head, T = 1,000, outputs stacked, probed through the executor on one thread. Bytes are the same on
every machine with this build of torch and are kept. Seconds are this machine's own and are not: costs
are counted in forward passes of a step, two of them for a step in reverse.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from benchmarks.arguments import without_arguments
from executor import ProbeReport, probe
from executor.drop_ins.recurrence import Recurrence, run_fused

FOLDER = Path(__file__).parent.parent / "planner_service" / "memory" / "profiles"
LENGTH = 1000
STEP_LENGTHS = (1, 2, 5, 10, 20, 50, 100)
FUSED_LENGTHS = (5, 10, 20, 50, 100, 200)
LAYERS: dict[str, Any] = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}
CELLS: dict[str, Any] = {"lstm": nn.LSTMCell, "gru": nn.GRUCell, "rnn": nn.RNNCell}


class Case(NamedTuple):
    """One model to measure; its input is as wide as its state."""

    cell: str
    implementation: str
    dtype: str
    hidden_size: int
    batch_size: int


CASES = [
    *(Case(cell, "steps", dtype, 256, 16) for cell in CELLS for dtype in ("float32", "float64")),
    Case("lstm", "fused", "float32", 256, 16),
    Case("lstm", "fused", "float32", 256, 64),
    Case("lstm", "fused", "float32", 512, 16),
]


def main() -> None:
    """Measure every case and write the file."""
    torch.set_num_threads(1)
    records = []
    for case in CASES:
        print(case, flush=True)
        report = _probe_fused(case) if case.implementation == "fused" else _probe_steps(case)
        records.append(_without_seconds(_record(case, report)))
    FOLDER.mkdir(parents=True, exist_ok=True)
    path = FOLDER / f"cpu-torch-{torch.__version__.split('+')[0]}.json"
    path.write_text(json.dumps(records, indent=1) + "\n")
    print(f"wrote {path}")


def _inputs(case: Case) -> tuple[Tensor, Tensor]:
    """X of T steps, and zeros of the shape of h."""
    dtype = getattr(torch, case.dtype)
    x = torch.randn(LENGTH, case.batch_size, case.hidden_size, dtype=dtype)
    return x, x.new_zeros(case.batch_size, case.hidden_size)


def _probe_steps(case: Case) -> ProbeReport:
    x, h = _inputs(case)
    cell = CELLS[case.cell](case.hidden_size, case.hidden_size, dtype=x.dtype)

    def step(state: Any, x_t: Tensor) -> tuple[Any, Tensor]:
        state = cell(x_t, state)
        return state, state[0] if case.cell == "lstm" else state

    state = (h, h.clone()) if case.cell == "lstm" else h
    return probe(step, state, x, module=cell, candidates=STEP_LENGTHS)


def _probe_fused(case: Case) -> ProbeReport:
    x, _ = _inputs(case)
    layer = LAYERS[case.cell](case.hidden_size, case.hidden_size, dtype=x.dtype)
    recurrence = Recurrence.of(layer)

    def segment(state: Any, part: Tensor) -> tuple[Any, Tensor]:
        return run_fused(layer, recurrence, state, part)

    state = recurrence.initial_state(x, batch_size=case.batch_size)
    return probe(None, state, x, module=layer, segment=segment, candidates=FUSED_LENGTHS)


def _record(case: Case, report: ProbeReport) -> dict[str, Any]:
    return report.record(
        {
            "source": "shipped probe",
            "cell": case.cell,
            "implementation": case.implementation,
            "dtype": case.dtype,
            "input_size": case.hidden_size,
            "hidden_size": case.hidden_size,
            "num_layers": 1,
            "batch_size": case.batch_size,
            "embedding_size": None,
            "head_output_size": None,
            "loss": "outside",
        }
    )


def _without_seconds(record: dict[str, Any]) -> dict[str, Any]:
    """The record with counted costs in the place of measured ones."""
    segments = []
    for segment in record["segments"]:
        steps, last = segment["segment_steps"], segment["last_steps"]
        counted = {"inner": steps, "first": steps, "last": last}
        stages = {name: {**segment[name], **_counted_costs(count)} for name, count in counted.items()}
        segments.append({**segment, **stages})
    return {**record, "cost_unit": "forward", "segments": segments}


def _counted_costs(steps: int) -> dict[str, int]:
    return {"forward_cost": steps, "taped_forward_cost": steps, "backward_cost": 2 * steps}


if __name__ == "__main__":
    without_arguments(__doc__)
    main()
