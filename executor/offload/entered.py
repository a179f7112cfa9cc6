"""How a state enters a tape that will leave the device: without a leaf, which would hold its memory."""

from __future__ import annotations

from typing import Any
from weakref import ref

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge

from executor.rules.first_order import first_order
from executor.stages.live_tape import owned_gradient
from executor.stages.states import leaf_needs_gradient
from executor.trees import Leaves


class Entered:
    """Stands for one tensor of the state once its tape is lowered; receives its gradient."""

    requires_grad = True

    def __init__(self) -> None:
        self.grad: Tensor | None = None
        self.edge: GradientEdge | None = None
        """Where the gradient comes out of the graph."""


def entered(leaves: Leaves, *, inside: bool) -> tuple[list[Any], list[Any]]:
    """The leaves as the graph takes them, and what stands for them afterwards: numbers, and tensors that get
    no gradient, as None.
    """
    wanted = [leaf_needs_gradient(leaf, inside) for leaf in leaves]
    stands: list[Any] = [Entered() if is_wanted else None for is_wanted in wanted]
    given = [leaf.detach() if isinstance(leaf, Tensor) else leaf for leaf in leaves]
    if not any(wanted):
        return given, stands
    receivers = [each for each in stands if each is not None]
    tensors = [leaf for leaf, is_wanted in zip(given, wanted, strict=True) if is_wanted]
    with torch.enable_grad():
        anchor = torch.empty(0, device="cpu", requires_grad=True)
        made = iter(_Enter.apply(receivers, anchor, *tensors))  # type: ignore[no-untyped-call]
    taken = [next(made) if is_wanted else leaf for leaf, is_wanted in zip(given, wanted, strict=True)]
    for leaf, stand in zip(taken, stands, strict=True):
        if stand is not None:
            stand.edge = GradientEdge(leaf.grad_fn, leaf.output_nr)  # type: ignore[arg-type]
    return taken, stands


class _Enter(torch.autograd.Function):
    """The tensors themselves; the way back ends here."""

    @staticmethod
    def forward(ctx: Any, receivers: list[Entered], _anchor: Tensor, *tensors: Tensor) -> Any:
        ctx.receivers = [ref(receiver) for receiver in receivers]  # they know this node: no cycle
        ctx.set_materialize_grads(False)
        return tuple(tensor.detach() for tensor in tensors)

    @staticmethod
    @first_order("a tape in host memory")
    def backward(ctx: Any, *gradients: Tensor | None) -> Any:
        for reference, gradient in zip(ctx.receivers, gradients, strict=True):
            receiver = reference()
            if receiver is not None:
                receiver.grad = owned_gradient(gradient, most_ratio=1.0)  # as a leaf would keep it
        return (None, None, *(None for _ in gradients))
