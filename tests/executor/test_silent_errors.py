"""What is silently wrong when it is wrong: no exception, only another number, or other bytes.

`docs/silent_errors.md` lists sixteen such errors with the test of each. Those that belong to no other file
are here, and so is the test that the list names tests that exist.
"""

from __future__ import annotations

import ast
import re
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from executor import measure, probe, unroll
from executor.drop_ins import recurrence
from executor.loop import Loop
from executor.plan import checkpoint_every, tape_everything
from tests.executor.loops import STEPS, cell_case

ROOT = Path(__file__).parents[2]


def test_every_silent_error_of_the_list_has_its_test() -> None:
    """The page counts to sixteen, and every test that it names is a function in the file that it names."""
    rows = re.findall(
        r"^\| (\d+) \|.*?\| `([^`]+)::(\w+)` \|$", (ROOT / "docs/silent_errors.md").read_text(), re.M
    )
    assert [int(number) for number, _, _ in rows] == list(range(1, 17))
    for _, file, name in rows:
        tree = ast.parse((ROOT / "tests/executor" / file).read_text())
        assert name in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}, name


def test_autocasts_weights_are_kept_once_per_tape_not_once_per_step() -> None:
    """Without autocast's cache a tape of five steps would keep five casts of every weight."""
    size = 32
    cell = nn.GRUCell(size, size)
    x, state = torch.randn(20, 1, size), torch.zeros(1, size)

    def step(state: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        state = cell(x, state).float()
        return state, state.sum()

    with torch.autocast("cpu", dtype=torch.bfloat16):
        one, five = probe(step, state, x, module=cell, candidates=[1, 5]).segments
    cast_bytes = 2 * cell.weight_hh.numel()  # that of weight_ih is needed only for a gradient of x
    assert one.inner.tape_bytes > cast_bytes
    assert five.inner.tape_bytes < 2 * cast_bytes


def test_gradients_of_parameters_are_handed_over_not_copied() -> None:
    """Of one step whose weights outweigh all else the peak holds one gradient per weight, not two."""
    linear = nn.Linear(400, 400, bias=False)
    state, x = torch.zeros(1, 400), torch.randn(1, 1, 400)

    def iterate() -> None:
        unroll(lambda s, x: (linear(s + x), None), state, x, plan=tape_everything(1, 1), module=linear)[
            1
        ].sum().backward()

    iterate()
    linear.zero_grad(set_to_none=True)
    assert measure(iterate).peak_bytes < 1.1 * linear.weight.nbytes


@pytest.mark.parametrize("spacing", [3, 8])
def test_nothing_of_the_graph_grows_with_the_length(spacing: int) -> None:
    """At any moment the tensors of at most one group of tapes and the checkpoints are alive; checkpointing
    that is not reentrant keeps a graph of every step, several kilobytes each.
    """
    steps = 24
    linear = nn.Linear(6, 6)
    alive: list[weakref.ref[Any]] = []
    most = [0]

    def step(state: Tensor, x: Tensor) -> tuple[Tensor, None]:
        state = torch.tanh(linear(state) + x)
        alive.append(weakref.ref(state))
        alive[:] = [reference for reference in alive if reference() is not None]
        most[0] = max(most[0], len(alive))
        return state, None

    x, state = torch.randn(steps, 2, 6), torch.zeros(2, 6)
    plan = checkpoint_every(steps, 1, spacing)
    unroll(step, state, x, plan=plan, module=linear)[1].sum().backward()
    assert most[0] <= spacing + steps // spacing + 2


def test_fused_kernels_are_not_run_on_single_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fused LSTM takes up to seven times as long on one step at a time: cells run short segments."""
    lengths: list[int] = []
    fused = recurrence._FUSED["LSTM"]

    def watched(x: Tensor, *rest: Any) -> Any:
        lengths.append(x.shape[0])
        return fused(x, *rest)

    monkeypatch.setitem(recurrence._FUSED, "LSTM", watched)
    module = nn.LSTM(3, 4)
    whole = recurrence.Recurrence.of(module)
    x = torch.randn(7, 2, 3)
    for steps in (1, recurrence.FUSED_SEGMENT_STEPS - 1, 7):
        recurrence.run_segment(module, whole, whole.initial_state(x, batch_size=2), x[:steps])
    assert lengths == [7]


def test_an_output_that_is_the_state_is_kept_once_and_summed_outputs_not_at_all() -> None:
    """Stacked outputs are O(T); a loss summed inside the step is not."""
    case = cell_case("GRU")
    sizes = {}
    for reduce in ("stack", "sum"):
        loop = Loop.of(
            lambda s, x: (case.step(s, x)[0], case.step(s, x)[0]),
            case.state,
            case.inputs,
            module=case.module,
            reduce=reduce,
        )
        report = probe(
            loop.function, case.state, case.inputs, module=case.module, reduce=reduce, candidates=[1]
        )
        sizes[reduce] = {line.name: line.bytes for line in report.static}["outputs"]
    assert sizes["stack"] == STEPS * sizes["sum"]


def test_costs_are_what_the_engine_took_not_what_the_step_took() -> None:
    """A fixed price per segment, which full BPTT by the step does not show: shorter segments cost more."""
    linear = nn.Linear(4, 4)
    x, state = torch.randn(100, 1, 4), torch.zeros(1, 4)

    def step(state: Tensor, x: Tensor) -> tuple[Tensor, None]:
        return torch.tanh(linear(state) + x), None

    report = probe(step, state, x, module=linear, candidates=[1, 20])
    totals = [report.chain(100, k).store_all_makespan for k in (1, 20)]
    assert totals[0] > totals[1]
