"""One direction of a torch.nn.LSTM, GRU or RNN as a segment function: (state, x of k steps) -> (state, y).

Three implementations on the same weights. Our own kernels (executor/fused) run an LSTM or GRU on the CPU, k
steps of a layer in one call, whatever k. Elsewhere torch's fused kernels run k steps of all layers in one
call; their price per call is high, and on the CPU the float32 LSTM at k = 1 takes up to seven times the time
of the monolith, so segments below `FUSED_SEGMENT_STEPS` steps run the cells one by one. On CUDA cuDNN runs
every k: its products are in TensorFloat-32 by default, those of the cells in float32, and what is computed
should not depend on the plan.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain
from typing import Any, NamedTuple

import torch
from torch import _VF, Tensor, nn

from executor.fused.choice import own_kernels
from executor.fused.kernels import Kernels
from executor.fused.layer import advance_layer, run_layer
from executor.replay import outputs_needed
from executor.torch_weights import TorchWeights

FUSED_SEGMENT_STEPS = 5
"""Least number of steps for which torch's fused kernels are used on the CPU."""

State = tuple[Tensor, ...]
"""(h, c) of an LSTM, (h,) of the others; each [layers, batch, size]."""

SegmentFunction = Callable[[State, Any], tuple[State, Any]]
"""Puts out y, or None where a recomputation needs only the state: see `outputs_needed`."""

_FUSED: dict[str, Any] = {
    "LSTM": _VF.lstm,
    "GRU": _VF.gru,
    "RNN_TANH": _VF.rnn_tanh,
    "RNN_RELU": _VF.rnn_relu,
}
_CELLS: dict[str, Any] = {
    "LSTM": _VF.lstm_cell,
    "GRU": _VF.gru_cell,
    "RNN_TANH": _VF.rnn_tanh_cell,
    "RNN_RELU": _VF.rnn_relu_cell,
}


class Recurrence(NamedTuple):
    """What one direction of a recurrent module computes, its weights apart. A tuple counts by its values
    where it is asked whether two calls are alike (`executor.surroundings.likeness`).
    """

    mode: str
    """LSTM, GRU, RNN_TANH or RNN_RELU, as torch names them."""
    num_layers: int
    hidden_size: int
    proj_size: int
    """Size of the projected h of an LSTM; 0 for none."""
    bias: bool
    dropout: float
    """Probability of dropping an output of a layer, the last layer excepted."""
    first_layer: int = 0
    """Layer of the module at which this direction begins."""
    suffix: str = ""
    """`_reverse` for the weights of the direction that runs backwards in time."""

    @classmethod
    def of(cls, module: nn.RNNBase) -> Recurrence:
        """The forward direction of all the layers of `module`."""
        return cls(
            mode=module.mode,
            num_layers=module.num_layers,
            hidden_size=module.hidden_size,
            proj_size=module.proj_size,
            bias=module.bias,
            dropout=module.dropout,
        )

    def chains(self, *, bidirectional: bool) -> list[Recurrence]:
        """One chain of all layers; or, with two directions, one per layer and direction, in torch's order."""
        if not bidirectional:
            return [self]
        return [
            self._replace(num_layers=1, dropout=0.0, first_layer=layer, suffix=suffix)
            for layer in range(self.num_layers)
            for suffix in ("", "_reverse")
        ]

    @property
    def output_size(self) -> int:
        """Features of h and of the output."""
        return self.proj_size or self.hidden_size

    def weight_names(self, layer: int) -> list[str]:
        """Names of a layer's parameters in the order of the kernels; layer 0 is this direction's first."""
        kinds = ["weight_ih", "weight_hh"]
        kinds += ["bias_ih", "bias_hh"] if self.bias else []
        kinds += ["weight_hr"] if self.proj_size else []
        return [f"{kind}_l{self.first_layer + layer}{self.suffix}" for kind in kinds]

    def initial_state(self, like: Tensor, *, batch_size: int) -> State:
        """Zeros of the type and on the device of `like`."""
        sizes = [self.output_size, self.hidden_size][: 2 if self.mode == "LSTM" else 1]
        return tuple(like.new_zeros(self.num_layers, batch_size, size) for size in sizes)


def segment_of(module: nn.Module, recurrence: Recurrence) -> SegmentFunction:
    """One direction of `module` as a segment function. Takes x, or (x, batch sizes) of a packed batch."""

    def segment(state: State, inputs: Tensor | tuple[Tensor, Tensor]) -> tuple[State, Tensor]:
        if isinstance(inputs, Tensor):
            return run_segment(module, recurrence, state, inputs)
        return run_packed_segment(module, recurrence, state, *inputs)

    return segment


def run_segment(module: nn.Module, recurrence: Recurrence, state: State, x: Tensor) -> tuple[State, Any]:
    """Run the k steps of `x` from `state`; returns the state after them and the outputs y.

    Shapes: x [k, batch, input], y [k, batch, output], states [layers, batch, size]. The weights are
    looked up by name at every call, so that a caller may swap them. y may be None where
    `outputs_needed()` is false.
    """
    layers = _weights(module, recurrence)
    kernels = _own_kernels(recurrence, state, x, layers)
    if kernels is not None:
        return _run_own(kernels, recurrence, state, x, layers, is_training=module.training)
    if _is_for_cells(recurrence, x):
        return _run_cells(recurrence, state, x, layers, is_training=module.training)
    return run_fused(module, recurrence, state, x)


def _weights(module: nn.Module, recurrence: Recurrence) -> list[list[Tensor]]:
    """What `module` has under the names of each layer's weights and biases now."""
    return [
        [getattr(module, name) for name in recurrence.weight_names(layer)]
        for layer in range(recurrence.num_layers)
    ]


def run_packed_segment(
    module: nn.Module, recurrence: Recurrence, state: State, x: Tensor, batch_sizes: Tensor
) -> tuple[State, Tensor]:
    """Like `run_segment`, but step t concerns only the first `batch_sizes[t]` sequences.

    The others keep their state, and their rows of y are zeros. Batch sizes must not increase. Our own kernels
    take the same bytes whatever they are; torch's do not, and may, under autocast, return other types for
    segments whose sequences all go on: those of the state count.
    """
    layers = _weights(module, recurrence)
    kernels = _own_kernels(recurrence, state, x, layers, is_packed=True)
    if kernels is not None:
        return _run_own(kernels, recurrence, state, x, layers, batch_sizes, is_training=module.training)
    sizes = batch_sizes.tolist()
    data = torch.cat([x_t[:size] for x_t, size in zip(x.unbind(0), sizes, strict=True)])
    running = tuple(part[:, : sizes[0]].contiguous() for part in state)
    after, y = run_fused(module, recurrence, running, data, batch_sizes)
    state = tuple(
        torch.cat([new.to(old.dtype), old[:, sizes[0] :]], dim=1)
        for new, old in zip(after, state, strict=True)
    )
    y = y.to(state[0].dtype)
    rows = [nn.functional.pad(y_t, (0, 0, 0, x.shape[1] - len(y_t))) for y_t in torch.split(y, sizes)]
    return state, torch.stack(rows)


def run_fused(
    module: nn.Module, recurrence: Recurrence, state: State, x: Tensor, batch_sizes: Tensor | None = None
) -> tuple[State, Tensor]:
    """Like `run_segment`, by torch's fused kernels whatever the size: what torch's own module calls.

    On CUDA layers with dropout between them run one by one: cuDNN draws from a stream of its own, which
    cannot be put back for steps that run again.
    """
    layers = _weights(module, recurrence)
    if not (x.is_cuda and module.training and recurrence.dropout and recurrence.num_layers > 1):
        return _run_torchs(recurrence, layers, state, x, batch_sizes, is_training=module.training)
    finals: list[State] = []
    y, one = x, recurrence._replace(num_layers=1, dropout=0.0)
    for layer, weights in enumerate(layers):
        if layer:
            y = nn.functional.dropout(y, recurrence.dropout)
        before = tuple(part[layer : layer + 1] for part in state)
        after, y = _run_torchs(one, [weights], before, y, batch_sizes, is_training=True)
        finals.append(after)
    return tuple(torch.cat(parts) for parts in zip(*finals, strict=True)), y


def _run_torchs(
    recurrence: Recurrence,
    layers: list[list[Tensor]],
    state: State,
    x: Tensor,
    batch_sizes: Tensor | None,
    *,
    is_training: bool,
) -> tuple[State, Tensor]:
    weights = list(chain.from_iterable(layers))
    hx = state if recurrence.mode == "LSTM" else state[0]
    one_direction = (
        weights,
        recurrence.bias,
        recurrence.num_layers,
        recurrence.dropout,
        is_training,
        False,
    )
    if batch_sizes is None:
        y, *after = _FUSED[recurrence.mode](x, hx, *one_direction, False)  # time first
    else:
        y, *after = _FUSED[recurrence.mode](x, batch_sizes, hx, *one_direction)
    return tuple(after), y


def _is_for_cells(recurrence: Recurrence, x: Tensor) -> bool:
    """Whether the cells run the steps of `x` one by one; torch has no cell with a projection."""
    return not x.is_cuda and x.shape[0] < FUSED_SEGMENT_STEPS and not recurrence.proj_size


def runs_packed_in_own_kernels(module: nn.Module, recurrence: Recurrence, state: State, x: Tensor) -> bool:
    """Whether `run_packed_segment` runs segments of that state and input, of whatever length, in our own."""
    return _own_kernels(recurrence, state, x, _weights(module, recurrence), is_packed=True) is not None


def _own_kernels(
    recurrence: Recurrence, state: State, x: Tensor, layers: list[list[Tensor]], *, is_packed: bool = False
) -> Kernels | None:
    """Our own kernels where they compute this recurrence and are the faster ones."""
    if recurrence.mode not in ("LSTM", "GRU") or recurrence.proj_size:
        return None
    return own_kernels(x, chain.from_iterable(layers), state, is_packed=is_packed)


def _run_own(
    kernels: Kernels,
    recurrence: Recurrence,
    state: State,
    x: Tensor,
    layers: list[list[Tensor]],
    batch_sizes: Tensor | None = None,
    *,
    is_training: bool,
) -> tuple[State, Any]:
    finals: list[State] = []
    y: Any = x
    for layer in range(recurrence.num_layers):
        if layer and recurrence.dropout:
            y = nn.functional.dropout(y, recurrence.dropout, is_training)
        weights = TorchWeights(*layers[layer])
        before = tuple(part[layer] for part in state)
        if layer + 1 == recurrence.num_layers and not torch.is_grad_enabled() and not outputs_needed():
            y, after = None, advance_layer(kernels, recurrence.mode, y, before, weights, batch_sizes)
        else:
            y, after = run_layer(kernels, recurrence.mode, y, before, weights, batch_sizes)
        finals.append(after)
    return tuple(_stacked(parts) for parts in zip(*finals, strict=True)), y


def _stacked(parts: State) -> Tensor:
    return parts[0].unsqueeze(0) if len(parts) == 1 else torch.stack(parts)


def _run_cells(
    recurrence: Recurrence, state: State, x: Tensor, layers: list[list[Tensor]], *, is_training: bool
) -> tuple[State, Tensor]:
    states = [tuple(part[layer] for part in state) for layer in range(recurrence.num_layers)]
    outputs = []
    for x_t in x.unbind(0):
        for layer, weights in enumerate(layers):
            below = states[layer - 1][0] if layer else x_t
            if layer and recurrence.dropout:
                below = nn.functional.dropout(below, recurrence.dropout, is_training)
            states[layer] = _cell(recurrence, states[layer], below, weights)
        outputs.append(states[-1][0])
    after = tuple(torch.stack(parts) for parts in zip(*states, strict=True))
    return after, torch.stack(outputs)


def _cell(recurrence: Recurrence, state: State, x: Tensor, weights: list[Tensor]) -> State:
    biases: list[Tensor | None] = [*weights[2:]] or [None, None]
    hx = state if recurrence.mode == "LSTM" else state[0]
    after = _CELLS[recurrence.mode](x, hx, weights[0], weights[1], *biases)
    return after if recurrence.mode == "LSTM" else (after,)
