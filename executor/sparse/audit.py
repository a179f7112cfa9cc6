"""The books of a sparse training run: counts of every iteration, cosines of some, for the measurement."""

from __future__ import annotations

from collections.abc import Callable
from statistics import mean
from typing import Any

from torch import Tensor
from torch.autograd import backward

from executor.sparse.accounting import IterationRecord
from executor.sparse.cosines import GradientCosines, gradient_cosines, workspace_bytes
from executor.sparse.modules import SparseRecurrence

MOST_RECORDS = 1000
"""Iterations that a measurement lists; of a longer run, evenly spaced ones. Means are over all."""


class SparseAudit:
    """Follows the training of `module`: call `compare` before and `close` after an iteration's backward pass.

    `cosine_every` n compares the gradient of every n-th iteration with the dense one; 0 never does.
    """

    def __init__(self, module: SparseRecurrence, *, cosine_every: int) -> None:
        self._module = module
        self._cosine_every = cosine_every
        self._dense: list[Tensor] | None = None
        self.records: list[IterationRecord] = []
        self.cosines: list[GradientCosines] = []

    def start(self, *, iteration: int) -> None:
        """Begin to train at `iteration`: whatever ran before (a probe, a measured pass) is forgotten."""
        self._module.sparsifier.restart(iteration)
        self.records.clear()
        self.cosines.clear()

    @property
    def held_bytes(self) -> int:
        """What the audit and error feedback hold beside an iteration, at most."""
        parameters = list(self._module.parameters())
        parameter_bytes = sum(parameter.nbytes for parameter in parameters)
        held = 2 * parameter_bytes * self._module.sparsifier.has_feedback
        if self._cosine_every:
            held += parameter_bytes + workspace_bytes(parameters, gates=len(self._module.cell.gate_names))
        return held

    def compare(self, loss_of: Callable[[], Tensor]) -> None:
        """Run `loss_of` and its backward pass densely, if it is this iteration's turn."""
        sparsifier = self._module.sparsifier
        if not self._cosine_every or sparsifier.iteration % self._cosine_every:
            return
        with sparsifier.paused():
            backward(loss_of())
        self._dense = self._gradients()

    def close(self) -> None:
        """End the iteration, before the optimizer's step. Raises EverythingDropped: do not take that step."""
        iteration = self._module.sparsifier.iteration
        record = self._module.end_iteration()
        if record is not None:
            self.records.append(record)
        if self._dense is not None:
            names = self._module.cell.gate_names
            self.cosines.append(gradient_cosines(self._gradients(), self._dense, names, iteration=iteration))
            self._dense = None

    def measurement(self) -> dict[str, Any]:
        """Means over the run, the records, and the rule; `exact_gradient` is false."""
        stride = -(-len(self.records) // MOST_RECORDS) or 1
        names = ("sparsity", "redundant_ratio_by_formula", "redundant_ratio", "saved_ratio")
        return {
            "exact_gradient": False,
            "rule": str(self._module.sparsifier.rule),
            **{name: self._mean(name) for name in names},
            "least_cosine": min((found.whole for found in self.cosines), default=None),
            "iterations": [record.record() for record in self.records[::stride]],
            "cosines": [
                found.record() for found in self.cosines[:: -(-len(self.cosines) // MOST_RECORDS) or 1]
            ],
        }

    def _mean(self, name: str) -> float | None:
        return mean(getattr(record, name) for record in self.records) if self.records else None

    def _gradients(self) -> list[Tensor]:
        found = [parameter.grad for parameter in self._module.parameters()]
        return [gradient for gradient in found if gradient is not None]
