"""RevGRU, RevLSTM and the NF variants as modules in the manner of torch.nn.GRU and torch.nn.LSTM.

Tensors are time first. Training keeps the words of the buffers instead of T hidden states: at most
`archive_bound_bytes`, exactly `archived_bytes` after a forward pass.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from executor.compiled import outside_compiled_graphs
from executor.drop_ins.given_state import parts_of_state
from executor.drop_ins.hooked_weights import renew_hooked_weights
from executor.memory.budget import parse_budget_bytes
from executor.replay import is_recomputing
from executor.reversal import Archiving, passage
from executor.reversible.cell import Cell
from executor.reversible.coders import entropy_bound_bytes, scheduled_bytes
from executor.reversible.forgetting import Forgetting
from executor.reversible.gru import GruCell
from executor.reversible.lstm import LstmCell
from executor.reversible.made import Made
from executor.reversible.outer import Outer
from executor.reversible.planned import run_in_budget
from executor.reversible.recipe import Recipe
from executor.reversible.refusals import (
    accepted_input,
    accepted_state,
    require_choices,
    require_ordinary,
    require_sizes,
    require_steps,
    require_targets,
    require_tensor,
    require_type,
)
from executor.reversible.rewinding import Rewinding
from executor.reversible.sequence import Pass, ReversibleSequence, State, check_range
from executor.reversible.taped import PlainState, plain_start, run_taped
from executor.reversible.trajectory import Coding

SEGMENT_STEPS = 4
"""Steps per segment: more are faster, up to some 16, and hold the tapes of more steps on the way back."""


class Reversible(nn.Module):
    """Base of the reversible modules; use the subclasses.

    Args:
        input_size: features of the input.
        hidden_size: features of the state and of the output; even, because the state is split in halves.
        num_layers: layers on top of each other.
        forget_bits: most bits that a unit can forget in a step, 1..10; None sets no limit.
        dropout: probability of dropping an output of a layer, the last layer excepted.
        coding: how buffers are emptied. "entropy" stores about the bits forgotten; "scheduled" stores all
            the bits that may be forgotten, at times known in advance, and needs no look at the data.
        segment_steps: steps computed at once, where there is no budget.
        budget: bytes (2**29 or "512MiB") that one call may add at its peak to what was allocated before it,
            its backward pass, outputs and parameter gradients included. Steps are then undone, run again from
            checkpoints, or both, whatever is fastest within it; BudgetTooSmall is raised where nothing is.
            None undoes every step and keeps no checkpoint.
        device, dtype: of the parameters, float32 or float64.

    Raises:
        InvalidReversible: sizes, forget bits, dtype or dropout out of range.
        InvalidBudget: a budget that is no number of bytes.

    """

    state_names: ClassVar[tuple[str, ...]]

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        forget_bits: int | None = 3,
        *,
        dropout: float = 0.0,
        coding: Coding = "entropy",
        segment_steps: int = SEGMENT_STEPS,
        budget: int | str | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        require_sizes(
            input_size=input_size, hidden_size=hidden_size, num_layers=num_layers, segment_steps=segment_steps
        )
        require_choices(dropout=dropout, coding=coding, dtype=dtype)
        self.cell = self._cell(forget_bits)
        self.input_size, self.hidden_size, self.num_layers = input_size, hidden_size, num_layers
        self.dropout, self.coding, self.segment_steps = dropout, coding, segment_steps
        self.budget = budget
        self._archived_bytes = 0
        rows, units = self.cell.gate_count * hidden_size, hidden_size // 2
        for layer in range(num_layers):
            width = hidden_size if layer else input_size
            for name, shape in zip(_NAMES, ((rows, width), (rows, units), (rows,)), strict=True):
                parameter = nn.Parameter(torch.empty(shape, device=device, dtype=dtype))
                self.register_parameter(f"{name}_l{layer}", parameter)
        self.reset_parameters()

    @property
    def archived_bytes(self) -> int:
        """Bytes of the words that the last forward pass archived, exactly.

        Of segments under `unroll`: the last pass that archived any.
        """
        return self._archived_bytes

    @property
    def budget(self) -> int | str | None:
        """What one call may add at its peak; see the class. May be set."""
        return self._budget

    @budget.setter
    def budget(self, budget: int | str | None) -> None:
        if budget is not None:
            parse_budget_bytes(budget)
        self._budget = budget

    def _cell(self, forget_bits: int | None) -> Cell:
        raise NotImplementedError

    def reset_parameters(self) -> None:
        """Uniform within 1 / sqrt(units that a gate reads), as torch: here those are half the state."""
        bound = 1 / math.sqrt(self.hidden_size // 2)
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -bound, bound)

    def extra_repr(self) -> str:
        """Sizes, the limit of forgetting, and what else is not the default."""
        shown: dict[str, object] = {"num_layers": self.num_layers, "forget_bits": self.cell.forget_bits}
        shown |= {"dropout": self.dropout or None, "budget": self.budget}
        named = [f", {name}={value}" for name, value in shown.items() if value is not None]
        return f"{self.input_size}, {self.hidden_size}{''.join(named)}"

    @outside_compiled_graphs
    def forward(self, x: Tensor, state: Tensor | tuple[Tensor, ...] | None = None) -> tuple[Tensor, Any]:
        """Outputs [T, B, hidden] of x [T, B, input], and the last state.

        The state is h [layers, B, hidden] of a GRU, (h, c) of an LSTM; zeros when not given. It is rounded
        to 23 fractional bits. The outputs of all steps are as large as all hidden states: `reduce` keeps
        none of them.

        Raises InvalidReversible or StateChanged for inputs or states of another shape or type.
        """
        return self._run(x, state, before=None, after=Outer(None), targets=None)

    @outside_compiled_graphs
    def collect(
        self,
        inputs: Tensor,
        after: nn.Module,
        *,
        before: nn.Module | None = None,
        state: Tensor | tuple[Tensor, ...] | None = None,
    ) -> tuple[Tensor, Any]:
        """What after(y) keeps of the outputs, [T, B, ...], and the last state.

        `after` takes the outputs y [k, B, hidden] of a segment and returns as many steps, a slice of the
        units that a decoder may attend to, say; it runs inside each segment as in `reduce`, and so does
        `before`.
        """
        return self._run(inputs, state, before=before, after=Outer(after, is_own=True), targets=None)

    @outside_compiled_graphs
    def reduce(
        self,
        inputs: Tensor,
        targets: Tensor,
        after: nn.Module,
        *,
        before: nn.Module | None = None,
        state: Tensor | tuple[Tensor, ...] | None = None,
        shared: Sequence[Tensor] = (),
    ) -> tuple[Tensor, Any]:
        """Sum of after(y, targets, *shared) over the segments of the sequence, and the last state.

        `after` takes outputs [k, B, hidden] and the same steps of `targets` and returns a number, a loss
        summed over its steps; `before` makes the input [k, B, input] of those steps of `inputs`, an
        embedding say. They run inside each segment, and again on the way back with the same random numbers:
        only `inputs` and `targets` grow with T. `shared` tensors go to every segment whole; gradients flow
        to those that need them.
        """
        require_targets(inputs, targets, has_budget=self.budget is not None)
        return self._run(
            inputs, state, before=before, after=Outer(after, shared, is_own=True), targets=targets
        )

    def initial_state(self, batch_size: int) -> PlainState:
        """The state that `step` and `segment` start from: zeros, in fixed point, with empty buffers."""
        return plain_start(self._recipe(), self._zeros(batch_size))

    def plain_state(self, state: Tensor | State) -> PlainState:
        """The state that `step` and `segment` continue from: floats in fixed point, with empty buffers.

        Raises StateChanged or InvalidReversible for states that `forward` would not take; what is accepted
        stays exact for 2**27 steps.
        """
        parts = parts_of_state(state, self.state_names)
        start = self._state(parts, parts[0].shape[1] if parts[0].dim() > 1 else 1)
        check_range(start, 0)
        return plain_start(self._recipe(), start)

    @outside_compiled_graphs
    def step(self, state: PlainState, x: Tensor) -> tuple[PlainState, Tensor]:
        """One step as an ordinary differentiable function: x [B, input] -> y [B, hidden].

        For `unroll` and any other loop; every number is the one that `forward` computes with
        segment_steps=1.
        """
        require_tensor(x)
        after, y = self.segment(state, x.unsqueeze(0))
        return after, y.squeeze(0)

    @outside_compiled_graphs
    def segment(self, state: PlainState, x: Tensor) -> tuple[PlainState, Tensor]:
        """Like `step` for the k steps of x [k, B, input]; y is [k, B, hidden]."""
        return self.segment_with({}, state, x)

    def segment_with(
        self, computed: Mapping[str, Tensor], state: PlainState, x: Tensor
    ) -> tuple[PlainState, Tensor]:
        """Like `segment`, on weights of which some were `computed` before, by name."""
        x, weights = self._taken(x), self._weights(computed)
        require_ordinary((x, *weights))
        after, y = run_taped(self._recipe(), state, x, weights)
        how = passage()
        if isinstance(how, Archiving) and not is_recomputing():
            self._archived_bytes = sum(archive.stored_bytes for archive in how.archives)
        return after, y

    def archive_bound_bytes(self, steps: int, batch_size: int) -> int:
        """The most bytes that `steps` steps can archive; with coding="scheduled", exactly what they do."""
        if self.cell.forget_bits is None:
            return 0
        units = batch_size * self.hidden_size * self.cell.register_count * self.num_layers
        bound = entropy_bound_bytes if self.coding == "entropy" else scheduled_bytes
        return bound(steps, units=units, forget_bits=self.cell.forget_bits)

    def _run(
        self, inputs: Tensor, state: Any, *, before: nn.Module | None, after: Outer, targets: Tensor | None
    ) -> tuple[Tensor, Any]:
        """Outputs and last state of a call: by a plan where there is a budget, else undoing every step.
        `state` is the caller's, None for zeros. With `targets` the outputs are the sum of `after`.
        """
        require_steps(inputs)
        require_ordinary((inputs, self._any_weight))
        if after.module is not None:  # it was not the module that was called
            renew_hooked_weights(self)
        inputs = self._taken(inputs) if before is None else inputs
        start = self._state(state, inputs.shape[1])
        if self.budget is not None and torch.is_grad_enabled():
            self._archived_bytes = 0
            outputs, last = run_in_budget(
                self,
                inputs,
                start,
                self.budget,
                is_given=state is not None,
                before=Outer(before),
                after=after,
                targets=targets,
            )
        else:
            outputs, last = self._run_undoing(inputs, start, Outer(before), after, targets)
        return outputs, (last if len(last) > 1 else last[0])

    def _run_undoing(
        self, inputs: Tensor, start: State, before: Outer, after: Outer, targets: Tensor | None
    ) -> tuple[Tensor, State]:
        """Keep no checkpoint; every step is undone on the way back."""
        archived: list[int] = []
        outer = [each.module for each in (before, after) if each.module is not None]
        recipe, reversible = self._recipe(replays=bool(outer) or self._drops), torch.is_grad_enabled()
        rewinding = Rewinding(outer if reversible else (), (inputs, targets, *start, *after.shared))
        work = Pass(
            recipe,
            before,
            after,
            targets,
            stacked=targets is None,
            reversible=reversible,
            archived=archived,
            rewinding=rewinding,
            made=Made(len(recipe.segments(len(inputs)))),
        )
        tensors = (inputs, *start, *self._weights(), *work.before.parameters, *work.after.parameters)
        require_ordinary(tensors)
        outputs, *last = ReversibleSequence.apply(work, *tensors)  # type: ignore[no-untyped-call]
        (self._archived_bytes,) = archived
        return outputs, tuple(last)

    @property
    def _drops(self) -> bool:
        return self.training and self.dropout > 0

    def _recipe(self, *, replays: bool = False) -> Recipe:
        """`replays`: random numbers may be drawn on the way forward and again on the way back. Other modules
        may draw where these layers do not train.
        """
        dropout = self.dropout if self._drops else 0.0
        draws = replays and (self.training or torch.is_grad_enabled())
        seed = int(torch.randint(2**62, (), device="cpu")) if draws else None
        return Recipe(self.cell, self.num_layers, self.coding, self.segment_steps, dropout, seed)

    def computed_weights(self) -> dict[str, Tensor]:
        """Those that are no parameters: normed, dropped, or put in place by functional_call."""
        weights = zip(self._weight_names, self._weights(), strict=True)
        return {name: weight for name, weight in weights if not isinstance(weight, nn.Parameter)}

    @property
    def _weight_names(self) -> list[str]:
        return [f"{name}_l{layer}" for layer in range(self.num_layers) for name in _NAMES]

    def _weights(self, computed: Mapping[str, Tensor] | None = None) -> tuple[Tensor, ...]:
        given = computed or {}
        weights = tuple(given[name] if name in given else getattr(self, name) for name in self._weight_names)
        require_type(weights[0])
        return weights

    @property
    def _any_weight(self) -> Tensor:
        """One of their type and device: a parameter, for others may have to be computed, and draw for it.
        Where parameters are parts of a flat one (FSDP's), there is none.
        """
        parameter = next(self.parameters(), None)
        weight = self._weights()[0] if parameter is None else parameter
        require_type(weight)
        return weight

    def _zeros(self, batch_size: int) -> State:
        shape, like = (self.num_layers, batch_size, self.hidden_size), self._any_weight
        return tuple(like.new_zeros(shape) for _ in self.state_names)

    def _state(self, given: Any, batch_size: int) -> State:
        zeros = self._zeros(batch_size)
        return zeros if given is None else accepted_state(given, self.state_names, like=zeros)

    def _taken(self, x: Tensor) -> Tensor:
        return accepted_input(x, dtype=self._any_weight.dtype, input_size=self.input_size)


_NAMES = ("weight_ih", "weight_hh", "bias")


class RevGRU(Reversible):
    """Reversible GRU (MacKay et al. 2018, section 3.1); state: h. Arguments: see `Reversible`."""

    state_names: ClassVar[tuple[str, ...]] = ("h",)

    def _cell(self, forget_bits: int | None) -> Cell:
        return GruCell(Forgetting.of(forget_bits))


class RevLSTM(Reversible):
    """Reversible LSTM (MacKay et al. 2018, section 3.2); state: (h, c). Arguments: see `Reversible`."""

    state_names = ("h", "c")

    def _cell(self, forget_bits: int | None) -> Cell:
        return LstmCell(Forgetting.of(forget_bits))


class NFRevGRU(Reversible):
    """RevGRU whose forget gate is always open (section 4): exactly reversible without any buffer.

    There is no forget_bits; the other arguments are those of `Reversible`. A model that cannot forget
    learns little: use it to show that, or where a state may only accumulate.
    """

    state_names: ClassVar[tuple[str, ...]] = ("h",)

    def __init__(self, input_size: int, hidden_size: int, num_layers: int = 1, **options: Any) -> None:
        super().__init__(input_size, hidden_size, num_layers, None, **options)

    def _cell(self, forget_bits: int | None) -> Cell:
        return GruCell(forgetting=None)


class NFRevLSTM(NFRevGRU):
    """RevLSTM whose forget gates are always open (section 4); arguments: see NFRevGRU."""

    state_names = ("h", "c")

    def _cell(self, forget_bits: int | None) -> Cell:
        return LstmCell(forgetting=None)
