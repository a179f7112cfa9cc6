"""Drop-ins for torch.nn.LSTM, GRU and RNN that train inside a byte budget.

They take over the parameters of a torch module, under the same names, and are called like it:

    lstm = LSTM.from_torch(torch_lstm, budget="512MiB")
    output, (h, c) = lstm(x)

All layers of one direction are one chain whose state holds every layer. A second direction needs the
whole output of the layer below, so a bidirectional module is one chain per layer and direction, which
share the budget.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from executor.compiled import outside_compiled_graphs
from executor.drop_ins.calls import require_dtype, require_no_tracing, require_sequence, streams_put_back
from executor.drop_ins.chain_weights import Anchor, ChainWeights
from executor.drop_ins.computed_weights import computing_bytes
from executor.drop_ins.held_bytes import between_bytes, made_bytes, reordered_bytes, unpacked_bytes
from executor.drop_ins.kernel_types import in_types_of_kernels
from executor.drop_ins.packing import lengths_digest, pack, reverse_each, unpack
from executor.drop_ins.recurrence import Recurrence, State, run_fused, runs_packed_in_own_kernels, segment_of
from executor.errors import BudgetTooSmall
from executor.loop import Loop
from executor.memory.activations import activation_bytes
from executor.memory.budget import parse_budget, parse_budget_bytes
from executor.memory.hard_cap import free_for_plans
from executor.surroundings.autocast import is_autocast
from executor.surroundings.backends import Backends
from executor.taken_over import take_over_parameters
from executor.unroll import run_within

Run = Callable[[ChainWeights, State, Tensor, Tensor | None], tuple[Tensor, State]]
"""Runs one chain: (its weights, initial state, x [T, batch, input], batch sizes of the steps or None)."""


class BudgetedRecurrence(nn.Module):
    """What LSTM, GRU and RNN have in common; see there."""

    torch_class: type[nn.RNNBase]
    """The torch module that the class stands in for."""

    def __new__(cls, *given: Any, **named: Any) -> Self:
        """Tells who calls it with sizes, like torch's module, how one is made. Copies are made of nothing."""
        if len(given) > 1 or "input_size" in named:
            theirs = f"torch.nn.{cls.torch_class.__name__}"
            raise TypeError(
                f"{cls.__name__} takes over a {theirs}: {cls.__name__}.from_torch({theirs}(…), budget=…)"
            )
        return super().__new__(cls)

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
        chains = self._recurrences()
        needed = [name for chain in chains for k in range(chain.num_layers) for name in chain.weight_names(k)]
        take_over_parameters(self, module, needed)
        self.train(module.training)
        self._budget = parse_budget(budget)
        self._anchors = [Anchor() for _ in chains]
        self._host_share_bytes: int | None = None
        if host_budget is not None:
            host_bytes = parse_budget_bytes(host_budget, name="host_budget")
            self._host_share_bytes = max(1, host_bytes // len(chains))
        self._settled_bytes: dict[tuple[object, ...], int] = {}

    @classmethod
    def from_torch(
        cls, module: nn.RNNBase, *, budget: int | float | str, host_budget: int | str | None = None
    ) -> Self:
        """A drop-in that shares the parameters of `module`.

        `budget` is what one call may add at its peak to what was allocated before it, its backward pass,
        outputs and parameter gradients included: bytes (2**29 or "512MiB"), a share of the activations
        of full BPTT (0.1 or "10%"), or "free": what the device has left. The last two are settled by the
        first call that trains with inputs of a new shape, or with other weights frozen. `host_budget` are
        bytes of host memory, pinned on CUDA, that stored states or tapes may move to; the chains of a
        bidirectional module share them evenly.

        Raises TypeError for another kind of module and InvalidBudget for what is no budget.
        """
        return cls(module, budget=budget, host_budget=host_budget)

    def _recurrences(self) -> list[Recurrence]:
        """The chains, with the dropout that the module has now."""
        return self._whole._replace(dropout=self.dropout).chains(bidirectional=self.bidirectional)

    def _chains(self) -> list[ChainWeights]:
        """The chains of one call, with the weights and in the mode of now."""
        pairs = zip(self._recurrences(), self._anchors, strict=True)
        return [ChainWeights(self, recurrence, anchor) for recurrence, anchor in pairs]

    def extra_repr(self) -> str:
        """What torch's modules show, and the budget, for print(module)."""
        as_torch: Any = nn.RNNBase.extra_repr
        return f"{as_torch(self)}, budget={self._budget}"

    @property
    def mode(self) -> str:
        """LSTM, GRU, RNN_TANH or RNN_RELU, as of torch's modules."""
        return self._whole.mode

    @property
    def all_weights(self) -> list[list[Tensor]]:
        """The weights and biases, a list per layer and direction, as of torch's modules."""
        chains = self._recurrences()
        names = [chain.weight_names(layer) for chain in chains for layer in range(chain.num_layers)]
        return [[getattr(self, name) for name in layer] for layer in names]

    def reset_parameters(self) -> None:
        """Draw all parameters anew, as torch's modules do."""
        bound = 1 / math.sqrt(self.hidden_size)
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -bound, bound)

    def flatten_parameters(self) -> None:
        """Nothing to do: weights are used as they lie. Here because torch's modules have it."""

    @outside_compiled_graphs
    def forward(self, input: Tensor | PackedSequence, hx: Any = None) -> tuple[Any, Any]:  # noqa: A002
        """Like the torch module's: (output, final state), gradients for everything that needs one.

        Raises BudgetTooSmall, with the least budget that would do, at the first call that does not fit. Where
        nothing needs a gradient nothing is planned, and no budget looked at. Raises ValueError for an input,
        TypeError or ValueError for an initial state, that does not go with the weights.
        """
        require_no_tracing(type(self).__name__)
        require_sequence(type(self).__name__, input)
        x = input.data if isinstance(input, PackedSequence) else input
        require_dtype(getattr(self, self._whole.weight_names(0)[0]), x, hx)
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
        y, state = self._run(time_first, state, None, beside_bytes=made_bytes(state, hx))
        if not is_batched:
            return y.squeeze(1), self._as_torch(tuple(part.squeeze(1) for part in state))
        return y.transpose(0, 1) if self.batch_first else y, self._as_torch(state)

    def _forward_packed(self, packed: PackedSequence, hx: Any) -> tuple[PackedSequence, Any]:
        x = unpack(packed)
        state = self._initial_state(x, hx, is_batched=True)
        if packed.sorted_indices is not None and hx is not None:
            state = tuple(part.index_select(1, packed.sorted_indices) for part in state)
        directions, trains_input = 2 if self.bidirectional else 1, packed.data.requires_grad
        beside_bytes = unpacked_bytes(self._whole, x, directions=directions, trains_input=trains_input)
        beside_bytes += made_bytes(state, None if packed.sorted_indices is not None else hx)
        if packed.unsorted_indices is not None:
            beside_bytes += reordered_bytes(state)
        y, state = self._run(x, state, packed.batch_sizes, beside_bytes=beside_bytes)
        if packed.unsorted_indices is not None:
            state = tuple(part.index_select(1, packed.unsorted_indices) for part in state)
        return pack(y, packed), self._as_torch(state)

    def _initial_state(self, x: Tensor, hx: Any, *, is_batched: bool) -> State:
        zeros = self._whole.initial_state(x, batch_size=x.shape[1])
        count = self.num_layers * (2 if self.bidirectional else 1)
        expected = tuple([count, x.shape[1], part.shape[-1]] for part in zeros)
        if hx is None:
            return tuple(x.new_zeros(shape) for shape in expected)
        if isinstance(hx, Tensor) is (self._whole.mode == "LSTM"):
            wanted = "a tuple (h, c)" if self._whole.mode == "LSTM" else "a tensor h"
            raise TypeError(
                f"the initial state of a {type(self).__name__} is {wanted}, not a {type(hx).__name__}"
            )
        given = tuple(hx) if self._whole.mode == "LSTM" else (hx,)
        if not all(isinstance(part, Tensor) for part in given):
            kinds = [type(part).__name__ for part in given]
            raise TypeError(f"the initial state of a {type(self).__name__} is tensors, not {kinds}")
        given = given if is_batched else tuple(part.unsqueeze(1) for part in given)
        found = tuple(list(part.shape) for part in given)
        if found != expected:
            raise ValueError(f"the initial state has the shapes {list(found)}, expected {list(expected)}")
        return given

    def _as_torch(self, state: State) -> Any:
        return state if self._whole.mode == "LSTM" else state[0]

    def _run(
        self, x: Tensor, state: State, batch_sizes: Tensor | None, *, beside_bytes: int = 0
    ) -> tuple[Tensor, State]:
        """The module on x [T, batch, input]; `beside_bytes` are held throughout beside it. A call that trains
        nothing needs no budget, and settles none.
        """
        chains = self._chains()
        state = in_types_of_kernels(chains[0], x, state, batch_sizes)
        trains = torch.is_grad_enabled() and any(_needs_gradient(chain, state, x) for chain in chains)
        budget_bytes = self._budget_bytes(chains, state, x) if trains else 1
        beside_bytes += computing_bytes(self) if trains else 0
        run = self._run_both if self.bidirectional else self._run_one
        try:
            return run(max(1, budget_bytes - beside_bytes), chains, state, x, batch_sizes)
        except BudgetTooSmall as error:
            needed = error.minimum_budget_bytes + beside_bytes
            # The other refusal speaks of a part of the budget, which nobody has given.
            raise BudgetTooSmall(budget_bytes=budget_bytes, minimum_budget_bytes=needed) from None

    def _run_one(
        self,
        budget_bytes: int,
        chains: list[ChainWeights],
        state: State,
        x: Tensor,
        batch_sizes: Tensor | None,
    ) -> tuple[Tensor, State]:
        return self._unroll(budget_bytes, chains[0], state, x, batch_sizes)

    def _run_both(
        self,
        budget_bytes: int,
        chains: list[ChainWeights],
        state: State,
        x: Tensor,
        batch_sizes: Tensor | None,
    ) -> tuple[Tensor, State]:
        between = between_bytes(self._whole, x, has_dropout=self.dropout > 0)
        share = max(1, (budget_bytes - between) // len(chains))
        try:
            with streams_put_back([x, *state]):  # a layer may refuse when dropout has drawn for it
                return self._both_directions(chains, state, x, batch_sizes, partial(self._unroll, share))
        except BudgetTooSmall:
            needed = between + self._least_bytes(chains, state, x, batch_sizes) * len(chains)
            raise BudgetTooSmall(budget_bytes=budget_bytes, minimum_budget_bytes=needed) from None

    def _least_bytes(
        self, chains: list[ChainWeights], state: State, x: Tensor, batch_sizes: Tensor | None
    ) -> int:
        """The least budget in which any chain of a bidirectional module runs."""
        least, below = 0, x
        for layer in range(self.num_layers):
            trains = False
            for direction in (0, 1):
                index = 2 * layer + direction
                initial = tuple(part[index : index + 1] for part in state)
                if not _needs_gradient(chains[index], initial, below):
                    continue
                trains = True
                forwards = reverse_each(below, batch_sizes) if direction else below
                try:
                    self._unroll(1, chains[index], initial, forwards, batch_sizes)
                except BudgetTooSmall as error:
                    least = max(least, error.minimum_budget_bytes)
            shape = (*x.shape[:2], 2 * self._whole.output_size)
            below = state[0].new_zeros(shape, requires_grad=trains)
        return least

    def _unroll(
        self, budget_bytes: int, weights: ChainWeights, state: State, x: Tensor, batch_sizes: Tensor | None
    ) -> tuple[Tensor, State]:
        inputs = x if batch_sizes is None else (x, batch_sizes)
        loop = Loop.of(
            None,
            state,
            inputs,
            segment=segment_of(weights, weights.recurrence),
            module=weights,
            captured=weights.computed,
            outputs_transposed=self.batch_first,
            told_apart_by=_lengths_that_count(weights, state, x, batch_sizes),
        )
        return run_within(loop, budget_bytes, host_budget=self._host_share_bytes)

    def _both_directions(
        self, chains: list[ChainWeights], state: State, x: Tensor, batch_sizes: Tensor | None, run: Run
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
                y, final = run(chains[index], initial, forwards, batch_sizes)
                outputs.append(reverse_each(y, batch_sizes) if direction else y)
                finals.append(final)
            x = torch.cat(outputs, dim=-1)
        return x, tuple(torch.cat(parts) for parts in zip(*finals, strict=True))

    def _budget_bytes(self, chains: list[ChainWeights], state: State, x: Tensor) -> int:
        """The budget for inputs of this shape, settled by the first of them: a plan is then made once."""
        given = (x, *state, *(weight for chain in chains for weight in chain.all))
        trained = tuple(tensor.requires_grad for tensor in given)
        is_cast = is_autocast(x.device)
        key = (tuple(x.shape), x.dtype, x.device, self.training, is_cast, trained, Backends.now())
        if key not in self._settled_bytes:
            self._settled_bytes[key] = self._budget.bytes(
                activation_bytes=lambda: self._full_activation_bytes(chains, state, x, held=given),
                free_bytes=lambda: free_for_plans(x.device),
            )
        return self._settled_bytes[key]

    def _full_activation_bytes(
        self, chains: list[ChainWeights], state: State, x: Tensor, *, held: Sequence[Tensor]
    ) -> int:
        """What full BPTT keeps for this input, as if every sequence of a packed batch had full length."""

        def run(steps: int) -> tuple[Tensor, State]:
            first = x[:steps].detach().requires_grad_(x.requires_grad)
            if self.bidirectional:
                return self._both_directions(chains, state, first, None, _run_in_one)
            return _run_in_one(chains[0], state, first, None)

        with torch.random.fork_rng(devices=[x.device] if x.is_cuda else []):
            return activation_bytes(run, x.shape[0], held=held)


def _run_in_one(
    weights: ChainWeights, state: State, x: Tensor, batch_sizes: Tensor | None
) -> tuple[Tensor, State]:
    """One chain as full BPTT would run it."""
    after, y = run_fused(weights, weights.recurrence, state, x, batch_sizes)
    return y, after


def _lengths_that_count(
    weights: ChainWeights, state: State, x: Tensor, batch_sizes: Tensor | None
) -> str | None:
    """What tells packed batches apart: their lengths, unless our own kernels run them, in the same bytes."""
    if batch_sizes is None or runs_packed_in_own_kernels(weights, weights.recurrence, state, x):
        return None
    return lengths_digest(batch_sizes)


def _needs_gradient(weights: ChainWeights, state: State, x: Tensor) -> bool:
    return any(tensor.requires_grad for tensor in (x, *state, *weights.all))


class LSTM(BudgetedRecurrence):
    """A torch.nn.LSTM that trains inside a byte budget, with the gradients of full BPTT.

    `LSTM.from_torch(module, budget=…)` makes one.
    """

    torch_class = nn.LSTM


class GRU(BudgetedRecurrence):
    """A torch.nn.GRU that trains inside a byte budget, with the gradients of full BPTT.

    `GRU.from_torch(module, budget=…)` makes one.
    """

    torch_class = nn.GRU


class RNN(BudgetedRecurrence):
    """A torch.nn.RNN that trains inside a byte budget, with the gradients of full BPTT.

    `RNN.from_torch(module, budget=…)` makes one.
    """

    torch_class = nn.RNN

    @property
    def nonlinearity(self) -> str:
        """What torch's module calls so: tanh or relu."""
        return self.mode.removeprefix("RNN_").lower()
