"""Steps that go by what is in their tensors, and meet data with which they keep more"""

import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from executor import BudgetTooSmall, measure, predict, unroll
from executor.rules.outgrowth import Outgrowth, graph_bytes

STEPS, BATCH, SIZE = 30, 2, 16
BUDGET = 20_000
STEP_BYTES = BATCH * SIZE * 4


def by_branch(h: Tensor, x: Tensor) -> Tensor:
    return deepened(h) if x.mean() > 0 else h


def by_mask(h: Tensor, x: Tensor) -> Tensor:
    return h + deepened(h[x[:, 0] > 0]).sum()


def deepened(h: Tensor) -> Tensor:
    for _ in range(30):
        h = torch.tanh(h)
    return h


class Training:
    """Iterations of a loop on data that are easy, or hard in so many steps."""

    def __init__(self, deepen: Callable[[Tensor, Tensor], Tensor], budget: int = BUDGET) -> None:
        self.cell = nn.GRUCell(SIZE, SIZE)
        self.deepen, self.budget = deepen, budget

    def step(self, h: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        h = self.deepen(self.cell(h, h), x)
        return h, h.sum()

    def peak_bytes(self, hard_steps: int) -> int:
        inputs = torch.zeros(STEPS, BATCH, SIZE)
        inputs[:hard_steps] = 1.0
        state = torch.zeros(BATCH, SIZE)

        def iteration() -> None:
            self.cell.zero_grad(set_to_none=True)
            loss, _ = unroll(self.step, state, inputs, module=self.cell, reduce="sum", budget=self.budget)
            loss.backward()

        return measure(iteration).peak_bytes


def silently(training: Training, hard_steps: int) -> int:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return training.peak_bytes(hard_steps)


@pytest.mark.parametrize("deepen", [by_branch, by_mask])
def test_data_with_which_steps_keep_more_are_told_once_and_planned_for(
    deepen: Callable[[Tensor, Tensor], Tensor],
) -> None:
    """They broke every budget of later calls without a word. What is looked at next are easy data again."""
    training = Training(deepen)
    assert silently(training, 0) <= BUDGET
    with pytest.warns(UserWarning, match="than those that its plan was made for. The next"):
        assert training.peak_bytes(STEPS) > BUDGET
    for hard_steps in (0, STEPS):
        assert silently(training, hard_steps) <= BUDGET


def test_what_does_not_fit_any_more_is_refused() -> None:
    """A budget that held the easy data only."""
    training = Training(by_branch, budget=12_000)
    silently(training, 0)
    with pytest.warns(UserWarning, match="computed more"):
        training.peak_bytes(STEPS)
    with pytest.raises(BudgetTooSmall) as refusal:
        training.peak_bytes(0)
    training.budget = refusal.value.minimum_budget_bytes
    assert silently(training, STEPS) <= training.budget


def test_a_plan_of_ones_own_is_to_be_renewed() -> None:
    """It is the same at the next call, whatever was found out."""
    training = Training(by_branch)
    easy, hard = torch.zeros(STEPS, BATCH, SIZE), torch.ones(STEPS, BATCH, SIZE)
    loop = {"state": torch.zeros(BATCH, SIZE), "module": training.cell, "reduce": "sum"}
    plan = predict(training.step, inputs=easy, budget=BUDGET, **loop).plan
    loss, _ = unroll(training.step, inputs=hard, plan=plan, **loop)
    with pytest.warns(UserWarning, match="that this plan was made for. Take a new one"):
        loss.backward()
    renewed = predict(training.step, inputs=easy, budget=BUDGET, **loop).plan
    assert renewed.graph_bytes > plan.graph_bytes or renewed.segment_steps < plan.segment_steps


def test_hard_data_that_were_looked_at_are_no_surprise() -> None:
    """One step of them tells what each may take."""
    training = Training(by_branch)
    for hard_steps in (1, STEPS):
        assert silently(training, hard_steps) <= BUDGET


def test_the_bytes_of_a_graph_are_those_of_what_its_operations_put_out() -> None:
    """Leaves and views are others' memory, and what two ways lead to counts once."""
    weight = torch.ones(SIZE, SIZE, requires_grad=True)
    h = torch.ones(BATCH, SIZE) @ weight.t()
    assert graph_bytes([h, torch.tanh(h), h.double(), None, 3]) == (1 + 1 + 2) * STEP_BYTES


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_nested_tensors_whose_size_no_graph_tells_do_not_count() -> None:
    rows = torch.ones(BATCH, SIZE, requires_grad=True)
    for layout in (torch.strided, torch.jagged):
        nested = torch.nested.as_nested_tensor([rows, rows[:1]], layout=layout)
        assert graph_bytes([nested.to_padded_tensor(0.0).sum(1)]) > graph_bytes([nested]) >= 0


def test_tapes_that_are_small_make_room_for_a_large_one() -> None:
    """What counts are those alive at a time."""
    h = torch.ones(BATCH, SIZE, requires_grad=True)
    small, large = torch.tanh(h), torch.tanh(torch.tanh(torch.tanh(h)))

    def told(*order: int) -> list[int]:
        """Stages are taped; or reversed, where they are negative. The second is large."""
        found: list[int] = []
        outgrowth = Outgrowth(2 * STEP_BYTES, found.append)
        for stage in order:
            if stage < 0:
                outgrowth.reversed(-stage)
            else:
                outgrowth.begin()
                outgrowth.taped(stage, [large if stage == 2 else small])
        outgrowth.conclude()
        return found

    assert told(1, 2, -2, -1) == []
    assert told(1, -1, 2, -2) == [3 * STEP_BYTES]


@pytest.mark.parametrize("sizes_vary", [False, True])
def test_graphs_of_as_many_nodes_are_looked_at_once_where_steps_only_branch(
    monkeypatch: pytest.MonkeyPatch, *, sizes_vary: bool
) -> None:
    """A step that only asks whether its numbers are finite took a third longer for being watched."""
    looked: list[int] = []

    def watched(roots: list[Tensor]) -> int:
        looked.append(graph_bytes(roots))
        return looked[-1]

    monkeypatch.setattr("executor.rules.outgrowth.graph_bytes", watched)
    outgrowth = Outgrowth(STEP_BYTES, lambda _: None, sizes_vary=sizes_vary)
    h = torch.ones(BATCH, SIZE, requires_grad=True)
    for stage, times in enumerate((1, 1, 3, 1), start=1):
        outgrowth.begin()
        after = h
        for _ in range(times):
            after = torch.tanh(after)
        outgrowth.taped(stage, [after])
        outgrowth.reversed(stage)
    assert [size // STEP_BYTES for size in looked] == ([1, 1, 3, 1] if sizes_vary else [1, 3])
