"""A live tape: one stage's graph, with what goes into it and what comes out; and the gradients around it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from torch import Tensor
from torch.autograd.graph import GradientEdge

from executor.stages.states import StoredState
from executor.trees import Leaves


class LiveTape(NamedTuple):
    """One stage's graph."""

    stage: int
    state_leaves: list[Any]
    """The input state as this graph's leaves."""
    slices: list[Any]
    """The inputs of the stage as this graph's leaves."""
    after: Leaves
    """The output state, with graph."""
    blocks: list[Leaves]
    """The outputs, with graph."""
    state: StoredState
    """The output state, detached."""
    parameters: Sequence[Tensor] = ()
    """Leaves of this graph in the place of the shadow parameters, step by step; none: the shadows."""

    def ends(self) -> list[Any]:
        """Where the graph ends in what the stage returned: its output state, then its outputs."""
        return [*self.after, *(leaf for block in self.blocks for leaf in block)]

    def without_ends(self) -> LiveTape:
        """The same, which keeps nothing alive of the graphs of what the stage returned."""
        return self._replace(after=(), blocks=[])

    def leaves(self, differentiable: Sequence[int]) -> list[Any]:
        """Where the graph ends in what wants a gradient: the input state, and the inputs at those places."""
        wanted = [leaf for leaf in self.state_leaves if wants_gradient(leaf)]
        return wanted + [self.slices[position] for position in differentiable]

    def roots(
        self, after: Sequence[Tensor | None], rows: Sequence[Sequence[Tensor | None]]
    ) -> tuple[list[Any], list[Tensor]]:
        """Where the graph is entered, and with which gradients: of the output state, and of each block's
        outputs if there are `rows`.
        """
        pairs = [*zip(self.after, after, strict=True)]
        for block, row in zip(self.blocks, rows, strict=True) if rows else ():
            pairs += zip(block, row, strict=True)
        entered = [(root, gradient) for root, gradient in pairs if gradient is not None and leads_back(root)]
        return [root for root, _ in entered], [gradient for _, gradient in entered]


def wants_gradient(leaf: Any) -> bool:
    """Of a leaf of a state: tensors may, numbers never do."""
    return getattr(leaf, "requires_grad", False)


def owned_gradient(gradient: Tensor | None, *, most_ratio: float = 2.0) -> Tensor | None:
    """A gradient of a state as it is kept: a copy where it is a view of something larger than `most_ratio`
    times itself, which it would keep alive. Kernels may pad what they hand out.
    """
    if gradient is None or gradient.untyped_storage().nbytes() <= most_ratio * gradient.nbytes:
        return gradient
    return gradient.clone()


def leads_back(root: Any) -> bool:
    """Whether a graph ends in `root`: a tensor, or the place in the graph where its gradient enters."""
    return isinstance(root, GradientEdge) or (root is not None and root.requires_grad)


def added(total: Tensor | None, gradient: Tensor | None) -> Tensor | None:
    """The total with `gradient` added in place; a copy where there was none."""
    if gradient is None:
        return total
    return gradient.clone() if total is None else total.add_(gradient)
