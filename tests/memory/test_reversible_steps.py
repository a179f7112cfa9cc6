"""The formulas of reversible cells against what the executor really holds."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from executor import probe  # noqa: E402
from executor.jobs.layers import REVERSIBLE_LAYERS  # noqa: E402
from planner_service.contract import PlanRequest  # noqa: E402
from planner_service.memory.reversible_steps import segment_stage  # noqa: E402
from planner_service.planning.candidates import workload_of  # noqa: E402

BATCH, SIZE = 16, 32


@pytest.mark.parametrize(
    ("kind", "layers", "dtype"),
    [
        ("rev_gru", 1, "float32"),
        ("rev_gru", 2, "float64"),
        ("rev_lstm", 1, "float64"),
        ("nf_rev_gru", 1, "float32"),
        ("nf_rev_lstm", 2, "float32"),
    ],
)
def test_a_probe_never_holds_more_than_the_stage_says_and_not_much_less(kind, layers, dtype):
    """State to the byte; tape, workspaces and undoing within the bound, for one step and for four"""
    torch.manual_seed(0)
    module = REVERSIBLE_LAYERS[kind](24, SIZE, layers, dtype=getattr(torch, dtype))
    x = torch.randn(16, BATCH, 24, dtype=getattr(torch, dtype))

    def segment(state, given):
        state, y = module.segment(state, given)
        return state, (y**2).sum()

    report = probe(
        None, module.initial_state(BATCH), x, segment=segment, module=module, reduce="sum", candidates=[1, 4]
    )
    workload = workload_of(
        PlanRequest.model_validate(
            {
                "model": {
                    "kind": kind, "input_size": 24, "hidden_size": SIZE, "num_layers": layers, "dtype": dtype,
                    "head": {"output_size": SIZE},
                },
                "sequence": {"length": 16, "batch_size": BATCH},
                "memory": {"device_budget_bytes": 1},
            }
        )
    )  # fmt: skip
    assert workload.model.parameter_bytes >= sum(p.nbytes for p in module.parameters())
    for probed in report.segments:
        found, said = probed.inner, segment_stage(workload, workload.model, probed.segment_steps)
        assert found.state_bytes == said.state_bytes
        assert found.live_gradient_bytes == said.live_gradient_bytes
        assert found.reversal.archive_bytes == said.reversal.archive_bytes
        for name in ("tape_bytes", "forward_workspace_bytes", "backward_workspace_bytes"):
            assert getattr(found, name) <= getattr(said, name) <= 2.5 * getattr(found, name), name
        undone, bound = found.reversal.undo_workspace_bytes, said.reversal.undo_workspace_bytes
        assert undone <= bound <= 2 * undone
