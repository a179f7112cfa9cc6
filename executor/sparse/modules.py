"""SparseLSTM and SparseGRU: torch's modules whose gradients are sparsified on the way back."""

from __future__ import annotations

from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from executor.compiled import outside_compiled_graphs
from executor.drop_ins.given_state import parts_of_state
from executor.errors import StateChanged
from executor.sparse.accounting import IterationRecord
from executor.sparse.cell import Cell
from executor.sparse.chosen import chosen_sparsifier
from executor.sparse.errors import InvalidSparsity
from executor.sparse.gru import GruCell
from executor.sparse.input_types import in_type_of
from executor.sparse.lstm import LstmCell
from executor.sparse.position import KeepsPosition
from executor.sparse.rule import Rule
from executor.sparse.schedule import Schedule
from executor.sparse.stack import StackedState, run_stack, weights_named


class SparseRecurrence(KeepsPosition, nn.RNNBase):
    """What SparseLSTM and SparseGRU have in common.

    Args:
        input_size, hidden_size, num_layers: as torch's.
        rule: the name of a rule (see `rule_named`) or a rule.
        threshold, keep_ratio, row_ratio, share_steps, block_size: settings of a rule given by name.
        schedule: dense and sparse iterations; by default all are sparse.
        error_feedback: carry what is dropped from the weight gradients over to the next iteration.
        seed: of what a rule draws.
        options: those of the torch module: bias, batch_first, dropout, bidirectional, device, dtype.

    The forward pass, the parameters and their names are those of the torch module. Gradients are not those
    of full BPTT (`exact_gradient` is False), except in evaluation mode, where nothing is dropped.

    Raises:
        InvalidSparsity: a rule or setting out of range.

    """

    exact_gradient: ClassVar[bool] = False
    cell: ClassVar[Cell]

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        rule: str | Rule = "rms",
        threshold: float | None = None,
        *,
        keep_ratio: float | None = None,
        row_ratio: float | None = None,
        share_steps: int | None = None,
        block_size: int | None = None,
        schedule: Schedule | None = None,
        error_feedback: bool = False,
        seed: int = 0,
        **options: Any,
    ) -> None:
        if options.get("proj_size"):
            raise InvalidSparsity("proj_size", "projections are not supported")
        sparsifier = chosen_sparsifier(
            self.cell,
            hidden_size,
            rule,
            threshold=threshold,
            keep_ratio=keep_ratio,
            row_ratio=row_ratio,
            share_steps=share_steps,
            block_size=block_size,
            schedule=schedule,
            error_feedback=error_feedback,
            seed=seed,
        )
        sizes: tuple[Any, ...] = (input_size, hidden_size, num_layers)
        super().__init__(*sizes, **options)
        self.sparsifier = sparsifier

    @classmethod
    def from_torch(cls, module: nn.RNNBase, **sparsity: Any) -> Self:
        """A sparse module that shares the parameters of `module`; `sparsity`: rule and what follows it.

        Raises TypeError for another kind of module, and for one whose weights are no parameters.
        """
        if module.proj_size:
            raise InvalidSparsity("proj_size", "projections are not supported")
        made = cls(
            module.input_size,
            module.hidden_size,
            module.num_layers,
            **sparsity,
            bias=module.bias,
            batch_first=module.batch_first,
            dropout=module.dropout,
            bidirectional=module.bidirectional,
            device="meta",
        )
        if made.mode != module.mode:
            raise TypeError(f"{cls.__name__} takes over a torch {made.mode}, not a {module.mode}")
        for name in list(made._parameters):
            parameter = module._parameters.get(name)
            if parameter is None:
                raise TypeError(
                    f"{name} of the {type(module).__name__} is computed (normed, pruned, parametrized), no "
                    f"parameter: take the plain module over, and do that to the {cls.__name__}"
                )
            setattr(made, name, parameter)
        return made.train(module.training)

    def extra_repr(self) -> str:
        """The torch module's, and the rule."""
        return f"{super().extra_repr()}, rule={self.sparsifier.rule}"

    @outside_compiled_graphs
    def forward(self, input: Any, hx: Any = None) -> tuple[Tensor, Any]:  # noqa: A002
        """Like the torch module's. In training each call begins an iteration of the schedule.

        Raises EverythingDropped when the iteration before had dropped everything of a layer, and StateChanged
        for inputs and states of another shape or type, as torch's modules refuse them.
        """
        if not isinstance(input, Tensor) or input.dim() not in (2, 3) or input.shape[-1] != self.input_size:
            raise StateChanged(
                f"inputs must be a tensor [T, batch, {self.input_size}] ([batch, T, …] with batch_first) or "
                f"[T, {self.input_size}]; packed sequences are not supported"
            )
        if not input.numel():
            raise StateChanged(
                f"inputs of shape {list(input.shape)} are empty: give at least one step and row"
            )
        is_batched = input.dim() == 3
        x = in_type_of(self._weight, input if is_batched else input.unsqueeze(1), "the input")
        time_first = x.transpose(0, 1) if self.batch_first and is_batched else x
        state = self._state(hx, time_first, is_batched=is_batched)
        if self.training and torch.is_grad_enabled():
            self.sparsifier.begin_iteration()
        y, after = self._run(time_first, state)
        if not is_batched:
            return y.squeeze(1), self._as_torch(tuple(part.squeeze(1) for part in after))
        return y.transpose(0, 1) if self.batch_first else y, self._as_torch(after)

    @outside_compiled_graphs
    def segment(self, state: StackedState, x: Tensor) -> tuple[StackedState, Tensor]:
        """Run the k steps of x [k, B, input] from `state`: for `unroll`. End iterations yourself.

        Raises InvalidSparsity for a bidirectional module, which has no state to hand on, and StateChanged
        for inputs and states of other shapes or types.
        """
        if self.bidirectional:
            raise InvalidSparsity("bidirectional", "two directions cannot run segment by segment")
        if x.dim() != 3:
            raise StateChanged(f"x of shape {list(x.shape)} must be [steps, batch, {self.input_size}]")
        y, after = self._run(x, self._fitting(state, batch_size=x.shape[1]))
        return after, y

    def initial_state(self, batch_size: int) -> StackedState:
        """Zeros, [layers * directions, B, H] each."""
        return tuple(self._weight.new_zeros(self._state_shape(batch_size)) for _ in self.cell.state_names)

    def _state_shape(self, batch_size: int) -> list[int]:
        return [self.num_layers * (2 if self.bidirectional else 1), batch_size, self.hidden_size]

    @property
    def _weight(self) -> Tensor:
        """One of them; no Parameter where they are swapped (functional_call, parametrizations)."""
        return weights_named(self, "l0").weight_hh

    def end_iteration(self) -> IterationRecord | None:
        """Close the iteration and get its counts; see `Sparsifier.end_iteration`."""
        return self.sparsifier.end_iteration()

    def _run(self, x: Tensor, state: StackedState) -> tuple[Tensor, StackedState]:
        return run_stack(self, self.cell, self.sparsifier if self.training else None, x, state)

    def _state(self, hx: Any, x: Tensor, *, is_batched: bool) -> StackedState:
        if hx is None:
            return self.initial_state(x.shape[1])
        given = parts_of_state(hx, self.cell.state_names)
        given = given if is_batched else tuple(part.unsqueeze(1) for part in given)
        return self._fitting(given, batch_size=x.shape[1])

    def _fitting(self, given: StackedState, *, batch_size: int) -> StackedState:
        """The state in the type of the weights, if it has the shape that it must have."""
        found = [list(part.shape) for part in given]
        expected = [self._state_shape(batch_size) for _ in self.cell.state_names]
        if found != expected:
            raise StateChanged(f"the initial state has the shapes {found}, expected {expected}")
        return tuple(in_type_of(self._weight, part, "a part of the state") for part in given)

    def _as_torch(self, state: StackedState) -> Any:
        return state if len(state) > 1 else state[0]


class SparseLSTM(SparseRecurrence, nn.LSTM):  # type: ignore[misc]
    """A torch.nn.LSTM with sparsified gate gradients (Zhu et al. 2017); see SparseRecurrence."""

    cell: ClassVar[Cell] = LstmCell()


class SparseGRU(SparseRecurrence, nn.GRU):  # type: ignore[misc]
    """A torch.nn.GRU with sparsified gate gradients; see SparseRecurrence."""

    cell: ClassVar[Cell] = GruCell()
