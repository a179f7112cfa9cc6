"""Error feedback: what an iteration drops from the weight gradients is added to those of the next.

Nothing is lost then, only late (Seide et al. 2014; Karimireddy et al. 2019, arXiv:1901.09847, for gradients
that are compressed before an optimizer step). A dropped gate gradient meets the inputs of its own iteration
only, so what is carried over is their product: the full cost of the weight gradients, and none of their MACs
saved.
"""

from __future__ import annotations

from torch import Tensor

from executor.sparse.backward_pass import bias_gradients, weight_products
from executor.sparse.cell import Reversal, Weights


class ErrorFeedback:
    """Dropped weight gradients of one module, by layer."""

    def __init__(self) -> None:
        self._due: dict[str, Weights] = {}
        self._collecting: dict[str, Weights] = {}

    def next_iteration(self) -> None:
        """What was collected is due from now on."""
        for layer, late in self._collecting.items():
            due = self._due.get(layer)
            self._due[layer] = late if due is None else _sum(due, late)
        self._collecting.clear()

    def take(self, layer: str) -> Weights | None:
        """What the iteration before dropped; handed out once, to the first segment that asks."""
        return self._due.pop(layer, None)

    def collect(self, layer: str, dropped: Weights) -> None:
        """Keep what a segment dropped for the next iteration."""
        so_far = self._collecting.get(layer)
        self._collecting[layer] = dropped if so_far is None else _sum(so_far, dropped)


def dropped_weights(reversal: Reversal, dropped: Tensor, like: Weights) -> Weights:
    """Weight gradients of the gate gradients [k, B, G*H] that were dropped; they replace `reversal`'s."""
    reversal.gate_gradient.copy_(dropped)
    for step in range(len(dropped)):
        reversal.hidden_side(step)
    weight_ih, weight_hh = weight_products(reversal)
    bias_ih, bias_hh = bias_gradients(reversal, like)
    return Weights(weight_ih, weight_hh, bias_ih, bias_hh)


def add_late(gradients: Weights, late: Weights | None) -> Weights:
    """Weight gradients with those of the iteration before."""
    return gradients if late is None else _sum(gradients, late)


def _sum(one: Weights, other: Weights) -> Weights:
    return Weights(
        *(None if a is None or b is None else a + b for a, b in zip(one, other, strict=True))  # type: ignore[arg-type]
    )
