"""Modules around the recurrence that run inside each segment: an embedding before it, a loss after it.

Inside the segment neither embeddings nor outputs nor logits are kept for all T steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.parameter import UninitializedParameter

from executor.errors import CaptureError, UnsupportedOutput
from executor.reversible.errors import InvalidReversible
from executor.rules.captures import require_no_captures, sequence_number
from executor.rules.first_order import first_order

_REMEDY = (
    "make them parameters of the module that runs inside the segments, hand tensors to `reduce` as "
    "shared=[…], or detach them"
)


class Outer:
    """A module with its parameters as explicit tensors: run it now, or again for its gradient.

    `shared` are further tensors that the module takes in every segment, after the other arguments: the memory
    that a decoder attends to. They receive gradients as the parameters do. The first argument may be changed
    in place where it `is_own`: outputs are made for the module, inputs are the caller's.

    Raises InvalidReversible for what is no module, and for one whose parameters have no shape yet.
    """

    def __init__(
        self, module: nn.Module | None, shared: Sequence[Tensor] = (), *, is_own: bool = False
    ) -> None:
        if module is not None and not isinstance(module, nn.Module):
            raise InvalidReversible(
                f"what runs inside the segments is a {type(module).__name__}, and must be a torch.nn.Module, "
                "whose parameters and buffers are known: make a function the forward of one"
            )
        self.module = module
        self.shared = tuple(shared)
        self.is_own = is_own
        named = dict(module.named_parameters()) if module is not None else {}
        lazy = [name for name, parameter in named.items() if isinstance(parameter, UninitializedParameter)]
        if lazy:
            raise InvalidReversible(
                f"{lazy[0]} of a lazy module has no shape yet: call the module once before it runs inside "
                "the segments"
            )
        self._names = list(named)
        self.parameters: tuple[Tensor, ...] = (*named.values(), *shared)

    def run(self, parameters: Sequence[Tensor], *arguments: Any) -> Tensor:
        """What the module returns with `parameters` in place of its own; the first argument without one.

        Raises UnsupportedOutput for what is no tensor.
        """
        if self.module is None:
            first: Tensor = arguments[0]
            return first
        own = len(self._names)
        chosen = dict(zip(self._names, parameters[:own], strict=True))
        return one_tensor(functional_call(self.module, chosen, (*arguments, *parameters[own:])))

    def run_declared(self, parameters: Sequence[Tensor], *arguments: Any) -> Tensor:
        """Like `run`. Raises CaptureError when the module uses a tensor whose gradient would be lost."""
        if self.module is None:
            return self.run(parameters, *arguments)
        tape = OuterTape(self, parameters, *arguments)
        tape.require_no_captures()
        return tape.result.detach()


def one_tensor(result: Any) -> Tensor:
    """What a module inside the segments returned. Raises UnsupportedOutput unless it is a tensor."""
    if not isinstance(result, Tensor):
        raise UnsupportedOutput(
            f"what runs inside the segments returned a {type(result).__name__}, and must return one tensor"
        )
    return result


class OuterTape:
    """One run of an Outer, taped on leaves of its own, so that hooks of the real tensors fire once."""

    def __init__(self, outer: Outer, parameters: Sequence[Tensor], *arguments: Any) -> None:
        self._outer, self._since = outer, sequence_number()
        self._parameters = [part.detach().requires_grad_(part.requires_grad) for part in parameters]
        self.first: Any = arguments[0]
        if isinstance(self.first, Tensor) and self.first.is_floating_point():
            self.first = self.first.detach().requires_grad_()
        with torch.enable_grad():
            given = _Inside.apply(self.first) if outer.is_own else self.first  # type: ignore[no-untyped-call]
            self.result = outer.run(self._parameters, given, *arguments[1:])

    def require_no_captures(self) -> None:
        """Raise CaptureError when the run used a tensor that needs a gradient and is not among its leaves."""
        leaves = [leaf for leaf in (self.first, *self._parameters) if isinstance(leaf, Tensor)]
        function = getattr(self._outer.module, "forward", self._outer.run)
        try:
            require_no_captures([self.result], leaves, self._since, function)
        except CaptureError as error:
            raise CaptureError(error.names, _REMEDY) from None

    def backward(self, grad: Tensor) -> tuple[Tensor | None, list[Tensor | None]]:
        """Gradients of the first argument and of the parameters; None for what needs none, and for all of
        them where the result depends on none: a loss may leave out the steps of a segment.
        """
        leaves = [self.first, *self._parameters]
        wanted = [leaf for leaf in leaves if isinstance(leaf, Tensor) and leaf.requires_grad]
        if self.result is self.first or not wanted or not self.result.requires_grad:
            return (grad if self.result is self.first else None), [None] * len(self._parameters)
        found = iter(torch.autograd.grad(self.result, wanted, grad, allow_unused=True))
        needs = [isinstance(leaf, Tensor) and leaf.requires_grad for leaf in leaves]
        grads = [next(found) if needed else None for needed in needs]
        return grads[0], grads[1:]


class _Inside(torch.autograd.Function):
    """A leaf as the result of something, in the same memory: leaves cannot be changed in place."""

    @staticmethod
    def forward(_ctx: Any, leaf: Tensor) -> Tensor:
        return leaf.detach()

    @staticmethod
    @first_order("a reversible layer")
    def backward(_ctx: Any, gradient: Tensor) -> Tensor:
        return gradient
