"""What one step of each recurrent cell holds, in tensors of batch × hidden elements ("units").

`taped_units` is measured (torch 2.13, CPU build, the same for every size, batch and dtype that was
tried, and a test repeats it): it is a fact about that build. `computed_units` counts every tensor that
the textbook equations of the cell produce, none reused in place: no implementation that evaluates
these equations tensor by tensor holds more of one step, with or without a tape.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

ReversibleKind = Literal["rev_gru", "rev_lstm", "nf_rev_gru", "nf_rev_lstm"]
"""Cells of executor.reversible, whose steps can be undone; the tapes counted are those of that package."""
CellKind = Literal["rnn", "gru", "lstm"] | ReversibleKind


class Cell(NamedTuple):
    """One kind of cell; sizes in units of batch × hidden elements unless said otherwise."""

    gate_count: int
    """Rows of the weight matrices, in units of hidden."""
    state_units: int
    """What a step hands to the next one."""
    taped_units: int
    """What autograd keeps of a step on the CPU, its output state included."""
    computed_units: int
    """Every tensor that a step computes, its output state included."""


CELLS: dict[CellKind, Cell] = {
    # W x, U h, their sum, tanh
    "rnn": Cell(gate_count=1, state_units=1, taped_units=1, computed_units=4),
    # W x and U h (3 + 3), sums and sigmoids of r and z (2 + 2), r * U h, its sum with W x, tanh,
    # h - n, z * (h - n), the new h
    "gru": Cell(gate_count=3, state_units=1, taped_units=7, computed_units=16),
    # W x and U h (4 + 4), their sum (4), the activations (4), f * c, i * g, the new c, tanh c, the new h
    "lstm": Cell(gate_count=4, state_units=2, taped_units=7, computed_units=21),
    # Taped: z and r, r * h, the candidate, the rounded z, 1 - z, the new h, the output. Computed: also the
    # products W x of the gates, and the new state in fixed point and its remainder (8 bytes an element).
    "rev_gru": Cell(gate_count=3, state_units=1, taped_units=8, computed_units=16),
    # Taped: i, o, f, p and g, the rounded f and p, the new c and h, the output.
    "rev_lstm": Cell(gate_count=5, state_units=2, taped_units=10, computed_units=21),
    # Without forgetting nothing is rounded.
    "nf_rev_gru": Cell(gate_count=3, state_units=1, taped_units=7, computed_units=14),
    "nf_rev_lstm": Cell(gate_count=3, state_units=2, taped_units=6, computed_units=14),
}
