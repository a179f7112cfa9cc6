"""Backward passes that cannot be differentiated again, and say so.

torch's own `once_differentiable` says so only where the gradient that comes in has a graph itself. With a
constant one the gradient that goes out has no graph either, and a penalty on it is ignored without a word.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch

from executor.errors import DoubleBackward

Backward = Callable[..., Any]


def first_order(what: str) -> Callable[[Backward], Backward]:
    """Decorates the `backward` of an autograd function: it raises DoubleBackward where a graph of it is asked
    for, by create_graph=True. `what` is named in the message.
    """

    def decorated(backward: Backward) -> Backward:
        @wraps(backward)
        def checked(ctx: Any, *gradients: Any) -> Any:
            if torch.is_grad_enabled():
                raise DoubleBackward(
                    f"the gradient of {what} cannot be differentiated again: call backward without "
                    "create_graph=True, or run an ordinary Python loop of torch's operations"
                )
            return backward(ctx, *gradients)

        return checked

    return decorated
