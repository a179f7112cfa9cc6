"""Calls that torch.compile leaves alone: a graph is broken before them and goes on after them."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar, cast

import torch

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")
_MARK = "_torchdynamo_disable"
"""What torch.compiler.disable marks its functions with."""


def outside_compiled_graphs(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """`function`, which a compiled caller calls as it is. Steps inside may be compiled functions themselves.

    The compiler is not imported for this: `torch.compiler.disable` would load it, a second at every start.
    """

    @functools.wraps(function)
    def call(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        if "torch._dynamo" not in sys.modules:
            return function(*args, **kwargs)
        disable: Any = torch.compiler.disable
        return cast("Result", disable(function)(*args, **kwargs))

    setattr(call, _MARK, True)
    return call
