"""Steps that leave tensors in reference cycles: a function that calls itself and sees a list of tensors, say,
or one of autograd's that notes its output as an attribute (`ctx.out = out`).

Python frees those when it looks for cycles, which it does by the number of objects, whatever they hold: by
then tensors of many steps are alive. Where steps leave such cycles, they are looked for after every stage.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar
from weakref import ref

from torch import Tensor
from torch.autograd.function import BackwardCFunction

from executor.memory.collector import nothing_collected
from executor.rules.graph import Walk, makers

_YOUNG = 0
"""The generation of objects that no collection has met."""
Result = TypeVar("Result")


@contextmanager
def collected() -> Iterator[None]:
    """After the context the cycles that were left in it are gone. What is older is not looked at. Within it
    they stay: what a stage left and was met twice would pass for long-lived.
    """
    with nothing_collected():
        try:
            yield
        finally:
            gc.collect(_YOUNG)


def take_apart(roots: Iterable[Any], captured: Iterable[Any], *, but_for: Iterable[Any] = ()) -> None:
    """Let the functions in the graph above `roots`, which was reversed or will not be, forget what they noted
    besides the tensors that autograd saved for them: where that is their own output, nothing else frees them.
    Those above `but_for` are still to be reversed; the graphs of `captured` tensors are others'.
    """
    others = makers(captured)
    needed = list(_above(makers(but_for), others))
    for node in _above(makers(roots), [*others, *needed]):
        if isinstance(node, BackwardCFunction):
            vars(node).clear()


def _above(nodes: Iterable[Any], stops: Iterable[Any]) -> Iterator[Any]:
    """These nodes and all that they lead to, as far as the `stops`."""
    walk, ends = Walk(nodes), set(stops)
    for node in walk:
        if node not in ends:
            walk.go_on(node)
            yield node


def leaves_cycles(run: Callable[[], Result]) -> tuple[Result, bool]:
    """What `run` returns, and whether it left tensors in reference cycles."""
    with nothing_collected():
        gc.collect(_YOUNG)
        result = run()
        left = [ref(each) for each in gc.get_objects(_YOUNG) if issubclass(type(each), Tensor)]
        gc.collect(_YOUNG)
    return result, any(each() is None for each in left)
