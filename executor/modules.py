"""Drop-ins for torch.nn.LSTM, GRU and RNN that train inside a byte budget.

They take over the parameters of a torch module, under the same names, and are called like it:

    lstm = LSTM.from_torch(torch_lstm, budget="512MiB")
    output, (h, c) = lstm(x)

All layers of one direction are one chain whose state holds every layer. A second direction needs the
whole output of the layer below, so a bidirectional module is one chain per layer and direction, which
share the budget.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from executor.activations import activation_bytes
from executor.budget import parse_budget
from executor.compiled import outside_compiled_graphs
from executor.device import free_bytes
from executor.errors import BudgetTooSmall
from executor.loop import Loop
from executor.packing import pack, reverse_each, unpack
from executor.recurrence import Recurrence, State, run_fused, segment_of
from executor.sizes import parse_budget_bytes
from executor.unroll import run_within

Run = Callable[[Recurrence, State, Tensor, Tensor | None], tuple[Tensor, State]]
"""Runs one chain: (recurrence, initial state, x [T, batch, input], batch sizes of the steps or None)."""


_INDEX_BYTES = 8
"""Of a place in a padded batch."""


class ChainWeights(nn.Module):
    """The parameters that one chain uses, under the names of the module that owns them: the loop of one
    direction counts the gradients of its own alone.
    """

    def __init__(self, chain: Recurrence) -> None:
        super().__init__()
        self._names = [name for layer in range(chain.num_layers) for name in chain.weight_names(layer)]
        self.computed: list[Tensor] = []
        """Weights that are no parameters: pruned, parametrized, or put in place by functional_call."""

    def of(self, owner: nn.Module) -> ChainWeights:
        """Itself, with the weights that `owner` has now, and in its mode."""
        self._parameters.clear()
        self.computed = []
        for name in self._names:
            self.__dict__.pop(name, None)
            weight = getattr(owner, name)
            if isinstance(weight, nn.Parameter):
                self.register_parameter(name, weight)
            else:
                self.__dict__[name] = weight
                self.computed.append(weight)
        self.training = owner.training
        return self


class BudgetedRecurrence(nn.Module):
    """What LSTM, GRU and RNN have in common; see there."""

    torch_class: type[nn.RNNBase]
    """The torch module that the class stands in for."""

    def __init__(
        self, module: nn.RNNBase, *, budget: int | float | str, host_budget: int | str | None = None
    ) -> None:
        super().__init__()
        if type(module) is not self.torch_class:
            expected, given = self.torch_class.__name__, type(module).__name__
            raise TypeError(f"{type(self).__name__} takes over a torch.nn.{expected}, not a {given}")
        self._whole = Recurrence.of(module)
        self.input_size = module.input_size
        self.hidden_size = module.hidden_size
        self.proj_size = module.proj_size
        self.num_layers = module.num_layers
        self.bias = module.bias
        self.batch_first = module.batch_first
        self.dropout = module.dropout
        self.bidirectional = module.bidirectional
        for name, parameter in module.named_parameters():
            self.register_parameter(name, parameter)
        self.train(module.training)
        self._budget = parse_budget(budget)
        self._chains = self._whole.chains(bidirectional=module.bidirectional)
        self._weights = [ChainWeights(chain) for chain in self._chains]
        self._host_share_bytes = (
            None if host_budget is None else max(1, parse_budget_bytes(host_budget) // len(self._chains))
        )
        self._settled_bytes: dict[tuple[object, ...], int] = {}

    @classmethod
    def from_torch(
        cls, module: nn.RNNBase, *, budget: int | float | str, host_budget: int | str | None = None
    ) -> Self:
        """A drop-in that shares the parameters of `module`.

        `budget` is what one call may add at its peak to what was allocated before it, its backward pass,
        outputs and parameter gradients included: bytes (2**29 or "512MiB"), a share of the activations
        of full BPTT (0.1 or "10%"), or "free": what the device has left. The last two are settled by the
        first call with inputs of a new shape. `host_budget` are bytes of host memory, pinned on CUDA, that
        stored states or tapes may move to; the chains of a bidirectional module share them evenly.

        Raises TypeError for another kind of module and InvalidBudget for what is no budget.
        """
        return cls(module, budget=budget, host_budget=host_budget)

    def extra_repr(self) -> str:
        """The sizes and the budget, for print(module)."""
        return f"{self.input_size}, {self.hidden_size}, num_layers={self.num_layers}, budget={self._budget}"

    def flatten_parameters(self) -> None:
        """Nothing to do: weights are used as they lie. Here because torch's modules have it."""

    @outside_compiled_graphs
    def forward(self, input: Tensor | PackedSequence, hx: Any = None) -> tuple[Any, Any]:  # noqa: A002
        """Like the torch module's: (output, final state), gradients for everything that needs one.

        Raises BudgetTooSmall, with the least budget that would do, at the first call that does not fit.
        """
        if isinstance(input, PackedSequence):
            return self._forward_packed(input, hx)
        if input.dim() not in (2, 3) or input.shape[-1] != self.input_size:
            raise ValueError(
                f"input of shape {list(input.shape)} must be [T, batch, {self.input_size}] "
                f"([batch, T, …] with batch_first) or [T, {self.input_size}]"
            )
        is_batched = input.dim() == 3
        x = input if is_batched else input.unsqueeze(1)
        time_first = x.transpose(0, 1) if self.batch_first and is_batched else x
        state = self._initial_state(time_first, hx, is_batched=is_batched)
        y, state = self._run(time_first, state, None)
        if not is_batched:
            return y.squeeze(1), self._as_torch(tuple(part.squeeze(1) for part in state))
        return y.transpose(0, 1) if self.batch_first else y, self._as_torch(state)

    def _forward_packed(self, packed: PackedSequence, hx: Any) -> tuple[PackedSequence, Any]:
        x = unpack(packed)
        state = self._initial_state(x, hx, is_batched=True)
        if packed.sorted_indices is not None and hx is not None:
            state = tuple(part.index_select(1, packed.sorted_indices) for part in state)
        y, state = self._run(x, state, packed.batch_sizes, beside_bytes=self._unpacked_bytes(packed, x))
        if packed.unsorted_indices is not None:
            state = tuple(part.index_select(1, packed.unsorted_indices) for part in state)
        return pack(y, packed), self._as_torch(state)

    def _initial_state(self, x: Tensor, hx: Any, *, is_batched: bool) -> State:
        zeros = self._whole.initial_state(x, batch_size=x.shape[1])
        count = len(self._chains) * self._chains[0].num_layers
        expected = tuple([count, x.shape[1], part.shape[-1]] for part in zeros)
        if hx is None:
            return self._in_types_of_kernels(x, tuple(x.new_zeros(shape) for shape in expected))
        if isinstance(hx, Tensor) is (self._whole.mode == "LSTM"):
            wanted = "a tuple (h, c)" if self._whole.mode == "LSTM" else "a tensor h"
            raise TypeError(
                f"the initial state of a {type(self).__name__} is {wanted}, not a {type(hx).__name__}"
            )
        given = tuple(hx) if self._whole.mode == "LSTM" else (hx,)
        given = given if is_batched else tuple(part.unsqueeze(1) for part in given)
        found = tuple(list(part.shape) for part in given)
        if found != expected:
            raise ValueError(f"the initial state has the shapes {list(found)}, expected {list(expected)}")
        return self._in_types_of_kernels(x, given)

    def _in_types_of_kernels(self, x: Tensor, state: State) -> State:
        """Under autocast torch's kernels return states of other types than they were given: those types, so
        that every segment is given what the one before it returned.
        """
        if not torch.is_autocast_enabled(x.device.type) or not len(x):
            return state
        chain = self._chains[0]
        first = tuple(part[: chain.num_layers].detach() for part in state)
        with torch.no_grad():
            after, _ = run_fused(self, replace(chain, dropout=0.0), first, x[:1].detach())
        return tuple(part.to(kind.dtype) for part, kind in zip(state, after, strict=True))

    def _as_torch(self, state: State) -> Any:
        return state if self._whole.mode == "LSTM" else state[0]

    def _run(
        self, x: Tensor, state: State, batch_sizes: Tensor | None, *, beside_bytes: int = 0
    ) -> tuple[Tensor, State]:
        """The module on x [T, batch, input]; `beside_bytes` are held throughout beside it."""
        budget_bytes = self._budget_bytes(x, state)
        run = self._run_both if self.bidirectional else self._run_one
        try:
            return run(max(1, budget_bytes - beside_bytes), x, state, batch_sizes)
        except BudgetTooSmall as error:
            needed = error.minimum_budget_bytes + beside_bytes
            raise BudgetTooSmall(budget_bytes=budget_bytes, minimum_budget_bytes=needed) from error

    def _run_one(
        self, budget_bytes: int, x: Tensor, state: State, batch_sizes: Tensor | None
    ) -> tuple[Tensor, State]:
        return self._unroll(budget_bytes, self._chains[0], state, x, batch_sizes)

    def _run_both(
        self, budget_bytes: int, x: Tensor, state: State, batch_sizes: Tensor | None
    ) -> tuple[Tensor, State]:
        between_bytes = self._between_bytes(x)
        share = max(1, (budget_bytes - between_bytes) // len(self._chains))
        try:
            return self._both_directions(x, state, batch_sizes, partial(self._unroll, share))
        except BudgetTooSmall as error:
            least = max(self._least_bytes(layer, x, state, batch_sizes) for layer in range(self.num_layers))
            needed = between_bytes + least * len(self._chains)
            raise BudgetTooSmall(budget_bytes=budget_bytes, minimum_budget_bytes=needed) from error

    def _unpacked_bytes(self, packed: PackedSequence, x: Tensor) -> int:
        """What a packed call holds beside its chains: padded inputs and where they came from, packed outputs
        and where they go, and the gradients of both.
        """
        rows, places = packed.data.shape[0], x.shape[0] * x.shape[1]
        width = self._whole.output_size * (2 if self.bidirectional else 1)
        outputs = 2 * rows * (width * x.element_size() + _INDEX_BYTES)
        inputs = 2 * rows * _INDEX_BYTES + places * (1 + x.shape[-1] * x.element_size())
        if packed.data.requires_grad:
            inputs += rows * x.shape[-1] * x.element_size()
        return outputs + inputs

    def _least_bytes(self, layer: int, x: Tensor, state: State, batch_sizes: Tensor | None) -> int:
        """The least budget of one direction of a layer of a bidirectional module."""
        if layer:
            x = x.new_zeros(*x.shape[:2], 2 * self._whole.output_size, requires_grad=True)
        try:
            self._unroll(1, self._chains[2 * layer], tuple(part[:1] for part in state), x, batch_sizes)
        except BudgetTooSmall as error:
            return error.minimum_budget_bytes
        raise AssertionError("a loop in one byte")

    def _unroll(
        self, budget_bytes: int, chain: Recurrence, state: State, x: Tensor, batch_sizes: Tensor | None
    ) -> tuple[Tensor, State]:
        inputs = x if batch_sizes is None else (x, batch_sizes)
        weights = self._weights[self._chains.index(chain)].of(self)
        loop = Loop.of(
            None,
            state,
            inputs,
            segment=segment_of(weights, chain),
            module=weights,
            captured=weights.computed,
            outputs_transposed=self.batch_first,
        )
        return run_within(loop, budget_bytes, host_budget=self._host_share_bytes)

    def _both_directions(
        self, x: Tensor, state: State, batch_sizes: Tensor | None, run: Run
    ) -> tuple[Tensor, State]:
        """Layer by layer, forwards and backwards in time; the two outputs side by side go up."""
        finals: list[State] = []
        for layer in range(self.num_layers):
            outputs = []
            is_dropped = layer > 0 and self.dropout > 0
            below = nn.functional.dropout(x, self.dropout, self.training) if is_dropped else x
            for direction in (0, 1):
                index = 2 * layer + direction
                initial = tuple(part[index : index + 1] for part in state)
                forwards = reverse_each(below, batch_sizes) if direction else below
                y, final = run(self._chains[index], initial, forwards, batch_sizes)
                outputs.append(reverse_each(y, batch_sizes) if direction else y)
                finals.append(final)
            x = torch.cat(outputs, dim=-1)
        return x, tuple(torch.cat(parts) for parts in zip(*finals, strict=True))

    def _between_bytes(self, x: Tensor) -> int:
        """What a bidirectional call holds besides its chains: turned and joined sequences, masks, and
        their gradients.
        """
        row = x.shape[0] * x.shape[1] * x.element_size()
        above = 2 * self._whole.output_size
        turned = 2 * (x.shape[-1] + (self.num_layers - 1) * above)
        masks = 3 * above * (self.num_layers - 1) if self.dropout else 0
        return row * (turned + masks + 3 * above * self.num_layers)

    def _budget_bytes(self, x: Tensor, state: State) -> int:
        """The budget for inputs of this shape, settled by the first of them: a plan is then made once."""
        key = (tuple(x.shape), x.dtype, x.device, self.training)
        if key not in self._settled_bytes:
            self._settled_bytes[key] = self._budget.bytes(
                activation_bytes=lambda: self._full_activation_bytes(x, state),
                free_bytes=lambda: free_bytes(x.device),
            )
        return self._settled_bytes[key]

    def _full_activation_bytes(self, x: Tensor, state: State) -> int:
        """What full BPTT keeps for this input, as if every sequence of a packed batch had full length."""
        held = [x, *state, *self.parameters()]
        with torch.random.fork_rng(devices=[x.device] if x.is_cuda else []):
            return activation_bytes(
                lambda steps: self._run_full(x[:steps].detach(), state), x.shape[0], held=held
            )

    def _run_full(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        if self.bidirectional:
            return self._both_directions(x, state, None, self._run_in_one)
        return self._run_in_one(self._chains[0], state, x, None)

    def _run_in_one(
        self, chain: Recurrence, state: State, x: Tensor, _batch_sizes: Tensor | None
    ) -> tuple[Tensor, State]:
        after, y = run_fused(self, chain, state, x)  # what full BPTT would call
        return y, after


class LSTM(BudgetedRecurrence):
    """A torch.nn.LSTM that trains inside a byte budget, with the gradients of full BPTT."""

    torch_class = nn.LSTM


class GRU(BudgetedRecurrence):
    """A torch.nn.GRU that trains inside a byte budget, with the gradients of full BPTT."""

    torch_class = nn.GRU


class RNN(BudgetedRecurrence):
    """A torch.nn.RNN that trains inside a byte budget, with the gradients of full BPTT."""

    torch_class = nn.RNN
