"""Sparse layers on a CUDA device: the same gradients as on the CPU, by the same gathers."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from torch import nn

from executor.sparse import SparseAudit, SparseGRU, SparseLSTM, SparseLSTMCell, lstm_on_cuda
from executor.sparse.accounting import IterationRecord
from executor.sparse.modules import SparseRecurrence
from tests.executor.sparse.choices import leave_out_with

pytestmark = pytest.mark.gpu

STEPS, BATCH, SIZE = 30, 16, 32
RULES: tuple[dict[str, Any], ...] = (
    {"rule": "absolute", "threshold": 0.0},
    {"rule": "top", "keep_ratio": 0.2},
    {"rule": "columns", "keep_ratio": 0.25},
    {"rule": "blocks", "keep_ratio": 0.25},
    {"rule": "rows", "keep_ratio": 0.5},
    {"rule": "mixed", "keep_ratio": 0.25},
)


@pytest.mark.parametrize("kind", [SparseLSTM, SparseGRU])
@pytest.mark.parametrize("rule", RULES, ids=str)
def test_gradients_are_those_of_the_cpu(
    kind: type[SparseRecurrence], rule: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In float64, so that both devices choose the same entries, columns and rows."""
    leave_out_with(monkeypatch)
    on_cpu = kind(SIZE, SIZE, 2, **rule, dtype=torch.float64)
    on_gpu = kind(SIZE, SIZE, 2, **rule, dtype=torch.float64).cuda()
    on_gpu.load_state_dict(on_cpu.state_dict())
    x = torch.randn(STEPS, BATCH, SIZE, dtype=torch.float64)
    records = []
    for module in (on_cpu, on_gpu):
        module(x.to(module.get_parameter("weight_hh_l0").device))[0].square().sum().backward()
        record = module.end_iteration()
        assert record is not None
        records.append(record)
    assert counts(records[0]) == counts(records[1])
    assert dict(records[1].gate_sparsity) == pytest.approx(dict(records[0].gate_sparsity), abs=1e-6)
    for one, other in zip(on_cpu.parameters(), on_gpu.parameters(), strict=True):
        assert one.grad is not None
        assert other.grad is not None
        torch.testing.assert_close(other.grad.cpu(), one.grad, rtol=1e-8, atol=1e-10)


def counts(record: IterationRecord) -> dict[str, Any]:
    """What is counted in whole numbers: ratios are divided in another order on a GPU."""
    return {name: value for name, value in vars(record).items() if not name.endswith("_sparsity")}


def test_single_steps_have_the_bits_of_torchs_cell() -> None:
    """Forward: the same kernels; gradients to rounding."""
    cell = nn.LSTMCell(SIZE, SIZE).cuda()
    module = SparseLSTMCell(SIZE, SIZE, rule="absolute", threshold=0.0).cuda()
    module.load_state_dict(cell.state_dict())
    x = torch.randn(STEPS, BATCH, SIZE, device="cuda")
    found, gradients = [], []
    for each in (cell, module):
        state = None
        for x_t in x:
            state = each(x_t, state)
        assert state is not None
        found.append(state)
        gradients.append(torch.autograd.grad((state[0] + state[1]).square().sum(), list(each.parameters())))
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(other, one, rtol=1e-4, atol=1e-4 * float(one.abs().max()))


def test_a_segment_runs_and_is_reversed_by_torchs_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once per step each way, not operation by operation."""
    ran: Counter[str] = Counter()
    kernel_of = lstm_on_cuda._kernel

    def counted(name: str) -> Any:
        kernel = kernel_of(name)

        def call(*tensors: Any) -> Any:
            ran[name] += 1
            return kernel(*tensors)

        return call

    monkeypatch.setattr(lstm_on_cuda, "_kernel", counted)
    module = SparseLSTM(SIZE, SIZE, rule="columns", dtype=torch.float64).cuda()
    x = torch.randn(STEPS, BATCH, SIZE, dtype=torch.float64, device="cuda")
    module(x)[0].square().sum().backward()
    assert ran == {lstm_on_cuda._FORWARD: STEPS, lstm_on_cuda._BACKWARD: STEPS}


def test_books_are_kept_on_the_device() -> None:
    module = SparseLSTM(SIZE, SIZE, rule="top").cuda()
    audit = SparseAudit(module, cosine_every=1)
    audit.start(iteration=0)
    x = torch.randn(STEPS, BATCH, SIZE, device="cuda")

    def loss() -> torch.Tensor:
        _, y = module.segment(module.initial_state(BATCH), x)
        return y.square().sum()

    audit.compare(loss)
    module.zero_grad()
    loss().backward()
    audit.close()
    found = audit.measurement()
    assert found["sparsity"] == pytest.approx(0.8, abs=0.01)
    assert 0 < found["least_cosine"] < 1
