"""One model, one batch after the other: iterations under a plan, and the same by plain full BPTT."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.autograd import backward

from executor.engine import Observer
from executor.execute import execute
from executor.jobs.job import TrainingSpec
from executor.jobs.layers import State
from executor.jobs.models import CharacterModel, Window
from executor.jobs.report import SegmentCounts
from executor.loop import Loop
from executor.plan import ExecutionPlan
from executor.rules.needs import Needs
from executor.sparse import SparseAudit

_OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": torch.optim.SGD,
    "momentum": torch.optim.SGD,
    "adam": torch.optim.Adam,
}
_OPTIONS: dict[str, dict[str, float]] = {"momentum": {"momentum": 0.9}}
_STATE_COPIES = {"sgd": 0, "momentum": 1, "adam": 2}
"""State tensors that an optimizer keeps per parameter."""
_ADAM_COUNTER_BYTES = 4
"""Adam counts its steps in one float32 per parameter tensor."""


def optimizer_for(model: torch.nn.Module, training: TrainingSpec) -> torch.optim.Optimizer:
    """The optimizer that the job names, over all parameters."""
    options = _OPTIONS.get(training.optimizer, {})
    return _OPTIMIZERS[training.optimizer](model.parameters(), lr=training.learning_rate, **options)


def held_bytes(model: torch.nn.Module, window: Window, training: TrainingSpec) -> int:
    """What is held throughout training besides the iteration: parameters, optimizer state, the window."""
    parameters = list(model.parameters())
    parameter_bytes = sum(parameter.nbytes for parameter in parameters)
    copies = _STATE_COPIES[training.optimizer]
    counters = _ADAM_COUNTER_BYTES * len(parameters) if training.optimizer == "adam" else 0
    return (1 + copies) * parameter_bytes + counters + sum(indices.nbytes for indices in window)


class CountedSegment:
    """The model's segment function with its loss scaled to the mean; counts how often it runs."""

    def __init__(self, model: CharacterModel, *, predictions: int) -> None:
        self._model = model
        self._scale = 1 / predictions
        self.counts = SegmentCounts(0, 0)

    def __call__(self, state: State, window: Window) -> tuple[State, Tensor | None]:
        """The state after the window and its share of the mean loss."""
        advanced, taped = self.counts
        is_taped = torch.is_grad_enabled()
        self.counts = SegmentCounts(advanced + (not is_taped), taped + is_taped)
        state, loss = self._model.segment(state, window)
        return state, None if loss is None else loss * self._scale


class PlannedLoss:
    """The model's mean loss over a window of `length` steps, run under a plan."""

    def __init__(self, model: CharacterModel, *, length: int, batch_size: int) -> None:
        self.model = model
        self._state = model.initial_state(batch_size=batch_size)
        self._segment = CountedSegment(model, predictions=length * batch_size)
        self._needs: Needs | None = None

    def loop(self, window: Window) -> Loop:
        """The loop over `window`, to be probed or run."""
        return Loop.of(
            None,
            self._state,
            window,
            module=self.model,
            segment=self._segment,
            reduce="sum",
            final_state="detached",
        )

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        first: Tensor = self._state[0]
        return first.device

    def prepare(self, window: Window) -> None:
        """Look at one segment and learn what recomputation must put back, once; count from zero on."""
        if self._needs is None:
            self._needs = self.loop(window).needs()
        self.take_counts()

    def forward(self, window: Window, plan: ExecutionPlan, observer: Observer | None = None) -> Tensor:
        """The mean loss; its backward pass runs the rest of the plan."""
        needs = self._needs or self.loop(window).needs()
        self._needs = needs
        loss, _ = execute(self.loop(window), plan, needs, observer)
        assert isinstance(loss, Tensor)  # noqa: S101 - for the type checker
        return loss

    def take_counts(self) -> SegmentCounts:
        """How often segments ran since the last call."""
        counts, self._segment.counts = self._segment.counts, SegmentCounts(0, 0)
        return counts


def iterate(
    loss_of: Callable[[], Tensor], optimizer: torch.optim.Optimizer, audit: SparseAudit | None = None
) -> float:
    """One iteration: gradients of `loss_of()`, one step of the optimizer; returns the loss.

    `audit` keeps the books where gradients are sparsified. Raises EverythingDropped before such a step.
    """
    loss = both_passes(loss_of, optimizer.zero_grad, audit)
    optimizer.step()
    return float(loss)


def both_passes(
    loss_of: Callable[[], Tensor], zero_grad: Callable[[], object], audit: SparseAudit | None = None
) -> Tensor:
    """What `iterate` does before the optimizer's step; the loss, detached. `zero_grad` drops the gradients.

    Where `audit` compares the gradient with the dense one, `loss_of` runs twice.
    """
    zero_grad()
    if audit is not None:
        audit.compare(loss_of)
        zero_grad()
    loss = loss_of()
    backward(loss)
    if audit is not None:
        audit.close()
    return loss.detach()
