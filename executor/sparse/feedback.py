"""Error feedback: what an iteration drops from the weight gradients is added to those of the next.

Nothing is lost then, only late (Seide et al. 2014; Karimireddy et al. 2019, arXiv:1901.09847, for gradients
that are compressed before an optimizer step). A dropped gate gradient meets the inputs of its own iteration
only, so what is carried over is their product: the full cost of the weight gradients, and none of their MACs
saved.
"""

from __future__ import annotations

import torch
from torch import Tensor

from executor.sparse.backward_pass import bias_gradients, weight_products
from executor.sparse.cell import Reversal
from executor.torch_weights import TorchWeights

Carried = dict[str, tuple[Tensor | None, ...]]
"""Weight gradients of layers, each as of `TorchWeights`: tensors alone, to be kept in a file."""


class ErrorFeedback:
    """Dropped weight gradients of one module, by layer, in units of the loss: of a loss times 1."""

    def __init__(self) -> None:
        self._due: dict[str, TorchWeights] = {}
        self._taken: set[str] = set()
        self._collecting: dict[str, TorchWeights] = {}
        self._largest: Tensor | None = None
        """The largest |entry| of this iteration's weight gradients; NaN where one is."""

    @property
    def held_bytes(self) -> int:
        """Bytes of all that is kept."""
        held = (*self._due.values(), *self._collecting.values())
        return sum(part.nbytes for weights in held for part in weights if part is not None)

    @property
    def due(self) -> Carried:
        """What the next iteration takes, by layer."""
        return {layer: tuple(weights) for layer, weights in self._due.items()}

    @classmethod
    def owing(cls, due: Carried, device: torch.device) -> ErrorFeedback:
        """One that goes on where `due` was due, on `device`."""
        feedback = cls()
        for layer, parts in due.items():
            moved = (None if part is None else part.to(device) for part in parts)
            feedback._due[layer] = TorchWeights(*moved)  # type: ignore[arg-type]
        return feedback

    def next_iteration(self) -> None:
        """What was collected is due from now on, and what was taken is gone. Unless a weight gradient was not
        finite, as a GradScaler's may be: such a step is not taken, so that this iteration is forgotten.
        """
        if self._largest is not None and not bool(self._largest.isfinite()):
            self.forget_iteration()
            return
        for layer in self._taken:
            self._due.pop(layer, None)
        for layer, late in self._collecting.items():
            due = self._due.get(layer)
            self._due[layer] = late if due is None else _add(due, late)
        self._begin()

    def forget_iteration(self) -> None:
        """The step of this iteration is not taken: what was due still is, and nothing was collected."""
        self._begin()

    def _begin(self) -> None:
        self._taken.clear()
        self._collecting.clear()
        self._largest = None

    def take(self, layer: str) -> TorchWeights | None:
        """What is due; handed out once in an iteration, to the first segment that asks."""
        if layer in self._taken:
            return None
        self._taken.add(layer)
        return self._due.get(layer)

    def collect(self, layer: str, dropped: TorchWeights, *, loss_scale: float) -> None:
        """Keep what a segment dropped for the next iteration; the loss was multiplied by `loss_scale`."""
        self.note(dropped)
        if loss_scale != 1:
            for part in dropped:
                if part is not None:
                    part.div_(loss_scale)
        so_far = self._collecting.get(layer)
        self._collecting[layer] = dropped if so_far is None else _add(so_far, dropped)

    def note(self, gradients: TorchWeights) -> None:
        """Look at weight gradients of this iteration."""
        for part in gradients:
            if part is not None:
                largest = torch.maximum(part.amax(), part.amin().neg())
                known = self._largest
                self._largest = largest if known is None else torch.maximum(known, largest)


def dropped_weights(reversal: Reversal, dropped: Tensor, like: TorchWeights) -> TorchWeights:
    """Weight gradients of the gate gradients [k, B, G*H] that were dropped; they replace `reversal`'s."""
    reversal.gate_gradient.copy_(dropped)
    for step in range(len(dropped)):
        reversal.hidden_side(step)
    weight_ih, weight_hh = weight_products(reversal)
    bias_ih, bias_hh = bias_gradients(reversal, like)
    return TorchWeights(weight_ih, weight_hh, bias_ih, bias_hh)


def add_late(gradients: TorchWeights, late: TorchWeights | None, *, loss_scale: float) -> TorchWeights:
    """Weight gradients, of a loss that was multiplied by `loss_scale`, with what is due; in place."""
    return gradients if late is None else _add(gradients, late, factor=loss_scale)


def _add(total: TorchWeights, other: TorchWeights, *, factor: float = 1.0) -> TorchWeights:
    for part, more in zip(total, other, strict=True):
        if part is not None and more is not None:
            part.add_(more, alpha=factor)
    return total
