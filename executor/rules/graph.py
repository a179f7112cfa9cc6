"""A walk through autograd's graph: from what was computed to what it was computed from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from torch import Tensor
from torch.autograd.graph import GradientEdge


class Walk:
    """Gives nodes one after the other, each once. The caller says where it goes on:

    walk = Walk(makers(roots))
    for node in walk:
        walk.go_on(node)
    """

    def __init__(self, nodes: Iterable[Any] = ()) -> None:
        self._todo = list(dict.fromkeys(nodes))
        self._entered = set(self._todo)

    def __iter__(self) -> Iterator[Any]:
        while self._todo:
            yield self._todo.pop()

    def go_on(self, node: Any) -> list[Any]:
        """Go on to the nodes that made what went into `node`; returns those that nothing led to before.

        A leaf that needs a gradient has a node that adds it up, with the leaf as its `variable`.
        """
        entered, todo = self._entered, self._todo
        count = len(todo)
        for made, _ in node.next_functions:
            if made is not None and made not in entered:
                entered.add(made)
                todo.append(made)
        return todo[count:]


def makers(tensors: Iterable[Any]) -> list[Any]:
    """The nodes that made the tensors among `tensors`, or that the places in the graph among them name; none
    of leaves and of what is neither.
    """
    made = (
        each.grad_fn if isinstance(each, Tensor) else each.node
        for each in tensors
        if isinstance(each, Tensor | GradientEdge)
    )
    return [node for node in made if node is not None]
