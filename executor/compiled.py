"""Calls that torch.compile leaves alone: a graph is broken before them and goes on after them; and calls of
compiled functions that are to run as they were written.
"""

from __future__ import annotations

import functools
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
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

    @functools.cache
    def disabled() -> Any:
        disable: Any = torch.compiler.disable
        return disable(function)

    @functools.wraps(function)
    def call(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        if not _is_loaded():
            return function(*args, **kwargs)
        return cast("Result", disabled()(*args, **kwargs))

    setattr(call, _MARK, True)
    return call


@contextmanager
def nothing_compiled() -> Iterator[None]:
    """Within the context functions run as they were written. The compiler would give up for good those that
    it meets under a mode which sees every operation, and refuse them where they are to be one graph.
    """
    if not _is_loaded():
        yield
        return
    with _EAGERLY:
        yield


class _Eagerly:
    """The compiler's stance while anybody wants functions as they were written. It is that of the process:
    threads that put back what each of them found would leave one another's behind, for good.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._wanted_by = 0
        self._stance = ExitStack()

    def __enter__(self) -> None:
        with self._lock:
            if not self._wanted_by:
                self._stance.enter_context(torch.compiler.set_stance("force_eager"))
            self._wanted_by += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._wanted_by -= 1
            if not self._wanted_by:
                self._stance.close()


_EAGERLY = _Eagerly()


def _is_loaded() -> bool:
    return "torch._dynamo" in sys.modules
