"""k steps of one layer of an LSTM or GRU as one node of the graph.

Per step the tape keeps four gates, the cell state of an LSTM, and the outputs, which the caller's loss keeps
as well: 6 (LSTM) or 5 (GRU) tensors of [batch, hidden], where torch's kernels keep up to 18. The backward
pass turns the gates into their gradients in place and adds each weight's gradient up over the segment.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from executor.errors import DoubleBackward
from executor.fused.kernels import Backward, Forward, Kernels, Outer
from executor.parameters import accumulator

GATES = 4
"""Rows per unit of the tape: input, forget, cell, output; or reset, update, new, hidden part of new."""


@dataclass(frozen=True)
class Weights:
    """One layer's parameters, as torch lays them out; biases may be None."""

    w_ih: Tensor
    w_hh: Tensor
    b_ih: Tensor | None = None
    b_hh: Tensor | None = None

    @property
    def all(self) -> tuple[Tensor | None, ...]:
        """In torch's order."""
        return self.w_ih, self.w_hh, self.b_ih, self.b_hh


@dataclass(frozen=True)
class Tape:
    """What the forward pass leaves to the backward pass, each [steps, …, columns]."""

    gates: Tensor
    cells: Tensor | None


def run_layer(
    kernels: Kernels, mode: str, x: Tensor, state: tuple[Tensor, ...], weights: Weights
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Run the steps of `x` [k, batch, input] from `state` (h and, for an LSTM, c; each [batch, hidden]).

    Returns y [k, batch, hidden] and the state after. mode is LSTM or GRU.
    """
    if not torch.is_grad_enabled():
        y = x.new_empty(*x.shape[:2], state[0].shape[1])
        return y, _forward(kernels, mode, x, state, weights, y=y, tape=None)
    y, *rest = _Layer.apply(kernels, mode, x, *weights.all, *state)  # type: ignore[no-untyped-call]
    return y, tuple(rest)


def advance_layer(
    kernels: Kernels, mode: str, x: Tensor, state: tuple[Tensor, ...], weights: Weights
) -> tuple[Tensor, ...]:
    """The state after `run_layer`, without outputs and without a graph."""
    return _forward(kernels, mode, x, state, weights, y=None, tape=None)


def _forward(
    kernels: Kernels,
    mode: str,
    x: Tensor,
    state: tuple[Tensor, ...],
    weights: Weights,
    *,
    y: Tensor | None,
    tape: Tape | None,
) -> tuple[Tensor, ...]:
    """The state after the steps of `x`; fills `y` and `tape` where they are given."""
    steps, batch, inputs = x.shape
    hidden, columns = state[0].shape[1], kernels.columns(batch)
    moved = [kernels.to_columns(part) for part in state]
    scratch = x.new_empty(hidden + inputs, columns)
    held = x.contiguous()
    given = Forward(
        steps=steps,
        batch=batch,
        columns=columns,
        inputs=inputs,
        hidden=hidden,
        x=held.data_ptr(),
        **{name: _pointer(value) for name, value in vars(weights).items()},
        h=moved[0].data_ptr(),
        c=moved[-1].data_ptr(),
        next=scratch.data_ptr(),
        x_columns=scratch[hidden:].data_ptr(),
        gates=None if tape is None else tape.gates.data_ptr(),
        cells=None if tape is None else _pointer(tape.cells),
        y=_pointer(y),
    )
    kernels.forward[mode](ctypes.byref(given))
    return tuple(kernels.from_columns(part, batch) for part in moved)


def _empty_tape(kernels: Kernels, mode: str, x: Tensor, *, hidden: int) -> tuple[Tensor, Tape]:
    steps, batch, _ = x.shape
    columns = kernels.columns(batch)
    cells = x.new_empty(steps, hidden, columns) if mode == "LSTM" else None
    return x.new_empty(steps, batch, hidden), Tape(x.new_empty(steps, GATES, hidden, columns), cells)


def _pointer(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


class _Layer(torch.autograd.Function):
    """x, weights and state in; y and the state after out."""

    @staticmethod
    def forward(ctx: Any, kernels: Kernels, mode: str, x: Tensor, *given: Tensor | None) -> Any:
        weights, state = Weights(*given[:4]), given[4:]  # type: ignore[arg-type]
        y, tape = _empty_tape(kernels, mode, x, hidden=weights.w_hh.shape[1])
        after = _forward(kernels, mode, x, state, weights, y=y, tape=tape)  # type: ignore[arg-type]
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, *given, y)
        ctx.kernels, ctx.mode, ctx.tape = kernels, mode, tape
        return y, *after

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor | None, *dstate: Tensor | None) -> Any:
        tape, ctx.tape = ctx.tape, None
        if tape is None:
            raise DoubleBackward("backward ran already: it turned the tape of this segment into gradients")
        x, *given, y = ctx.saved_tensors
        weights, state = Weights(*given[:4]), given[4:]
        wanted = ctx.needs_input_grad[2:]
        reverse = _Reverse(ctx.kernels, ctx.mode, tape, x, y, weights, state)
        of_state = reverse.recurrence(dy, dstate)
        of_weights = reverse.weights(wanted[1:5])
        dx = reverse.inputs() if wanted[0] else None
        return None, None, dx, *of_weights, *of_state


class _Reverse:
    """The parts of one layer's backward pass; `recurrence` comes first."""

    def __init__(
        self,
        kernels: Kernels,
        mode: str,
        tape: Tape,
        x: Tensor,
        y: Tensor,
        weights: Weights,
        state: list[Tensor],
    ) -> None:
        self._kernels, self._mode, self._tape = kernels, mode, tape
        self._x, self._y, self._weights, self._state = x.contiguous(), y, weights, state
        self._steps, _, self._hidden, self._columns = tape.gates.shape
        self._batch = y.shape[1]
        if mode == "LSTM":
            self._hidden_blocks = [(0, 0, GATES * self._hidden)]
        else:  # (row of the tape, row of the weights, rows): the input part of new is no matter of h
            self._hidden_blocks = [
                (0, 0, 2 * self._hidden),
                (3 * self._hidden, 2 * self._hidden, self._hidden),
            ]

    def recurrence(self, dy: Tensor | None, dstate: tuple[Tensor | None, ...]) -> list[Tensor]:
        """Turn the tape into gradients of the gates; returns the gradient of the state before."""
        dstate_columns = [self._columns_of(gradient) for gradient in dstate]
        first, before = self._state[0].contiguous(), self._kernels.to_columns(self._state[-1])
        dy = None if dy is None else dy.contiguous()
        given = Backward(
            steps=self._steps,
            batch=self._batch,
            columns=self._columns,
            hidden=self._hidden,
            w_hh=self._weights.w_hh.data_ptr(),
            y=self._y.data_ptr(),
            dy=_pointer(dy),
            first=first.data_ptr(),
            before=before.data_ptr(),
            dh=dstate_columns[0].data_ptr(),
            dc=dstate_columns[-1].data_ptr(),
            gates=self._tape.gates.data_ptr(),
            cells=_pointer(self._tape.cells),
        )
        self._kernels.backward[self._mode](ctypes.byref(given))
        return [self._kernels.from_columns(gradient, self._batch) for gradient in dstate_columns]

    def _columns_of(self, gradient: Tensor | None) -> Tensor:
        if gradient is None:
            return self._y.new_zeros(self._hidden, self._columns)
        return self._kernels.to_columns(gradient)

    def weights(self, wanted: tuple[bool, ...]) -> list[Tensor | None]:
        """Gradients of the four parameters; None where none is wanted or it was added in place."""
        inputs_block = [(0, 0, self._weights.w_ih.shape[0])]
        blocks = (inputs_block, self._hidden_blocks, inputs_block, self._hidden_blocks)
        found: list[Tensor | None] = []
        for index, (weight, is_wanted) in enumerate(zip(self._weights.all, wanted, strict=True)):
            if weight is None or not is_wanted:
                found.append(None)
                continue
            shared = accumulator(weight)
            total = torch.zeros_like(weight) if shared is None else shared
            for block in blocks[index]:
                self._add(index, total, *block)
            found.append(total if shared is None else None)
        return found

    def _add(self, index: int, total: Tensor, tape_row: int, weight_row: int, rows: int) -> None:
        d = self._tape.gates.view(self._steps, -1, self._columns)[:, tape_row:]
        part = total[weight_row : weight_row + rows]
        stride = d.stride(0)
        if index >= 2:
            self._kernels.add_rows(self._steps, rows, self._columns, stride, d.data_ptr(), part.data_ptr())
            return
        first = None if index == 0 else self._state[0].contiguous()
        values = self._x if first is None else self._y
        given = Outer(
            steps=self._steps,
            batch=self._batch,
            columns=self._columns,
            rows=rows,
            width=values.shape[2],
            step_stride=stride,
            d=d.data_ptr(),
            first=_pointer(first),
            values=values.data_ptr(),
            sum=part.data_ptr(),
        )
        self._kernels.add_outer(ctypes.byref(given))

    def inputs(self) -> Tensor:
        """The gradient of x."""
        w_ih, dx = self._weights.w_ih, torch.empty_like(self._x)
        self._kernels.inputs_gradient(
            self._steps,
            self._batch,
            w_ih.shape[0],
            self._columns,
            w_ih.shape[1],
            GATES * self._hidden * self._columns,
            self._tape.gates.data_ptr(),
            w_ih.data_ptr(),
            dx.data_ptr(),
        )
        return dx
