"""k steps of one layer of an LSTM or GRU as one node of the graph.

Per step the tape keeps four gates, the cell state of an LSTM, and the outputs, which the caller's loss keeps
as well: 6 (LSTM) or 5 (GRU) tensors of [batch, hidden], where torch's kernels keep up to 18; the h after a
segment is its last output. The backward pass turns the gates into their gradients in place and adds each
weight's gradient up over the segment. A tape takes the same bytes whichever of its sequences go on.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from executor.errors import DoubleBackward, StateChanged
from executor.fused.kernels import Backward, Forward, Kernels
from executor.fused.team import team_size
from executor.rules.first_order import first_order
from executor.stages.parameters import gradient_sum
from executor.torch_weights import TorchWeights

_ROWS = {"LSTM": 4, "GRU": 3}
"""Rows of the weights per unit."""
STATE_PARTS = {"LSTM": 2, "GRU": 1}
"""Tensors of a state."""
GATES = 4
"""Rows per unit of the tape: input, forget, cell, output; or reset, update, new, hidden part of new."""


@dataclass(frozen=True)
class Tape:
    """What the forward pass leaves to the backward pass, each [steps, …, columns]."""

    gates: Tensor
    cells: Tensor | None


@dataclass(frozen=True)
class Sequence:
    """Inputs and outputs of a layer over k steps, and their gradients; None where there is none."""

    x: Tensor
    """[k, batch, input]"""
    y: Tensor | None
    """[k, batch, hidden]"""
    dy: Tensor | None
    dx: Tensor | None
    """To be filled."""
    sizes: Tensor | None
    """[k], of a packed batch: how many sequences go on."""


def run_layer(
    kernels: Kernels,
    mode: str,
    x: Tensor,
    state: tuple[Tensor, ...],
    weights: TorchWeights,
    sizes: Tensor | None = None,
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Run the steps of `x` [k, batch, input] from `state` (h and, for an LSTM, c; each [batch, hidden]).

    Returns y [k, batch, hidden] and the state after. mode is LSTM or GRU. `sizes` [k] are the numbers of
    sequences that go on, of a packed batch: the others keep their state, and their rows of y are zeros.
    Raises StateChanged for a state or weights of other shapes or types than the inputs', and for sizes
    that grow.
    """
    _require_fitting(mode, x, state, weights, sizes)
    if not torch.is_grad_enabled():
        y = x.new_empty(*x.shape[:2], state[0].shape[1])
        return y, _forward(kernels, mode, x, state, weights, sizes, y=y, tape=None)
    y, *rest = _Layer.apply(kernels, mode, True, sizes, x, *weights, *state)  # type: ignore[no-untyped-call]
    return y, tuple(rest)


def run_step(
    kernels: Kernels, mode: str, x: Tensor, state: tuple[Tensor, ...], weights: TorchWeights
) -> tuple[Tensor, ...]:
    """The state after one step, `x` [batch, input], in memory of its own: it may be changed in place. Raises
    like `run_layer`.
    """
    if not torch.is_grad_enabled():
        return advance_layer(kernels, mode, x.unsqueeze(0), state, weights)
    _require_fitting(mode, x.unsqueeze(0), state, weights, None)
    after = _Layer.apply(kernels, mode, False, None, x.unsqueeze(0), *weights, *state)  # type: ignore[no-untyped-call]
    return tuple(after)


def advance_layer(
    kernels: Kernels,
    mode: str,
    x: Tensor,
    state: tuple[Tensor, ...],
    weights: TorchWeights,
    sizes: Tensor | None = None,
) -> tuple[Tensor, ...]:
    """The state after `run_layer`, without outputs and without a graph. Raises like it."""
    _require_fitting(mode, x, state, weights, sizes)
    return _forward(kernels, mode, x, state, weights, sizes, y=None, tape=None)


def _require_fitting(
    mode: str, x: Tensor, state: tuple[Tensor, ...], weights: TorchWeights, sizes: Tensor | None
) -> None:
    """The kernels are given addresses, and would read and write past what is smaller than they are told."""
    hidden = weights.weight_hh.shape[1]
    size, kind = (x.shape[1], hidden), x.dtype
    rows, inputs = weights.weight_ih.shape
    if rows != _ROWS[mode] * hidden or rows != weights.weight_hh.shape[0] or inputs != x.shape[2]:
        shapes = [list(weight.shape) for weight in (weights.weight_ih, weights.weight_hh)]
        raise StateChanged(f"weights of shapes {shapes} do not go with inputs of shape {list(x.shape)}")
    for bias in (weights.bias_ih, weights.bias_hh):
        if bias is not None and bias.shape != (rows,):
            raise StateChanged(f"a bias of shape {list(bias.shape)} must be [{rows}]")
    if len(state) != STATE_PARTS[mode] or any(
        part.shape != size or part.dtype != kind or not part.is_cpu for part in state
    ):
        found = [(list(part.shape), part.dtype, str(part.device)) for part in state]
        raise StateChanged(
            f"the state is {found}, expected {STATE_PARTS[mode]} of {list(size)} and {kind} on the CPU"
        )
    if sizes is not None:
        _require_falling(sizes, steps=x.shape[0], batch=x.shape[1])


def _require_falling(sizes: Tensor, *, steps: int, batch: int) -> None:
    numbers = sizes.tolist()
    if sizes.dtype != torch.int64 or not sizes.is_contiguous() or sizes.shape != (steps,):
        raise StateChanged(
            f"batch sizes must be {steps} whole numbers, are {sizes.dtype} {list(sizes.shape)}"
        )
    if numbers != sorted(numbers, reverse=True) or not 1 <= numbers[-1] <= numbers[0] <= batch:
        raise StateChanged(f"batch sizes must fall, from {batch} at most to 1 at least, and are {numbers}")


def _forward(
    kernels: Kernels,
    mode: str,
    x: Tensor,
    state: tuple[Tensor, ...],
    weights: TorchWeights,
    sizes: Tensor | None,
    *,
    y: Tensor | None,
    tape: Tape | None,
) -> tuple[Tensor, ...]:
    """The state after the steps of `x`; fills `y` and `tape` where they are given. With both, h is the
    last row of `y`, which is kept anyway, unless sequences end before.
    """
    steps, batch, inputs = x.shape
    hidden, columns = state[0].shape[1], kernels.columns(batch)
    x = _rows(x)
    before = [part.contiguous() for part in state]
    scratch = x.new_empty((len(state) + 1) * hidden + inputs, columns)
    is_last_y = tape is not None and y is not None and sizes is None
    after = [y[-1] if is_last_y else x.new_empty(batch, hidden)]  # type: ignore[index]
    after += [x.new_empty(batch, hidden) for _ in state[1:]]
    given = Forward(
        _team_size(kernels, mode, x, hidden),
        steps,
        batch,
        columns,
        inputs,
        hidden,
        *x.stride()[:2],
        x.data_ptr(),
        *(_pointer(weight) for weight in weights),
        before[0].data_ptr(),
        before[-1].data_ptr(),
        None if is_last_y else after[0].data_ptr(),
        after[-1].data_ptr(),
        scratch.data_ptr(),
        None if tape is None else tape.gates.data_ptr(),
        None if tape is None else _pointer(tape.cells),
        _pointer(y),
        _pointer(sizes),
    )
    kernels.forward[mode](ctypes.byref(given))
    return tuple(after)


def _team_size(kernels: Kernels, mode: str, x: Tensor, hidden: int) -> int:
    _, batch, inputs = x.shape
    most, rows = kernels.most_threads, _ROWS[mode]
    return team_size(most=most, batch=batch, inputs=inputs, hidden=hidden, rows=rows)


def _empty_tape(kernels: Kernels, mode: str, x: Tensor, *, hidden: int) -> Tape:
    steps, batch, _ = x.shape
    columns = kernels.columns(batch)
    cells = x.new_empty(steps, hidden, columns) if mode == "LSTM" else None
    return Tape(x.new_empty(steps, GATES, hidden, columns), cells)


def _rows(x: Tensor) -> Tensor:
    """`x` [k, batch, input] with the numbers of one step and sequence side by side. What is a view of
    [batch, k, input] needs no copy.
    """
    return x if x.stride(2) == 1 else x.contiguous()


def _pointer(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


class _Layer(torch.autograd.Function):
    """x, weights and state in; y, unless it is a single step's, and the state after out."""

    @staticmethod
    def forward(
        ctx: Any,
        kernels: Kernels,
        mode: str,
        has_y: bool,
        sizes: Tensor | None,
        x: Tensor,
        *given: Tensor | None,
    ) -> Any:
        weights, state = TorchWeights(*given[:4]), given[4:]  # type: ignore[arg-type]
        hidden = weights.weight_hh.shape[1]
        y = x.new_empty(*x.shape[:2], hidden) if has_y else None
        tape = _empty_tape(kernels, mode, x, hidden=hidden)
        after = _forward(kernels, mode, x, state, weights, sizes, y=y, tape=tape)  # type: ignore[arg-type]
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, *given, sizes, y, tape.gates, tape.cells)
        ctx.kernels, ctx.mode, ctx.has_y, ctx.is_spent = kernels, mode, has_y, False
        return after if y is None else (y, *after)

    @staticmethod
    @first_order("a fused layer")
    def backward(ctx: Any, *gradients: Tensor | None) -> Any:
        if ctx.is_spent:
            raise DoubleBackward("backward ran already: it turned the tape of this segment into gradients")
        ctx.is_spent = True
        dy, *dafter = gradients if ctx.has_y else (None, *gradients)
        x, *given, sizes, y, gates, cells = ctx.saved_tensors
        tape = Tape(gates, cells)
        weights, state = TorchWeights(*given[:4]), given[4:]
        wanted = ctx.needs_input_grad[4:]
        sums, made = _sums(weights, wanted[1:5])
        dx = torch.empty_like(x, memory_format=torch.contiguous_format) if wanted[0] else None
        sequence = Sequence(x, y, dy, dx, sizes)
        dbefore = _reverse(ctx.kernels, ctx.mode, tape, sequence, weights, state, dafter, sums)
        return None, None, None, None, dx, *made, *dbefore


def _sums(weights: TorchWeights, wanted: tuple[bool, ...]) -> tuple[list[Tensor | None], list[Tensor | None]]:
    """Per parameter: what its gradient is added to; and the same where it is not a total that the caller
    has already. None where no gradient is wanted.
    """
    pairs: list[tuple[Tensor | None, Tensor | None]] = [
        gradient_sum(weight) if is_wanted and weight is not None else (None, None)
        for weight, is_wanted in zip(weights, wanted, strict=True)
    ]
    return [total for total, _ in pairs], [made for _, made in pairs]


def _reverse(
    kernels: Kernels,
    mode: str,
    tape: Tape,
    sequence: Sequence,
    weights: TorchWeights,
    state: list[Tensor],
    dafter: list[Tensor | None],
    sums: list[Tensor | None],
) -> list[Tensor]:
    """The gradient of the `state` before the steps, given that of the state after them, `dafter`.

    Turns the tape into gradients of the gates, adds the weights' gradients to `sums`, and fills the dx of
    `sequence`.
    """
    steps, _, hidden, columns = tape.gates.shape
    x, dy = _rows(sequence.x), sequence.dy
    batch = x.shape[1]
    before = [part.contiguous() for part in state]
    after = [None if part is None else part.contiguous() for part in dafter]
    # Worked on in columns, so with room for those; given out as [batch, hidden].
    dbefore = [x.new_empty(hidden * columns)[: batch * hidden].view(batch, hidden) for _ in state]
    scratch = x.new_empty(hidden, columns)
    given = Backward(
        _team_size(kernels, mode, x, hidden),
        steps,
        batch,
        columns,
        x.shape[2],
        hidden,
        *x.stride()[:2],
        *((0, 0, 0) if dy is None else dy.stride()),
        weights.weight_ih.data_ptr(),
        weights.weight_hh.data_ptr(),
        x.data_ptr(),
        _pointer(sequence.y),
        _pointer(dy),
        before[0].data_ptr(),
        before[-1].data_ptr(),
        _pointer(after[0]),
        _pointer(after[-1]),
        dbefore[0].data_ptr(),
        dbefore[-1].data_ptr(),
        scratch.data_ptr(),
        tape.gates.data_ptr(),
        _pointer(tape.cells),
        *(_pointer(total) for total in sums),
        _pointer(sequence.dx),
        _pointer(sequence.sizes),
    )
    kernels.backward[mode](ctypes.byref(given))
    return dbefore
