"""A rule at work: which iteration it is, what is carried over, and what was counted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from random import Random

import torch
from torch import Tensor

from executor.sparse.accounting import Books, IterationRecord, Tally
from executor.sparse.backward_pass import BackwardPass, Gradients, Layer, Macs
from executor.sparse.cell import Reversal
from executor.sparse.errors import EverythingDropped, InvalidSparsity, require_scale
from executor.sparse.feedback import Carried, ErrorFeedback, add_late, dropped_weights
from executor.sparse.rule import Rule
from executor.sparse.schedule import Schedule
from executor.torch_weights import TorchWeights


class Sparsifier:
    """Runs the way back of all layers of one module under a rule.

    Args:
        rule: what is dropped.
        gate_names: of the cell.
        schedule: when the rule applies; by default always.
        error_feedback: add what is dropped from the weight gradients to those of the next iteration.
        seed: of what the rule draws. The random streams of torch are not touched.

    Raises:
        InvalidSparsity: an argument of another type; error feedback with a rule that is unbiased without it.

    """

    exact_gradient = False

    def __init__(
        self,
        rule: Rule,
        gate_names: Sequence[str],
        *,
        schedule: Schedule | None = None,
        error_feedback: bool = False,
        seed: int = 0,
    ) -> None:
        schedule = Schedule() if schedule is None else schedule
        for field, value, kind in (
            ("rule", rule, Rule),
            ("schedule", schedule, Schedule),
            ("error_feedback", error_feedback, bool),
            ("seed", seed, int),
        ):
            if not isinstance(value, kind):
                raise InvalidSparsity(field, f"{value!r} is no {kind.__name__}")
        if error_feedback and not rule.drops_in_place:
            raise InvalidSparsity(
                "error_feedback", f"{rule} samples without bias: there is no error to carry over"
            )
        self.rule = rule
        self.gate_names = tuple(gate_names)
        self.schedule = schedule
        self.iteration = 0
        """The iteration that runs; see `end_iteration`."""
        self._feedback = ErrorFeedback() if error_feedback else None
        self._seed = seed
        self._random = self._fresh_random()
        self._books = Books(self.gate_names)
        self._backward_passes: frozenset[int] = frozenset()
        """Autograd's numbers of those that this iteration is a part of."""
        self._is_paused = False
        self._loss_scale = 1.0

    @property
    def loss_scale(self) -> float:
        """What the loss is multiplied by (`GradScaler.get_scale()`): set it before the backward pass, so that
        what error feedback carries over comes back in the units of the iteration that it comes back in.
        """
        return self._loss_scale

    @loss_scale.setter
    def loss_scale(self, scale: float) -> None:
        require_scale("loss_scale", scale)
        self._loss_scale = float(scale)

    @property
    def is_dense_now(self) -> bool:
        """Whether the schedule lets the rule rest in this iteration."""
        return self.schedule.is_dense(self.iteration)

    @property
    def next_iteration(self) -> int:
        """The iteration with which a run that is resumed from here begins."""
        return self.iteration + (not self._books.is_empty)

    @property
    def has_feedback(self) -> bool:
        """Whether dropped weight gradients are carried over."""
        return self._feedback is not None

    @property
    def carried_bytes(self) -> int:
        """Bytes of what is carried over, or is to be."""
        return 0 if self._feedback is None else self._feedback.held_bytes

    @property
    def carried(self) -> Carried | None:
        """What error feedback will add to the next iteration; None without error feedback."""
        return None if self._feedback is None else self._feedback.due

    def carry(self, carried: Carried, device: torch.device) -> None:
        """Go on with what a run that stopped had carried over; nothing without error feedback."""
        if self._feedback is not None:
            self._feedback = ErrorFeedback.owing(carried, device)

    def restart(self, iteration: int) -> None:
        """Go on at `iteration` with nothing counted or carried over: after a probe, or in a resumed run."""
        self.iteration = iteration
        self._books, self._backward_passes = Books(self.gate_names), frozenset()
        self._feedback = None if self._feedback is None else ErrorFeedback()
        self._random = self._fresh_random()

    def _fresh_random(self) -> Random:
        """The draws of one iteration, the same in a run that was resumed at it."""
        return Random(f"{self._seed} {self.iteration}")  # noqa: S311 - a sample, no secret

    def begin_iteration(self) -> None:
        """Close the iteration that ran, where a module is called for the next one.

        Not where torch.utils.checkpoint calls it again in the midst of the backward pass that is counted.
        """
        running = _running_backward_pass()
        if running not in self._backward_passes:
            self.end_iteration()
            self._note(running)

    def _note(self, backward_pass: int) -> None:
        if backward_pass != _NO_PASS:
            self._backward_passes |= {backward_pass}

    def end_iteration(self) -> IterationRecord | None:
        """Close the iteration: call it after its last backward pass, before the optimizer's step.

        Returns its counts; None, and nothing changes, when there was no backward pass since the last call.
        Raises EverythingDropped when the rule left nothing of a layer: such a step must not be taken.
        """
        if self._books.is_empty:
            return None
        record, silenced = self._books.close(self.iteration)
        self._books, self._backward_passes = Books(self.gate_names), frozenset()
        if silenced:
            if self._feedback is not None:
                self._feedback.forget_iteration()
            raise EverythingDropped(rule=str(self.rule), iteration=self.iteration, layers=silenced)
        if self._feedback is not None:
            self._feedback.next_iteration()
        self.iteration += 1
        self._random = self._fresh_random()
        return record

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Inside, gradients are dense and nothing is counted or carried over."""
        before, self._is_paused = self._is_paused, True
        try:
            yield
        finally:
            self._is_paused = before

    @contextmanager
    def without_traces(self) -> Iterator[None]:
        """Inside, the rule works as it will, whatever the schedule says of now, on scratch books that are
        thrown away: for rehearsals, whose bytes and seconds stand for all iterations.
        """
        before = dict(vars(self))
        self.restart(self.iteration)
        self.schedule = Schedule()
        try:
            yield
        finally:
            vars(self).update(before)

    def backward(
        self,
        reversal: Reversal,
        weights: TorchWeights,
        grad_y: Tensor,
        *,
        layer: str,
        wants_x: bool,
        wants_weights: bool,
    ) -> Gradients:
        """The gradients of one layer's segment; `layer` names it among those of the module. Where those of
        its weights go nowhere, nothing is carried over to them or from them.
        """
        if self._is_paused:
            return dense_gradients(reversal, weights, grad_y, wants_x=wants_x)
        self._note(_running_backward_pass())
        counted = Layer(reversal, weights, self._books.tally(layer), len(self.gate_names))
        dense = self.is_dense_now
        way_back = BackwardPass(counted) if dense else self.rule.backward_pass(counted, self._random)
        feedback, scale = self._feedback, self._loss_scale
        if feedback is None or not wants_weights:
            return way_back.run(grad_y, wants_x=wants_x)
        if dense:  # nothing to collect
            gradients = way_back.run(grad_y, wants_x=wants_x)
        else:
            gradients = _collecting(
                feedback, way_back, grad_y, layer=layer, wants_x=wants_x, loss_scale=scale
            )
        feedback.note(gradients.weights)
        late = feedback.take(layer)
        return gradients._replace(weights=add_late(gradients.weights, late, loss_scale=scale))


_NO_PASS = -1


def _running_backward_pass() -> int:
    """Autograd's number of the one that runs in this thread; _NO_PASS outside of any."""
    number: int = torch._C._current_graph_task_id()  # noqa: SLF001 - it has no public name
    return number


def _collecting(
    feedback: ErrorFeedback,
    way_back: BackwardPass,
    grad_y: Tensor,
    *,
    layer: str,
    wants_x: bool,
    loss_scale: float,
) -> Gradients:
    """The gradients of `way_back`; what it drops of those of the weights goes to `feedback`."""
    reversal, weights = way_back.reversal, way_back.weights
    way_back.undropped = torch.empty_like(reversal.gate_gradient)
    gradients = way_back.run(grad_y, wants_x=wants_x)
    dropped = way_back.undropped.sub_(reversal.gate_gradient)
    feedback.collect(layer, dropped_weights(reversal, dropped, weights), loss_scale=loss_scale)
    way_back.layer.tally.add_executed(Macs.of(way_back.layer, wants_x=wants_x).weights)
    return gradients


def dense_gradients(reversal: Reversal, weights: TorchWeights, grad_y: Tensor, *, wants_x: bool) -> Gradients:
    """The gradients of one layer's segment with nothing dropped and nothing counted."""
    gate_count = weights.weight_hh.shape[0] // weights.weight_hh.shape[1]
    layer = Layer(reversal, weights, Tally(gate_count), gate_count)
    return BackwardPass(layer).run(grad_y, wants_x=wants_x)
