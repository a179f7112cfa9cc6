"""The inputs of the steps: a tensor or pytree with time on dimension 0, a callable of t, or nothing.

Steps are numbered from 0 here, as in `inputs[t]`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from torch import Tensor

from executor.memory.sizes import held_bytes
from executor.trees import Leaves, structure_of


class Inputs:
    """`length` inputs. Raises ValueError when the length is missing, zero or contradictory, and TypeError for
    arrays of numpy and for what can only be gone through.
    """

    def __init__(self, inputs: Any, length: int | None = None) -> None:
        self.function: Callable[[int], Any] | None = None
        """What makes them, of inputs that are a callable of t."""
        self._is_tensor = isinstance(inputs, Tensor)
        self.leaves: Leaves = ()
        if self._is_tensor or not callable(inputs):
            self._structure, self.leaves = structure_of(inputs)
        else:
            self.function = inputs
        _refuse_arrays(self.leaves)
        _refuse_series(inputs, self.leaves)
        lengths = {leaf.shape[0] for leaf in self.leaves if isinstance(leaf, Tensor) and leaf.dim() > 0}
        self.length = _the_length(lengths, length)
        self.positions = tuple(
            position
            for position, leaf in enumerate(self.leaves)
            if isinstance(leaf, Tensor) and leaf.dim() > 0
        )
        self.differentiable = tuple(p for p in self.positions if self.leaves[p].requires_grad)

    @property
    def timeless(self) -> tuple[Tensor, ...]:
        """Those without a time dimension that need a gradient: every step uses the whole of them."""
        numbers = (leaf for leaf in self.leaves if isinstance(leaf, Tensor) and leaf.dim() == 0)
        return tuple(number for number in numbers if number.requires_grad)

    @property
    def gradient_bytes(self) -> int:
        """Bytes of the gradients of the inputs that need one."""
        return sum(held_bytes(self.leaves[position]) for position in self.differentiable)

    def shortened(self, length: int) -> Inputs:
        """The first `length` inputs, detached from whatever made them."""
        if self.function is not None:
            return Inputs(self.function, length)
        leaves = list(self.leaves)
        for position in self.positions:
            leaf = leaves[position].detach().narrow(0, 0, length)
            leaves[position] = leaf.requires_grad_(position in self.differentiable)
        return Inputs(self._structure.unflatten(tuple(leaves)), length)

    def slices(self, first: int, count: int, *, differentiated: bool = False) -> list[Any]:
        """Views [count, …] of the leaves for steps first..first+count-1, in order; leaves without a time
        dimension as they are. No view needs a gradient, unless they are `differentiated`: then those of
        inputs that get one do, as the leaves of a new graph.
        """
        leaves = list(self.leaves)
        for position in self.positions:
            leaves[position] = leaves[position].detach().narrow(0, first, count)
        for position in self.differentiable if differentiated else ():
            leaves[position] = leaves[position].detach().requires_grad_()
        return leaves

    def block(self, leaves: Sequence[Any], first: int, count: int) -> Any:
        """What a segment function gets for `count` steps: the tree of its slices [count, …]."""
        if self.function is not None:
            return [self.function(step) for step in range(first, first + count)]
        return self._structure.unflatten(tuple(leaves))

    def steps(self, leaves: Sequence[Any], first: int, count: int) -> Iterable[Any]:
        """What the step function gets, one entry per step, made when it is its turn."""
        if self.function is not None:
            return map(self.function, range(first, first + count))
        if (
            len(leaves) == 1
            and isinstance(leaves[0], Tensor)
            and self._structure.unflatten(tuple(leaves)) is leaves[0]
        ):
            return leaves[0].unbind(0)
        columns = [
            leaf.unbind(0) if position in self.positions else (leaf,) * count
            for position, leaf in enumerate(leaves)
        ]
        return map(self._structure.unflatten, zip(*columns, strict=True))


def _refuse_arrays(leaves: Leaves) -> None:
    """Raise TypeError for an array of numpy: every step would be handed the whole of it."""
    for leaf in leaves:
        if hasattr(type(leaf), "__array_interface__") and leaf.shape:
            raise TypeError(
                f"an input is a {type(leaf).__name__} of shape {list(leaf.shape)}: only tensors are taken "
                "apart step by step; pass torch.from_numpy(…)"
            )


def _refuse_series(inputs: Any, leaves: Leaves) -> None:
    """Raise TypeError for a generator, a loader of data, a range: every step would be handed all of it."""
    is_whole = len(leaves) == 1 and leaves[0] is inputs
    if is_whole and isinstance(inputs, Iterable) and not isinstance(inputs, Tensor | str | bytes):
        raise TypeError(
            f"the inputs are a {type(inputs).__name__}, which is not taken apart step by step: pass a tensor "
            "[T, …] (torch.stack(list(…)), say), or a callable of t that looks an input up, with length=…"
        )


def _the_length(lengths: set[int], given: int | None) -> int:
    """The number of steps that the inputs tell, by `lengths` of their leaves, or that was given."""
    if len(lengths) > 1:
        raise ValueError(f"the inputs disagree about the number of steps: {sorted(lengths)} on dimension 0")
    told = next(iter(lengths), given)
    length = told if given is None else given
    if length is None:
        raise ValueError("length=… is needed when the inputs are None or a callable of the step")
    if type(length) is not int or length < 1:
        raise ValueError(f"length={length!r} must be a positive whole number of steps")
    if length != told:
        raise ValueError(
            f"length={length}, but the inputs have {told} steps: leave it out, or cut the inputs"
        )
    return length
