"""The books of a sparse training run: counts of every iteration, cosines of some, for the measurement."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from statistics import mean
from typing import Any

import torch
from torch import Tensor
from torch.autograd import grad
from torch.utils.hooks import RemovableHandle

from executor.sparse.accounting import IterationRecord
from executor.sparse.cosines import GradientCosines, gradient_cosines, least_cosine, workspace_bytes
from executor.sparse.errors import EverythingDropped
from executor.sparse.feedback import Carried
from executor.sparse.modules import SparseRecurrence

MOST_RECORDS = 1000
"""Iterations that a measurement lists; of a longer run, evenly spaced ones. Means are over all."""


class SparseAudit:
    """Follows the training of `module`: call `compare` before and `close` after an iteration's backward pass.

    `cosine_every` n compares the gradient of every n-th iteration with the dense one; 0 never does. Both are
    of this iteration alone: what was accumulated before is left alone, and left out.
    """

    def __init__(self, module: SparseRecurrence, *, cosine_every: int) -> None:
        self._module = module
        self._cosine_every = cosine_every
        self._dense: tuple[tuple[Tensor, Tensor | None], ...] = ()
        """Parameters with their dense gradients, in an iteration that is compared."""
        self._earlier: dict[Tensor, Tensor | None] = {}
        """Of those, what had been accumulated when the first gradient of the iteration came."""
        self._hooks: list[RemovableHandle] = []
        self.records: list[IterationRecord] = []
        self.cosines: list[GradientCosines] = []

    @property
    def carried(self) -> Carried | None:
        """What error feedback carries over to the next iteration, for a run that is resumed."""
        return self._module.sparsifier.carried

    def start(self, *, iteration: int, carried: Carried | None = None) -> None:
        """Begin to train at `iteration`, with what a run that stopped there had `carried` over: whatever ran
        before in this process (a probe, a measured pass) is forgotten.
        """
        self._module.sparsifier.restart(iteration)
        if carried is not None:
            self._module.sparsifier.carry(carried, next(self._module.parameters()).device)
        self._forget()
        self.records.clear()
        self.cosines.clear()

    @property
    def held_bytes(self) -> int:
        """What the audit and error feedback hold beside an iteration, at most."""
        parameters = list(self._module.parameters())
        parameter_bytes = sum(parameter.nbytes for parameter in parameters)
        held = 2 * parameter_bytes * self._module.sparsifier.has_feedback
        if self._cosine_every:
            books = parameter_bytes + workspace_bytes(parameters, gates=len(self._module.cell.gate_names))
            held += max(books, torch.get_rng_state().nbytes)  # the streams, before there is a dense gradient
        return held

    def compare(self, loss_of: Callable[[], Tensor]) -> None:
        """Take the dense gradient of `loss_of()`, if it is this iteration's turn. Gradients that are there
        stay as they are, and so do random streams: the iteration itself draws the same numbers.
        """
        self._forget()
        sparsifier = self._module.sparsifier
        trained = [parameter for parameter in self._module.parameters() if parameter.requires_grad]
        if not trained or not self._cosine_every or sparsifier.iteration % self._cosine_every:
            return
        devices = [trained[0].device] if trained[0].is_cuda else []
        with sparsifier.paused(), torch.random.fork_rng(devices):
            self._dense = tuple(zip(trained, grad(loss_of(), trained, allow_unused=True), strict=True))
        self._hooks = [
            parameter.register_hook(partial(self._note_earlier, parameter))  # type: ignore[no-untyped-call]
            for parameter in trained
        ]

    def _note_earlier(self, parameter: Tensor, _gradient: Tensor) -> None:
        """Before a gradient is added to those of `parameter`: they may be of earlier iterations."""
        if parameter not in self._earlier:
            before = parameter.grad
            self._earlier[parameter] = None if before is None or not before.any() else before.clone()

    def _forget(self) -> None:
        for hook in self._hooks:
            hook.remove()
        self._hooks, self._dense, self._earlier = [], (), {}

    def close(self) -> None:
        """End the iteration, before the optimizer's step. Raises EverythingDropped: do not take that step."""
        iteration = self._module.sparsifier.iteration
        try:
            record = self._module.end_iteration()
        except EverythingDropped:
            self._forget()
            raise
        if record is not None:
            self.records.append(record)
        pairs = [
            (self._of_this_iteration(parameter), dense)
            for parameter, dense in self._dense
            if dense is not None and parameter in self._earlier
        ]
        if pairs:
            sparse, dense = zip(*pairs, strict=True)
            names = self._module.cell.gate_names
            self.cosines.append(gradient_cosines(sparse, dense, names, iteration=iteration))
        self._forget()

    def _of_this_iteration(self, parameter: Tensor) -> Tensor:
        gradient, earlier = parameter.grad, self._earlier[parameter]
        assert gradient is not None  # noqa: S101 - one has come
        return gradient if earlier is None else gradient - earlier

    def measurement(self) -> dict[str, Any]:
        """Means over the run, the records, and the rule; `exact_gradient` is false."""
        stride = -(-len(self.records) // MOST_RECORDS) or 1
        names = ("sparsity", "redundant_ratio_by_formula", "redundant_ratio", "saved_ratio")
        return {
            "exact_gradient": False,
            "rule": str(self._module.sparsifier.rule),
            **{name: self._mean(name) for name in names},
            "least_cosine": least_cosine(self.cosines),
            "iterations": [record.record() for record in self.records[::stride]],
            "cosines": [
                found.record() for found in self.cosines[:: -(-len(self.cosines) // MOST_RECORDS) or 1]
            ],
        }

    def _mean(self, name: str) -> float | None:
        return mean(getattr(record, name) for record in self.records) if self.records else None
