"""The recurrent layers of a model as a segment function, whether they are torch's or reversible ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from executor.drop_ins.recurrence import Recurrence, run_segment
from executor.reversible import NFRevGRU, NFRevLSTM, Reversible, RevGRU, RevLSTM
from executor.sparse import SparseGRU, SparseLSTM, SparsitySpec
from executor.sparse.modules import SparseRecurrence

State = tuple[Any, ...]

TORCH_LAYERS: dict[str, Callable[..., nn.RNNBase]] = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}
REVERSIBLE_LAYERS: dict[str, type[Reversible]] = {
    "rev_gru": RevGRU,
    "rev_lstm": RevLSTM,
    "nf_rev_gru": NFRevGRU,
    "nf_rev_lstm": NFRevLSTM,
}
SPARSE_LAYERS: dict[str, type[SparseRecurrence]] = {"lstm": SparseLSTM, "gru": SparseGRU}


class Layers(Protocol):
    """Layers of one module. Shapes: x [k, batch, input], y [k, batch, hidden]."""

    @property
    def module(self) -> nn.Module:
        """Whose parameters they are."""

    def initial_state(self, *, batch_size: int) -> State:
        """Zeros."""

    def segment(self, state: State, x: Tensor) -> tuple[State, Tensor]:
        """Run the k steps of x: the state after them, and y."""

    def whole(self, state: State, x: Tensor, *, segment_steps: int | None) -> Tensor:
        """The y of all steps by plain full BPTT, every step taped; in segments where they decide rounding."""


@dataclass(frozen=True)
class TorchLayers:
    """An nn.LSTM, GRU or RNN."""

    module: nn.RNNBase

    def initial_state(self, *, batch_size: int) -> State:
        """See Layers."""
        like = next(self.module.parameters())
        return Recurrence.of(self.module).initial_state(like, batch_size=batch_size)

    def segment(self, state: State, x: Tensor) -> tuple[State, Tensor]:
        """See Layers."""
        return run_segment(self.module, Recurrence.of(self.module), state, x)

    def whole(self, state: State, x: Tensor, *, segment_steps: int | None) -> Tensor:
        """See Layers: one call of the torch module."""
        y, _ = self.module(x, state if len(state) > 1 else state[0])
        result: Tensor = y
        return result


@dataclass(frozen=True)
class ReversibleLayers:
    """A module of executor.reversible."""

    module: Reversible

    def initial_state(self, *, batch_size: int) -> State:
        """See Layers."""
        return self.module.initial_state(batch_size)

    def segment(self, state: State, x: Tensor) -> tuple[State, Tensor]:
        """See Layers."""
        return self.module.segment(state, x)

    def whole(self, state: State, x: Tensor, *, segment_steps: int | None) -> Tensor:
        """See Layers. Products over other numbers of steps are rounded otherwise, and a state in fixed point
        rounds again.
        """
        outputs = []
        for part in torch.split(x, segment_steps or len(x)):
            state, y = self.module.segment(state, part)
            outputs.append(y)
        return torch.cat(outputs)


@dataclass(frozen=True)
class SparseLayers:
    """A module of executor.sparse: the tape is that of full BPTT, the way back is not."""

    module: SparseRecurrence

    def initial_state(self, *, batch_size: int) -> State:
        """See Layers."""
        return self.module.initial_state(batch_size)

    def segment(self, state: State, x: Tensor) -> tuple[State, Tensor]:
        """See Layers."""
        return self.module.segment(state, x)

    def whole(self, state: State, x: Tensor, *, segment_steps: int | None) -> Tensor:
        """See Layers: one segment."""
        _, y = self.module.segment(state, x)
        return y


def sparse_layers_of(
    kind: str, sizes: tuple[int, int, int], sparsity: SparsitySpec, *, seed: int, dtype: torch.dtype
) -> SparseLayers:
    """New sparse layers of one of SPARSE_LAYERS; sizes: input, hidden, layers.

    The same random stream gives the same weights as for torch's layers.
    """
    module = SPARSE_LAYERS[kind](
        *sizes,
        rule=sparsity.made_rule(),
        schedule=sparsity.schedule(),
        error_feedback=sparsity.error_feedback,
        seed=seed,
        dtype=dtype,
    )
    return SparseLayers(module)


def layers_of(
    kind: str,
    input_size: int,
    hidden_size: int,
    num_layers: int,
    *,
    forget_bits: int | None,
    dtype: torch.dtype,
) -> Layers:
    """New layers of one of the kinds above; `forget_bits` is of the reversible cells that forget."""
    if kind in TORCH_LAYERS:
        return TorchLayers(TORCH_LAYERS[kind](input_size, hidden_size, num_layers, dtype=dtype))
    limit: dict[str, Any] = {} if kind.startswith("nf_") else {"forget_bits": forget_bits}
    return ReversibleLayers(
        REVERSIBLE_LAYERS[kind](input_size, hidden_size, num_layers, dtype=dtype, **limit)
    )
