"""The probe's numbers are those of the cells on paper, and its record is the planner's profile."""

from __future__ import annotations

import gc
import json
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from executor import probe
from executor.loop import Loop
from executor.memory.trace import record
from executor.probe import probe_loop
from executor.probing.rehearsal import Rehearsal
from executor.probing.stage_costs import EMPTY_STAGE
from planner_service.chain import segment_sizes

STEPS, BATCH, SIZE = 23, 4, 16
STATE = BATCH * SIZE * 4


def loop_of(kind: str, **options: Any) -> Loop:
    cell = getattr(nn, f"{kind}Cell")(SIZE, SIZE)

    def step(state: Any, x: Tensor) -> tuple[Any, Tensor]:
        state = cell(x, state)
        return state, state[0] if isinstance(state, tuple) else state

    shape = torch.zeros(BATCH, SIZE)
    state = (shape, shape.clone()) if kind == "LSTM" else shape
    return Loop.of(step, state, torch.randn(STEPS, BATCH, SIZE), module=cell, **options)


@pytest.mark.parametrize(("kind", "states", "tape"), [("RNN", 1, 1), ("GRU", 1, 7), ("LSTM", 2, 7)])
def test_a_cells_state_and_tape_are_as_derived_by_hand(kind: str, states: int, tape: int) -> None:
    """A tanh cell keeps its new state; a GRU five gate tensors, the hidden part's gate and the state; an
    LSTM four gates, two states and tanh of the cell. Every step of a segment adds as much.
    """
    report = probe_loop(loop_of(kind), candidates=[1, 5])
    for segment in report.segments:
        steps = segment.segment_steps
        assert segment.inner.state_bytes == states * STATE
        assert segment.inner.gradient_bytes == states * STATE
        assert segment.inner.tape_bytes == steps * tape * STATE


def test_static_lines_are_what_the_formulas_say() -> None:
    """Parameters' gradients, stacked outputs and their gradients, the final state and its gradient."""
    loop = loop_of("GRU")
    report = probe_loop(loop, candidates=[1])
    lines = {line.name: line.bytes for line in report.static}
    assert lines["parameter gradients"] == 4 * sum(p.numel() for p in loop.modules[0].parameters())
    assert lines["outputs"] == lines["gradients of the outputs"] == STEPS * STATE
    assert lines["final state"] == lines["gradient of the final state"] == STATE
    assert lines["gradients of the inputs"] == 0
    assert report.static_bytes == sum(lines.values())


def test_reduced_outputs_and_a_detached_state_cost_next_to_nothing() -> None:
    report = probe_loop(loop_of("GRU", reduce="last", final_state="detached"), candidates=[1])
    lines = {line.name: line.bytes for line in report.static}
    assert lines["outputs"] == STATE
    assert lines["gradient of the final state"] == 0


@pytest.mark.parametrize("steps", [1, 5, 10, 20, 50])
def test_the_chain_covers_all_steps_with_the_true_remainder(steps: int) -> None:
    """23 steps in segments of 1, 5, 10, 20 and more: the last segment is probed with what is left."""
    report = probe_loop(loop_of("RNN"), candidates=[steps])
    segments, remainder = segment_sizes(STEPS, steps)
    assert report.chain(STEPS, steps).length == segments
    assert report.segments[0].last_steps == remainder
    assert report.segments[0].last is not None
    assert report.segments[0].last != EMPTY_STAGE


def test_what_was_not_probed_is_refused() -> None:
    report = probe_loop(loop_of("RNN"), candidates=[5])
    with pytest.raises(ValueError, match="was not probed"):
        report.chain(STEPS, 4)
    with pytest.raises(ValueError, match="was not probed"):
        report.chain(STEPS + 1, 5)


def test_a_small_budget_keeps_the_probe_small() -> None:
    """Longer segments are not rehearsed where their rehearsal would exceed the budget."""
    loop = loop_of("GRU")
    wide = probe_loop(loop)
    assert [s.segment_steps for s in wide.segments] == [1, 5, 10, 20]
    budget = wide.segments[1].rehearsal_peak_bytes + 1
    narrow = probe_loop(loop, budget_bytes=budget)
    assert [s.segment_steps for s in narrow.segments] == [1, 5]


def test_what_was_measured_stays_in_the_report() -> None:
    """Whether a length is worth measuring is guessed from shorter ones; a measured one needs no guess."""
    loop = loop_of("GRU")
    already = probe_loop(loop, candidates=[1, 20])
    report = probe_loop(loop, budget_bytes=1, candidates=[1, 10, 20], already=already)
    assert [segment.segment_steps for segment in report.segments] == [1, 20]


def test_streams_and_buffers_are_found_and_counted() -> None:
    """Dropout makes the state 5,056 bytes heavier on the CPU, BatchNorm as much as its statistics."""
    cell, norm, dropout = nn.GRUCell(SIZE, SIZE), nn.BatchNorm1d(SIZE), nn.Dropout(0.1)
    module = nn.ModuleList([cell, norm, dropout])
    state, x = torch.zeros(BATCH, SIZE), torch.randn(STEPS, BATCH, SIZE)

    def inner(step: Any) -> tuple[Any, Any]:
        report = probe(step, state, x, module=module, candidates=[5])
        return report.needs, report.segments[0].inner

    needs, stage = inner(lambda s, x: (cell(x, s), None))
    assert needs.mutated_buffers == frozenset()
    assert not needs.draws_random_numbers
    assert stage.state_bytes == STATE
    needs, stage = inner(lambda s, x: (cell(dropout(x), s), None))
    assert needs.draws_random_numbers
    assert stage.state_bytes == STATE + torch.get_rng_state().nbytes
    needs, stage = inner(lambda s, x: (cell(x, norm(s)), None))
    assert needs.mutated_buffers == {"1.running_mean", "1.running_var", "1.num_batches_tracked"}
    assert stage.state_bytes == STATE + 2 * 4 * SIZE + 8


def test_the_record_is_json_and_carries_every_stage() -> None:
    record = probe_loop(loop_of("LSTM"), candidates=[5]).record({"cell": "lstm", "hidden_size": SIZE})
    again = json.loads(json.dumps(record))
    assert again == record
    assert again["source"] == "probe"
    assert again["sequence_length"] == STEPS
    assert again["segments"][0]["last_steps"] == 3
    assert again["segments"][0]["inner"]["tape_bytes"] == 5 * 7 * STATE
    assert {"name", "bytes", "formula", "exactness"} == set(again["static"][0])


def test_seconds_are_positive_and_grow_with_the_segment() -> None:
    """Measured through the engine: twenty steps take longer than one."""
    one, twenty = probe_loop(loop_of("LSTM"), candidates=[1, 20]).segments
    for stage in (one.inner, twenty.inner):
        assert min(stage.forward_cost, stage.taped_forward_cost, stage.backward_cost) > 0
    assert twenty.inner.taped_forward_cost > one.inner.taped_forward_cost


def test_a_rehearsal_leaves_no_memory_to_the_garbage_collector() -> None:
    """Or the gradients of one would be there beside those of the next: more than the probe says it takes"""
    loop = loop_of("LSTM")
    rehearsal = Rehearsal(loop, loop.needs(), 5)
    gc.collect()
    gc.disable()
    try:
        recording, _ = record(lambda: rehearsal.run(lambda _action: None))
    finally:
        gc.enable()
    live = [sample.live_bytes for sample in recording.samples()]
    assert max(live) > 0 == live[-1]
