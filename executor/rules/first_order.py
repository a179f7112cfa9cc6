"""What cannot be differentiated: backward passes a second time, loops by forward mode or under transforms.

torch's own `once_differentiable` says so only where the gradient that comes in has a graph itself. With a
constant one the gradient that goes out has no graph either, and a penalty on it is ignored without a word.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from executor.compiled import outside_compiled_graphs
from executor.errors import DoubleBackward, UnsupportedTransform

Backward = Callable[..., Any]


def first_order(what: str) -> Callable[[Backward], Backward]:
    """Decorates the `backward` of an autograd function: it raises DoubleBackward where a graph of it is asked
    for, by create_graph=True, and UnsupportedTransform where several gradients come at once. `what` is named
    in the message.
    """

    def decorated(backward: Backward) -> Backward:
        @outside_compiled_graphs
        @wraps(backward)
        def checked(ctx: Any, *gradients: Any) -> Any:
            if torch.is_grad_enabled():
                raise DoubleBackward(
                    f"the gradient of {what} cannot be differentiated again: call backward without "
                    "create_graph=True, or run an ordinary Python loop of torch's operations"
                )
            if any(_is_batched(gradient) for gradient in gradients):
                raise UnsupportedTransform(
                    f"{what} takes one gradient at a time: call torch.autograd.grad without "
                    "is_grads_batched=True, and functions of torch.autograd without vectorize=True; each "
                    "gradient needs a forward pass of its own"
                )
            return backward(ctx, *gradients)

        return checked

    return decorated


def require_reverse_mode(tensors: Iterable[Tensor], what: str = "an unrolled loop") -> None:
    """Raise UnsupportedTransform inside a transform of `torch.func`, and for tensors with a tangent of
    forward mode, which would be lost without a word. `what` is named in the message.
    """
    if in_transform():
        raise UnsupportedTransform(
            f"{what} cannot run inside a transform of torch.func (grad, vmap, jvp, …): it has a "
            "backward pass of its own; call it outside, or run an ordinary Python loop"
        )
    if has_tangents(tensors):
        raise UnsupportedTransform(
            f"{what} has no forward-mode derivative, and one of its tensors has a tangent: run an "
            "ordinary Python loop, or take the tangent off"
        )


def in_transform() -> bool:
    """Whether a transform of `torch.func` is under way."""
    return torch._C._functorch.peek_interpreter_stack() is not None  # noqa: SLF001 - there is no other way in


def has_tangents(tensors: Iterable[Tensor | None]) -> bool:
    """Whether any of them has a tangent of forward mode."""
    if forward_ad._current_level < 0:  # noqa: SLF001 - it has no public name
        return False
    return any(_has_tangent(each) for each in tensors if each is not None)


@contextmanager
def forward_mode() -> Iterator[None]:
    """Within the context steps may use forward mode themselves, which torch switches off in the functions of
    an autograd function: they would find no tangents.
    """
    before = torch._C._is_fwd_grad_enabled()  # noqa: SLF001 - there is no other way in
    torch._C._set_fwd_grad_enabled(True)  # noqa: SLF001
    try:
        yield
    finally:
        torch._C._set_fwd_grad_enabled(before)  # noqa: SLF001


def _is_batched(gradient: Any) -> bool:
    functorch = torch._C._functorch  # noqa: SLF001
    return isinstance(gradient, Tensor) and (
        functorch.is_legacy_batchedtensor(gradient) or functorch.is_batchedtensor(gradient)
    )


def _has_tangent(tensor: Tensor) -> bool:
    return forward_ad.unpack_dual(tensor).tangent is not None  # type: ignore[no-untyped-call]
